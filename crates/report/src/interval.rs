//! The few statistics that a report needs: intervals for one run (over its test items) and
//! for several seeds (over seeds). The two kinds of noise are never mixed: an interval is
//! over items or over seeds, and the text beside it says which.

use std::collections::HashMap;

use leyden_core::SeedTree;

/// 97.5 % quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;
/// Resamples of a bootstrap; the error of a 95 % bound is then about 1 % of the width.
const RESAMPLES: u64 = 2000;

/// A mean with its 95 % interval, where one can be given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub mean: f64,
    pub interval: Option<(f64, f64)>,
    /// Number of items or seeds behind it.
    pub n: usize,
}

/// Arithmetic mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Wilson's score interval for a share of `n` yes/no items (Wilson 1927).
pub fn wilson(share: f64, n: usize) -> Option<(f64, f64)> {
    if n == 0 {
        return None;
    }
    let n = n as f64;
    let scale = 1.0 + Z * Z / n;
    let centre = (share + Z * Z / (2.0 * n)) / scale;
    let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt() / scale;
    // At shares of exactly 0 and 1 the bound is that share; rounding must not move it.
    Some(((centre - half).clamp(0.0, share), (centre + half).clamp(share, 1.0)))
}

/// Percentile bootstrap of the mean, items resampled with replacement.
/// The draws come from the seed tree, so that equal input gives equal bytes.
pub fn bootstrap(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 2 {
        return None;
    }
    let n = values.len();
    let root = SeedTree::new(0).child("report").child("bootstrap");
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|resample| {
            let tree = root.index(resample);
            let sum: f64 = (0..n as u64)
                .map(|draw| values[((tree.index(draw).uniform() * n as f64) as usize).min(n - 1)])
                .sum();
            sum / n as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    Some((quantile(&means, 0.025), quantile(&means, 0.975)))
}

/// Interval of a mean over items: Wilson where every value is 0 or 1, bootstrap otherwise.
pub fn over_items(values: &[f64]) -> Estimate {
    let average = mean(values).unwrap_or(f64::NAN);
    let interval = if values.iter().all(|value| *value == 0.0 || *value == 1.0) {
        wilson(average, values.len())
    } else {
        bootstrap(values)
    };
    Estimate { mean: average, interval, n: values.len() }
}

/// Interval of a mean over seeds: Student's t, because seeds are few and a bootstrap of
/// three values is far too narrow. `None` for a single seed.
pub fn over_seeds(values: &[f64]) -> Estimate {
    let n = values.len();
    let average = mean(values).unwrap_or(f64::NAN);
    let interval = (n >= 2).then(|| {
        let squares: f64 = values.iter().map(|value| (value - average).powi(2)).sum();
        let half = student(n - 1) * (squares / (n - 1) as f64 / n as f64).sqrt();
        (average - half, average + half)
    });
    Estimate { mean: average, interval, n }
}

/// Reward per item: several rollouts of a task are one item with their mean, a missing
/// reward is left out. In order of first appearance.
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
    let before: HashMap<&str, f64> = items(start).into_iter().collect();
    let changes: Vec<f64> = items(end)
        .into_iter()
        .filter_map(|(task, after)| before.get(task).map(|before| after - before))
        .collect();
    Some(Estimate { mean: mean(&changes)?, interval: bootstrap(&changes), n: changes.len() })
}

/// 97.5 % quantile of Student's t: a table for few degrees of freedom, from ten on the
/// Cornish-Fisher expansion, which is then within 0.2 %.
fn student(freedom: usize) -> f64 {
    const TABLE: [f64; 9] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];
    if let Some(value) = freedom.checked_sub(1).and_then(|index| TABLE.get(index)) {
        return *value;
    }
    let d = freedom as f64;
    Z + (Z.powi(3) + Z) / (4.0 * d)
        + (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / (96.0 * d * d)
}

/// Linear interpolation between order statistics of a sorted slice.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, wanted: f64, tolerance: f64) {
        assert!((found - wanted).abs() < tolerance, "{found} instead of {wanted}");
    }

    #[test]
    fn wilson_gives_the_textbook_values() {
        // 8 of 10 and 0 of 20, computed by hand from the formula.
        let (low, high) = wilson(0.8, 10).unwrap();
        close(low, 0.490_16, 1e-4);
        close(high, 0.943_32, 1e-4);
        let (low, high) = wilson(0.0, 20).unwrap();
        assert_eq!(low, 0.0);
        close(high, 0.161_13, 1e-4);
        assert_eq!(wilson(1.0, 20).unwrap().1, 1.0);
        assert!(wilson(0.5, 0).is_none());
    }

    #[test]
    fn the_bootstrap_agrees_with_the_normal_interval_of_many_values() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 10) / 10.0).collect();
        let (low, high) = bootstrap(&values).unwrap();
        let half = Z * (0.0825f64 / 400.0).sqrt();
        close(low, 0.45 - half, 0.004);
        close(high, 0.45 + half, 0.004);
        assert_eq!(bootstrap(&values), bootstrap(&values));
    }

    #[test]
    fn seeds_use_students_t() {
        let estimate = over_seeds(&[0.8, 0.82, 0.84]);
        let (low, high) = estimate.interval.unwrap();
        close(high - low, 2.0 * 4.303 * 0.02 / 3f64.sqrt(), 1e-9);
        assert_eq!(over_seeds(&[0.8]).interval, None);
        close(student(10), 2.2281, 0.005);
        close(student(60), 2.0003, 0.001);
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
