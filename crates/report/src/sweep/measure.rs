//! Measures of one cell that ended.

use leyden_stats::{carried_area, steps_to_threshold};
use leyden_sweep::FailedCells;

use super::cost::{Cost, Spending};
use crate::run::Run;

/// How a cell ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// At the last step of its configuration.
    Complete,
    /// Before that, without an error.
    Early,
    Failed,
}

impl Ending {
    /// The ending in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Early => "early",
            Self::Failed => "failed",
        }
    }
}

/// The measures of one cell that ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Measures {
    pub ending: Ending,
    /// Mean test reward of the last evaluation; of a failed cell as the sweep file says.
    pub final_reward: f64,
    /// The step of the last evaluation; `None` for a failed cell without one.
    pub last_step: Option<u64>,
    /// Mean level of the curve of test reward, from its first evaluation to the last step of the
    /// sweep.
    pub area: f64,
    /// Measured test reward by step.
    pub curve: Vec<(f64, f64)>,
    pub cost: Cost,
    spending: Spending,
    /// The step from which the reward counts as 0.
    zero_after: Option<f64>,
}

/// Mean test reward by step in an evaluation mode, without evaluations that have no reward.
pub(super) fn curve(run: &Run, mode: &str) -> Vec<(f64, f64)> {
    run.evals(mode)
        .filter(|eval| eval.without_reward < eval.tasks && eval.reward_mean.is_finite())
        .map(|eval| (eval.step as f64, eval.reward_mean))
        .collect()
}

impl Measures {
    /// The measures of a cell whose curve is carried forward to the step `end`; `None` if it has
    /// no curve and has not failed, or if `end` is before its last evaluation.
    pub(super) fn of(
        run: Option<&Run>,
        curve: Vec<(f64, f64)>,
        ending: Ending,
        failed: FailedCells,
        end: f64,
    ) -> Option<Self> {
        let last = curve.last().copied();
        let cost = run.map_or_else(Cost::default, Cost::of);
        let spending = run.map_or_else(Spending::nothing, Spending::of);
        let as_zero = ending == Ending::Failed && (failed == FailedCells::Zero || last.is_none());
        let zero_after = as_zero.then(|| {
            let trained = run.and_then(|run| run.steps.last()).map_or(0.0, |s| s.step as f64);
            last.map_or(trained, |(step, _)| trained.max(step)).min(end)
        });
        let area = match last {
            Some(_) => carried_area(&curve, zero_after.unwrap_or(end), 0.0, end)?,
            None => zero_after.map(|_| 0.0)?,
        };
        Some(Self {
            ending,
            final_reward: last.filter(|_| !as_zero).map_or(0.0, |(_, reward)| reward),
            last_step: last.map(|(step, _)| step as u64),
            area,
            curve,
            cost,
            spending,
            zero_after,
        })
    }

    /// Whether the cell failed, ended early, or lost more than half of the reward that it began
    /// with: a run that goes on without learning is not the better for it.
    pub fn is_collapsed(&self) -> bool {
        let first = self.curve.first().map_or(0.0, |(_, reward)| *reward);
        self.is_cut_short() || (first > 0.0 && self.final_reward < 0.5 * first)
    }

    /// Whether the cell failed and counts with reward 0.
    pub(super) fn counts_as_zero(&self) -> bool {
        self.zero_after.is_some()
    }

    /// Whether the cell failed or ended early, so that its curve is carried forward.
    pub(super) fn is_cut_short(&self) -> bool {
        self.ending != Ending::Complete
    }

    /// The step at which the curve first reaches `threshold`, if it does.
    pub fn steps_to(&self, threshold: f64) -> Option<f64> {
        steps_to_threshold(&self.curve, threshold)
    }

    /// The reward after a step: that of the latest evaluation, carried forward beyond the last
    /// one; 0 before the first.
    pub(super) fn reward_at(&self, step: f64) -> f64 {
        if self.zero_after.is_some_and(|failure| step > failure) {
            return 0.0;
        }
        let evaluated = self.curve.iter().take_while(|(at, _)| *at <= step).last();
        evaluated.map_or(0.0, |(_, reward)| *reward)
    }

    /// Tokens generated up to a step.
    pub(super) fn tokens_at(&self, step: f64) -> f64 {
        self.spending.tokens(step)
    }

    /// Seconds of training up to a step, if all were recorded.
    pub(super) fn seconds_at(&self, step: f64) -> Option<f64> {
        self.spending.seconds(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_collapses_by_its_end_or_by_its_reward() {
        let of = |curve: &[(f64, f64)], ending| {
            let failed = FailedCells::default();
            Measures::of(None, curve.to_vec(), ending, failed, 100.0).unwrap().is_collapsed()
        };
        let (rises, falls) = ([(0.0, 0.1), (100.0, 0.5)], [(0.0, 0.1), (100.0, 0.04)]);
        assert!(!of(&rises, Ending::Complete) && of(&falls, Ending::Complete));
        assert!(of(&rises[..1], Ending::Early) && of(&rises, Ending::Failed));
        // One that never had a reward has lost none.
        assert!(!of(&[(0.0, 0.0), (100.0, 0.0)], Ending::Complete));
    }
}
