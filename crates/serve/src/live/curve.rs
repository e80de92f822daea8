//! A curve of bounded size, independent of the run's length.
//!
//! A point covers one step until there are [`MOST_POINTS`]; then neighbours are merged in pairs,
//! and from there on a point covers twice as many steps. Every point keeps the mean, minimum and
//! maximum of its steps, so nothing is lost: a collapse of one step remains visible as the lower
//! edge of its point. Opening the page after a million steps transfers as much as after a
//! thousand.

use leyden_core::record::{EvalRecord, StepRecord};
use serde::Serialize;

/// Maximum points per curve; about the number of columns of a screen.
pub const MOST_POINTS: usize = 1024;

/// One or several neighbouring steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Point {
    /// First and last step that the point covers.
    pub from: u64,
    pub to: u64,
    /// Number of records in it.
    pub n: u64,
    /// Mean, minimum and maximum reward of its records. Absent if none had a reward.
    pub reward: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// Number of rollouts, and of those without a reward.
    pub rollouts: u64,
    pub missing: u64,
    /// Over the whole step, including the update. Absent if the time is unknown.
    pub tokens_per_second: Option<f64>,
    pub rollouts_per_second: Option<f64>,
}

impl Point {
    /// The point of a training step; `seconds` is its duration, if known.
    pub fn of_step(step: &StepRecord, seconds: Option<f64>) -> Self {
        let rewarded = step.rollouts > step.rollouts_without_reward;
        let reward = (rewarded && step.reward_mean.is_finite()).then_some(step.reward_mean);
        let rate = |count: f64| {
            let seconds = seconds.filter(|s| *s > 0.0)?;
            (count > 0.0 && count.is_finite()).then_some(count / seconds)
        };
        Self {
            from: step.step,
            to: step.step,
            n: 1,
            reward,
            low: reward,
            high: reward,
            rollouts: step.rollouts as u64,
            missing: step.rollouts_without_reward as u64,
            tokens_per_second: rate(step.calls as f64 * step.response_length),
            rollouts_per_second: rate(step.rollouts as f64),
        }
    }

    /// The point of an evaluation.
    pub fn of_eval(eval: &EvalRecord) -> Self {
        let rewarded = eval.tasks > eval.without_reward;
        let reward = (rewarded && eval.reward_mean.is_finite()).then_some(eval.reward_mean);
        Self {
            from: eval.step,
            to: eval.step,
            n: 1,
            reward,
            low: reward,
            high: reward,
            rollouts: eval.tasks as u64,
            missing: eval.without_reward as u64,
            ..Self::default()
        }
    }

    /// Merges the record that follows.
    fn merge(&mut self, next: &Self) {
        let mean = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => {
                let (n, m) = (self.n as f64, next.n as f64);
                Some((a * n + b * m) / (n + m))
            }
            (a, b) => a.or(b),
        };
        let either = |a: Option<f64>, b: Option<f64>, choose: fn(f64, f64) -> f64| match (a, b) {
            (Some(a), Some(b)) => Some(choose(a, b)),
            (a, b) => a.or(b),
        };
        *self = Self {
            from: self.from.min(next.from),
            to: self.to.max(next.to),
            n: self.n + next.n,
            reward: mean(self.reward, next.reward),
            low: either(self.low, next.low, f64::min),
            high: either(self.high, next.high, f64::max),
            rollouts: self.rollouts + next.rollouts,
            missing: self.missing + next.missing,
            tokens_per_second: mean(self.tokens_per_second, next.tokens_per_second),
            rollouts_per_second: mean(self.rollouts_per_second, next.rollouts_per_second),
        };
    }
}

/// Points in step order. The page extends it by the same rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// Records per point before the next one begins.
    pub width: u64,
    pub points: Vec<Point>,
}

impl Default for Curve {
    fn default() -> Self {
        Self { width: 1, points: Vec::new() }
    }
}

impl Curve {
    /// Adds the point of one record.
    pub fn push(&mut self, point: Point) {
        match self.points.last_mut() {
            Some(last) if last.n < self.width => last.merge(&point),
            _ => self.points.push(point),
        }
        if self.points.len() > MOST_POINTS {
            self.halve();
        }
    }

    fn halve(&mut self) {
        let mut halved = Vec::with_capacity(self.points.len() / 2 + 1);
        for pair in self.points.chunks(2) {
            let mut point = pair[0].clone();
            if let Some(second) = pair.get(1) {
                point.merge(second);
            }
            halved.push(point);
        }
        self.points = halved;
        self.width *= 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(step: u64, reward: Option<f64>) -> Point {
        Point {
            from: step,
            to: step,
            n: 1,
            reward,
            low: reward,
            high: reward,
            rollouts: 4,
            missing: u64::from(reward.is_none()),
            ..Point::default()
        }
    }

    proptest! {
        #[test]
        fn no_step_is_lost(rewards in prop::collection::vec(0.0..1.0_f64, 1..5000)) {
            let mut curve = Curve::default();
            for (step, reward) in rewards.iter().enumerate() {
                curve.push(point(step as u64, Some(*reward)));
            }
            let points = &curve.points;
            prop_assert!(points.len() <= MOST_POINTS);
            prop_assert_eq!(points[0].from, 0);
            prop_assert!(points.windows(2).all(|w| w[0].to + 1 == w[1].from));
            prop_assert_eq!(points.iter().map(|p| p.n).sum::<u64>(), rewards.len() as u64);
            prop_assert_eq!(points.iter().map(|p| p.rollouts).sum::<u64>(), 4 * rewards.len() as u64);
            for p in points {
                let own = &rewards[p.from as usize..=p.to as usize];
                let mean = own.iter().sum::<f64>() / own.len() as f64;
                prop_assert!((p.reward.unwrap() - mean).abs() < 1e-9);
                prop_assert_eq!(p.low.unwrap(), own.iter().copied().fold(f64::MAX, f64::min));
                prop_assert_eq!(p.high.unwrap(), own.iter().copied().fold(f64::MIN, f64::max));
            }
        }
    }

    #[test]
    fn a_step_without_reward_takes_nothing_from_its_neighbours() {
        let mut merged = point(1, Some(0.5));
        merged.merge(&point(2, None));
        assert_eq!((merged.reward, merged.low, merged.missing), (Some(0.5), Some(0.5), 1));
    }
}
