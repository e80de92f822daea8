//! One step of training: from tasks or demonstrations to changed weights.

use std::sync::Arc;
use std::time::Instant;

use leyden_core::record::{EvalRecord, RECORD_SCHEMA, StepRecord, Timing};
use leyden_core::{FinishReason, Rollout, Sampling, SeedTree, Task};
use leyden_lm::forest::{Pack, Row};
use leyden_lm::{Cotangent, Decay, Engine, Evaluated, Optimizer, Policy, Schedule, clip_grad_norm};
use leyden_rl::Rows;
use leyden_rl::loss::{LossInput, LossStatistics, entropy};
use leyden_rl::mismatch::Mismatch;
use leyden_text::ChatFormat;

use crate::batch::{Batch, Selection};
use crate::config::{Experiment, Objective};
use crate::data::VisitOrder;
use crate::rounds::{Job, PromptCounts, RoundOptions, run_rollouts, signal_counts};
use crate::store::{Place, RolloutStore};
use crate::{Environment, TrainError, supervised};

/// Everything that changes while a run goes on, and what it needs to change.
pub struct Trainer<'a> {
    pub experiment: &'a Experiment,
    pub environment: &'a Environment,
    pub format: Arc<ChatFormat>,
    pub policy: Policy,
    pub optimizer: Optimizer,
    pub engine: Engine,
    pub store: RolloutStore,
    /// Number of updates steps behind the weights.
    pub version: u64,
    /// Position in the order of demonstrations.
    pub position: u64,
    /// Steps in a row without any variance of reward.
    pub quiet_steps: u64,
    order: VisitOrder,
    schedule: Schedule,
    seed: SeedTree,
    /// Whether the engine holds the policy's current weights.
    engine_is_current: bool,
}

impl<'a> Trainer<'a> {
    pub fn new(
        experiment: &'a Experiment,
        environment: &'a Environment,
        format: Arc<ChatFormat>,
        policy: Policy,
        optimizer: Optimizer,
        engine: Engine,
        store: RolloutStore,
    ) -> Result<Self, TrainError> {
        let seed = SeedTree::new(experiment.seed);
        let len = match (&experiment.train.objective, &environment.demonstrations) {
            (Objective::Supervised, Some(source)) => source.len(),
            (Objective::Supervised, None) => {
                return Err(TrainError::Invalid(
                    "train.objective is supervised, but data.train holds no demonstrations"
                        .to_owned(),
                ));
            }
            (Objective::Reinforcement, _) => environment.train.len(),
        };
        if len == Some(0) {
            return Err(TrainError::Invalid("data.train holds nothing to train on".to_owned()));
        }
        let train = &experiment.train;
        let schedule = Schedule {
            warmup: train.warmup as usize,
            decay: match train.schedule.as_str() {
                "linear" => Decay::Linear,
                "cosine" => Decay::Cosine,
                _ => Decay::Constant,
            },
            steps: train.steps as usize,
            ..Schedule::default()
        };
        Ok(Self {
            experiment,
            environment,
            format,
            policy,
            optimizer,
            engine,
            store,
            version: 0,
            position: 0,
            quiet_steps: 0,
            order: VisitOrder::new(len, seed),
            schedule,
            seed,
            engine_is_current: false,
        })
    }

    /// Runs step `step` (from 1) and returns its line and its durations.
    ///
    /// # Errors
    /// The engine's, the estimator's, the store's; a loss that is not finite.
    pub fn step(
        &mut self,
        step: u64,
        progress: &dyn Fn(usize),
    ) -> Result<(StepRecord, Timing), TrainError> {
        let mut timing = Timing { step, phase: "step".to_owned(), ..Timing::default() };
        let record = match self.experiment.train.objective {
            Objective::Reinforcement => self.reinforcement_step(step, &mut timing, progress)?,
            Objective::Supervised => self.supervised_step(step, &mut timing)?,
        };
        if !(record.loss.is_finite() && record.grad_norm.is_finite()) {
            return Err(TrainError::Step {
                step,
                what: format!(
                    "loss {} or gradient norm {} is not finite; lower train.learning_rate, \
                     or use another dtype; the latest checkpoint is sound",
                    record.loss, record.grad_norm
                ),
            });
        }
        self.version = step;
        self.engine_is_current = false;
        Ok((record, timing))
    }

