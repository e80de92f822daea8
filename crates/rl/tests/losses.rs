//! Property tests of losses: gradients are derivatives, micro-batches have no effect, and values
//! outside the mask are ignored.

use leyden_rl::Rows;
use leyden_rl::aggregate::{Aggregation, AggregationConstant, token_weights};
use leyden_rl::kl::{self, KlConfig, KlEstimator, KlInput};
use leyden_rl::loss::cispo::CispoConfig;
use leyden_rl::loss::gspo::GspoConfig;
use leyden_rl::loss::ppo::PpoConfig;
use leyden_rl::loss::value::{self, ValueConfig, ValueInput};
use leyden_rl::loss::{Gradient, LossConfig, LossInput, LossStatistics, PolicyLoss};
use proptest::collection::vec;
use proptest::prelude::*;

/// Step of finite differences, and their tolerance.
const STEP: f64 = 1e-6;
const PRECISION: f64 = 1e-4;

/// A batch of rows with masked tokens; arrays are flat.
#[derive(Debug, Clone)]
struct LossCase {
    rows: Rows,
    logp_new: Vec<f64>,
    logp_old: Vec<f64>,
    advantages: Vec<f64>,
}

impl LossCase {
    fn input<'a>(&'a self, weights: &'a [f64]) -> LossInput<'a> {
        LossInput {
            rows: &self.rows,
            logp_new: &self.logp_new,
            logp_old: &self.logp_old,
            advantages: &self.advantages,
            weights,
        }
    }
}

/// Rows of 0 to 6 tokens, some of them masked.
fn rows() -> impl Strategy<Value = Rows> {
    vec(vec(any::<bool>(), 0..7), 1..7).prop_map(|masks| {
        let lengths: Vec<usize> = masks.iter().map(Vec::len).collect();
        Rows::new(&lengths, masks.concat()).unwrap()
    })
}

/// Ratios on every side of the clips, and advantages of either sign. Log-ratios are odd multiples
/// of 0.05, which avoids the edges of the clips, where there is no derivative.
fn batch() -> impl Strategy<Value = LossCase> {
    rows().prop_flat_map(|rows| {
        let n = rows.tokens();
        (Just(rows), vec(-4.0..-0.01, n), vec(-15i32..15, n), vec(-2.0..2.0, n)).prop_map(
            |(rows, logp_new, moved, advantages): (_, Vec<f64>, Vec<i32>, _)| {
                let log_ratios = moved.iter().map(|&step| 0.05 + 0.1 * f64::from(step));
                let logp_old = logp_new.iter().zip(log_ratios).map(|(new, d)| new - d).collect();
                LossCase { rows, logp_new, logp_old, advantages }
            },
        )
    })
}

/// Every loss, with clips adjusted where necessary so that random ratios reach them.
fn losses() -> Vec<LossConfig> {
    let (clip_low, clip_high) = (0.2, 0.3);
    let reached = [
        LossConfig::Ppo(PpoConfig { clip_low, clip_high, dual_clip: None }),
        LossConfig::Gspo(GspoConfig { clip_low, clip_high }),
        LossConfig::Cispo(CispoConfig { clip_low, clip_high }),
    ];
    LossConfig::all().into_iter().chain(reached).collect()
}

/// The losses with this kind of gradient.
fn losses_with(gradient: Gradient) -> impl Iterator<Item = LossConfig> {
    losses().into_iter().filter(move |loss| loss.gradient() == gradient)
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance
}

/// The sum of the losses of a batch's two parts, split at row `cut`.
fn in_two_parts(config: &LossConfig, batch: &LossCase, weights: &[f64], cut: usize) -> PolicyLoss {
    let mut sum = PolicyLoss::default();
    for range in [0..cut, cut..batch.rows.len()] {
        let part = batch.rows.part(range);
        let tokens = part.tokens;
        let micro = LossCase {
            rows: part.rows,
            logp_new: batch.logp_new[tokens.clone()].to_vec(),
            logp_old: batch.logp_old[tokens.clone()].to_vec(),
            advantages: batch.advantages[tokens.clone()].to_vec(),
        };
        let loss = config.loss(&micro.input(&weights[tokens]));
        sum.loss += loss.loss;
        sum.grad.extend(loss.grad);
        sum.statistics.merge(&loss.statistics);
    }
    sum
}

