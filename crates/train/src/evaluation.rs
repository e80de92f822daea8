//! Evaluation on held-out tasks.

use std::ops::Range;

use leyden_core::record::{EvalDepth, EvalRecord, RECORD_SCHEMA, Timing};
use leyden_core::{Rollout, Sampling, Scorer, SeedTree, Task};
use leyden_stats::{Errors, errors, majority, pass_at};

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
        self.sampler.begin(&self.policy, None, self.version, step)?;
        let config = &self.experiment.eval;
        let tasks = &self.environment.test;
        let tasks = &tasks[..self.eval_tasks()];
        let samples = self.eval_samples(mode);
        // The same random draws at every evaluation, so that only the policy differs.
        let seed = self.seed.child("eval");
        let jobs = jobs(tasks, 0..tasks.len(), samples, seed).collect();
        let sampling = Sampling {
            temperature: if mode == "greedy" { 0.0 } else { config.temperature },
            max_tokens: config.max_tokens,
            ..Sampling::default()
        };
        let output = self.sampler.run(jobs, sampling, mode, watch).map_err(|e| e.at(step))?;
        let owners: Vec<&Task> = output.rollouts.iter().map(|r| &tasks[r.group]).collect();
        let text = |ids: &[u32]| self.sampler.format.tokenizer().decode(ids, true);
        let place = Place { step, phase: mode };
        self.store.write(place, &output.rollouts, &owners, &[], Some(&text))?;
        laps.end(mode);
        let scorer = &*self.environment.scorer;
        Ok((summarise(step, mode, tasks, &output.rollouts, scorer), timing))
    }

    /// Rollouts per task of an evaluation; greedy ones are all the same.
    pub fn eval_samples(&self, mode: &str) -> usize {
        if mode == "greedy" { 1 } else { self.experiment.eval.samples }
    }
}

/// `samples` rollouts of each of `tasks[places]`, one task after another; a rollout's group is the
/// place of its task. `seed` is the evaluation's. The first sample of a task has the seed of an
/// evaluation with one.
pub fn jobs(
    tasks: &[Task],
    places: Range<usize>,
    samples: usize,
    seed: SeedTree,
) -> impl Iterator<Item = Job<'_>> {
    (places.start * samples..places.end * samples).map(move |id| {
        let (group, sample) = (id / samples, id % samples);
        let own = seed.index(group as u64);
        let seed = if sample == 0 { own } else { own.child("sample").index(sample as u64) };
        Job { id, group, task: &tasks[group], seed, played: &[] }
    })
}

/// The record of an evaluation with equally many `rollouts` for each of `tasks`, in their order.
pub fn summarise(
    step: u64,
    mode: &str,
    tasks: &[Task],
    rollouts: &[Rollout],
    scorer: &dyn Scorer,
) -> EvalRecord {
    let samples = (rollouts.len() / tasks.len().max(1)).max(1);
    let mut record = EvalRecord {
        schema: RECORD_SCHEMA,
        step,
        mode: mode.to_owned(),
        tasks: tasks.len(),
        signals: signal_counts(rollouts),
        ..EvalRecord::default()
    };
    let mut rewards = Vec::new();
    for (task, rollouts) in tasks.iter().zip(rollouts.chunks(samples)) {
        let own: Vec<Option<f64>> = rollouts.iter().map(|r| r.outcome.reward()).collect();
        record.rewards.extend(own.iter().map(|reward| (task.id.clone(), *reward)));
        let own: Vec<f64> = own.into_iter().flatten().collect();
        if own.is_empty() {
            continue;
        }
        let reward = mean(&own);
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
    record.depth = (samples > 1).then(|| depth(samples, rollouts, scorer));
    let calls: usize = rollouts.iter().map(|r| r.calls.len()).sum();
    record.calls_per_rollout = calls as f64 / rollouts.len().max(1) as f64;
    record.response_length =
        rollouts.iter().map(Rollout::response_tokens).sum::<usize>() as f64 / calls.max(1) as f64;
    record
}

/// pass@k, majority@k and errors; `rollouts` are `samples` of each task after another.
fn depth(samples: usize, rollouts: &[Rollout], scorer: &dyn Scorer) -> EvalDepth {
    let of_task = |rollouts: &[Rollout]| -> Vec<(Option<String>, f64)> {
        let rewarded = rollouts.iter().filter_map(|r| Some((r, r.outcome.reward()?)));
        rewarded.map(|(r, reward)| (r.answer.as_deref().map(|a| scorer.vote(a)), reward)).collect()
    };
    let tasks: Vec<Vec<(Option<String>, f64)>> = rollouts.chunks(samples).map(of_task).collect();
    let rewards = |task: &Vec<(Option<String>, f64)>| -> Vec<f64> {
        task.iter().map(|(_, reward)| *reward).collect()
    };
    let rewards: Vec<Vec<f64>> = tasks.iter().map(rewards).collect();
    // 1, 2, 4, … and all.
    let powers = std::iter::successors(Some(1), |k| Some(k * 2)).take_while(|k| *k < samples);
    let pass = |k: usize| {
        let of = |own: &Vec<f64>| {
            pass_at(k, own.len(), own.iter().filter(|reward| **reward >= 1.0).count())
        };
        let known: Vec<f64> = rewards.iter().filter_map(of).collect();
        (!known.is_empty()).then(|| (k, mean(&known)))
    };
    let voted: Vec<f64> = tasks.iter().filter_map(|task| majority(task)).collect();
    let errors = errors(&rewards);
    let error = |of: fn(&Errors) -> f64| errors.as_ref().map(of);
    EvalDepth {
        samples,
        missing: rollouts.iter().filter(|r| r.outcome.reward().is_none()).count(),
        pass_at: powers.chain([samples]).filter_map(pass).collect(),
        majority: (!voted.is_empty()).then(|| mean(&voted)),
        error: error(|e| e.total),
        error_sampling: error(|e| e.sampling),
        error_items: error(|e| e.items),
    }
}
