//! Starts or resumes a run and completes it.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use leyden_core::SeedTree;
use leyden_core::record::{EvalRecord, Flight, Record, StepRecord};
use leyden_lm::device::{parse_device, parse_kind};
use leyden_lm::formats::{LoadedModel, save_folder};
use leyden_lm::generate::{Engine, Limits};
use leyden_lm::model::Parameters;
use leyden_lm::optim::{MuonConfig, Optimizer, OptimizerConfig};
use leyden_lm::policy::lora::Lora;
use leyden_lm::policy::{Policy, PolicyOptions};
use serde_json::json;

use crate::checkpoint::Origin;
use crate::config::{Experiment, Objective, OptimizerName};
use crate::environment::{Environment, Observer};
use crate::error::TrainError;
use crate::folder::RunFolder;
use crate::progress::Progress;
use crate::rounds::Watch;
use crate::store::RolloutStore;
use crate::trainer::{Trainer, task_order};
use crate::{checkpoint, provenance};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    Done,
    /// The run was already complete; nothing was done.
    AlreadyDone,
}

/// Runs `experiment` in the folder `root`, from its latest checkpoint if there is one.
///
/// # Errors
/// Any error that stops the run, as one sentence; data up to the latest checkpoint is kept.
pub fn run(
    experiment: &Experiment,
    environment: &Environment,
    model: LoadedModel,
    root: &Path,
    observer: &mut dyn Observer,
) -> Result<Finish, TrainError> {
    // Before there is a folder, since a refused run leaves none.
    let origin = match experiment.train.init_from.as_str() {
        "" => None,
        _ if root.join("finished").exists() => None,
        text => Some(Origin::find(text)?),
    };
    if !root.join("finished").exists() {
        task_order(experiment, environment)?;
    }
    let mut folder = RunFolder::open(root, experiment)?;
    if folder.finished() {
        return Ok(Finish::AlreadyDone);
    }
    let mut own = environment.provenance.clone();
    own.insert("seed".to_owned(), json!(experiment.seed));
    own.insert("device".to_owned(), json!(experiment.model.device));
    own.insert("dtype".to_owned(), json!(experiment.model.dtype));
    own.insert("threads".to_owned(), json!(experiment.model.threads));
    if let Some(origin) = &origin {
        let file = origin.state();
        let hash = provenance::hash_file(&file).map_err(|e| TrainError::file(&file, e))?;
        let described = json!({
            "run": origin.run, "step": origin.step, "state_sha256": hash,
            "moments": experiment.train.init_moments,
        });
        own.insert("init_from".to_owned(), described);
    }
    folder.provenance(provenance::collect(own))?;
    let store = RolloutStore::open(&root.join("rollouts.sqlite"))?;
    let mut trainer = build(experiment, environment, &model, store)?;
    let resumed = checkpoint::load(root, &mut trainer)?;
    let kept = folder.cut_after(resumed)?;
    trainer.store.forget_after(resumed.map_or(-1, |step| step as i64))?;
    observer.resumed(&kept);
    let mut writer = Writer { folder, observer };
    let steps = experiment.train.steps;
    let mut progress = Progress::new(&experiment.name, steps, resumed.unwrap_or(0));
    if let Some(step) = resumed {
        // The run may have stopped here before: without this check, each restart would train one
        // more step.
        check_variance(&trainer, experiment, step)?;
        progress.say(&format!("resuming from the checkpoint of step {step}"));
    } else {
        if let Some(origin) = &origin {
            checkpoint::initialise(origin, experiment.train.init_moments, &mut trainer)?;
            let (run, step) = (origin.run.display(), origin.step);
            progress.say(&format!("starting from step {step} of {run}"));
        }
        evaluate(&mut trainer, &mut writer, 0, &progress)?;
    }
    for step in resumed.unwrap_or(0) + 1..=steps {
        let (record, timing) = trainer.step(step, &writer.watch(None))?;
        progress.update(step, || describe(experiment.train.objective, &record));
        warn(&record, &progress);
        writer.step(record, &timing)?;
        let every = experiment.eval.every;
        if step == steps || (every > 0 && step % every == 0) {
            evaluate(&mut trainer, &mut writer, step, &progress)?;
        }
        let every = experiment.checkpoint.every;
        if step == steps || (every > 0 && step % every == 0) {
            writer.folder.sync()?;
            trainer.store.sync()?;
            checkpoint::save(root, step, experiment.checkpoint.keep, &trainer)?;
        }
        check_variance(&trainer, experiment, step)?;
    }
    progress.end();
    export(&trainer, &model, &root.join("final"))?;
    writer.folder.finish()?;
    Ok(Finish::Done)
}

