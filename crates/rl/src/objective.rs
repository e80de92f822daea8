//! The whole objective of an update: policy loss, correction, KL term, entropy bonus.
//!
//! One function from the model's outputs for some rows to a scalar and its derivatives, so that a
//! trainer back-propagates independently of the objective's terms. Everything is a weighted sum
//! over whole rows: micro-batches add up.

use crate::config::AlgorithmConfig;
use crate::correction::{self, CorrectionFigures};
use crate::kl::{self, KlInput};
use crate::loss::{LossInput, LossStatistics, entropy};

/// Input of the objective.
#[derive(Debug, Clone, Copy)]
pub struct ObjectiveInput<'a> {
    /// Input of the policy loss; `weights` are uncorrected.
    pub policy: LossInput<'a>,
    /// The model's entropies, one per token, in nats.
    pub entropies: &'a [f64],
    /// The sampler's log-probabilities; read if a correction is on.
    pub logp_sampler: &'a [f64],
    /// The reference model's log-probabilities; needed if a KL term is in the loss.
    pub logp_ref: Option<&'a [f64]>,
    /// The KL term's factor, from the controller if adaptive.
    pub kl_coefficient: f64,
}

/// The objective of a batch or of part of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objective {
    pub loss: f64,
    /// d loss / d logp_new, one per token; 0 outside the mask.
    pub grad_logp: Vec<f64>,
    /// d loss / d entropy, one per token; absent without an entropy bonus.
    pub grad_entropy: Option<Vec<f64>>,
    pub figures: ObjectiveFigures,
}

/// Counts and sums over the tokens of a batch or of part of it; parts can be merged.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ObjectiveFigures {
    pub policy: LossStatistics,
    pub correction: CorrectionFigures,
    /// Sum of the KL estimates; 0 without a term in the loss.
    pub kl_sum: f64,
    pub entropy_sum: f64,
    pub tokens: usize,
}

impl ObjectiveFigures {
    /// Adds the counts and sums of another part.
    pub fn merge(&mut self, other: &Self) {
        self.policy.merge(&other.policy);
        self.correction.merge(&other.correction);
        self.kl_sum += other.kl_sum;
        self.entropy_sum += other.entropy_sum;
        self.tokens += other.tokens;
    }

    /// Mean KL estimate in nats per token; 0 without tokens.
    pub fn kl(&self) -> f64 {
        self.kl_sum / self.tokens.max(1) as f64
    }
}

