//! `leyden credit`: measures credit rules against the true advantages of calls.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use leyden_core::SeedTree;
use leyden_report::credit::{self, CreditReport, Measurement};
use leyden_suite::environment::{Stage, stage};
use leyden_suite::{Registry, model};
use leyden_train::checkpoint::Origin;
use leyden_train::credit_truth::{self, CreditSample, MeasuredCall, Rule, RuleCredit, Settings};
use leyden_train::{Experiment, TrainError, provenance};
use serde_json::{Value, json};

use super::new_folder;
use crate::start;

/// Arguments of `leyden credit`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The policy: a run folder (its latest checkpoint), RUN@STEP, or an experiment file (the model
    /// with which it starts)
    #[arg(value_name = "RUN[@STEP]|FILE")]
    policy: String,
    /// Number of training tasks, the next ones of the run
    #[arg(long, default_value_t = 16)]
    tasks: usize,
    /// Rollouts per task; by default rollout.samples
    #[arg(long)]
    group: Option<usize>,
    /// Fresh completions from each state, whose mean return is the true value
    #[arg(long, default_value_t = 32)]
    completions: usize,
    /// Measure at most so many calls, drawn at random; 0 is all
    #[arg(long, default_value_t = 0)]
    states: usize,
    #[arg(long, value_delimiter = ',', value_name = "NAME", help = rules_help())]
    rules: Vec<String>,
    /// A rule with parameters, and the groups in which it is compared:
    /// 'name = "discounted", gamma = 0.9, group_by = "turn"'
    #[arg(long = "rule", value_name = "KEYS")]
    keyed: Vec<String>,
    /// Steps of fitting a critic for rules that need one, where the checkpoint has none
    #[arg(long, default_value_t = 0)]
    critic_steps: u64,
    /// Label of the tasks by which calls are grouped
    #[arg(long, default_value = "horizon")]
    label: String,
    /// Root of the seed tree
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Override a key of the experiment: --set model.device=cuda:0
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Folder for tables, charts and rollouts; by default a new one in runs/
    #[arg(long)]
    out: Option<PathBuf>,
}

fn rules_help() -> String {
    let names: Vec<&str> = Rule::names().collect();
    format!(
        "Rules at their defaults: {}; by default all, some with other parameters, and the run's own",
        names.join(", ")
    )
}

/// A policy and the experiment that it belongs to.
struct Policy {
    experiment: Experiment,
    /// The checkpoint; `None` for the model with which the experiment starts.
    origin: Option<Origin>,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<ExitCode> {
    let Policy { experiment, origin } = arguments.policy(registry)?;
    let settings = arguments.settings(&experiment)?;
    settings.check(&experiment)?;
    let out = new_folder(arguments.out.as_deref(), &format!("credit-{}", experiment.name))?;
    start::set_threads(experiment.model.threads)?;
    let (model, described) =
        model::load(&experiment.model.source, experiment.model.control_tokens)?;
    // The folder is created with its contents: a command that fails leaves none.
    let temporary = tempfile::tempdir().context("cannot create a temporary folder")?;
    let Stage { mut environment, folder: _kept } = stage(registry, &experiment, temporary.path())?;
    environment.provenance.extend(described);
    let store = temporary.path().join("rollouts.sqlite");
    let sample = credit_truth::measure(
        &experiment,
        &environment,
        &model,
        origin.as_ref(),
        &settings,
        &store,
    )?;
    let mut own = environment.provenance;
    own.insert("experiment".to_owned(), json!(experiment.to_toml()));
    if let Some(origin) = &origin {
        let hash = provenance::hash_file(&origin.state())
            .with_context(|| origin.state().display().to_string())?;
        let described = json!({ "run": origin.run, "step": origin.step, "state_sha256": hash });
        own.insert("checkpoint".to_owned(), described);
    }
    let measurement = Measurement {
        title: format!("Credit rules of {}", experiment.name),
        about: about(origin.as_ref(), &experiment, &settings, &sample),
        label: arguments.label.clone(),
        calls: calls(&sample, &arguments.label),
        rules: sample.rules.iter().map(rule).collect(),
        settings: arguments.described(&settings),
        counts: json!(sample.counts),
        provenance: provenance::collect(own),
    };
    let seeds = SeedTree::new(arguments.seed).child("credit report");
    let report = CreditReport::of(&measurement, seeds)?;
    report.write(&out)?;
    std::fs::copy(&store, out.join("rollouts.sqlite"))
        .with_context(|| out.join("rollouts.sqlite").display().to_string())?;
    print!("{}", report.markdown());
    println!("\nwritten: {}", out.display());
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn policy(&self, registry: &Registry) -> Result<Policy> {
        let path = Path::new(&self.policy);
        if path.is_file() {
            let experiment = Experiment::read(path, &self.overrides, registry)?;
            return Ok(Policy { experiment, origin: None });
        }
        let origin = Origin::find(&self.policy).map_err(|error| match error {
            TrainError::Invalid(what) => {
                let what = what.strip_prefix("train.init_from: ").unwrap_or(&what);
                anyhow::anyhow!("{what}; name a run folder, RUN@STEP, or an experiment file")
            }
            other => other.into(),
        })?;
        let config = origin.run.join("config.toml");
        let experiment = Experiment::read(&config, &self.overrides, registry)?;
        Ok(Policy { experiment, origin: Some(origin) })
    }

    fn settings(&self, experiment: &Experiment) -> Result<Settings> {
        let texts = self.rules.iter().chain(&self.keyed);
        let mut rules: Vec<Rule> =
            texts.map(|text| Rule::parse(text)).collect::<Result<_, TrainError>>()?;
        if rules.is_empty() {
            rules = Rule::all();
            let own = Rule::of_run(experiment);
            if !rules.iter().any(|rule| rule.algorithm == own.algorithm) {
                rules.push(own);
            }
        }
        Ok(Settings {
            tasks: self.tasks,
            group: self.group.unwrap_or(experiment.rollout.samples),
            completions: self.completions,
            states: self.states,
            critic_steps: self.critic_steps,
            rules,
            seed: self.seed,
        })
    }

    fn described(&self, settings: &Settings) -> Value {
        let rules: Vec<Value> = settings
            .rules
            .iter()
            .map(|rule| json!({ "name": rule.name, "algorithm": rule.algorithm }))
            .collect();
        json!({
            "policy": self.policy,
            "set": self.overrides,
            "tasks": settings.tasks,
            "group": settings.group,
            "completions": settings.completions,
            "states": settings.states,
            "critic_steps": settings.critic_steps,
            "label": self.label,
            "seed": self.seed,
            "rules": rules,
        })
    }
}

/// Policy and numbers, in words.
fn about(
    origin: Option<&Origin>,
    experiment: &Experiment,
    settings: &Settings,
    sample: &CreditSample,
) -> String {
    let policy = match origin {
        Some(origin) => {
            format!("the checkpoint of step {} of {}", origin.step, origin.run.display())
        }
        None => format!("the model {}", experiment.model.source),
    };
    let counts = &sample.counts;
    let mut text = format!(
        "Policy: {policy}. {} tasks with {} rollouts each, {} completions from each of {} states; \
         {} of {} calls were measured.",
        settings.tasks,
        settings.group,
        settings.completions,
        counts.states,
        sample.calls.len(),
        counts.calls,
    );
    let losses = [
        (counts.rollouts_without_reward, "rollouts"),
        (counts.completions_without_reward, "completions"),
    ];
    for (count, what) in losses.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!(" {count} {what} have no reward and are left out."));
    }
    text
}