struct Writer<'a> {
    folder: RunFolder,
    observer: &'a mut dyn Observer,
}

/// Forwards the progress of rollouts to the observer and to a progress bar.
struct Watcher<'a> {
    observer: RefCell<&'a mut dyn Observer>,
    wants_progress: bool,
    bar: Option<&'a RefCell<Progress>>,
}

impl Watch for Watcher<'_> {
    fn ended(&self, count: usize) {
        if let Some(bar) = self.bar {
            bar.borrow_mut().update(count as u64, String::new);
        }
    }

    fn wants_progress(&self) -> bool {
        self.wants_progress
    }

    fn flight(&self, flight: Flight) {
        self.observer.borrow_mut().flight(&flight);
    }
}

impl Writer<'_> {
    fn watch<'a>(&'a mut self, bar: Option<&'a RefCell<Progress>>) -> Watcher<'a> {
        let wants_progress = self.observer.wants_progress();
        Watcher { observer: RefCell::new(&mut *self.observer), wants_progress, bar }
    }

    fn step(
        &mut self,
        record: StepRecord,
        timing: &leyden_core::record::Timing,
    ) -> Result<(), TrainError> {
        self.record(&Record::Step(Box::new(record)))?;
        self.folder.timing(timing)
    }

    fn record(&mut self, record: &Record) -> Result<(), TrainError> {
        self.folder.record(record)?;
        self.observer.record(record);
        Ok(())
    }
}

/// The trainer of an experiment with the weights of `model`.
///
/// # Errors
/// Unknown devices or number types; errors of the model; as [`Trainer::new`].
pub(crate) fn build<'a>(
    experiment: &'a Experiment,
    environment: &'a Environment,
    model: &'a LoadedModel,
    store: RolloutStore,
) -> Result<Trainer<'a>, TrainError> {
    let config = &experiment.model;
    let train = &experiment.train;
    let device = parse_device(&config.device)?;
    let trained = config.lora.is_none();
    let tensors = model.tensors.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect();
    let parameters = Parameters::new(tensors, parse_kind(&config.master_dtype)?, device, trained)?;
    let options = PolicyOptions {
        compute: parse_kind(&config.dtype)?,
        checkpointing: train.activation_checkpointing,
        head_chunk: None,
    };
    let shape = model.config.clone();
    let policy = match &config.lora {
        None => Policy::new(shape, parameters, options),
        Some(lora) => {
            let seed = SeedTree::new(experiment.seed).child("adapters");
            let lora = Lora::new(lora.with_full_names(), &shape, device, seed)?;
            Policy::with_lora(shape, parameters, lora, options)?
        }
    };
    let optimizer = Optimizer::new(
        policy.trained(),
        OptimizerConfig {
            lr: train.learning_rate,
            beta1: train.beta1,
            beta2: train.beta2,
            weight_decay: train.weight_decay,
            muon: (train.optimizer == OptimizerName::Muon)
                .then(|| MuonConfig { lr: train.matrix_learning_rate, ..MuonConfig::default() }),
            ..OptimizerConfig::default()
        },
    )?;
    let limits = Limits {
        context: model.config.context(config.context),
        cache_tokens: experiment.rollout.cache_tokens,
        prefill_tokens: train.micro_batch_tokens,
    };
    let weights = policy.inference_weights()?;
    let engine =
        Engine::new(model.config.clone(), weights, device, limits).split(experiment.engines())?;
    let format = Arc::clone(&model.format);
    Trainer::new(experiment, environment, format, policy, optimizer, engine, store)
}

/// Writes the trained model, adapters merged, as a Hugging Face folder.
fn export(trainer: &Trainer<'_>, model: &LoadedModel, folder: &Path) -> Result<(), TrainError> {
    let kind = parse_kind(&trainer.experiment.model.master_dtype)?;
    let merged = match trainer.policy.lora() {
        Some(lora) => lora.merge(trainer.policy.base())?,
        None => {
            let all = trainer.policy.base().iter();
            all.map(|(name, tensor)| (name.to_owned(), tensor.detach())).collect()
        }
    };
    let tensors: Vec<_> = merged.iter().map(|(name, t)| (name.as_str(), t)).collect();
    Ok(save_folder(folder, &model.config, &tensors, kind, &model.format)?)
}

