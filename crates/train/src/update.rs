//! The update: from a batch to changed weights, in mini-batches of one optimiser step each
//! and micro-batches that change memory but not the gradient. Replicas of the policy may share
//! the latter.

use leyden_lm::forest::Pack;
use leyden_lm::{Cotangent, Evaluated, LmError, Policy};
use leyden_rl::Rows;
use leyden_rl::config::AlgorithmConfig;
use leyden_rl::correction::CorrectionFigures;
use leyden_rl::loss::{LossInput, LossStatistics};
use leyden_rl::mismatch::Mismatch;
use leyden_rl::objective::ObjectiveInput;

use crate::TrainError;
use crate::batch::Batch;
use crate::trainer::Trainer;

/// Figures of the updates of one step.
#[derive(Default)]
pub(crate) struct Update {
    pub loss: f64,
    pub grad_norm: f64,
    pub count: usize,
    pub learning_rate: f64,
    pub entropy_sum: f64,
    pub entropy_tokens: usize,
    pub packed_tokens: usize,
    pub statistics: LossStatistics,
    pub mismatch: Mismatch,
    pub correction: CorrectionFigures,
}

impl Update {
    /// Adds what a micro-batch found.
    fn merge(&mut self, part: &Self) {
        self.loss += part.loss;
        self.entropy_sum += part.entropy_sum;
        self.entropy_tokens += part.entropy_tokens;
        self.packed_tokens += part.packed_tokens;
        self.statistics.merge(&part.statistics);
        self.mismatch.merge(&part.mismatch);
        self.correction.merge(&part.correction);
    }
}

/// A micro-batch.
struct Job {
    pack: Pack,
    /// Whether it has no part in the gradient.
    quiet: bool,
}

/// What a micro-batch needs of the batch that it is part of.
struct PackContext<'a> {
    algorithm: &'a AlgorithmConfig,
    temperature: f64,
    kl_coefficient: f64,
    batch: &'a Batch,
    /// Weight of each token in its mini-batch.
    weights: &'a [f64],
    /// Log-probabilities before the step's first update; absent where there is only one.
    logp_old: Option<&'a [f64]>,
    /// Log-probabilities under the reference model, where a KL term is in the loss.
    logp_ref: Option<&'a [f64]>,
    /// Whether this is the first pass over the batch: the figures of others are not counted.
    first: bool,
}