    fn reinforcement_step(
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
        let first = (step - 1) * experiment.rollout.tasks as u64;
        let tasks: Vec<Task> = (0..experiment.rollout.tasks as u64)
            .map(|k| self.environment.train.task(self.order.at(first + k)))
            .collect();
        let samples = experiment.rollout.samples;
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
                temperature: experiment.rollout.temperature,
                top_p: experiment.rollout.top_p,
                top_k: experiment.rollout.top_k,
                max_tokens: experiment.rollout.max_tokens,
            },
            max_prompt_tokens: usize::MAX,
            policy_version: self.version,
        };
        let (rollouts, prompts) = run_rollouts(
            jobs,
            &*self.environment.agent,
            &*self.environment.scorer,
            &self.format,
            &mut self.engine,
            &options,
            progress,
        )?;
        lap(timing, "rollouts", started);

        let started = Instant::now();
        let selection = Selection {
            roles: &experiment.train.roles,
            max_prompt_tokens: experiment.train.max_prompt_tokens,
        };
        let batch = Batch::of(&rollouts, &experiment.algorithm, &selection, step)?;
        let update = self.update(&batch, step)?;
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
        Ok(self.describe(step, &rollouts, &batch, &update, prompts))
    }

    /// All updates of a step's batch.
    fn update(&mut self, batch: &Batch, step: u64) -> Result<Update, TrainError> {
        let experiment = self.experiment;
        let train = &experiment.train;
        let algorithm = &experiment.algorithm;
        let temperature = experiment.rollout.temperature;
        let parts = batch.mini_batches(train.mini_batches);
        let mut update = Update { learning_rate: self.learning_rate(step), ..Update::default() };
        if batch.rows.is_empty() {
            return Ok(update);
        }
        // With one update the policy before it is the policy that is differentiated; otherwise
        // its log-probabilities are computed once for the whole step.
        let once = train.epochs * parts.len() == 1;
        let mut logp_old = vec![0.0; batch.shape.tokens()];
        if !once {
            let all: Vec<usize> = (0..batch.rows.len()).collect();
            for pack in batch.pack(&all, train.micro_batch_tokens)? {
                let evaluated = self.policy.evaluate(&pack, temperature)?;
                spread(batch, &pack, &pack.gather(&evaluated.logp), &mut logp_old);
            }
            update.mismatch = Mismatch::measure(&logp_old, &batch.logp_sampler, &batch.shape);
        }
        for epoch in 0..train.epochs {
            for members in &parts {
                let lengths: Vec<usize> =
                    members.iter().map(|&row| batch.shape.range(row).len()).collect();
                let mut weights = vec![0.0; batch.shape.tokens()];
                let own = algorithm.token_weights(&Rows::dense(&lengths));
                let mut own = own.into_iter();
                for &row in members {
                    for t in batch.shape.range(row) {
                        weights[t] = own.next().unwrap_or(0.0);
                    }
                }
                self.policy.trained().zero_grad();
                for pack in batch.pack(members, train.micro_batch_tokens)? {
                    let context = PackContext {
                        batch,
                        weights: &weights,
                        logp_old: (!once).then_some(logp_old.as_slice()),
                        first: epoch == 0,
                    };
                    self.micro_batch(&pack, &context, temperature, &mut update)?;
                }
                update.grad_norm += self.apply(step)?;
                update.count += 1;
            }
        }
        update.grad_norm /= update.count.max(1) as f64;
        update.loss /= update.count.max(1) as f64;
        Ok(update)
    }

    fn micro_batch(
        &self,
        pack: &Pack,
        context: &PackContext<'_>,
        temperature: f64,
        update: &mut Update,
    ) -> Result<(), TrainError> {
        let algorithm = &self.experiment.algorithm;
        let batch = context.batch;
        let lengths: Vec<usize> =
            pack.rows.iter().map(|row| batch.shape.range(row.row).len()).collect();
        let rows = Rows::dense(&lengths);
        let advantages = batch.select(&batch.advantages, pack);
        let weights = batch.select(context.weights, pack);
        let sampler = batch.select(&batch.logp_sampler, pack);
        if context.first {
            update.packed_tokens += pack.len();
        }
        self.policy.forward_backward(pack, temperature, &mut |evaluated: &Evaluated| {
            let logp_new: Vec<f64> = pack.gather(&evaluated.logp).concat();
            let logp_old = match context.logp_old {
                Some(all) => batch.select(all, pack),
                None => logp_new.clone(),
            };
            if context.first && context.logp_old.is_none() {
                update.mismatch.merge(&Mismatch::measure(&logp_new, &sampler, &rows));
            }
            let loss = algorithm.loss.loss(&LossInput {
                rows: &rows,
                logp_new: &logp_new,
                logp_old: &logp_old,
                advantages: &advantages,
                weights: &weights,
            });
            let entropies: Vec<f64> = pack.gather(&evaluated.entropy).concat();
            let bonus = entropy::bonus(algorithm.entropy_coefficient, &entropies, &weights, &rows);
            update.loss += loss.loss + bonus.loss;
            update.statistics.merge(&loss.statistics);
            if context.first {
                update.entropy_sum += bonus.sum;
                update.entropy_tokens += bonus.tokens;
            }
            let by_row = |flat: &[f64]| rows.ranges().map(|r| flat[r].to_vec()).collect::<Vec<_>>();
            Cotangent {
                logp: pack.scatter(&by_row(&loss.grad)),
                entropy: (algorithm.entropy_coefficient != 0.0)
                    .then(|| pack.scatter(&by_row(&bonus.grad))),
            }
        })?;
        Ok(())
    }

    /// Clips the gradient, updates the weights, and returns the norm before clipping.
    fn apply(&mut self, step: u64) -> Result<f64, TrainError> {
        let clip = self.experiment.train.grad_clip;
        let norm = clip_grad_norm(self.policy.trained(), (clip > 0.0).then_some(clip))?;
        if norm.is_finite() {
            let factor = self.schedule.factor(step as usize - 1);
            self.optimizer.step(self.policy.trained(), factor)?;
        }
        Ok(norm)
    }

    fn learning_rate(&self, step: u64) -> f64 {
        self.experiment.train.learning_rate * self.schedule.factor(step as usize - 1)
    }

    fn supervised_step(
        &mut self,
        step: u64,
        timing: &mut Timing,
    ) -> Result<StepRecord, TrainError> {
        let train = &self.experiment.train;
        let source = self.environment.demonstrations.as_deref().ok_or_else(|| {
            TrainError::Invalid("there are no demonstrations to train on".to_owned())
        })?;
        let started = Instant::now();
        let (rows, next) = supervised::collect(
            source,
            &mut self.order,
            self.position,
            train.batch,
            self.experiment.data.demonstration_tokens,
            &self.format,
        )?;
        self.position = next;
        lap(timing, "data", started);
        let started = Instant::now();
        let learned: usize = rows.iter().map(Row::action_tokens).sum();
        let weight = 1.0 / learned.max(1) as f64;
        let (mut loss, mut entropy_sum, mut packed) = (0.0, 0.0, 0);
        self.policy.trained().zero_grad();
        for pack in supervised::pack(&rows, train.micro_batch_tokens)? {
            packed += pack.len();
            self.policy.forward_backward(&pack, 1.0, &mut |evaluated: &Evaluated| {
                loss -= weight * evaluated.logp.iter().sum::<f64>();
                entropy_sum += evaluated.entropy.iter().sum::<f64>();
                Cotangent { logp: vec![-weight; evaluated.logp.len()], entropy: None }
            })?;
        }
        let grad_norm = self.apply(step)?;
        lap(timing, "update", started);
        Ok(StepRecord {
            schema: RECORD_SCHEMA,
            step,
            tasks: rows.len(),
            row_tokens: rows.iter().map(|row| row.ids.len()).sum(),
            packed_tokens: packed,
            action_tokens: learned,
            loss,
            entropy: entropy_sum * weight,
            grad_norm,
            learning_rate: self.learning_rate(step),
            ..StepRecord::default()
        })
    }

    fn describe(
        &mut self,
        step: u64,
        rollouts: &[Rollout],
        batch: &Batch,
        update: &Update,
        prompts: PromptCounts,
    ) -> StepRecord {
        let rewards: Vec<f64> = rollouts.iter().filter_map(|r| r.outcome.reward()).collect();
        let quiet =
            batch.counters.groups == batch.counters.zero_variance + batch.counters.singletons;
        self.quiet_steps = if quiet { self.quiet_steps + 1 } else { 0 };
        let calls: usize = rollouts.iter().map(|r| r.calls.len()).sum();
        let cut = rollouts
            .iter()
            .flat_map(|r| &r.calls)
            .filter(|call| call.finish == FinishReason::Length)
            .count();
        let responses: usize = rollouts.iter().map(Rollout::response_tokens).sum();
        let per_call = |count: usize| count as f64 / calls.max(1) as f64;
        let mut extra = std::collections::BTreeMap::new();
        extra.insert("prompts_extended".to_owned(), prompts.extended as f64);
        extra.insert("prompts_rewritten".to_owned(), prompts.rewritten as f64);
        StepRecord {
            schema: RECORD_SCHEMA,
            step,
            tasks: self.experiment.rollout.tasks,
            rollouts: rollouts.len(),
            rollouts_without_reward: rollouts.len() - rewards.len(),
            reward_mean: mean(&rewards),
            reward_std: deviation(&rewards),
            reward_histogram: histogram(&rewards),
            groups_without_variance: batch.counters.zero_variance,
            groups_of_one: batch.counters.singletons,
            calls,
            calls_per_rollout: calls as f64 / rollouts.len().max(1) as f64,
            response_length: per_call(responses),
            truncated: per_call(cut),
            row_tokens: batch.row_tokens(),
            packed_tokens: update.packed_tokens,
            action_tokens: batch.shape.tokens(),
            loss: update.loss,
            entropy: update.entropy_sum / update.entropy_tokens.max(1) as f64,
            grad_norm: update.grad_norm,
            learning_rate: update.learning_rate,
            clip_fraction: update.statistics.clip_fraction(),
            sampler_kl: update.mismatch.k3(),
            sampler_gap: update.mismatch.max_gap,
            sampler_outside: update.mismatch.outside_share(),
            signals: signal_counts(rollouts),
            extra,
        }
    }

    /// Evaluates the current policy on the held-out tasks, `mode` greedy or sampled.
    ///
    /// # Errors
    /// The engine's and the store's.
    pub fn evaluate(
        &mut self,
        step: u64,
        mode: &str,
        progress: &dyn Fn(usize),
    ) -> Result<(EvalRecord, Timing), TrainError> {
        let started = Instant::now();
        let mut timing = Timing { step, phase: "eval".to_owned(), ..Timing::default() };
        self.refresh_engine()?;
        let config = &self.experiment.eval;
        let tasks = &self.environment.test;
        let count = if config.tasks == 0 { tasks.len() } else { config.tasks.min(tasks.len()) };
        let tasks = &tasks[..count];
        // The same draws at every evaluation: what changes between two of them is the policy.
        let seed = self.seed.child("eval");
        let jobs = tasks
            .iter()
            .enumerate()
            .map(|(id, task)| Job { id, group: id, task, seed: seed.index(id as u64) })
            .collect();
        let options = RoundOptions {
            sampling: Sampling {
                temperature: if mode == "greedy" { 0.0 } else { config.temperature },
                max_tokens: config.max_tokens,
                ..Sampling::default()
            },
            max_prompt_tokens: usize::MAX,
            policy_version: self.version,
        };
        let (rollouts, _) = run_rollouts(
            jobs,
            &*self.environment.agent,
            &*self.environment.scorer,
            &self.format,
            &mut self.engine,
            &options,
            progress,
        )?;
        let owners: Vec<&Task> = tasks.iter().collect();
        let text = |ids: &[u32]| self.format.tokenizer().decode(ids, true);
        self.store.write(Place { step, phase: mode }, &rollouts, &owners, &[], Some(&text))?;
        lap(&mut timing, mode, started);
        Ok((evaluation(step, mode, tasks, &rollouts), timing))
    }

    /// Gives the engine the policy's weights, if it has others.
    fn refresh_engine(&mut self) -> Result<(), TrainError> {
        if !self.engine_is_current {
            self.engine.set_weights(self.policy.inference_weights()?);
            self.engine_is_current = true;
        }
        Ok(())
    }
}

