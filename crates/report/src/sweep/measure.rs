//! Measures of one run.

use leyden_core::record::StepRecord;
use leyden_stats::{area_under_curve, quantile, steps_to_threshold};

use crate::run::Run;

/// The measures of one finished run that enter the statistics.
#[derive(Debug, Clone, PartialEq)]
pub struct Measures {
    /// Mean test reward of the last evaluation.
    pub final_reward: f64,
    /// The step of that evaluation.
    pub last_step: u64,
    /// Mean level of the curve of test reward, from its first to its last evaluation.
    pub area: f64,
    /// Test reward by step.
    pub curve: Vec<(f64, f64)>,
    pub cost: Cost,
}

/// Cost of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    pub rollouts: f64,
    /// Tokens of all responses in training.
    pub generated: f64,
    /// Tokens processed by the trainer, prefixes merged.
    pub trained: f64,
    /// Tokens that carried a gradient.
    pub learned: f64,
    /// Seconds of the training steps: their median times their number, so that interruptions of
    /// the machine do not count. NaN if no timings were kept.
    pub seconds: f64,
    /// Seconds of the evaluations, likewise.
    pub evaluation_seconds: f64,
}

impl Measures {
    /// The measures of a run in an evaluation mode; `None` if no evaluation has a reward.
    pub fn of(run: &Run, mode: &str) -> Option<Self> {
        let curve: Vec<(f64, f64)> = run
            .evals(mode)
            .filter(|eval| eval.without_reward < eval.tasks && eval.reward_mean.is_finite())
            .map(|eval| (eval.step as f64, eval.reward_mean))
            .collect();
        let last = *curve.last()?;
        Some(Self {
            final_reward: last.1,
            last_step: last.0 as u64,
            area: area_under_curve(&curve)?,
            curve,
            cost: Cost::of(run),
        })
    }

    /// The step at which the curve first reaches `threshold`, if it does.
    pub fn steps_to(&self, threshold: f64) -> Option<f64> {
        steps_to_threshold(&self.curve, threshold)
    }
}

impl Cost {
    /// The cost of a run's training so far.
    pub fn of(run: &Run) -> Self {
        let sum = |figure: &dyn Fn(&StepRecord) -> f64| run.steps.iter().map(figure).sum::<f64>();
        let seconds = |phase: &str| {
            let timings = run.timings.iter().filter(|timing| timing.phase == phase);
            let mut each: Vec<f64> = timings.map(|t| t.seconds.values().sum()).collect();
            each.sort_by(f64::total_cmp);
            quantile(&each, 0.5).unwrap_or(0.0) * each.len() as f64
        };
        let known = !run.timings.is_empty();
        Self {
            rollouts: sum(&|step| step.rollouts as f64),
            generated: sum(&|step| (step.calls as f64 * step.response_length).round()),
            trained: sum(&|step| step.packed_tokens as f64),
            learned: sum(&|step| step.action_tokens as f64),
            seconds: if known { seconds("step") } else { f64::NAN },
            evaluation_seconds: if known { seconds("eval") } else { f64::NAN },
        }
    }

    /// The fields as one array, for means over runs.
    fn figures(&self) -> [f64; 6] {
        let Self { rollouts, generated, trained, learned, seconds, evaluation_seconds } = *self;
        [rollouts, generated, trained, learned, seconds, evaluation_seconds]
    }

    /// The mean cost of several runs; `None` for an empty slice.
    pub fn mean(costs: &[Self]) -> Option<Self> {
        let n = costs.len() as f64;
        let mut sums = [0.0; 6];
        for cost in costs {
            sums.iter_mut().zip(cost.figures()).for_each(|(sum, figure)| *sum += figure);
        }
        let [rollouts, generated, trained, learned, seconds, evaluation_seconds] =
            sums.map(|sum| sum / n);
        (!costs.is_empty()).then_some(Self {
            rollouts,
            generated,
            trained,
            learned,
            seconds,
            evaluation_seconds,
        })
    }
}
