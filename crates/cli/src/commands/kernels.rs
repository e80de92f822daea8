//! `leyden kernels`: measures every kernel of training and generation against the machine's
//! roofline.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use leyden_lm::device::{parse_device, parse_kind};
use leyden_lm::memory::{MemoryPlan, MemoryRequest, Training, available_memory, readable_bytes};
use leyden_lm::model::LlamaConfig;
use leyden_report::roofline::{Roofline, Row};
use leyden_roofline::clock::Clock;
use leyden_roofline::roof::Roof;
use leyden_roofline::{KERNELS, Measured, Shape, WHOLE, measure};
use leyden_suite::model;
use leyden_suite::table::{Side, aligned};
use leyden_train::provenance;
use serde_json::{Map, json};
use tch::{Device, Kind};

use super::write_json;
use crate::start;

/// Arguments of `leyden kernels`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Shape of the model: tiny, SmolLM2-135M, Llama-3.2-1B, Llama-3.2-3B, a folder or a hub id
    #[arg(long, default_value = "SmolLM2-135M")]
    model: String,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// f32 or bf16
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Threads of libtorch
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Tokens of a micro-batch of training
    #[arg(long, default_value_t = 1024)]
    tokens: usize,
    /// Only kernels whose name contains this; can be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Repetitions; the median is reported
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Minimum duration of a repetition, in seconds
    #[arg(long, default_value_t = 0.2)]
    least: f64,
    /// Also write the results as JSON
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Folder for a page with the table and the roofline
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Folder for files to commit: figures, table and roofline, from which `leyden report` renders
    /// the page
    #[arg(long, value_name = "FOLDER")]
    record: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (shape, clock) = read(arguments)?;
    let wanted = |name: &str| {
        arguments.only.is_empty() || arguments.only.iter().any(|part| name.contains(part.as_str()))
    };
    let chosen: Vec<_> = KERNELS.iter().chain(WHOLE).filter(|(name, _)| wanted(name)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = KERNELS.iter().chain(WHOLE).map(|(name, _)| *name).collect();
        bail!("--only: no kernel matches; available: {}", names.join(", "));
    }
    let whole = chosen.iter().any(|(name, _)| WHOLE.iter().any(|(known, _)| known == name));
    check_memory(&shape, whole)?;
    // Fail on unwritable outputs before the measurement, which takes minutes.
    let parent = arguments.json.as_deref().and_then(Path::parent);
    let folders = [arguments.out.as_deref(), arguments.record.as_deref(), parent];
    for folder in folders.into_iter().flatten() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    eprintln!("measuring the machine …");
    let roof = Roof::measure(shape.device, &clock)?;
    println!("{}\n", sentence(&roof, shape.kind));
    let mut all = Vec::with_capacity(chosen.len());
    for (number, &&(name, maker)) in chosen.iter().enumerate() {
        eprint!("\r\x1b[K{}/{} {name} …", number + 1, chosen.len());
        all.push(measure((name, maker), &shape, &roof, &clock)?);
    }
    eprint!("\r\x1b[K");
    let page = page(arguments, &roof, shape.kind, &all);
    print!("{}", table(&page));
    let recorded = arguments.record.as_ref().map(|folder| folder.join("kernels.json"));
    for path in arguments.json.iter().chain(&recorded) {
        write_json(
            path,
            &json!({
                "model": arguments.model, "device": arguments.device, "dtype": arguments.dtype,
                "threads": arguments.threads, "tokens": arguments.tokens,
                "roof": roof, "kernels": all, "provenance": provenance::collect(Map::new()),
            }),
        )?;
    }
    if let Some(folder) = &arguments.out {
        page.write(folder)?;
        println!("\n{}", folder.join("index.html").display());
    }
    if let Some(folder) = &arguments.record {
        page.record(folder)?;
        println!("\n{}", folder.join("kernels.md").display());
    }
    Ok(ExitCode::SUCCESS)
}

