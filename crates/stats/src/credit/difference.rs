//! The difference of two rules' correlations with the truth.

use leyden_core::SeedTree;
use rayon::prelude::*;
use serde::Serialize;

use super::calls::CreditedCall;
use super::moments::{FEWEST_TASKS, Moments, by_task, interval, resample, total};
use crate::interval::Interval;

/// A difference of correlations with the truth without its noise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CorrelationDifference {
    pub difference: f64,
    /// `None` with fewer than [`FEWEST_TASKS`] tasks.
    pub interval: Option<Interval>,
}

impl CorrelationDifference {
    /// Whether the interval excludes 0.
    pub fn is_significant(&self) -> bool {
        self.interval.is_some_and(|interval| !interval.contains(0.0))
    }
}

/// How much higher than that of `other` the correlation of `rule` is, both corrected for the noise
/// of the truth. The interval at 95 % is paired: a resample has the same tasks on both sides, so
/// what the rules have in common cancels, and two rules whose own intervals overlap may differ.
/// `None` if one of the correlations is undefined.
///
/// # Panics
/// If the two sides are not the same calls in the same order.
pub fn correlation_difference(
    rule: &[CreditedCall],
    other: &[CreditedCall],
    resamples: usize,
    seeds: SeedTree,
) -> Option<CorrelationDifference> {
    let same = |(a, b): (&CreditedCall, &CreditedCall)| a.task == b.task && a.truth == b.truth;
    assert!(
        rule.len() == other.len() && rule.iter().zip(other).all(same),
        "both rules must have credited the same calls"
    );
    let [rule, other] = [rule, other].map(|calls| by_task(&calls.iter().collect::<Vec<_>>()).0);
    let tasks = rule.len();
    let corrected = |sums: &[_], chosen: &[usize]| {
        let moments = total(sums, chosen.iter().copied()).moments();
        moments.as_ref().and_then(Moments::corrected)
    };
    let difference =
        |chosen: &[usize]| Some(corrected(&rule, chosen)? - corrected(&other, chosen)?);
    let found = difference(&(0..tasks).collect::<Vec<_>>())?;
    let resamples = if tasks < FEWEST_TASKS { 0 } else { resamples as u64 };
    let resampled: Vec<Option<f64>> = (0..resamples)
        .into_par_iter()
        .map(|k| difference(&resample(tasks, seeds.index(k)).collect::<Vec<_>>()))
        .collect();
    let interval = interval(Some(found), &resampled, tasks);
    Some(CorrelationDifference { difference: found, interval })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credit::agreement;

    /// Twenty tasks of two calls; the credit is the truth plus `noise`, which alternates.
    fn calls(noise: f64) -> Vec<CreditedCall> {
        let call = |number: usize| {
            let truth = ((number * 7) % 11) as f64 - 5.0;
            let sign = if (number / 2).is_multiple_of(2) { 1.0 } else { -1.0 };
            CreditedCall {
                task: number / 2,
                rollout: number / 2,
                position: number % 2,
                label: String::new(),
                truth,
                noise: 0.5,
                credit: truth + sign * noise,
            }
        };
        (0..40).map(call).collect()
    }

    fn of(rule: &[CreditedCall], other: &[CreditedCall]) -> Option<CorrelationDifference> {
        correlation_difference(rule, other, 400, SeedTree::new(1))
    }

    #[test]
    fn the_difference_is_that_of_the_corrected_correlations() {
        let (better, worse) = (calls(1.0), calls(3.0));
        let found = of(&better, &worse).unwrap();
        let corrected = |calls: &[CreditedCall]| {
            agreement(calls, 0, SeedTree::new(1)).unwrap().overall.corrected.unwrap()
        };
        assert!((found.difference - (corrected(&better) - corrected(&worse))).abs() < 1e-12);
        assert!(found.difference > 0.1 && found.is_significant(), "{found:?}");
        let opposite = of(&worse, &better).unwrap();
        assert_eq!(opposite.difference, -found.difference);
        assert_eq!(of(&better, &worse), Some(found));
    }

    #[test]
    fn a_rule_does_not_differ_from_itself_in_another_unit() {
        let twice: Vec<CreditedCall> = calls(1.0)
            .into_iter()
            .map(|own| CreditedCall { credit: 2.0 * own.credit, ..own })
            .collect();
        let found = of(&twice, &calls(1.0)).unwrap();
        assert_eq!(found.difference, 0.0);
        assert_eq!(found.interval, Some(Interval { low: 0.0, high: 0.0 }));
        assert!(!found.is_significant());
    }

    #[test]
    fn undefined_correlations_have_no_difference() {
        let constant: Vec<CreditedCall> =
            calls(0.0).into_iter().map(|own| CreditedCall { credit: 1.0, ..own }).collect();
        assert_eq!(of(&constant, &calls(1.0)), None);
        let few = of(&calls(1.0)[..6], &calls(3.0)[..6]).unwrap();
        assert_eq!(few.interval, None, "three tasks are too few");
    }

    #[test]
    #[should_panic(expected = "the same calls")]
    fn other_calls_cannot_be_compared() {
        of(&calls(1.0), &calls(1.0)[2..]);
    }
}
