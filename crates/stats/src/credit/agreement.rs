//! Agreement of one rule's credit with the truth: over all calls, by position and by label.

use std::collections::BTreeMap;

use leyden_core::SeedTree;
use rayon::prelude::*;
use serde::Serialize;

use super::calls::CreditedCall;
use super::moments::{FEWEST_TASKS, Moments, by_task, interval, resample, total};
use crate::interval::{Interval, Z_95};

/// Why the agreement cannot be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AgreementError {
    #[error("no call has a true advantage: measure more rollouts or more states")]
    Empty,
    #[error("call {call}: {what} is {value}, which is not a finite number")]
    NotFinite { call: usize, what: &'static str, value: f64 },
    #[error("call {call}: the variance of the truth's noise is {value}, which is negative")]
    Noise { call: usize, value: f64 },
}

/// Mean and variance of credit less true advantage; the noise of the estimated truth is subtracted
/// from the variance, which may therefore be slightly negative.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Deviation {
    pub bias: f64,
    pub variance: f64,
}

/// Agreement over some calls of a rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    pub calls: usize,
    pub tasks: usize,
    /// Pearson's correlation of credit and estimated truth; `None` if one of them is constant.
    pub correlation: Option<f64>,
    /// `None` with fewer than [`FEWEST_TASKS`] tasks, as are all intervals.
    pub correlation_interval: Option<Interval>,
    /// Correlation with the truth without its noise, not clamped to [−1, 1]; `None` if the
    /// truth differs by no more than its noise.
    pub corrected: Option<f64>,
    pub corrected_interval: Option<Interval>,
    /// Share of the estimated truth's variance that is not noise.
    pub reliability: Option<f64>,
    /// Slope of the truth's linear regression on credit, with intercept; `None` if credit is
    /// constant.
    pub slope: Option<f64>,
    /// Of the credit itself; `None` for a single call.
    pub deviation: Option<Deviation>,
    /// Of the credit times [`RuleAgreement::scale`].
    pub scaled: Option<Deviation>,
    /// Calls whose truth is at least 1.96 standard errors from 0.
    pub certain: usize,
    /// Share of them whose credit has the sign of the truth; credit of 0 has no sign. `None`
    /// without such calls.
    pub same_sign: Option<f64>,
}

/// Agreement of a rule's credit with the truth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleAgreement {
    /// The factor a of least `Σ (a c − Â)²` over all calls; negative if the credit points the other
    /// way, `None` if all credit is 0.
    pub scale: Option<f64>,
    pub overall: Agreement,
    /// By the index of the call in its rollout.
    pub by_position: BTreeMap<usize, Agreement>,
    /// By the task's label, without tasks that have none.
    pub by_label: BTreeMap<String, Agreement>,
}

/// Compares a rule's credit with the true advantages of the same calls. Intervals are at 95 %, from
/// `resamples` resamples of tasks; rules that are given equal seeds and the same calls are resampled
/// alike.
///
/// # Errors
/// No calls; a number that is not finite; a negative noise variance.
///
/// ```
/// use leyden_core::SeedTree;
/// use leyden_stats::credit::{CreditedCall, agreement};
///
/// // The credit is twice the advantage, plus a tenth.
/// let call = |task: usize, truth: f64| CreditedCall {
///     task,
///     rollout: task,
///     position: 0,
///     label: String::new(),
///     truth,
///     noise: 0.0,
///     credit: 2.0 * truth + 0.1,
/// };
/// let calls = [call(0, 0.5), call(1, -0.25), call(2, -0.25)];
/// let found = agreement(&calls, 100, SeedTree::new(1)).unwrap().overall;
/// assert_eq!((found.correlation, found.slope), (Some(1.0), Some(0.5)));
/// assert!((found.deviation.unwrap().bias - 0.1).abs() < 1e-12);
/// ```
pub fn agreement(
    calls: &[CreditedCall],
    resamples: usize,
    seeds: SeedTree,
) -> Result<RuleAgreement, AgreementError> {
    check(calls)?;
    let scale = scale(calls);
    let mut positions: BTreeMap<usize, Vec<&CreditedCall>> = BTreeMap::new();
    let mut labels: BTreeMap<String, Vec<&CreditedCall>> = BTreeMap::new();
    for call in calls {
        positions.entry(call.position).or_default().push(call);
        if !call.label.is_empty() {
            labels.entry(call.label.clone()).or_default().push(call);
        }
    }
    let of = |calls: &[&CreditedCall], seeds| part(calls, scale, resamples, seeds);
    let (by_position, by_label) = (seeds.child("position"), seeds.child("label"));
    Ok(RuleAgreement {
        scale,
        overall: of(&calls.iter().collect::<Vec<_>>(), seeds.child("overall")),
        by_position: positions
            .into_iter()
            .map(|(position, calls)| (position, of(&calls, by_position.index(position as u64))))
            .collect(),
        by_label: labels
            .into_iter()
            .map(|(label, calls)| {
                let found = of(&calls, by_label.child(&label));
                (label, found)
            })
            .collect(),
    })
}