fn evaluate(
    trainer: &mut Trainer<'_>,
    writer: &mut Writer<'_>,
    step: u64,
    progress: &Progress,
) -> Result<(), TrainError> {
    if trainer.environment.test.is_empty() {
        return Ok(());
    }
    for mode in &trainer.experiment.eval.modes {
        let rollouts = trainer.eval_tasks() * trainer.eval_samples(mode);
        let bar = RefCell::new(Progress::new(mode, rollouts as u64, 0));
        let (record, timing) = trainer.evaluate(step, mode, &writer.watch(Some(&bar)))?;
        bar.borrow().clear();
        progress.say(&sentence(&record));
        writer.record(&Record::Eval(Box::new(record)))?;
        writer.folder.timing(&timing)?;
    }
    Ok(())
}

/// An evaluation as a line on the terminal.
pub fn sentence(record: &EvalRecord) -> String {
    // Without rewards the mean is undefined, not 0.
    let reward = match record.tasks - record.without_reward {
        0 => "no reward".to_owned(),
        _ => format!("reward {:.3}", record.reward_mean),
    };
    let mut text = format!(
        "after step {}: {} {reward} on {} held-out tasks",
        record.step, record.mode, record.tasks
    );
    if let Some(depth) = &record.depth {
        for (k, share) in depth.pass_at.iter().filter(|(k, _)| **k > 1) {
            text.push_str(&format!(" · pass@{k} {share:.3}"));
        }
        if let Some(reward) = depth.majority {
            text.push_str(&format!(" · majority@{} {reward:.3}", depth.samples));
        }
    }
    for (label, values) in record.by_label.iter().filter(|(_, values)| values.len() <= 4) {
        let parts: Vec<String> =
            values.iter().map(|(value, (mean, _))| format!("{value} {mean:.2}")).collect();
        text.push_str(&format!(" · {label}: {}", parts.join(", ")));
    }
    if record.without_reward > 0 {
        text.push_str(&format!(" · {} without reward", record.without_reward));
    }
    text
}

fn describe(objective: Objective, record: &StepRecord) -> String {
    match objective {
        Objective::Reinforcement => {
            let level = record.level.as_ref().map(|level| format!(" · level {level}"));
            format!(
                "reward {:.3} · entropy {:.2} · gradient {:.2}{}",
                record.reward_mean,
                record.entropy,
                record.grad_norm,
                level.unwrap_or_default()
            )
        }
        Objective::Supervised => {
            format!("loss {:.4} · gradient {:.2}", record.loss, record.grad_norm)
        }
    }
}

/// Prints warnings about a step's metrics.
fn warn(record: &StepRecord, progress: &Progress) {
    if record.rollouts_without_reward * 4 > record.rollouts {
        progress.say(&format!(
            "step {}: {} of {} rollouts have no reward and were excluded; \
             see rollouts.sqlite for the reasons (column `missing`)",
            record.step, record.rollouts_without_reward, record.rollouts
        ));
    }
    if let Some(states) = record.extra.get("states_without_value") {
        progress.say(&format!(
            "step {}: every completion of {states} states failed, so their calls have no advantage; \
             see rollouts.sqlite for the reasons",
            record.step
        ));
    }
    if let Some(calls) = record.extra.get("calls_over_max_prompt_tokens") {
        progress.say(&format!(
            "step {}: {calls} calls were left out because their prompt is longer than \
             train.max_prompt_tokens",
            record.step
        ));
    }
    // Samples of earlier weights differ, and are corrected.
    let stale = record.extra.get("staleness_max").is_some_and(|steps| *steps > 0.0);
    if record.sampler_kl > 0.01 && !stale {
        progress.say(&format!(
            "step {}: the trainer's log-probabilities differ from the sampler's (KL {:.4}); \
             with top_p or top_k set, or a low-precision dtype, the gradient is biased",
            record.step, record.sampler_kl
        ));
    }
}

fn check_variance(
    trainer: &Trainer<'_>,
    experiment: &Experiment,
    step: u64,
) -> Result<(), TrainError> {
    let patience = experiment.train.patience_without_variance;
    if experiment.train.objective == Objective::Supervised
        || patience == 0
        || trainer.steps_without_variance < patience
    {
        return Ok(());
    }
    Err(TrainError::Step {
        step,
        what: format!(
            "for {patience} steps all rollouts of every task had the same reward, so there is \
             nothing to learn from; look at rollouts.sqlite: if the rewards are all 0 the task \
             is too hard or the scorer does not find the answer, if all 1 it is too easy; more \
             samples, a higher temperature or other tasks may help"
        ),
    })
}