fn calls(sample: &CreditSample, label: &str) -> Vec<credit::Call> {
    // A task that was visited twice is one task.
    let number = |id: &str| sample.tasks.iter().position(|task| task.id == id);
    let call = |call: &MeasuredCall| {
        let task = &sample.tasks[call.task];
        credit::Call {
            task: number(&task.id).unwrap_or(call.task),
            task_id: task.id.clone(),
            rollout: call.rollout,
            position: call.position,
            calls: call.calls,
            role: call.role.clone(),
            label: task.label(label).unwrap_or_default().to_owned(),
            reward: call.reward,
            truth: call.truth,
            noise: call.noise,
        }
    };
    sample.calls.iter().map(call).collect()
}

fn rule(found: &RuleCredit) -> credit::Rule {
    credit::Rule {
        name: found.rule.name.clone(),
        critic: found.critic.map(str::to_owned),
        credit: found.credit.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(words: &[&str]) -> Arguments {
        let words = ["credit"].iter().chain(words);
        Command::try_parse_from(words).map_err(|e| e.to_string()).unwrap().arguments
    }

    fn file(folder: &Path, rest: &str) -> String {
        let text = format!(
            "name = 'x'\n[model]\nsource = 'tiny'\n[agent]\nname = 'calc'\n\
             [data]\ntrain = ['mini-calc']\ntest = ['mini-calc']\n[train]\nsteps = 3\n{rest}"
        );
        let path = folder.join("x.toml");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    #[test]
    fn the_run_s_own_rule_is_measured_too() {
        let folder = tempfile::tempdir().unwrap();
        let registry = leyden_suite::registry();
        let names = |rest: &str, more: &[&str]| -> Vec<String> {
            let path = file(folder.path(), rest);
            let arguments = arguments(&[&[path.as_str()], more].concat());
            let Policy { experiment, origin } = arguments.policy(&registry).unwrap();
            assert_eq!(origin, None);
            let settings = arguments.settings(&experiment).unwrap();
            settings.rules.into_iter().map(|rule| rule.name).collect()
        };
        assert_eq!(names("", &[]).len(), Rule::all().len());
        let own = "[algorithm.credit]\nname = 'discounted'\ngamma = 0.5\n";
        assert_eq!(names(own, &[]).last().unwrap(), "discounted, as in the run");
        let chosen = ["--rules", "identical,gigpo", "--rule", "name = 'discounted', gamma = 0.5"];
        assert_eq!(names(own, &chosen), ["identical", "gigpo", "discounted, gamma = 0.5"]);
    }

    #[test]
    fn a_folder_without_checkpoints_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        let found = arguments(&[&path]).policy(&leyden_suite::registry());
        let error = found.err().unwrap().to_string();
        assert_eq!(
            error,
            format!(
                "{path}: this is not a run folder with checkpoints; name a run folder, RUN@STEP, \
                 or an experiment file"
            )
        );
    }
}
