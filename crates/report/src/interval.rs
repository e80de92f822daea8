//! Statistics for reports: intervals for one run (over its test items) and for several seeds
//! (over seeds). The two sources of noise are never mixed: an interval is over items or over
//! seeds, and the accompanying text states which.

use std::collections::HashMap;

use leyden_core::SeedTree;
use leyden_stats::{
    Interval, bootstrap_interval, mean, paired_bootstrap, student_interval, wilson_interval,
};

/// Bootstrap resamples; the error of a 95 % bound is then about 1 % of the width.
const RESAMPLES: usize = 2000;

/// Seed of the bootstrap: fixed, so that equal runs give equal reports.
fn seeds() -> SeedTree {
    SeedTree::new(0).child("report").child("bootstrap")
}

/// A mean with its 95 % interval, if one can be computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub mean: f64,
    pub interval: Option<(f64, f64)>,
    /// Number of items or seeds.
    pub n: usize,
}

fn ends(interval: Interval) -> (f64, f64) {
    (interval.low, interval.high)
}

/// Wilson's interval of a share of `n` yes/no items.
pub fn wilson(share: f64, n: usize) -> Option<(f64, f64)> {
    wilson_interval((share * n as f64).round() as usize, n).map(ends)
}

/// Interval of a mean over items: Wilson where every value is 0 or 1, bootstrap otherwise.
pub fn over_items(values: &[f64]) -> Estimate {
    let average = mean(values).unwrap_or(f64::NAN);
    let binary = values.iter().all(|value| *value == 0.0 || *value == 1.0);
    let interval = if binary {
        wilson(average, values.len())
    } else if values.len() < 2 {
        None
    } else {
        bootstrap_interval(values, RESAMPLES, seeds()).map(ends)
    };
    Estimate { mean: average, interval, n: values.len() }
}

/// Interval of a mean over seeds: Student's t, because seeds are few and a bootstrap of
/// three values is far too narrow. `None` for a single seed.
pub fn over_seeds(values: &[f64]) -> Estimate {
    let n = values.len();
    let average = mean(values).unwrap_or(f64::NAN);
    Estimate { mean: average, interval: student_interval(values).map(ends), n }
}

/// Reward per item, in order of first appearance: the mean over a task's rollouts, ignoring
/// missing rewards.
pub fn items(rewards: &[(String, Option<f64>)]) -> Vec<(&str, f64)> {
    let mut order: Vec<&str> = Vec::new();
    let mut sums: HashMap<&str, (f64, usize)> = HashMap::new();
    for (task, reward) in rewards {
        let Some(reward) = reward else { continue };
        let sum = sums.entry(task).or_insert_with(|| {
            order.push(task);
            (0.0, 0)
        });
        sum.0 += reward;
        sum.1 += 1;
    }
    order.into_iter().map(|task| (task, sums[task].0 / sums[task].1 as f64)).collect()
}

/// Change of the mean on the items that both evaluations scored, with the paired bootstrap
/// interval.
pub fn paired(start: &[(String, Option<f64>)], end: &[(String, Option<f64>)]) -> Option<Estimate> {
    let known: HashMap<&str, f64> = items(start).into_iter().collect();
    let (before, after): (Vec<f64>, Vec<f64>) = items(end)
        .into_iter()
        .filter_map(|(task, after)| known.get(task).map(|before| (*before, after)))
        .unzip();
    let difference = paired_bootstrap(&before, &after, RESAMPLES, seeds()).ok()?;
    Some(Estimate {
        mean: difference.mean,
        interval: (difference.items > 1).then(|| ends(difference.interval)),
        n: difference.items,
    })
}

#[cfg(test)]
mod tests {
    use leyden_stats::Z_95;

    use super::*;

    fn close(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() < tolerance, "{found} instead of {expected}");
    }

    #[test]
    fn yes_or_no_items_get_wilsons_interval_and_others_the_bootstrap() {
        // 8 of 10, by hand from Wilson's formula.
        let values: Vec<f64> = (0..10).map(|i| f64::from(u8::from(i < 8))).collect();
        let (low, high) = over_items(&values).interval.unwrap();
        close(low, 0.490_16, 1e-4);
        close(high, 0.943_32, 1e-4);
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 10) / 10.0).collect();
        let (low, high) = over_items(&values).interval.unwrap();
        let half = Z_95 * (0.0825f64 / 400.0).sqrt();
        close(low, 0.45 - half, 0.004);
        close(high, 0.45 + half, 0.004);
        assert_eq!(over_items(&[0.3]).interval, None);
    }

    #[test]
    fn seeds_use_students_t() {
        let estimate = over_seeds(&[0.8, 0.82, 0.84]);
        let (low, high) = estimate.interval.unwrap();
        close(high - low, 2.0 * 4.302_652_73 * 0.02 / 3f64.sqrt(), 1e-9);
        assert_eq!(over_seeds(&[0.8]).interval, None);
    }

    #[test]
    fn pairs_meet_by_task_and_missing_rewards_are_left_out() {
        let row = |id: &str, reward| (id.to_owned(), reward);
        let start = [row("a", Some(0.0)), row("b", None), row("c", Some(1.0)), row("d", Some(0.0))];
        let end =
            [row("c", Some(1.0)), row("a", Some(1.0)), row("b", Some(1.0)), row("e", Some(0.0))];
        let change = paired(&start, &end).unwrap();
        assert_eq!((change.mean, change.n), (0.5, 2));
        assert!(paired(&start[1..2], &end).is_none());
        let twice = [row("a", Some(0.0)), row("a", Some(1.0)), row("b", None)];
        assert_eq!(items(&twice), vec![("a", 0.5)]);
    }
}