fn same_statistics(a: &LossStatistics, b: &LossStatistics) -> bool {
    (a.tokens, a.clipped, a.clipped_lower) == (b.tokens, b.clipped, b.clipped_lower)
        && close(a.kl_sum, b.kl_sum, 1e-9)
}

/// The loss with one log-probability shifted by `by`.
fn moved(config: &LossConfig, batch: &LossCase, weights: &[f64], t: usize, by: f64) -> f64 {
    let mut batch = batch.clone();
    batch.logp_new[t] += by;
    config.loss(&batch.input(weights)).loss
}

/// The central difference, or `None` at a kink, where the one-sided differences disagree.
fn slope(loss_at: impl Fn(f64) -> f64) -> Option<f64> {
    let (below, here, above) = (loss_at(-STEP), loss_at(0.0), loss_at(STEP));
    let (left, right) = ((here - below) / STEP, (above - here) / STEP);
    close(left, right, PRECISION).then_some((above - below) / (2.0 * STEP))
}

/// Checks that the gradient with respect to each log-probability is the slope of the loss. All
/// weights are 1, so that slopes are of the order of 1.
fn gradient_is_slope(config: &LossConfig, batch: &LossCase) -> Result<(), TestCaseError> {
    let weights = vec![1.0; batch.rows.tokens()];
    for (t, &ours) in config.loss(&batch.input(&weights)).grad.iter().enumerate() {
        let numeric = slope(|by| moved(config, batch, &weights, t, by));
        let numeric = numeric.ok_or_else(|| TestCaseError::fail("a kink in the batch"))?;
        prop_assert!(close(ours, numeric, PRECISION), "{config:?}: {ours} {numeric}");
    }
    Ok(())
}