impl Trainer<'_> {
    /// All updates of a step's batch.
    pub(crate) fn update(
        &mut self,
        batch: &Batch,
        logp_ref: Option<&[f64]>,
        step: u64,
    ) -> Result<Update, TrainError> {
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
        let mut logp_old = Vec::new();
        if !once {
            logp_old =
                self.over_batch(batch, |pack| Ok(self.policy.evaluate(pack, temperature)?.logp))?;
            update.mismatch = Mismatch::measure(&logp_old, &batch.logp_sampler, &batch.shape);
        }
        for epoch in 0..train.epochs {
            for members in &parts {
                let lengths: Vec<usize> =
                    members.iter().map(|&row| batch.shape.range(row).len()).collect();
                let mut weights = vec![0.0; batch.shape.tokens()];
                let rollouts: Vec<usize> = members.iter().map(|&row| batch.rollouts[row]).collect();
                let own = algorithm.token_weights_by_rollout(&Rows::dense(&lengths), &rollouts);
                let mut own = own.into_iter();
                for &row in members {
                    for t in batch.shape.range(row) {
                        weights[t] = own.next().unwrap_or(0.0);
                    }
                }
                self.policy.trained().zero_grad();
                let (quiet, lively): (Vec<usize>, Vec<usize>) =
                    members.iter().partition(|&&row| self.is_quiet(batch, row));
                let mut jobs = Vec::new();
                // The figures of quiet rows are wanted once.
                let quiet = if epoch == 0 { quiet } else { Vec::new() };
                for (members, quiet) in [(quiet, true), (lively, false)] {
                    let packs = self.packs(batch, &members)?;
                    jobs.extend(packs.into_iter().map(|pack| Job { pack, quiet }));
                }
                let context = PackContext {
                    algorithm,
                    temperature,
                    kl_coefficient: self.kl_coefficient(),
                    batch,
                    weights: &weights,
                    logp_old: (!once).then_some(logp_old.as_slice()),
                    logp_ref: logp_ref.filter(|_| algorithm.kl.is_in_loss()),
                    first: epoch == 0,
                };
                let done = self.replicas.share(&mut self.policy, &jobs, |policy, job| {
                    if job.quiet {
                        context.look_at(policy, &job.pack)
                    } else {
                        context.differentiate(policy, &job.pack)
                    }
                })?;
                done.iter().for_each(|part| update.merge(part));
                update.grad_norm += self.apply(step)?;
                update.count += 1;
            }
        }
        update.grad_norm /= update.count.max(1) as f64;
        update.loss /= update.count.max(1) as f64;
        Ok(update)
    }

    /// What `evaluate` says of every token of a batch; it says it of a pack's unique actions.
    pub(crate) fn over_batch(
        &self,
        batch: &Batch,
        evaluate: impl Fn(&Pack) -> Result<Vec<f64>, LmError>,
    ) -> Result<Vec<f64>, TrainError> {
        let mut said = vec![0.0; batch.shape.tokens()];
        let all: Vec<usize> = (0..batch.rows.len()).collect();
        for pack in batch.pack(&all, self.experiment.train.micro_batch_tokens)? {
            spread(batch, &pack, &pack.gather(&evaluate(&pack)?), &mut said);
        }
        Ok(said)
    }

    /// Whether a row has no part in the gradient: its group agreed on one reward, and no other
    /// term of the objective speaks of it.
    fn is_quiet(&self, batch: &Batch, row: usize) -> bool {
        let algorithm = &self.experiment.algorithm;
        algorithm.entropy_coefficient == 0.0
            && !algorithm.kl.is_in_loss()
            && batch.advantages[batch.shape.range(row)].iter().all(|&a| a == 0.0)
    }

    /// Micro-batches of some rows.
    fn packs(&self, batch: &Batch, members: &[usize]) -> Result<Vec<Pack>, TrainError> {
        let longest = members.iter().map(|&row| batch.rows[row].ids.len()).max().unwrap_or(0);
        let budget = self.experiment.train.micro_batch_tokens;
        self.replicas.cut(budget, longest, |budget| batch.pack(members, budget))
    }
}

impl PackContext<'_> {
    /// The figures of rows without a gradient, by a forward pass alone.
    fn look_at(&self, policy: &Policy, pack: &Pack) -> Result<Update, TrainError> {
        let evaluated = policy.evaluate(pack, self.temperature)?;
        let logp: Vec<f64> = pack.gather(&evaluated.logp).concat();
        let mut update = Update {
            packed_tokens: pack.len(),
            entropy_sum: pack.gather(&evaluated.entropy).concat().iter().sum(),
            entropy_tokens: logp.len(),
            ..Update::default()
        };
        if self.logp_old.is_none() {
            let sampler = self.batch.select(&self.batch.logp_sampler, pack);
            update.mismatch = Mismatch::measure(&logp, &sampler, &self.batch.shape_of(pack));
        }
        Ok(update)
    }

    /// Adds a micro-batch's part of the gradient to the policy's.
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
            let objective = self.algorithm.objective(&ObjectiveInput {
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
            });
            update.loss = objective.loss;
            update.statistics = objective.figures.policy;
            update.correction = objective.figures.correction;
            if self.first {
                update.entropy_sum = objective.figures.entropy_sum;
                update.entropy_tokens = objective.figures.tokens;
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

/// Writes per-row values of a pack to their places in a flat array over the batch.
fn spread(batch: &Batch, pack: &Pack, per_row: &[Vec<f64>], flat: &mut [f64]) {
    for (row, values) in pack.rows.iter().zip(per_row) {
        flat[batch.shape.range(row.row)].copy_from_slice(values);
    }
}
