//! Checkpoints: the state that a run needs to resume with identical results.
//!
//! Sampling, task order and credit are pure functions of seed and step, so a checkpoint has only
//! the remaining state: parameters, also those of earlier versions that steps still sample with
//! ([`crate::staleness`]), the optimiser's moments, and a few counters, with weights or a curriculum
//! also the place in each source of tasks. It is written into a temporary folder, synced to disk and
//! renamed, so after a crash a checkpoint is either complete
//! or absent.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use leyden_lm::LmError;
use leyden_lm::formats::{NamedTensors, safetensors};
use leyden_lm::model::Parameters;
use leyden_lm::optim::Optimizer;
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use crate::config::Objective;
use crate::error::TrainError;
use crate::folder::sync_folder;
use crate::staleness;
use crate::task_order::{OrderState, TaskOrder};
use crate::trainer::Trainer;
use crate::trunk::Trunk;

/// The counters of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    schema: u32,
    step: u64,
    position: u64,
    /// Consecutive steps without reward variance.
    quiet_steps: u64,
    /// The factor of a KL penalty, which may be adaptive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kl_coefficient: Option<f64>,
    /// With weights or a curriculum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tasks: Option<OrderState>,
}

const SCHEMA: u32 = 1;

/// Prefix of the names of a critic's tensors, and of those of its own trunk.
const CRITIC: &str = "critic.";
const TRUNK: &str = "critic.trunk.";

/// Name of a part's parameters, after its prefix.
const PARAMETERS: &str = "parameters";

fn folder(root: &Path, step: u64) -> PathBuf {
    root.join("checkpoints").join(format!("step-{step:06}"))
}

/// Writes the checkpoint of `step` and removes all but the `keep` latest.
///
/// # Errors
/// File system errors, including a full disk; earlier checkpoints are then unchanged.
pub fn save(root: &Path, step: u64, keep: usize, trainer: &Trainer<'_>) -> Result<(), TrainError> {
    let target = folder(root, step);
    let temporary = target.with_extension("tmp");
    let _ = fs::remove_dir_all(&temporary);
    let result = write(&temporary, step, trainer);
    if result.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    result?;
    let _ = fs::remove_dir_all(&target);
    fs::rename(&temporary, &target).map_err(|e| TrainError::file(&target, e))?;
    sync_folder(&root.join("checkpoints"))?;
    let steps = steps(root)?;
    for old in &steps[..steps.len().saturating_sub(keep)] {
        let path = folder(root, *old);
        fs::remove_dir_all(&path).map_err(|e| TrainError::file(path, e))?;
    }
    Ok(())
}

fn write(dir: &Path, step: u64, trainer: &Trainer<'_>) -> Result<(), TrainError> {
    let failed = |what: &dyn Display| TrainError::Step {
        step,
        what: format!(
            "the checkpoint was not written: {what}; the run is saved up to its previous \
             checkpoint: free some disk space and run the same command again"
        ),
    };
    fs::create_dir_all(dir).map_err(|e| failed(&TrainError::file(dir, e)))?;
    let mut tensors = part("", trainer.policy.trained(), &trainer.updater.optimizer);
    tensors.extend(trainer.earlier.state());
    if let Some(critic) = &trainer.critic {
        tensors.extend(part(CRITIC, critic.head.parameters(), &critic.optimizer));
        if let Some(Trunk { model, optimizer }) = &critic.trunk {
            tensors.extend(part(TRUNK, model.trained(), optimizer));
        }
    }
    let named: Vec<_> = tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
    let path = dir.join("state.safetensors");
    safetensors::write_file(&path, &named, None, &BTreeMap::new()).map_err(|e| failed(&e))?;
    let state = State {
        schema: SCHEMA,
        step,
        position: match trainer.experiment.train.objective {
            Objective::Reinforcement => trainer.tasks.position(),
            Objective::Supervised => trainer.visits.position,
        },
        quiet_steps: trainer.steps_without_variance,
        kl_coefficient: trainer.reference.as_ref().map(|r| r.controller.coefficient),
        tasks: trainer.tasks.state(),
    };
    let text = serde_json::to_string_pretty(&state).expect("counters are plain data");
    crate::folder::write_atomic(&dir.join("state.json"), text.as_bytes())
        .and_then(|()| sync_folder(dir))
        .map_err(|e| failed(&e))
}

/// Parameters and the state of their optimiser, sharing storage with both.
fn part(prefix: &str, parameters: &Parameters, optimizer: &Optimizer) -> NamedTensors {
    let mut tensors = vec![(PARAMETERS.to_owned(), parameters.flat().detach())];
    tensors.extend(optimizer.state());
    tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect()
}

