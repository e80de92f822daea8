//! A step of reinforcement: rollouts of the step's tasks, their credit, one update.

use std::time::Instant;

use leyden_core::record::{StepRecord, Timing};
use leyden_core::{Outcome, Rollout, Sampling, Task};

use crate::TrainError;
use crate::batch::{Batch, Selection};
use crate::figures;
use crate::rounds::{Job, PromptCounts, RoundOptions, run_rollouts};
use crate::store::Place;
use crate::trainer::{Trainer, lap};

impl Trainer<'_> {
    pub(crate) fn reinforcement_step(
        &mut self,
        step: u64,
        timing: &mut Timing,
        progress: &dyn Fn(usize),
    ) -> Result<StepRecord, TrainError> {
        let experiment = self.experiment;
        let started = Instant::now();
        self.refresh_engine()?;
        lap(timing, "weights", started);

        let started = Instant::now();
        let tasks = self.tasks(step);
        let (rollouts, prompts) = self.sample(step, &tasks, progress)?;
        lap(timing, "rollouts", started);

        let started = Instant::now();
        let selection = Selection {
            roles: &experiment.train.roles,
            max_prompt_tokens: experiment.train.max_prompt_tokens,
        };
        let noise = self.seed.child("step").index(step).child("reward");
        let seen = experiment.reward.training(&rollouts, noise);
        let mut batch = Batch::unassigned(&seen, &selection);
        let logp_ref = self.reference_logp(&batch)?;
        if logp_ref.is_some() {
            lap(timing, "reference", started);
        }
        let started = Instant::now();
        self.assign(&mut batch, logp_ref.as_deref(), step)?;
        let update = self.update(&batch, logp_ref.as_deref(), step)?;
        lap(timing, "update", started);

        let started = Instant::now();
        let owners: Vec<&Task> = rollouts.iter().map(|r| &tasks[r.group]).collect();
        self.store.write(
            Place { step, phase: "train" },
            &rollouts,
            &owners,
            &batch.credit,
            None,
        )?;
        lap(timing, "store", started);
        check_rewards(step, &rollouts)?;

        let quiet =
            batch.counters.groups == batch.counters.zero_variance + batch.counters.singletons;
        self.quiet_steps = if quiet { self.quiet_steps + 1 } else { 0 };
        let mut record = figures::of_step(step, tasks.len(), &rollouts, &batch, &update, prompts);
        if !experiment.reward.is_true() {
            let seen: Vec<f64> = seen.iter().filter_map(|r| r.outcome.reward()).collect();
            record.extra.insert("reward_seen_mean".to_owned(), figures::mean(&seen));
        }
        if let Some(logp_ref) = &logp_ref {
            self.follow_reference(&batch, logp_ref, &mut record);
        }
        Ok(record)
    }

    /// The tasks of a step, in visiting order.
    fn tasks(&mut self, step: u64) -> Vec<Task> {
        let count = self.experiment.rollout.tasks as u64;
        let first = (step - 1) * count;
        (0..count).map(|k| self.environment.train.task(self.order.at(first + k))).collect()
    }

    /// `rollout.samples` rollouts of each task; the task's position is their group.
    fn sample(
        &mut self,
        step: u64,
        tasks: &[Task],
        progress: &dyn Fn(usize),
    ) -> Result<(Vec<Rollout>, PromptCounts), TrainError> {
        let config = &self.experiment.rollout;
        let samples = config.samples;
        let seed = self.seed.child("step").index(step).child("rollout");
        let jobs = (0..tasks.len() * samples)
            .map(|id| Job {
                id,
                group: id / samples,
                task: &tasks[id / samples],
                seed: seed.index(id as u64),
            })
            .collect();
        let options = RoundOptions {
            sampling: Sampling {
                temperature: config.temperature,
                top_p: config.top_p,
                top_k: config.top_k,
                max_tokens: config.max_tokens,
            },
            max_prompt_tokens: usize::MAX,
            policy_version: self.version,
        };
        Ok(run_rollouts(
            jobs,
            &*self.environment.agent,
            &*self.environment.scorer,
            &self.format,
            &mut self.engine,
            &options,
            progress,
        )?)
    }
}

/// Refuses a step without a single reward, which is a broken setup and not a hard task.
fn check_rewards(step: u64, rollouts: &[Rollout]) -> Result<(), TrainError> {
    let mut reasons = Vec::with_capacity(rollouts.len());
    for rollout in rollouts {
        match &rollout.outcome {
            Outcome::Reward(_) => return Ok(()),
            Outcome::Missing(why) => reasons.push((&rollout.task_id, why)),
        }
    }
    let Some((task, why)) = reasons.first() else { return Ok(()) };
    Err(TrainError::Step {
        step,
        what: format!(
            "none of the {} rollouts has a reward, so there is nothing to learn from; the first, \
             of task {task}, says: {why}",
            reasons.len()
        ),
    })
}
