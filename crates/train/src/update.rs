//! The update: from a batch to new weights, in mini-batches of one optimiser step each and
//! micro-batches that affect memory but not the gradient. Replicas of the policy may share the
//! latter.
//!
//! Three log-probabilities of a token meet here: under the differentiated weights (`logp_new`),
//! under the weights at the beginning of the step (`logp_old`, recomputed, or those of the only
//! update itself), and as recorded by the sampler (`logp_sampler`). The ratio of a loss is new to
//! old; a correction weighs by old to sampler; see [`crate::staleness`].

use leyden_lm::optim::{Decay, Optimizer, Schedule, clip_grad_norm};
use leyden_lm::policy::forest::Pack;
use leyden_lm::policy::{Cotangent, Evaluated, Policy};
use leyden_rl::Rows;
use leyden_rl::config::AlgorithmConfig;
use leyden_rl::correction::CorrectionFigures;
use leyden_rl::loss::{LossInput, LossStatistics};
use leyden_rl::mismatch::Mismatch;
use leyden_rl::objective::ObjectiveInput;

use crate::batch::Batch;
use crate::config::{Experiment, TrainConfig};
use crate::error::TrainError;
use crate::parts::Parts;
use crate::replicas::Replicas;

/// Metrics of the updates of one step.
#[derive(Default)]
pub(crate) struct Update {
    pub loss: f64,
    pub grad_norm: f64,
    pub count: usize,
    /// Updates that were not made because the batch has no rows.
    pub skipped: usize,
    pub learning_rate: f64,
    pub entropy_sum: f64,
    pub entropy_tokens: usize,
    pub packed_tokens: usize,
    pub statistics: LossStatistics,
    pub mismatch: Mismatch,
    pub correction: CorrectionFigures,
    /// Of the first pass over the batch, and its number of updates.
    pub parts: Parts,
    pub first_updates: usize,
}

impl Update {
    /// Adds the metrics of a micro-batch.
    fn merge(&mut self, part: &Self) {
        self.loss += part.loss;
        self.entropy_sum += part.entropy_sum;
        self.entropy_tokens += part.entropy_tokens;
        self.packed_tokens += part.packed_tokens;
        self.statistics.merge(&part.statistics);
        self.mismatch.merge(&part.mismatch);
        self.correction.merge(&part.correction);
        self.parts.merge(&part.parts);
    }
}

/// A micro-batch.
struct Job {
    pack: Pack,
    /// Whether it contributes to the gradient.
    has_gradient: bool,
}

/// The log-probabilities of a batch's tokens under the reference model, and the factor of the KL
/// term.
#[derive(Clone, Copy)]
pub(crate) struct ReferenceTerm<'a> {
    pub logp: &'a [f64],
    pub coefficient: f64,
}

/// Batch-level inputs of a micro-batch.
struct PackContext<'a> {
    algorithm: &'a AlgorithmConfig,
    temperature: f64,
    kl_coefficient: f64,
    batch: &'a Batch,
    /// Weight of each token in its mini-batch.
    weights: &'a [f64],
    /// Log-probabilities before the step's first update; absent if there is only one.
    logp_old: Option<&'a [f64]>,
    /// Log-probabilities under the reference model, if a KL term is in the loss.
    logp_ref: Option<&'a [f64]>,
    /// Whether metrics by role and by turn are measured.
    parts: bool,
    /// Whether this is the first pass over the batch; metrics of later passes are not counted.
    first: bool,
}

/// Updates a policy's weights: optimiser, learning rate and replicas.
pub struct Updater<'a> {
    experiment: &'a Experiment,
    pub optimizer: Optimizer,
    schedule: Schedule,
    pub(crate) replicas: Replicas,
}