fn check(calls: &[CreditedCall]) -> Result<(), AgreementError> {
    if calls.is_empty() {
        return Err(AgreementError::Empty);
    }
    for (call, own) in calls.iter().enumerate() {
        let numbers =
            [("the credit", own.credit), ("the truth", own.truth), ("the noise", own.noise)];
        for (what, value) in numbers {
            if !value.is_finite() {
                return Err(AgreementError::NotFinite { call, what, value });
            }
        }
        if own.noise < 0.0 {
            return Err(AgreementError::Noise { call, value: own.noise });
        }
    }
    Ok(())
}

fn scale(calls: &[CreditedCall]) -> Option<f64> {
    let squares: f64 = calls.iter().map(|call| call.credit * call.credit).sum();
    let products: f64 = calls.iter().map(|call| call.credit * call.truth).sum();
    (squares > 0.0).then(|| products / squares)
}

/// The agreement over `calls`, of which there is at least one.
fn part(
    calls: &[&CreditedCall],
    scale: Option<f64>,
    resamples: usize,
    seeds: SeedTree,
) -> Agreement {
    let (tasks, centre) = by_task(calls);
    let moments = total(&tasks, 0..tasks.len()).moments();
    let of = |statistic: fn(&Moments) -> Option<f64>| moments.as_ref().and_then(statistic);
    let (correlation, corrected) = (of(Moments::correlation), of(Moments::corrected));
    let both = |k: u64| {
        let moments = total(&tasks, resample(tasks.len(), seeds.index(k))).moments();
        let of = |statistic: fn(&Moments) -> Option<f64>| moments.as_ref().and_then(statistic);
        (of(Moments::correlation), of(Moments::corrected))
    };
    // Too few tasks have no interval.
    let resamples = if tasks.len() < FEWEST_TASKS { 0 } else { resamples as u64 };
    let (raw, without_noise): (Vec<_>, Vec<_>) = (0..resamples).into_par_iter().map(both).unzip();
    let clamped = |own: Interval| Interval { low: own.low.max(-1.0), high: own.high.min(1.0) };
    let deviation = |scale: f64| {
        let bias = scale * centre.0 - centre.1;
        moments.map(|moments| Deviation { bias, variance: moments.deviation(scale) })
    };
    let certain = calls.iter().filter(|call| call.truth.abs() > Z_95 * call.noise.sqrt());
    let agrees = |call: &&&CreditedCall| call.credit * call.truth > 0.0;
    let (certain, same) = (certain.clone().count(), certain.filter(agrees).count());
    Agreement {
        calls: calls.len(),
        tasks: tasks.len(),
        correlation,
        correlation_interval: interval(correlation, &raw, tasks.len()).map(clamped),
        corrected,
        corrected_interval: interval(corrected, &without_noise, tasks.len()),
        reliability: of(Moments::reliability),
        slope: of(Moments::slope),
        deviation: deviation(1.0),
        scaled: scale.and_then(deviation),
        certain,
        same_sign: (certain > 0).then(|| same as f64 / certain as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn call(task: usize, truth: f64, credit: f64) -> CreditedCall {
        let label = if task.is_multiple_of(2) { "even" } else { "" }.to_owned();
        CreditedCall { task, rollout: task, position: 0, label, truth, noise: 0.0, credit }
    }

    fn of(calls: &[CreditedCall]) -> RuleAgreement {
        agreement(calls, 200, SeedTree::new(1)).unwrap()
    }

    fn close(ours: f64, expected: f64) {
        assert!((ours - expected).abs() < 1e-12, "{ours} instead of {expected}");
    }

    /// Truths 2, 0, −2 with credit 1, 1, −2: by hand.
    fn by_hand() -> Vec<CreditedCall> {
        vec![call(0, 2.0, 1.0), call(1, 0.0, 1.0), call(2, -2.0, -2.0)]
    }

    #[test]
    fn numbers_by_hand() {
        let found = of(&by_hand());
        // Σc² = 6, ΣcÂ = 6; both means are 0; covariance 3, variances 3 and 4.
        close(found.scale.unwrap(), 1.0);
        let overall = &found.overall;
        assert_eq!((overall.calls, overall.tasks), (3, 3));
        close(overall.correlation.unwrap(), 3.0 / 12f64.sqrt());
        close(overall.corrected.unwrap(), 3.0 / 12f64.sqrt());
        close(overall.slope.unwrap(), 1.0);
        let deviation = overall.deviation.unwrap();
        // The differences are −1, 1, 0.
        close(deviation.bias, 0.0);
        close(deviation.variance, 1.0);
        assert_eq!(overall.scaled, overall.deviation);
        assert_eq!((overall.certain, overall.same_sign), (2, Some(1.0)));
        assert_eq!(overall.correlation_interval, None, "three tasks are too few");
        let even = &found.by_label["even"];
        assert_eq!((found.by_label.len(), even.calls), (1, 2));
        close(even.correlation.unwrap(), 1.0);
    }

    #[test]
    fn noise_is_subtracted_from_the_truth_s_variance() {
        let mut calls = by_hand();
        for own in &mut calls {
            own.noise = 1.0;
        }
        let overall = of(&calls).overall;
        close(overall.correlation.unwrap(), 3.0 / 12f64.sqrt());
        // Of the truth's variance of 4 one quarter is noise.
        close(overall.reliability.unwrap(), 0.75);
        close(overall.corrected.unwrap(), 1.0);
        close(overall.deviation.unwrap().variance, 0.0);
        // 2 is more than 1.96 standard errors from 0.
        assert_eq!(overall.certain, 2);
        calls.iter_mut().for_each(|own| own.noise = 4.0);
        let drowned = of(&calls).overall;
        assert_eq!((drowned.corrected, drowned.reliability), (None, Some(0.0)));
        assert_eq!((drowned.certain, drowned.same_sign), (0, None));
    }

    #[test]
    fn the_scale_is_common_to_all_positions() {
        let mut calls = by_hand();
        calls.extend(by_hand().into_iter().map(|own| CreditedCall {
            position: 1,
            credit: 2.0 + own.truth,
            ..own
        }));
        let found = of(&calls);
        // Σc² = 6 + 16 + 4 + 0; ΣcÂ = 6 + 8 + 0.
        let scale = 14.0 / 26.0;
        close(found.scale.unwrap(), scale);
        let second = &found.by_position[&1];
        close(second.deviation.unwrap().bias, 2.0);
        close(second.deviation.unwrap().variance, 0.0);
        close(second.scaled.unwrap().bias, 2.0 * scale);
        close(second.scaled.unwrap().variance, 4.0 * (1.0 - scale) * (1.0 - scale));
        // Credit 4, 2, 0 for truths 2, 0, −2: one of the two signs.
        assert_eq!(second.same_sign, Some(0.5));
    }

    #[test]
    fn constant_credit_has_no_correlation() {
        let constant: Vec<_> =
            by_hand().into_iter().map(|own| CreditedCall { credit: 0.1, ..own }).collect();
        let overall = of(&constant).overall;
        assert_eq!((overall.correlation, overall.corrected, overall.slope), (None, None, None));
        close(overall.deviation.unwrap().variance, 4.0);
        let zero: Vec<_> =
            by_hand().into_iter().map(|own| CreditedCall { credit: 0.0, ..own }).collect();
        let found = of(&zero);
        assert_eq!((found.scale, found.overall.scaled), (None, None));
        assert_eq!(found.overall.same_sign, Some(0.0));
        let single = of(&by_hand()[..1]).overall;
        assert_eq!((single.correlation, single.deviation), (None, None));
    }

    #[test]
    fn invalid_numbers_are_rejected() {
        assert_eq!(agreement(&[], 10, SeedTree::new(1)), Err(AgreementError::Empty));
        let mut calls = by_hand();
        calls[1].credit = f64::INFINITY;
        let error = agreement(&calls, 10, SeedTree::new(1)).unwrap_err().to_string();
        assert_eq!(error, "call 1: the credit is inf, which is not a finite number");
        calls[1].credit = 0.0;
        calls[2].noise = -1.0;
        let error = agreement(&calls, 10, SeedTree::new(1)).unwrap_err();
        assert_eq!(error, AgreementError::Noise { call: 2, value: -1.0 });
    }

    fn some_calls() -> impl Strategy<Value = Vec<CreditedCall>> {
        let number = || (-40i32..40).prop_map(|x| f64::from(x) / 16.0);
        let one = (0usize..8, 0usize..3, number(), number(), 0u32..4).prop_map(
            |(task, position, truth, credit, noise)| CreditedCall {
                position,
                noise: f64::from(noise) / 64.0,
                ..call(task, truth, credit)
            },
        );
        proptest::collection::vec(one, 1..40)
    }

    proptest! {
        #[test]
        fn bounds_and_counts_hold(calls in some_calls()) {
            let found = of(&calls);
            let parts = found.by_position.values();
            prop_assert_eq!(parts.map(|part| part.calls).sum::<usize>(), calls.len());
            for part in std::iter::once(&found.overall).chain(found.by_position.values()) {
                prop_assert!(part.correlation.is_none_or(|r| (-1.0..=1.0).contains(&r)));
                prop_assert!(part.reliability.is_none_or(|r| (0.0..=1.0).contains(&r)));
                prop_assert!(part.same_sign.is_none_or(|s| (0.0..=1.0).contains(&s)));
                if let (Some(raw), Some(corrected)) = (part.correlation, part.corrected) {
                    prop_assert!(corrected.abs() >= raw.abs() - 1e-9, "{raw} {corrected}");
                }
                if let (Some(r), Some(own)) = (part.correlation, part.correlation_interval) {
                    prop_assert!(own.contains(r) && own.low >= -1.0 && own.high <= 1.0);
                }
            }
            prop_assert_eq!(of(&calls), found);
        }

        #[test]
        fn a_rule_s_unit_does_not_matter(calls in some_calls(), doublings in -3i32..4) {
            let unit = 2f64.powi(doublings);
            let other: Vec<CreditedCall> = calls
                .iter()
                .map(|own| CreditedCall { credit: unit * own.credit, ..own.clone() })
                .collect();
            let (one, two) = (of(&calls), of(&other));
            let (a, b) = (&one.overall, &two.overall);
            prop_assert_eq!(a.correlation, b.correlation);
            prop_assert_eq!(a.corrected_interval, b.corrected_interval);
            prop_assert_eq!(a.scaled, b.scaled);
            prop_assert_eq!(a.same_sign, b.same_sign);
            prop_assert_eq!(one.scale, two.scale.map(|scale| scale * unit));
        }

        #[test]
        fn the_order_of_calls_does_not_matter_to_the_correlation(calls in some_calls()) {
            let reversed: Vec<CreditedCall> = calls.iter().rev().cloned().collect();
            let (a, b) = (of(&calls).overall.correlation, of(&reversed).overall.correlation);
            prop_assert!(a.is_none() == b.is_none());
            prop_assert!(a.zip(b).is_none_or(|(a, b)| (a - b).abs() < 1e-9));
        }
    }
}