/// The steps that have a checkpoint, ascending.
fn steps(root: &Path) -> Result<Vec<u64>, TrainError> {
    let dir = root.join("checkpoints");
    let entries = fs::read_dir(&dir).map_err(|e| TrainError::file(&dir, e))?;
    let mut steps: Vec<u64> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.strip_prefix("step-")?.parse().ok()
        })
        .collect();
    steps.sort_unstable();
    Ok(steps)
}

/// The contents of a checkpoint.
pub struct Saved {
    pub state: State,
    /// By name; those of a critic have the prefix `critic.`, those of its own trunk
    /// `critic.trunk.`, those of earlier versions `earlier.`.
    pub tensors: NamedTensors,
}

impl Saved {
    /// Moves `tasks` to the run's place in the order of training tasks.
    ///
    /// # Errors
    /// An order of another configuration.
    pub(crate) fn restore_tasks(&self, tasks: &mut TaskOrder<'_>) -> Result<(), TrainError> {
        let restored = tasks.restore(self.state.position, self.state.tasks.as_ref());
        restored.map_err(TrainError::Invalid)
    }

    /// Whether a critic was trained with the policy.
    pub fn has_critic(&self) -> bool {
        self.tensors.iter().any(|(name, _)| name.starts_with(CRITIC))
    }
}

/// Reads the checkpoint of `step` in the folder `dir`.
///
/// # Errors
/// A missing or damaged file; counters of another step or version.
pub fn read(dir: &Path, step: u64) -> Result<Saved, TrainError> {
    let damaged = |what: String| damaged(dir, what);
    let state: State = fs::read(dir.join("state.json"))
        .map_err(|e| damaged(format!("state.json: {e}")))
        .and_then(|text| {
            serde_json::from_slice(&text).map_err(|e| damaged(format!("state.json: {e}")))
        })?;
    if state.schema != SCHEMA || state.step != step {
        return Err(damaged(format!(
            "the checkpoint has schema {}, step {}",
            state.schema, state.step
        )));
    }
    let (tensors, _) = safetensors::read_file(&dir.join("state.safetensors"))
        .map_err(|e| damaged(e.to_string()))?;
    Ok(Saved { state, tensors })
}

fn damaged(dir: &Path, what: String) -> TrainError {
    let remedy = "remove this folder to resume from an earlier checkpoint";
    TrainError::file(dir, format!("{what}; {remedy}"))
}

/// Restores the trainer from the latest checkpoint; returns its step, or `None` without a
/// checkpoint.
///
/// # Errors
/// A checkpoint that is damaged or belongs to another model.
pub fn load(root: &Path, trainer: &mut Trainer<'_>) -> Result<Option<u64>, TrainError> {
    let Some(&step) = steps(root)?.last() else { return Ok(None) };
    let dir = folder(root, step);
    let Saved { state, mut tensors } = read(&dir, step)?;
    let earlier = staleness::split_off(&mut tensors);
    restore(trainer, tensors)
        .and_then(|()| trainer.earlier.restore(step, &earlier))
        .map_err(|e| damaged(&dir, e.to_string()))?;
    trainer.version = step;
    match trainer.experiment.train.objective {
        Objective::Reinforcement => {
            let restored = trainer.tasks.restore(state.position, state.tasks.as_ref());
            restored.map_err(|what| damaged(&dir, what))?;
        }
        Objective::Supervised => trainer.visits.position = state.position,
    }
    trainer.steps_without_variance = state.quiet_steps;
    if let (Some(reference), Some(coefficient)) = (&mut trainer.reference, state.kl_coefficient) {
        reference.controller.coefficient = coefficient;
    }
    Ok(Some(step))
}

/// A checkpoint of another run: `RUN`, its latest, or `RUN@STEP`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub run: PathBuf,
    pub step: u64,
}

impl Origin {
    /// Finds the checkpoint that `text` names.
    ///
    /// # Errors
    /// A folder without checkpoints, or without one of this step; the message lists those kept.
    pub fn find(text: &str) -> Result<Self, TrainError> {
        let (run, step) = match text.rsplit_once('@') {
            Some((run, step)) if !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit()) => {
                (run, step.parse().ok())
            }
            _ => (text, None),
        };
        let run = PathBuf::from(run);
        let reject = |what: String| {
            Err(TrainError::Invalid(format!("train.init_from: {}: {what}", run.display())))
        };
        let kept = match steps(&run) {
            Ok(kept) if !kept.is_empty() => kept,
            _ => return reject("this is not a run folder with checkpoints".to_owned()),
        };
        let step = step.unwrap_or(kept[kept.len() - 1]);
        if !kept.contains(&step) {
            let kept: Vec<String> = kept.iter().map(u64::to_string).collect();
            return reject(format!("no checkpoint of step {step}; kept are {}", kept.join(", ")));
        }
        Ok(Self { run, step })
    }

    /// The contents of the checkpoint.
    ///
    /// # Errors
    /// As [`read`].
    pub fn read(&self) -> Result<Saved, TrainError> {
        read(&folder(&self.run, self.step), self.step)
    }

    /// The file with the tensors.
    pub fn state(&self) -> PathBuf {
        folder(&self.run, self.step).join("state.safetensors")
    }
}