impl<'a> Updater<'a> {
    /// # Errors
    /// Replicas of a policy that has adapters; out of memory for their gradients.
    pub fn new(
        experiment: &'a Experiment,
        policy: &Policy,
        optimizer: Optimizer,
    ) -> Result<Self, TrainError> {
        let train = &experiment.train;
        let schedule = Schedule {
            warmup: train.warmup as usize,
            decay: match train.schedule.as_str() {
                "linear" => Decay::Linear,
                "cosine" => Decay::Cosine,
                _ => Decay::Constant,
            },
            // A critic's warm-up is before the schedule: its steps update no policy.
            steps: train.steps.saturating_sub(experiment.critic_warmup()) as usize,
            ..Schedule::default()
        };
        let replicas = Replicas::of(policy, experiment.replicas())?;
        Ok(Self { experiment, optimizer, schedule, replicas })
    }

    fn train(&self) -> &'a TrainConfig {
        &self.experiment.train
    }

    /// All updates of a step's batch; `reference` is set if the algorithm has one.
    ///
    /// # Errors
    /// Errors of the policy and the optimiser.
    pub(crate) fn update(
        &mut self,
        policy: &mut Policy,
        batch: &Batch,
        reference: Option<ReferenceTerm<'_>>,
        step: u64,
    ) -> Result<Update, TrainError> {
        let (train, algorithm) = (self.train(), &self.experiment.algorithm);
        let temperature = self.experiment.rollout.temperature;
        let parts = batch.mini_batches(train.mini_batches);
        let mut update = Update { learning_rate: self.learning_rate(step), ..Update::default() };
        if batch.rows.is_empty() {
            // An optimiser step without a gradient would still decay the weights and follow its
            // momentum.
            update.skipped = train.epochs * train.mini_batches;
            return Ok(update);
        }
        // With a single update the old policy is the differentiated one; otherwise the old
        // log-probabilities are computed once for the whole step.
        let once = train.epochs * parts.len() == 1;
        let mut logp_old = Vec::new();
        if !once {
            logp_old = batch.over_packs(train.micro_batch_tokens, |pack| {
                Ok(policy.evaluate(pack, temperature)?.logp)
            })?;
            update.mismatch = Mismatch::measure(&logp_old, &batch.logp_sampler, &batch.shape);
        }
        for epoch in 0..train.epochs {
            for members in &parts {
                let weights = token_weights(algorithm, batch, members);
                policy.trained().zero_grad();
                let jobs = self.jobs(batch, members, epoch == 0)?;
                let context = PackContext {
                    algorithm,
                    temperature,
                    kl_coefficient: reference.map_or(0.0, |reference| reference.coefficient),
                    batch,
                    weights: &weights,
                    logp_old: (!once).then_some(logp_old.as_slice()),
                    logp_ref: reference
                        .map(|reference| reference.logp)
                        .filter(|_| algorithm.kl.is_in_loss()),
                    parts: epoch == 0 && batch.has_parts(),
                    first: epoch == 0,
                };
                let done = self.replicas.share(policy, &jobs, |policy, job| {
                    if job.has_gradient {
                        context.differentiate(policy, &job.pack)
                    } else {
                        context.evaluate_only(policy, &job.pack)
                    }
                })?;
                done.iter().for_each(|part| update.merge(part));
                update.grad_norm += self.apply(policy, step)?;
                update.count += 1;
                update.first_updates += usize::from(epoch == 0);
            }
        }
        update.grad_norm /= update.count.max(1) as f64;
        update.loss /= update.count.max(1) as f64;
        Ok(update)
    }

    /// The metrics of a step's batch without an update, from a forward pass only.
    ///
    /// # Errors
    /// Errors of the policy.
    pub(crate) fn measure(
        &mut self,
        policy: &mut Policy,
        batch: &Batch,
    ) -> Result<Update, TrainError> {
        let mut update = Update::default();
        if batch.rows.is_empty() {
            return Ok(update);
        }
        let all: Vec<usize> = (0..batch.rows.len()).collect();
        let packs = self.packs(batch, &all)?;
        let context = PackContext {
            algorithm: &self.experiment.algorithm,
            temperature: self.experiment.rollout.temperature,
            kl_coefficient: 0.0,
            batch,
            weights: &[],
            logp_old: None,
            logp_ref: None,
            parts: batch.has_parts(),
            first: true,
        };
        let done = self
            .replicas
            .share(policy, &packs, |policy, pack| context.evaluate_only(policy, pack))?;
        done.iter().for_each(|part| update.merge(part));
        Ok(update)
    }

    /// The micro-batches of a mini-batch. Rows without a gradient are evaluated for metrics only in
    /// the `first` epoch.
    fn jobs(&self, batch: &Batch, members: &[usize], first: bool) -> Result<Vec<Job>, TrainError> {
        let (with, without): (Vec<usize>, Vec<usize>) =
            members.iter().partition(|&&row| self.has_gradient(batch, row));
        let without = if first { without } else { Vec::new() };
        let mut jobs = Vec::new();
        for (members, has_gradient) in [(without, false), (with, true)] {
            let packs = self.packs(batch, &members)?;
            jobs.extend(packs.into_iter().map(|pack| Job { pack, has_gradient }));
        }
        Ok(jobs)
    }

    fn packs(&self, batch: &Batch, members: &[usize]) -> Result<Vec<Pack>, TrainError> {
        let longest = members.iter().map(|&row| batch.rows[row].ids.len()).max().unwrap_or(0);
        self.cut(longest, |budget| batch.pack(members, budget))
    }

    /// Whether a row contributes to the gradient. It does not if its advantages are all 0 and the
    /// objective has no other term.
    fn has_gradient(&self, batch: &Batch, row: usize) -> bool {
        let algorithm = &self.experiment.algorithm;
        algorithm.entropy_coefficient != 0.0
            || algorithm.kl.is_in_loss()
            || batch.advantages[batch.shape.range(row)].iter().any(|&a| a != 0.0)
    }

    /// Splits rows into micro-batches with `pack`, which takes a budget of tokens; `longest` is the
    /// length of the longest row.
    ///
    /// # Errors
    /// Errors of `pack`.
    pub(crate) fn cut(
        &self,
        longest: usize,
        pack: impl Fn(usize) -> Result<Vec<Pack>, TrainError>,
    ) -> Result<Vec<Pack>, TrainError> {
        self.replicas.cut(self.train().micro_batch_tokens, longest, pack)
    }

    /// Clips the gradient, updates the weights, and returns the norm before clipping.
    ///
    /// # Errors
    /// Errors of the optimiser.
    pub(crate) fn apply(&mut self, policy: &Policy, step: u64) -> Result<f64, TrainError> {
        let clip = self.train().grad_clip;
        let norm = clip_grad_norm(policy.trained(), (clip > 0.0).then_some(clip))?;
        if norm.is_finite() {
            let factor = self.factor(step);
            self.optimizer.step(policy.trained(), factor)?;
        }
        Ok(norm)
    }

    pub(crate) fn learning_rate(&self, step: u64) -> f64 {
        self.train().learning_rate * self.factor(step)
    }

    /// The factor of the learning rate in step `step`, after a critic's warm-up.
    fn factor(&self, step: u64) -> f64 {
        let before = 1 + self.experiment.critic_warmup();
        self.schedule.factor(step.saturating_sub(before) as usize)
    }
}

