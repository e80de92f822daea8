//! Evaluation on held-out tasks.

use leyden_core::record::{EvalRecord, RECORD_SCHEMA, Timing};
use leyden_core::{Rollout, Sampling, Task};

use crate::error::TrainError;
use crate::laps::Laps;
use crate::numbers::mean;
use crate::rounds::{Job, Watch, signal_counts};
use crate::store::Place;
use crate::trainer::Trainer;

impl Trainer<'_> {
    /// Number of tasks per evaluation.
    pub fn eval_tasks(&self) -> usize {
        match (self.experiment.eval.tasks, self.environment.test.len()) {
            (0, all) => all,
            (some, all) => some.min(all),
        }
    }

    /// Evaluates the current policy on the held-out tasks, `mode` greedy or sampled.
    ///
    /// # Errors
    /// Errors of the engine and the store.
    pub fn evaluate(
        &mut self,
        step: u64,
        mode: &str,
        watch: &dyn Watch,
    ) -> Result<(EvalRecord, Timing), TrainError> {
        let mut timing = Timing { step, phase: "eval".to_owned(), ..Timing::default() };
        let mut laps = Laps::start(&mut timing);
        self.sampler.begin(&self.policy, self.version, step)?;
        let config = &self.experiment.eval;
        let tasks = &self.environment.test;
        let tasks = &tasks[..self.eval_tasks()];
        // The same random draws at every evaluation, so that only the policy differs.
        let seed = self.seed.child("eval");
        let jobs = tasks
            .iter()
            .enumerate()
            .map(|(id, task)| Job { id, group: id, task, seed: seed.index(id as u64), played: &[] })
            .collect();
        let sampling = Sampling {
            temperature: if mode == "greedy" { 0.0 } else { config.temperature },
            max_tokens: config.max_tokens,
            ..Sampling::default()
        };
        let output = self.sampler.run(jobs, sampling, mode, watch).map_err(|e| e.at(step))?;
        let owners: Vec<&Task> = tasks.iter().collect();
        let text = |ids: &[u32]| self.sampler.format.tokenizer().decode(ids, true);
        let place = Place { step, phase: mode };
        self.store.write(place, &output.rollouts, &owners, &[], Some(&text))?;
        laps.end(mode);
        Ok((summarise(step, mode, tasks, &output.rollouts), timing))
    }
}

/// The record of an evaluation.
pub fn summarise(step: u64, mode: &str, tasks: &[Task], rollouts: &[Rollout]) -> EvalRecord {
    let mut record = EvalRecord {
        schema: RECORD_SCHEMA,
        step,
        mode: mode.to_owned(),
        tasks: tasks.len(),
        signals: signal_counts(rollouts),
        ..EvalRecord::default()
    };
    let mut rewards = Vec::new();
    for (task, rollout) in tasks.iter().zip(rollouts) {
        let reward = rollout.outcome.reward();
        record.rewards.push((task.id.clone(), reward));
        let Some(reward) = reward else { continue };
        rewards.push(reward);
        for (label, value) in &task.labels {
            let entry =
                record.by_label.entry(label.clone()).or_default().entry(value.clone()).or_default();
            // A sum here, converted to a mean below.
            *entry = (entry.0 + reward, entry.1 + 1);
        }
    }
    for entry in record.by_label.values_mut().flat_map(|values| values.values_mut()) {
        entry.0 /= entry.1 as f64;
    }
    record.without_reward = tasks.len() - rewards.len();
    record.reward_mean = mean(&rewards);
    let calls: usize = rollouts.iter().map(|r| r.calls.len()).sum();
    record.calls_per_rollout = calls as f64 / rollouts.len().max(1) as f64;
    record.response_length =
        rollouts.iter().map(Rollout::response_tokens).sum::<usize>() as f64 / calls.max(1) as f64;
    record
}