proptest! {
    #[test]
    fn micro_batches_of_whole_rows_change_nothing(batch in batch(), cut in 0usize..7) {
        let cut = cut.min(batch.rows.len());
        for config in losses() {
            for mode in Aggregation::ALL.into_iter().filter(|&m| config.takes_aggregation(m)) {
                let constant = Some(AggregationConstant::Tokens(8.0));
                let weights = config.token_weights(mode, constant, &batch.rows);
                let whole = config.loss(&batch.input(&weights));
                let parts = in_two_parts(&config, &batch, &weights, cut);
                prop_assert!(close(whole.loss, parts.loss, 1e-12), "{config:?} {mode:?}");
                prop_assert_eq!(&whole.grad, &parts.grad, "{:?} {:?}", config, mode);
                prop_assert!(same_statistics(&whole.statistics, &parts.statistics));
            }
        }
    }

    #[test]
    fn values_outside_the_mask_are_ignored(batch in batch()) {
        let mut corrupted = batch.clone();
        for t in (0..batch.rows.tokens()).filter(|&t| !batch.rows.mask()[t]) {
            corrupted.logp_new[t] = f64::NAN;
            corrupted.logp_old[t] = f64::NEG_INFINITY;
            corrupted.advantages[t] = f64::NAN;
        }
        for config in losses() {
            let weights = config.token_weights(config.default_aggregation(), None, &batch.rows);
            let clean = config.loss(&batch.input(&weights));
            prop_assert_eq!(&clean, &config.loss(&corrupted.input(&weights)), "{:?}", config);
            for t in (0..batch.rows.tokens()).filter(|&t| !batch.rows.mask()[t]) {
                prop_assert_eq!(clean.grad[t], 0.0);
            }
        }
    }

    #[test]
    fn gradients_are_derivatives(batch in batch()) {
        for config in losses_with(Gradient::OfTheLoss) {
            gradient_is_slope(&config, &batch)?;
        }
    }

    /// If the advantages of a row are equal, GSPO's surrogate has the derivative of the row's loss.
    #[test]
    fn the_gradient_of_gspo_is_a_derivative_for_rows_of_one_advantage(batch in batch()) {
        let mut batch = batch;
        for range in batch.rows.clone().ranges().filter(|range| !range.is_empty()) {
            let first = batch.advantages[range.start];
            batch.advantages[range].fill(first);
        }
        for config in losses_with(Gradient::OfEqualAdvantages) {
            gradient_is_slope(&config, &batch)?;
        }
    }

    /// CISPO and REINFORCE hold the ratio constant: shifting both log-probabilities keeps it.
    #[test]
    fn the_gradient_of_cispo_and_reinforce_is_the_derivative_at_a_constant_ratio(batch in batch()) {
        for config in losses_with(Gradient::AtConstantRatio) {
            let weights = config.token_weights(config.default_aggregation(), None, &batch.rows);
            let grad = config.loss(&batch.input(&weights)).grad;
            for (t, &ours) in grad.iter().enumerate() {
                let at = |by: f64| {
                    let mut both = batch.clone();
                    both.logp_new[t] += by;
                    both.logp_old[t] += by;
                    config.loss(&both.input(&weights)).loss
                };
                let numeric = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                prop_assert!(close(ours, numeric, 1e-7), "{ours} {numeric}");
            }
        }
    }

    #[test]
    fn the_critic_s_gradient_is_a_derivative_and_micro_batches_change_nothing(
        batch in batch(),
        cut in 0usize..7,
    ) {
        let weights = token_weights(Aggregation::TokenMean, None, &batch.rows);
        let config = ValueConfig::default();
        let at = |rows: &Rows, range: std::ops::Range<usize>, values_new: &[f64]| {
            value::loss(&config, &ValueInput {
                rows,
                values_new,
                values_old: &batch.logp_old[range.clone()],
                returns: &batch.advantages[range.clone()],
                weights: &weights[range],
            })
        };
        let all = 0..batch.rows.tokens();
        let whole = at(&batch.rows, all.clone(), &batch.logp_new);
        for t in all.clone() {
            let loss_at = |by: f64| {
                let mut values = batch.logp_new.clone();
                values[t] += by;
                at(&batch.rows, all.clone(), &values).loss
            };
            if let Some(numeric) = slope(loss_at) {
                prop_assert!(close(whole.grad[t], numeric, PRECISION), "{} {numeric}", whole.grad[t]);
            }
        }
        let cut = cut.min(batch.rows.len());
        let parts = [0..cut, cut..batch.rows.len()].map(|range| {
            let part = batch.rows.part(range);
            at(&part.rows, part.tokens.clone(), &batch.logp_new[part.tokens])
        });
        prop_assert!(close(whole.loss, parts[0].loss + parts[1].loss, 1e-12));
        prop_assert_eq!(whole.clipped, parts[0].clipped + parts[1].clipped);
    }

    #[test]
    fn a_kl_term_is_the_sum_of_its_parts(batch in batch(), cut in 0usize..7) {
        let weights = token_weights(Aggregation::SeqMeanTokenSum, None, &batch.rows);
        let cut = cut.min(batch.rows.len());
        for estimator in [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3, KlEstimator::Abs] {
            let config = KlConfig { estimator, ..KlConfig::default() };
            let whole = kl::term(&config, 0.1, &KlInput {
                rows: &batch.rows,
                logp: &batch.logp_new,
                logp_old: &batch.logp_old,
                logp_ref: &batch.logp_old,
                weights: &weights,
            });
            let parts = [0..cut, cut..batch.rows.len()].map(|range| {
                let part = batch.rows.part(range);
                let at = part.tokens;
                kl::term(&config, 0.1, &KlInput {
                    rows: &part.rows,
                    logp: &batch.logp_new[at.clone()],
                    logp_old: &batch.logp_old[at.clone()],
                    logp_ref: &batch.logp_old[at.clone()],
                    weights: &weights[at],
                })
            });
            prop_assert!(close(whole.loss, parts[0].loss + parts[1].loss, 1e-12));
            prop_assert_eq!(whole.grad, [&parts[0].grad[..], &parts[1].grad[..]].concat());
            prop_assert_eq!(whole.tokens, parts[0].tokens + parts[1].tokens);
        }
    }
}

/// A NaN inside the mask is an upstream error and must be visible in the loss.
#[test]
fn a_nan_inside_the_mask_is_visible() {
    let rows = Rows::dense(&[2]);
    for config in losses() {
        for advantage in [1.0, -1.0] {
            let batch = LossCase {
                rows: rows.clone(),
                logp_new: vec![-1.0, f64::NAN],
                logp_old: vec![-1.0, -1.0],
                advantages: vec![advantage; 2],
            };
            let weights = config.token_weights(config.default_aggregation(), None, &rows);
            let loss = config.loss(&batch.input(&weights)).loss;
            assert!(loss.is_nan(), "{config:?}: {loss}");
        }
    }
}