impl AlgorithmConfig {
    /// The objective and its derivatives.
    ///
    /// # Panics
    /// If an array does not have one entry per token, or a KL term is in the loss without a
    /// reference model, which [`AlgorithmConfig::check`] rejects.
    pub fn objective(&self, input: &ObjectiveInput) -> Objective {
        let policy = &input.policy;
        let mut figures = ObjectiveFigures::default();
        let corrected = self.correction.is_on().then(|| {
            let correction = correction::correct(
                &self.correction,
                policy.logp_old,
                input.logp_sampler,
                policy.rows,
            );
            figures.correction = correction.figures;
            let mut weights = vec![0.0; policy.weights.len()];
            for t in policy.rows.active() {
                weights[t] = policy.weights[t] * correction.factors[t];
            }
            weights
        });
        let loss = self.loss.loss(&LossInput {
            weights: corrected.as_deref().unwrap_or(policy.weights),
            ..*policy
        });
        figures.policy = loss.statistics;
        let mut total = Objective { loss: loss.loss, grad_logp: loss.grad, ..Objective::default() };

        let c = self.entropy_coefficient;
        let bonus = entropy::bonus(c, input.entropies, policy.weights, policy.rows);
        total.loss += bonus.loss;
        total.grad_entropy = (c != 0.0).then_some(bonus.grad);
        (figures.entropy_sum, figures.tokens) = (bonus.sum, bonus.tokens);

        if self.kl.is_in_loss() {
            let logp_ref = input.logp_ref.expect("a KL term needs reference log-probabilities");
            let term = kl::term(
                &self.kl,
                input.kl_coefficient,
                &KlInput {
                    rows: policy.rows,
                    logp: policy.logp_new,
                    logp_old: policy.logp_old,
                    logp_ref,
                    weights: policy.weights,
                },
            );
            total.loss += term.loss;
            total.grad_logp.iter_mut().zip(&term.grad).for_each(|(grad, kl)| *grad += kl);
            figures.kl_sum = term.sum;
        }
        total.figures = figures;
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    const NEW: [f64; 3] = [-0.5, f64::NAN, -1.5];
    const OLD: [f64; 3] = [-0.75, f64::NAN, -1.0];
    const SAMPLER: [f64; 3] = [-1.75, f64::NAN, -1.0];
    const REFERENCE: [f64; 3] = [-1.0, f64::NAN, -1.25];

    fn rows() -> Rows {
        Rows::new(&[2, 1], vec![true, false, true]).unwrap()
    }

    fn input<'a>(rows: &'a Rows, logp_new: &'a [f64]) -> ObjectiveInput<'a> {
        ObjectiveInput {
            policy: LossInput {
                rows,
                logp_new,
                logp_old: &OLD,
                advantages: &[1.0, f64::NAN, -0.5],
                weights: &[0.5, 0.0, 0.5],
            },
            entropies: &[2.0, f64::NAN, 1.0],
            logp_sampler: &SAMPLER,
            logp_ref: Some(&REFERENCE),
            kl_coefficient: 0.25,
        }
    }

    fn config(text: &str) -> AlgorithmConfig {
        let config: AlgorithmConfig = toml::from_str(text).unwrap();
        config.validate().unwrap();
        config
    }

    #[test]
    fn by_default_it_is_the_policy_loss_alone() {
        let (rows, config) = (rows(), config(""));
        let input = ObjectiveInput { logp_ref: None, ..input(&rows, &NEW) };
        let objective = config.objective(&input);
        let loss = config.loss.loss(&input.policy);
        assert_eq!((objective.loss, &objective.grad_logp), (loss.loss, &loss.grad));
        assert_eq!(objective.grad_entropy, None);
        let figures = objective.figures;
        assert_eq!((figures.entropy_sum, figures.tokens), (3.0, 2));
        assert_eq!(figures.correction, CorrectionFigures::default());
    }

    #[test]
    fn the_terms_add_up_and_the_correction_applies_to_the_policy_loss_only() {
        let rows = rows();
        let config = config(
            "entropy_coefficient = 0.125\n[loss]\nname = 'gpg'\n\
             [kl]\nestimator = 'k1'\ncoefficient = 0.1\n[correction]\nweight = 'token'\n",
        );
        let objective = config.objective(&input(&rows, &NEW));
        // Token 0 has weight e, which is truncated at 2; token 2 has weight 1.
        let policy = 0.5 * 2.0 * 0.5 - 0.5 * 0.5 * 1.5;
        let entropy = -0.125 * 0.5 * 3.0;
        let kl = 0.25 * 0.5 * (0.5 - 0.25);
        assert!((objective.loss - (policy + entropy + kl)).abs() < 1e-15);
        assert_eq!(objective.grad_logp, [-0.5 * 2.0 + 0.125, 0.0, 0.25 + 0.125]);
        assert_eq!(objective.grad_entropy.unwrap(), [-0.0625, 0.0, -0.0625]);
        assert_eq!(objective.figures.kl(), 0.125);
        assert_eq!(objective.figures.correction.beyond, 1);
    }

    /// In the first update of a step the ratio of a loss is 1, whoever sampled: only a correction
    /// knows the sampler.
    #[test]
    fn stale_samples_are_weighted_by_the_ratio_to_the_sampler() {
        let rows = rows();
        let input = input(&rows, &OLD);
        let own = ObjectiveInput { logp_sampler: &OLD, ..input };
        for loss in ["ppo", "cispo", "gpg", "reinforce"] {
            let loss = format!("[loss]\nname = '{loss}'\n");
            let (plain, weighted) = (
                config(&loss),
                config(&format!("{loss}[correction]\nweight = 'token'\nhigh = 9.0\n")),
            );
            let gradient = |config: &AlgorithmConfig, input| config.objective(input).grad_logp;
            let without = gradient(&plain, &input);
            assert_eq!(without, gradient(&plain, &own), "{loss}");
            assert_eq!(without, gradient(&weighted, &own), "{loss}");
            let with = gradient(&weighted, &input);
            for t in [0, 2] {
                let ratio = (OLD[t] - SAMPLER[t]).exp();
                assert!((with[t] - ratio * without[t]).abs() < 1e-12, "{loss}: {with:?}");
            }
            assert!(with[0] != without[0]);
        }
    }

    #[test]
    fn its_gradient_is_the_derivative_with_every_term_on() {
        let rows = rows();
        let config = config(
            "[loss]\nname = 'sapo'\n[kl]\ncoefficient = 1.0\nunbiased = true\n\
             [correction]\nweight = 'sequence'\n",
        );
        let objective = config.objective(&input(&rows, &NEW));
        for t in [0, 2] {
            let at = |by: f64| {
                let mut logp = NEW;
                logp[t] += by;
                config.objective(&input(&rows, &logp)).loss
            };
            let numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
            assert!((objective.grad_logp[t] - numeric).abs() < 1e-8, "{numeric}");
        }
    }

    #[test]
    fn parts_add_up() {
        let rows = rows();
        let config = config("entropy_coefficient = 0.1\n[kl]\ncoefficient = 1.0\n");
        let whole = config.objective(&input(&rows, &NEW));
        let mut sum = ObjectiveFigures::default();
        let mut loss = 0.0;
        for row in 0..2 {
            let part = rows.part(row..row + 1);
            let at = |array: &'static [f64; 3]| &array[part.tokens.clone()];
            let all = input(&rows, &NEW);
            let objective = config.objective(&ObjectiveInput {
                policy: LossInput {
                    rows: &part.rows,
                    logp_new: at(&NEW),
                    logp_old: at(&OLD),
                    advantages: &all.policy.advantages[part.tokens.clone()],
                    weights: &all.policy.weights[part.tokens.clone()],
                },
                entropies: &all.entropies[part.tokens.clone()],
                logp_sampler: at(&SAMPLER),
                logp_ref: Some(at(&REFERENCE)),
                kl_coefficient: 0.25,
            });
            loss += objective.loss;
            sum.merge(&objective.figures);
        }
        assert!((whole.loss - loss).abs() < 1e-15);
        assert_eq!(whole.figures, sum);
    }
}