fn read(arguments: &Arguments) -> Result<(Shape, Clock)> {
    if arguments.tokens < 32 {
        bail!("--tokens {}: at least 32, for a prompt and eight responses", arguments.tokens);
    }
    if !(arguments.least.is_finite() && arguments.least >= 0.0) {
        bail!("--least {}: a number of seconds", arguments.least);
    }
    start::set_threads(arguments.threads)?;
    let config = match LlamaConfig::named(&arguments.model) {
        Some(config) => config,
        None => model::shape_of(&arguments.model)?,
    };
    let device = parse_device(&arguments.device)?;
    let shape = Shape::new(config, device, parse_kind(&arguments.dtype)?, arguments.tokens);
    let clock = Clock { device, repetitions: arguments.repetitions.max(1), least: arguments.least };
    Ok((shape, clock))
}

/// Fails if the measurement would not fit into memory. Single kernels need little; a whole step
/// needs one model for training and one for generation.
fn check_memory(shape: &Shape, whole: bool) -> Result<()> {
    if !whole {
        return Ok(());
    }
    let Some(available) = available_memory(shape.device) else { return Ok(()) };
    let plan: MemoryPlan = MemoryRequest {
        config: shape.config.clone(),
        parameters: Kind::Float,
        compute: shape.kind,
        training: Training::Full { master: false },
        reference: false,
        trunk: false,
        earlier: 0,
        pack_tokens: shape.tokens,
        replicas: 1,
        checkpointing: false,
        head_chunk: None,
        rollouts: shape.rows(),
        context: shape.prompt + shape.response,
    }
    .plan()?;
    if plan.fits(available) {
        return Ok(());
    }
    let lines: Vec<String> = plan
        .lines
        .iter()
        .map(|line| format!("{} {}", line.name, readable_bytes(line.bytes)))
        .collect();
    let pieces: Vec<String> = KERNELS.iter().map(|(name, _)| format!("--only {name}")).collect();
    bail!(
        "a training step and generation at this shape need {} ({}), and {} are free; use a smaller \
         --tokens or --model, or single kernels: {} …",
        readable_bytes(plan.total()),
        lines.join(", "),
        readable_bytes(available),
        pieces[..3].join(" ")
    );
}

fn sentence(roof: &Roof, kind: Kind) -> String {
    format!(
        "this machine: copies {:.1} GB/s, multiplies {:.0} GFLOP/s in f32 and {:.0} in bf16, an \
         operation costs {:.1} µs to call; the roof of {kind:?} is {:.0} GFLOP/s",
        roof.copy / 1e9,
        roof.products_f32 / 1e9,
        roof.products_bf16 / 1e9,
        roof.dispatch * 1e6,
        roof.products(kind) / 1e9
    )
}

fn page(arguments: &Arguments, roof: &Roof, kind: Kind, all: &[Measured]) -> Roofline {
    let threads = match parse_device(&arguments.device) {
        Ok(Device::Cpu) => format!(" with {} threads", arguments.threads),
        _ => String::new(),
    };
    Roofline {
        title: format!("Kernels of {} in {}", arguments.model, arguments.dtype),
        about: format!(
            "{}{threads}, {} tokens a micro-batch, median of {}: {}.",
            arguments.device,
            arguments.tokens,
            arguments.repetitions,
            sentence(roof, kind)
        ),
        copy: roof.copy,
        products: roof.products(kind),
        kernels: all
            .iter()
            .map(|kernel| Row {
                name: kernel.name.to_owned(),
                shape: kernel.shape.clone(),
                flops: kernel.work.flops,
                bytes: kernel.work.bytes,
                seconds: (kernel.time.median, kernel.time.least, kernel.time.most),
                share: kernel.share,
            })
            .collect(),
    }
}

fn table(page: &Roofline) -> String {
    let mut rows = vec![Roofline::COLUMNS.map(str::to_owned).to_vec()];
    rows.extend(page.rows().into_iter().map(Vec::from));
    let right = Side::Right;
    aligned(&rows, &[Side::Left, Side::Left, right, right, right, right])
}