/// What a micro-batch needs of the batch that it is part of.
struct PackContext<'a> {
    batch: &'a Batch,
    /// Weight of each token in its mini-batch.
    weights: &'a [f64],
    /// Log-probabilities before the step's first update; absent where there is only one.
    logp_old: Option<&'a [f64]>,
    /// Whether this is the first pass over the batch: the figures of others are not counted.
    first: bool,
}

/// Figures of the updates of one step.
#[derive(Default)]
struct Update {
    loss: f64,
    grad_norm: f64,
    count: usize,
    learning_rate: f64,
    entropy_sum: f64,
    entropy_tokens: usize,
    packed_tokens: usize,
    statistics: LossStatistics,
    mismatch: Mismatch,
}

/// Writes per-row values of a pack to their places in a flat array over the batch.
fn spread(batch: &Batch, pack: &Pack, per_row: &[Vec<f64>], flat: &mut [f64]) {
    for (row, values) in pack.rows.iter().zip(per_row) {
        flat[batch.shape.range(row.row)].copy_from_slice(values);
    }
}

fn lap(timing: &mut Timing, part: &str, started: Instant) {
    timing.seconds.insert(part.to_owned(), started.elapsed().as_secs_f64());
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

fn deviation(values: &[f64]) -> f64 {
    let m = mean(values);
    mean(&values.iter().map(|v| (v - m).powi(2)).collect::<Vec<_>>()).sqrt()
}

fn histogram(values: &[f64]) -> Vec<(f64, usize)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut counts: Vec<(f64, usize)> = Vec::new();
    for value in sorted {
        match counts.last_mut() {
            Some((last, count)) if *last == value => *count += 1,
            _ => counts.push((value, 1)),
        }
    }
    counts
}

/// The line of an evaluation.
pub fn evaluation(step: u64, mode: &str, tasks: &[Task], rollouts: &[Rollout]) -> EvalRecord {
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
            // A sum here, a mean below.
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