/// The weight of each token of a batch, flat, in the mini-batch of the rows `members`; 0 for other
/// rows.
fn token_weights(algorithm: &AlgorithmConfig, batch: &Batch, members: &[usize]) -> Vec<f64> {
    let lengths: Vec<usize> = members.iter().map(|&row| batch.shape.range(row).len()).collect();
    let rollouts: Vec<usize> = members.iter().map(|&row| batch.rollouts[row]).collect();
    let own = algorithm.token_weights_by_rollout(&Rows::dense(&lengths), &rollouts);
    let mut own = own.into_iter();
    let mut weights = vec![0.0; batch.shape.tokens()];
    for t in members.iter().flat_map(|&row| batch.shape.range(row)) {
        weights[t] = own.next().unwrap_or(0.0);
    }
    weights
}

impl PackContext<'_> {
    /// The metrics of rows without a gradient, from a forward pass only.
    fn evaluate_only(&self, policy: &Policy, pack: &Pack) -> Result<Update, TrainError> {
        let evaluated = policy.evaluate(pack, self.temperature)?;
        let logp: Vec<f64> = pack.gather(&evaluated.logp).concat();
        let mut update = Update {
            packed_tokens: pack.len(),
            entropy_sum: pack.gather(&evaluated.entropy).concat().iter().sum(),
            entropy_tokens: logp.len(),
            ..Update::default()
        };
        if self.parts {
            for (row, entropies) in pack.rows.iter().zip(pack.gather(&evaluated.entropy)) {
                update.parts.row(self.batch, row.row, 0.0, &entropies);
            }
        }
        if self.logp_old.is_none() {
            let sampler = self.batch.select(&self.batch.logp_sampler, pack);
            update.mismatch = Mismatch::measure(&logp, &sampler, &self.batch.shape_of(pack));
        }
        Ok(update)
    }

    /// The share of one of the input's rows in its loss, which is a sum over whole rows.
    fn row_loss(&self, input: &ObjectiveInput<'_>, row: usize) -> f64 {
        let range = input.policy.rows.range(row);
        let rows = Rows::dense(&[range.len()]);
        let policy = &input.policy;
        let own = ObjectiveInput {
            policy: LossInput {
                rows: &rows,
                logp_new: &policy.logp_new[range.clone()],
                logp_old: &policy.logp_old[range.clone()],
                advantages: &policy.advantages[range.clone()],
                weights: &policy.weights[range.clone()],
            },
            entropies: &input.entropies[range.clone()],
            logp_sampler: &input.logp_sampler[range.clone()],
            logp_ref: input.logp_ref.map(|all| &all[range]),
            kl_coefficient: input.kl_coefficient,
        };
        self.algorithm.objective(&own).loss
    }

    /// Adds a micro-batch's gradient to the policy's.
    fn differentiate(&self, policy: &Policy, pack: &Pack) -> Result<Update, TrainError> {
        let batch = self.batch;
        let rows = batch.shape_of(pack);
        let advantages = batch.select(&batch.advantages, pack);
        let weights = batch.select(self.weights, pack);
        let sampler = batch.select(&batch.logp_sampler, pack);
        let logp_ref = self.logp_ref.map(|all| batch.select(all, pack));
        let mut update = Update::default();
        if self.first {
            update.packed_tokens = pack.len();
        }
        policy.forward_backward(pack, self.temperature, &mut |evaluated: &Evaluated| {
            let logp_new: Vec<f64> = pack.gather(&evaluated.logp).concat();
            let logp_old = match self.logp_old {
                Some(all) => batch.select(all, pack),
                None => logp_new.clone(),
            };
            if self.first && self.logp_old.is_none() {
                update.mismatch = Mismatch::measure(&logp_new, &sampler, &rows);
            }
            let entropies: Vec<f64> = pack.gather(&evaluated.entropy).concat();
            let input = ObjectiveInput {
                policy: LossInput {
                    rows: &rows,
                    logp_new: &logp_new,
                    logp_old: &logp_old,
                    advantages: &advantages,
                    weights: &weights,
                },
                entropies: &entropies,
                logp_sampler: &sampler,
                logp_ref: logp_ref.as_deref(),
                kl_coefficient: self.kl_coefficient,
            };
            let objective = self.algorithm.objective(&input);
            update.loss = objective.loss;
            update.statistics = objective.figures.policy;
            update.correction = objective.figures.correction;
            if self.first {
                update.entropy_sum = objective.figures.entropy_sum;
                update.entropy_tokens = objective.figures.tokens;
            }
            if self.parts {
                for (place, (row, range)) in pack.rows.iter().zip(rows.ranges()).enumerate() {
                    let loss = self.row_loss(&input, place);
                    update.parts.row(batch, row.row, loss, &entropies[range]);
                }
            }
            let by_row = |flat: &[f64]| rows.ranges().map(|r| flat[r].to_vec()).collect::<Vec<_>>();
            Cotangent {
                logp: pack.scatter(&by_row(&objective.grad_logp)),
                entropy: objective.grad_entropy.map(|grad| pack.scatter(&by_row(&grad))),
            }
        })?;
        Ok(update)
    }
}
