//! `leyden doctor`: the machine's resources and the memory that an experiment would need.
//!
//! Loads no weights and changes nothing, so it is fast and also works where the experiment itself
//! could not start.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use leyden_lm::LmError;
use leyden_lm::memory::{MemoryPlan, readable_bytes};
use leyden_suite::table::{Side, aligned, indented};
use leyden_suite::{Registry, model};
use leyden_train::Experiment;
use leyden_train::plan::{self, Advice};
use serde_json::{Value, json};

use crate::machine::Machine;

/// Arguments of `leyden doctor`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Experiment file whose memory is planned
    #[arg(long)]
    config: Option<PathBuf>,
    /// Override a key of the experiment: --set train.micro_batch_tokens=4096
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    overrides: Vec<String>,
    /// Folder in which run folders are created
    #[arg(long, default_value = "runs")]
    runs: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<ExitCode> {
    let machine = Machine::look(&arguments.runs);
    let mut plans = Vec::new();
    if let Some(file) = &arguments.config {
        let experiment = Experiment::read(file, &arguments.overrides, registry)?;
        plans.push(Planned::of(file.display().to_string(), experiment, &machine)?);
    }
    let device = if machine.cuda.available { "cuda" } else { "cpu" };
    for (name, text) in EXAMPLES {
        let device = format!("model.device={device}");
        // A memory plan does not depend on the agent, so no registry is needed.
        let experiment = Experiment::parse(text, Path::new(name), &[device], &())?;
        plans.push(Planned::of(name.to_owned(), experiment, &machine)?);
    }
    if arguments.json {
        let plans: Vec<Value> = plans.iter().map(Planned::json).collect();
        println!("{:#}", json!({ "machine": machine, "plans": plans }));
    } else {
        print!("{}", sentences(&machine));
        for plan in &plans {
            print!("\n{}", plan.text());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The plans that are always shown: the paper's model, with full fine-tuning and with LoRA.
const EXAMPLES: [(&str, &str); 2] = [
    ("Llama-3.2-3B, full fine-tuning", include_str!("doctor/llama-3.2-3b.toml")),
    ("Llama-3.2-3B with LoRA", include_str!("doctor/llama-3.2-3b-lora.toml")),
];

/// The memory plan of one experiment, and the memory available on its device.
struct Planned {
    name: String,
    experiment: Experiment,
    plan: MemoryPlan,
    device: String,
    /// Bytes available on the device, if known.
    available: Option<u64>,
    /// Present if the plan does not fit.
    advice: Option<Advice>,
}

impl Planned {
    fn of(name: String, experiment: Experiment, machine: &Machine) -> Result<Self> {
        let shape = model::shape_of(&experiment.model.source)?;
        let plan = plan::plan(&experiment, &shape)?;
        let device = experiment.model.device.clone();
        let available = available(&device, machine)?;
        let advice = match available {
            Some(available) if !plan.fits(available) => {
                Some(plan::advise(&experiment, &shape, available)?)
            }
            _ => None,
        };
        Ok(Self { name, experiment, plan, device, available, advice })
    }

    fn text(&self) -> String {
        let model = &self.experiment.model;
        let train = &self.experiment.train;
        let mut text = format!(
            "Memory of {}\n  model {}, {} computed in {}, micro-batches of {} tokens{}\n",
            self.name,
            model.source,
            model.master_dtype,
            model.dtype,
            train.micro_batch_tokens,
            if train.activation_checkpointing { ", activations recomputed" } else { "" },
        );
        text.push_str(&indented(&self.plan.to_string()));
        text.push_str(&indented(&self.verdict()));
        text
    }

    fn verdict(&self) -> String {
        let total = self.plan.total();
        let device = &self.device;
        let Some(available) = self.available else {
            return format!("{device} is not present, so whether this fits is not known");
        };
        let has = format!("{} of {device}", readable_bytes(available));
        match &self.advice {
            None => format!("fits into the {has}"),
            Some(Advice::Change { overrides, total }) => format!(
                "does not fit into the {has}; it would ({}) with\n{}",
                readable_bytes(*total),
                as_options(overrides)
            ),
            Some(Advice::TooSmall { least }) => format!(
                "does not fit into the {has} (short by {}), nor with smaller batches, \
                 recomputed activations and adapters, which need {}: use a smaller model or a \
                 larger device",
                readable_bytes(total - available),
                readable_bytes(*least)
            ),
        }
    }

    fn json(&self) -> Value {
        let lines: Vec<Value> = self
            .plan
            .lines
            .iter()
            .map(|line| json!({ "name": line.name, "bytes": line.bytes, "detail": line.detail }))
            .collect();
        let advice = self.advice.as_ref().map(|advice| match advice {
            Advice::Change { overrides, total } => json!({ "set": overrides, "total": total }),
            Advice::TooSmall { least } => json!({ "least": least }),
        });
        json!({
            "name": self.name,
            "model": self.experiment.model.source,
            "device": self.device,
            "lines": lines,
            "total": self.plan.total(),
            "available": self.available,
            "fits": self.available.map(|available| self.plan.fits(available)),
            "advice": advice,
        })
    }
}

/// Bytes available on a device by name; `None` if the device is not present.
fn available(device: &str, machine: &Machine) -> Result<Option<u64>> {
    match leyden_lm::device::parse_device(device) {
        Ok(tch::Device::Cpu) => Ok(machine.memory.available),
        Ok(device) => Ok(leyden_lm::memory::available_memory(device)),
        Err(LmError::NoDevice { .. }) => Ok(None),
        Err(unknown) => Err(unknown.into()),
    }
}

/// Overrides as command-line options.
fn as_options(overrides: &[String]) -> String {
    let option = |text: &String| {
        if text.contains(['[', '"', ' ']) {
            format!("  --set '{text}'")
        } else {
            format!("  --set {text}")
        }
    };
    overrides.iter().map(option).collect::<Vec<_>>().join("\n")
}

/// Text description of the machine.
fn sentences(machine: &Machine) -> String {
    let mut rows = Vec::new();
    let mut row = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    row("leyden", machine.leyden.clone());
    row("system", machine.system.clone());
    devices(machine, &mut row);
    let processor = &machine.processor;
    let policy = match processor.omp_wait_policy.as_deref() {
        Some(policy) if policy.eq_ignore_ascii_case("passive") => {
            "passive (waiting threads sleep)".to_owned()
        }
        Some(policy) => format!(
            "{policy}: waiting threads spin, and anything else on the cores slows every step; \
             leave it unset or set it to passive"
        ),
        None => "not set".to_owned(),
    };
    let threads = format!(
        "{} cores; libtorch uses {} threads by default, an experiment uses model.threads",
        processor.cores, processor.libtorch_threads
    );
    row("threads", threads);
    row("OMP_WAIT_POLICY", policy);
    let bytes = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), readable_bytes);
    let memory = &machine.memory;
    row("memory", format!("{} available of {}", bytes(memory.available), bytes(memory.total)));
    let disk = machine.disk.as_ref().map_or("unknown".to_owned(), |disk| {
        let (free, total) = (readable_bytes(disk.free), readable_bytes(disk.total));
        format!("{free} free of {total} for {}", disk.folder.display())
    });
    row("disk", disk);
    let cache = &machine.cache;
    let offline = if cache.offline { "; offline by HF_HUB_OFFLINE" } else { "" };
    row("model cache", format!("{} (by {}{offline})", cache.path.display(), cache.by));
    if cache.repositories.is_empty() {
        row("", "empty".to_owned());
    }
    for repository in &cache.repositories {
        let size = readable_bytes(repository.bytes);
        row("", format!("{} {} {size}", repository.kind, repository.id));
    }
    aligned(&rows, &[Side::Left])
}

fn devices(machine: &Machine, row: &mut impl FnMut(&str, String)) {
    let model = machine.processor.model.as_deref().unwrap_or("of unknown kind");
    row("device cpu", model.to_owned());
    for device in &machine.cuda.devices {
        let bytes = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), readable_bytes);
        let memory = format!("{} free of {}", bytes(device.free), bytes(device.total));
        row(&format!("device cuda:{}", device.index), format!("{}, {memory}", device.name));
    }
    let libtorch = &machine.libtorch;
    let half = if libtorch.has_cuda { "with CUDA" } else { "CPU only" };
    row("libtorch", format!("{} ({half}) in {}", libtorch.version, libtorch.path.display()));
    row("CUDA", machine.cuda.why_not.clone().unwrap_or_else(|| "available".to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_plan_full_and_lora_training_of_the_papers_model() {
        let plans: Vec<u64> = EXAMPLES
            .iter()
            .map(|(name, text)| {
                let experiment = Experiment::parse(text, Path::new(name), &[], &()).unwrap();
                let shape = model::shape_of(&experiment.model.source).unwrap();
                assert_eq!(shape.parameters(), 3_212_749_824);
                plan::plan(&experiment, &shape).unwrap().total()
            })
            .collect();
        // f32 weights, gradients and moments take 16 bytes per parameter; a frozen bf16 base
        // takes 2, and adapters are small.
        let n = 3_212_749_824;
        assert!(plans[0] > 16 * n && plans[1] + 13 * n < plans[0], "{plans:?}");
    }

    #[test]
    fn a_plan_that_does_not_fit_advises_overrides() {
        let (name, text) = EXAMPLES[0];
        let experiment = Experiment::parse(text, Path::new(name), &[], &()).unwrap();
        let shape = model::shape_of(&experiment.model.source).unwrap();
        let plan = plan::plan(&experiment, &shape).unwrap();
        let verdict = |available: Option<u64>| {
            let advice = available
                .filter(|&available| !plan.fits(available))
                .map(|available| plan::advise(&experiment, &shape, available).unwrap());
            let (experiment, plan) = (experiment.clone(), plan.clone());
            let (name, device) = (name.to_owned(), "cuda".to_owned());
            Planned { name, experiment, plan, device, available, advice }.verdict()
        };
        assert_eq!(verdict(Some(1 << 40)), "fits into the 1099.51 GB of cuda");
        assert!(verdict(Some(24_000_000_000)).contains("\n  --set model.lora.rank=16\n"));
        assert!(verdict(Some(24_000_000_000)).contains("--set 'model.lora.targets=[\"q_proj\","));
        assert!(verdict(Some(1_000_000_000)).contains("use a smaller model"));
        assert!(verdict(None).contains("not known"));
    }
}
