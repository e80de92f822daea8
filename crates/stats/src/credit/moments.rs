//! Sums over calls, and the moments of credit and truth that follow from them.

use std::collections::BTreeMap;

use leyden_core::SeedTree;

use super::calls::CreditedCall;
use crate::interval::Interval;
use crate::numbers::{draw, mean, sample_std};
use crate::student::student_quantile;

/// Fewest tasks for an interval: of fewer the bootstrap knows too little.
pub const FEWEST_TASKS: usize = 5;

/// Largest share of resamples in which a statistic may be undefined, with an interval nevertheless.
const UNDEFINED: f64 = 0.05;

/// The sums of each task, in the order of their numbers, and the means of credit and truth, from
/// which they are measured.
pub(super) fn by_task(calls: &[&CreditedCall]) -> (Vec<Sums>, (f64, f64)) {
    let mean_of = |of: fn(&CreditedCall) -> f64| {
        let all: Vec<f64> = calls.iter().map(|call| of(call)).collect();
        mean(&all).unwrap_or_default()
    };
    let centre = (mean_of(|call| call.credit), mean_of(|call| call.truth));
    let mut tasks: BTreeMap<usize, Sums> = BTreeMap::new();
    for call in calls {
        tasks.entry(call.task).or_default().push(call, centre);
    }
    (tasks.into_values().collect(), centre)
}

/// As many numbers below `tasks`, drawn with replacement.
pub(super) fn resample(tasks: usize, seeds: SeedTree) -> impl Iterator<Item = usize> {
    (0..tasks as u64).map(move |task| draw(seeds.index(task), tasks))
}

/// The sums over some of `tasks`.
pub(super) fn total(tasks: &[Sums], chosen: impl Iterator<Item = usize>) -> Sums {
    let mut sums = Sums::default();
    chosen.for_each(|task| sums.add(&tasks[task]));
    sums
}

/// The interval of `value` from its resamples: Student's t with the standard error of the
/// bootstrap. `None` for fewer than [`FEWEST_TASKS`] tasks, and if the statistic is undefined in
/// more than a few resamples.
pub(super) fn interval(
    value: Option<f64>,
    resamples: &[Option<f64>],
    tasks: usize,
) -> Option<Interval> {
    (tasks >= FEWEST_TASKS).then_some(())?;
    let known: Vec<f64> = resamples.iter().copied().flatten().collect();
    let missing = (resamples.len() - known.len()) as f64;
    (missing <= UNDEFINED * resamples.len() as f64).then_some(())?;
    let half = student_quantile(0.975, tasks as f64 - 1.0)? * sample_std(&known)?;
    value.map(|value| Interval { low: value - half, high: value + half })
}

/// Sums over calls, of credit and truth measured from a common centre; sums of disjoint calls add
/// up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    pub calls: f64,
    pub credit: f64,
    pub truth: f64,
    pub credit_squared: f64,
    pub truth_squared: f64,
    pub product: f64,
    pub noise: f64,
}

impl Sums {
    /// Adds a call, measured from `centre` (credit, truth).
    pub fn push(&mut self, call: &CreditedCall, centre: (f64, f64)) {
        let (credit, truth) = (call.credit - centre.0, call.truth - centre.1);
        self.add(&Self {
            calls: 1.0,
            credit,
            truth,
            credit_squared: credit * credit,
            truth_squared: truth * truth,
            product: credit * truth,
            noise: call.noise,
        });
    }

    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.credit += other.credit;
        self.truth += other.truth;
        self.credit_squared += other.credit_squared;
        self.truth_squared += other.truth_squared;
        self.product += other.product;
        self.noise += other.noise;
    }

    /// The moments; `None` for fewer than two calls.
    pub fn moments(&self) -> Option<Moments> {
        (self.calls > 1.0).then_some(())?;
        let central = |product: f64, x: f64, y: f64| {
            let sum = product - x * y / self.calls;
            // A remainder of rounding is no variance.
            if sum.abs() <= 1e-13 * product.abs() { 0.0 } else { sum / (self.calls - 1.0) }
        };
        Some(Moments {
            credit: central(self.credit_squared, self.credit, self.credit).max(0.0),
            truth: central(self.truth_squared, self.truth, self.truth).max(0.0),
            covariance: central(self.product, self.credit, self.truth),
            noise: self.noise / self.calls,
        })
    }
}

/// Sample variances and covariance with divisor n − 1, and the mean variance of the truth's noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moments {
    pub credit: f64,
    pub truth: f64,
    pub covariance: f64,
    pub noise: f64,
}

impl Moments {
    /// Pearson's correlation; `None` if credit or truth is constant.
    pub fn correlation(&self) -> Option<f64> {
        let product = self.credit * self.truth;
        (product > 0.0).then(|| (self.covariance / product.sqrt()).clamp(-1.0, 1.0))
    }

    /// The correlation with the truth without its noise. Not clamped, so beyond ±1 for few calls;
    /// `None` if credit is constant or the truth differs by no more than its noise.
    pub fn corrected(&self) -> Option<f64> {
        let product = self.credit * (self.truth - self.noise);
        (product > 0.0).then(|| self.covariance / product.sqrt())
    }

    /// Share of the truth's variance that is not noise, at least 0; `None` if it is constant.
    pub fn reliability(&self) -> Option<f64> {
        (self.truth > 0.0).then(|| (1.0 - self.noise / self.truth).max(0.0))
    }

    /// Slope of the truth's regression on credit; `None` if credit is constant.
    pub fn slope(&self) -> Option<f64> {
        (self.credit > 0.0).then(|| self.covariance / self.credit)
    }

    /// Variance of `scale × credit − truth`, without the truth's noise.
    pub fn deviation(&self, scale: f64) -> f64 {
        scale * scale * self.credit - 2.0 * scale * self.covariance + self.truth - self.noise
    }
}