/// Starts the trainer from the weights of another run's checkpoint, `with_moments` also from the
/// state of its optimiser. Counters and the order of tasks start anew.
///
/// Without moments, a critic starts from the other run's as far as it fits. A trunk that the other
/// run does not have starts as a copy of the policy; a value head that was fitted to another trunk
/// than the policy, which this run does not have, is not taken.
///
/// # Errors
/// A checkpoint that is damaged or belongs to another model; with moments, another kind of critic.
pub fn initialise(
    origin: &Origin,
    with_moments: bool,
    trainer: &mut Trainer<'_>,
) -> Result<(), TrainError> {
    let dir = folder(&origin.run, origin.step);
    let Saved { mut tensors, .. } = read(&dir, origin.step)?;
    // Its versions are not this run's.
    staleness::split_off(&mut tensors);
    let done = if with_moments {
        restore(trainer, tensors)
    } else {
        restore_weights(trainer, &Parts::of(tensors))
    };
    done.map_err(|e: LmError| {
        TrainError::Invalid(format!("train.init_from: {}: {e}", dir.display()))
    })
}

/// The tensors of a checkpoint by part, without prefixes.
#[derive(Default)]
struct Parts {
    policy: NamedTensors,
    head: NamedTensors,
    trunk: NamedTensors,
}

impl Parts {
    fn of(tensors: NamedTensors) -> Self {
        let mut parts = Self::default();
        for (name, tensor) in tensors {
            if let Some(name) = name.strip_prefix(TRUNK) {
                parts.trunk.push((name.to_owned(), tensor));
            } else if let Some(name) = name.strip_prefix(CRITIC) {
                parts.head.push((name.to_owned(), tensor));
            } else {
                parts.policy.push((name, tensor));
            }
        }
        parts
    }
}

fn restore_weights(trainer: &Trainer<'_>, parts: &Parts) -> Result<(), LmError> {
    let find = |tensors: &NamedTensors| {
        let found = tensors.iter().find(|(name, _)| name == PARAMETERS);
        found.map(|(_, tensor)| tensor.shallow_clone())
    };
    if let Some(saved) = find(&parts.policy) {
        copy_parameters(trainer.policy.trained(), &saved)?;
    }
    let Some(critic) = &trainer.critic else { return Ok(()) };
    match (&critic.trunk, find(&parts.trunk)) {
        (None, None) => {}
        (None, Some(_)) => return Ok(()),
        (Some(trunk), None) => trunk.copy_from(&trainer.policy)?,
        (Some(trunk), Some(saved)) => copy_parameters(trunk.model.trained(), &saved)?,
    }
    match find(&parts.head) {
        Some(saved) => copy_parameters(critic.head.parameters(), &saved),
        None => Ok(()),
    }
}

fn restore(trainer: &mut Trainer<'_>, tensors: NamedTensors) -> Result<(), LmError> {
    let Parts { policy, head, trunk } = Parts::of(tensors);
    if let Some(critic) = &mut trainer.critic {
        match &mut critic.trunk {
            Some(Trunk { model, optimizer }) if !trunk.is_empty() => {
                restore_part(model.trained(), optimizer, trunk)?;
            }
            None if trunk.is_empty() => {}
            own => {
                let ours = if own.is_some() { "own" } else { "shared" };
                return Err(LmError::Invalid(format!(
                    "it has no critic with critic.trunk = \"{ours}\" as in this run; without \
                     train.init_moments the weights that fit are taken"
                )));
            }
        }
        restore_part(critic.head.parameters(), &mut critic.optimizer, head)?;
    }
    restore_part(trainer.policy.trained(), &mut trainer.updater.optimizer, policy)
}

/// Restores parameters and the state of their optimiser from the tensors of a checkpoint, without
/// the prefix of a critic.
///
/// # Errors
/// A tensor that is missing or has another shape.
pub fn restore_part(
    parameters: &Parameters,
    optimizer: &mut Optimizer,
    mut tensors: NamedTensors,
) -> Result<(), LmError> {
    let Some(place) = tensors.iter().position(|(name, _)| name == PARAMETERS) else {
        return Err(LmError::Invalid("it has no parameters".to_owned()));
    };
    let (_, saved) = tensors.swap_remove(place);
    copy_parameters(parameters, &saved)?;
    optimizer.load_state(&tensors)
}

fn copy_parameters(parameters: &Parameters, saved: &Tensor) -> Result<(), LmError> {
    let flat = parameters.flat();
    if flat.size() != saved.size() {
        return Err(LmError::Invalid("its parameters belong to another model".to_owned()));
    }
    no_grad(|| flat.shallow_clone().f_copy_(saved))?;
    Ok(())
}
