//! What a run has spent.

use leyden_core::record::{StepRecord, Timing};
use leyden_stats::quantile;

use crate::run::Run;

/// Cost of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    pub rollouts: f64,
    /// Tokens generated in training: all responses, and the completions that credit rules ask for.
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

impl Cost {
    /// The cost of a run's training so far.
    pub fn of(run: &Run) -> Self {
        let sum = |figure: &dyn Fn(&StepRecord) -> f64| run.steps.iter().map(figure).sum::<f64>();
        let seconds = |phase: &str| {
            let timings = run.timings.iter().filter(|timing| timing.phase == phase);
            let mut each: Vec<f64> = timings.map(total).collect();
            each.sort_by(f64::total_cmp);
            quantile(&each, 0.5).unwrap_or(0.0) * each.len() as f64
        };
        let known = !run.timings.is_empty();
        Self {
            rollouts: sum(&|step| step.rollouts as f64),
            generated: sum(&generated),
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

/// The metric of a step with the tokens generated only for credit: of completions from the states
/// of its rollouts, which are not among its calls.
const COMPLETION_TOKENS: &str = "completion_tokens";

/// Tokens generated in a step.
fn generated(step: &StepRecord) -> f64 {
    let completions = step.extra.get(COMPLETION_TOKENS).copied().unwrap_or(0.0);
    (step.calls as f64 * step.response_length).round() + completions
}

fn total(timing: &Timing) -> f64 {
    timing.seconds.values().sum()
}

/// Cumulative tokens and seconds of a run, by training step.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Spending {
    tokens: Vec<(f64, f64)>,
    /// `None` if the run has steps without timings.
    seconds: Option<Vec<(f64, f64)>>,
}

impl Spending {
    pub(super) fn of(run: &Run) -> Self {
        let timings = || run.timings.iter().filter(|timing| timing.phase == "step");
        let timed = |step: &StepRecord| timings().any(|timing| timing.step == step.step);
        // The first and the last step suffice: timings are written with their steps.
        let complete = run.steps.first().into_iter().chain(run.steps.last()).all(timed);
        let seconds = || cumulative(timings().map(|t| (t.step as f64, total(t))).collect());
        Self {
            tokens: cumulative(run.steps.iter().map(|s| (s.step as f64, generated(s))).collect()),
            seconds: complete.then(seconds),
        }
    }

    /// Of a cell that failed before its first step.
    pub(super) fn nothing() -> Self {
        Self { tokens: Vec::new(), seconds: Some(Vec::new()) }
    }

    /// Tokens generated up to and including a step.
    pub(super) fn tokens(&self, step: f64) -> f64 {
        up_to(&self.tokens, step)
    }

    /// Seconds of training up to and including a step, if they are known.
    pub(super) fn seconds(&self, step: f64) -> Option<f64> {
        self.seconds.as_ref().map(|seconds| up_to(seconds, step))
    }
}

fn cumulative(mut by_step: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    by_step.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut sum = 0.0;
    for (_, value) in &mut by_step {
        sum += *value;
        *value = sum;
    }
    by_step
}

fn up_to(sums: &[(f64, f64)], step: f64) -> f64 {
    let count = sums.partition_point(|(at, _)| *at <= step);
    count.checked_sub(1).map_or(0.0, |last| sums[last].1)
}
