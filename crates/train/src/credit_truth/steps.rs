//! The parts of a training step that measuring credit repeats.

use std::cell::RefCell;

use leyden_core::SeedTree;
use leyden_rl::credit::CreditConfig;

use crate::batch::{Batch, Selection};
use crate::config::Experiment;
use crate::error::TrainError;
use crate::progress::Progress;
use crate::rounds::Ended;
use crate::sample::{Sampled, sample};
use crate::trainer::Trainer;

/// Samples the rollouts of a step, with a display named `what`.
pub(super) fn sample_shown(
    trainer: &mut Trainer<'_>,
    what: &str,
    seed: SeedTree,
) -> Result<Sampled, TrainError> {
    let config = &trainer.experiment.rollout;
    let total = (config.tasks * config.samples) as u64;
    let bar = RefCell::new(Progress::new(what, total, 0));
    let show = Ended(|count: usize| bar.borrow_mut().update(count as u64, String::new));
    trainer.sampler.begin(&trainer.policy, None, trainer.version, 0)?;
    let sampled = sample(&mut trainer.sampler, &mut trainer.tasks, config.tasks, seed, &show)?;
    bar.borrow().clear();
    Ok(sampled)
}

/// The trained calls with `credit`, before it is assigned.
pub(super) fn batch(experiment: &Experiment, sampled: &Sampled, credit: &CreditConfig) -> Batch {
    let selection = Selection {
        roles: &experiment.train.roles,
        max_prompt_tokens: experiment.train.max_prompt_tokens,
        credit,
        truncated: experiment.train.truncated,
        left_out: &sampled.left_out,
        layout: experiment.train.layout,
    };
    Batch::unassigned(&sampled.seen, &selection)
}
