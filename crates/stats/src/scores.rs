//! Scores of several runs on several tasks.
//!
//! Agarwal et al., arXiv 2108.13264. Runs are seeds; tasks are what each run was evaluated on (a
//! benchmark each, or a kind of item). The intervals of point estimates resample the runs of each
//! task separately (stratified), since runs of one task carry no information about the spread of
//! another. On a full table the values agree with rliable; tasks may also differ in their number of
//! runs.

use leyden_core::SeedTree;
use rayon::prelude::*;

use crate::interval::Interval;
use crate::numbers::{draw, mean, quantile};

/// Why scores cannot be compared.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScoreError {
    #[error("there are no tasks, so there is nothing to average")]
    NoTasks,
    #[error("task {task} has no runs: leave it out or run it")]
    NoRuns { task: usize },
    #[error("run {run} of task {task} scored {score}, which is not a finite number")]
    Score { task: usize, run: usize, score: f64 },
    #[error("the tasks must be the same on both sides: {x} and {y} differ")]
    Tasks { x: usize, y: usize },
}

/// Scores by task and run; every task has at least one run and every score is finite.
///
/// ```
/// use leyden_core::SeedTree;
/// use leyden_stats::Scores;
///
/// // Two tasks with four seeds each.
/// let scores =
///     Scores::of_tasks(vec![vec![0.6, 0.7, 0.65, 0.1], vec![0.9, 0.8, 0.85, 0.9]]).unwrap();
/// assert!(scores.iqm() > scores.mean(), "the failed seed weighs less");
/// let interval = scores.interval(Scores::iqm, 500, SeedTree::new(1)).unwrap();
/// assert!(interval.contains(scores.iqm()));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    tasks: Vec<Vec<f64>>,
}

impl Scores {
    /// Scores by task, one per run.
    ///
    /// # Errors
    /// If there is no task, a task has no run, or a score is not finite.
    pub fn of_tasks(tasks: Vec<Vec<f64>>) -> Result<Self, ScoreError> {
        if tasks.is_empty() {
            return Err(ScoreError::NoTasks);
        }
        for (task, runs) in tasks.iter().enumerate() {
            if runs.is_empty() {
                return Err(ScoreError::NoRuns { task });
            }
            if let Some(run) = runs.iter().position(|score| !score.is_finite()) {
                return Err(ScoreError::Score { task, run, score: runs[run] });
            }
        }
        Ok(Self { tasks })
    }

    /// The scores of each task.
    pub fn tasks(&self) -> &[Vec<f64>] {
        &self.tasks
    }

    fn all(&self) -> Vec<f64> {
        self.tasks.concat()
    }

    fn task_means(&self) -> Vec<f64> {
        self.tasks.iter().filter_map(|runs| mean(runs)).collect()
    }

    /// Mean over tasks of the mean over runs.
    pub fn mean(&self) -> f64 {
        mean(&self.task_means()).unwrap_or(f64::NAN)
    }

    /// Median over tasks of the mean over runs.
    pub fn median(&self) -> f64 {
        let mut means = self.task_means();
        means.sort_by(f64::total_cmp);
        quantile(&means, 0.5).unwrap_or(f64::NAN)
    }

    /// Interquartile mean: the mean of all scores without the lowest and the highest quarter (of n
    /// scores ⌊n/4⌋ at each end). As robust to outliers as the median, with half the discarded
    /// scores.
    pub fn iqm(&self) -> f64 {
        let mut all = self.all();
        all.sort_by(f64::total_cmp);
        let cut = all.len() / 4;
        mean(&all[cut..all.len() - cut]).unwrap_or(f64::NAN)
    }

    /// Mean shortfall of the scores below `target`, `target − mean(min(score, target))`: exceeding
    /// the target on one task does not compensate for another.
    pub fn optimality_gap(&self, target: f64) -> f64 {
        let capped: Vec<f64> = self.all().iter().map(|score| score.min(target)).collect();
        target - mean(&capped).unwrap_or(f64::NAN)
    }

    /// Performance profile: the share of all scores above each of `thresholds`.
    pub fn profile(&self, thresholds: &[f64]) -> Vec<f64> {
        shares_above(&self.all(), thresholds)
    }

    /// The performance profile of the task means.
    pub fn mean_profile(&self, thresholds: &[f64]) -> Vec<f64> {
        shares_above(&self.task_means(), thresholds)
    }

    /// Percentile interval of `statistic` by the bootstrap stratified over tasks; `None`
    /// without resamples.
    pub fn interval(
        &self,
        statistic: impl Fn(&Self) -> f64 + Sync,
        resamples: usize,
        seeds: SeedTree,
    ) -> Option<Interval> {
        percentiles(resamples, |k| statistic(&self.resample(seeds.index(k))))
    }

    /// The runs of each task drawn with replacement, as many as there are.
    fn resample(&self, seeds: SeedTree) -> Self {
        let redraw = |(task, runs): (usize, &Vec<f64>)| {
            let seeds = seeds.index(task as u64);
            (0..runs.len() as u64).map(|run| runs[draw(seeds.index(run), runs.len())]).collect()
        };
        Self { tasks: self.tasks.iter().enumerate().map(redraw).collect() }
    }
}

/// Probability of improvement of `x` over `y`, P(X > Y): that a run of x scores above a run of
/// y on the same task, ties counted half (the statistic U of Mann and Whitney over the number
/// of pairs), averaged over tasks. Its interval resamples the runs of both.
///
/// # Errors
/// If the number of tasks differs.
///
/// ```
/// use leyden_core::SeedTree;
/// use leyden_stats::{Scores, probability_of_improvement};
///
/// let x = Scores::of_tasks(vec![vec![0.5, 0.7]]).unwrap();
/// let y = Scores::of_tasks(vec![vec![0.4, 0.6]]).unwrap();
/// let (p, _) = probability_of_improvement(&x, &y, 0, SeedTree::new(1)).unwrap();
/// assert_eq!(p, 0.75);
/// ```
pub fn probability_of_improvement(
    x: &Scores,
    y: &Scores,
    resamples: usize,
    seeds: SeedTree,
) -> Result<(f64, Option<Interval>), ScoreError> {
    if x.tasks.len() != y.tasks.len() {
        return Err(ScoreError::Tasks { x: x.tasks.len(), y: y.tasks.len() });
    }
    let interval = percentiles(resamples, |k| {
        let seeds = seeds.index(k);
        improvement(&x.resample(seeds.child("x")), &y.resample(seeds.child("y")))
    });
    Ok((improvement(x, y), interval))
}

fn improvement(x: &Scores, y: &Scores) -> f64 {
    let wins = |a: f64, y: &[f64]| -> f64 {
        y.iter()
            .map(|&b| {
                if a > b {
                    1.0
                } else if a == b {
                    0.5
                } else {
                    0.0
                }
            })
            .sum()
    };
    let of_task = |(x, y): (&Vec<f64>, &Vec<f64>)| {
        x.iter().map(|&a| wins(a, y)).sum::<f64>() / (x.len() * y.len()) as f64
    };
    let tasks: Vec<f64> = x.tasks.iter().zip(&y.tasks).map(of_task).collect();
    mean(&tasks).unwrap_or(f64::NAN)
}

fn shares_above(values: &[f64], thresholds: &[f64]) -> Vec<f64> {
    let above = |threshold: &f64| values.iter().filter(|value| *value > threshold).count();
    thresholds.iter().map(|t| above(t) as f64 / values.len() as f64).collect()
}

/// The interval between the 2.5 % and the 97.5 % quantile of a statistic's resamples.
fn percentiles(resamples: usize, statistic: impl Fn(u64) -> f64 + Send + Sync) -> Option<Interval> {
    let mut values: Vec<f64> = (0..resamples as u64).into_par_iter().map(statistic).collect();
    values.sort_by(f64::total_cmp);
    Some(Interval { low: quantile(&values, 0.025)?, high: quantile(&values, 0.975)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The constants below were printed by rliable 1.2.0 (arch 7.2.0, SciPy 1.17.1, NumPy
    /// 2.4.6) for these tables of five and seven runs on three tasks: `aggregate_mean`,
    /// `aggregate_median`, `aggregate_iqm`, `aggregate_optimality_gap` at 1 and 0.5,
    /// `probability_of_improvement`, both score distributions, and `get_interval_estimates` of
    /// 50,000 resamples.
    fn x() -> Scores {
        Scores::of_tasks(vec![
            vec![0.80, 0.55, 0.70, 0.80, 0.40],
            vec![1.20, 0.90, 1.05, 0.60, 1.30],
            vec![0.10, 0.35, 0.00, 0.25, 0.45],
        ])
        .unwrap()
    }

    fn y() -> Scores {
        Scores::of_tasks(vec![
            vec![0.60, 0.80, 0.50, 0.65, 0.45, 0.70, 0.55],
            vec![0.95, 0.70, 0.85, 1.10, 0.75, 0.90, 0.80],
            vec![0.30, 0.20, 0.25, 0.15, 0.40, 0.10, 0.05],
        ])
        .unwrap()
    }

    fn close(ours: &[f64], expected: &[f64]) {
        assert_eq!(ours.len(), expected.len());
        for (a, b) in ours.iter().zip(expected) {
            assert!((a - b).abs() < 1e-12, "{ours:?} instead of {expected:?}");
        }
    }

    fn points(scores: &Scores) -> [f64; 5] {
        let gap = |target| scores.optimality_gap(target);
        [scores.mean(), scores.median(), scores.iqm(), gap(1.0), gap(0.5)]
    }

    #[test]
    fn point_estimates_are_rliable_s() {
        let third = 1.0 / 3.0;
        let expected = [0.63, 0.65, 0.616_666_666_666_666_7, 0.406_666_666_666_666_73];
        close(&points(&x()), &[&expected[..], &[0.096_666_666_666_666_62]].concat());
        let expected = [
            0.559_523_809_523_809_4,
            0.607_142_857_142_857_1,
            0.581_818_181_818_181_9,
            0.445_238_095_238_095_1,
            0.1,
        ];
        close(&points(&y()), &expected);
        let thresholds = [0.0, 0.25, 0.5, 0.75, 1.0];
        // A score on the threshold is not above it.
        close(&x().profile(&thresholds), &[0.933_333_333_333_333_3, 0.8, 0.6, 0.4, 0.2]);
        close(&x().mean_profile(&thresholds), &[1.0, 2.0 * third, 2.0 * third, third, third]);
        let expected = [
            1.0,
            0.761_904_761_904_761_9,
            0.571_428_571_428_571_4,
            0.285_714_285_714_285_7,
            0.047_619_047_619_047_616,
        ];
        close(&y().profile(&thresholds), &expected);
        close(&y().mean_profile(&thresholds), &[1.0, 2.0 * third, 2.0 * third, third, 0.0]);
    }

    #[test]
    fn the_probability_of_improvement_is_rliable_s() {
        let p = |a: &Scores, b: &Scores| {
            probability_of_improvement(a, b, 0, SeedTree::new(0)).unwrap().0
        };
        close(&[p(&x(), &y())], &[0.614_285_714_285_714_2]);
        close(&[p(&y(), &x())], &[0.385_714_285_714_285_7]);
        close(&[p(&x(), &x())], &[0.5]);
    }

    /// Two bootstraps with other draws differ by their Monte Carlo error, which at 20,000
    /// resamples is below 3 % of an interval's width here.
    fn near(ours: Interval, low: f64, high: f64) {
        let tolerance = 0.03 * (high - low);
        let near = (ours.low - low).abs() < tolerance && (ours.high - high).abs() < tolerance;
        assert!(near, "{ours:?} instead of {low} to {high}");
    }

    #[test]
    fn intervals_are_near_rliable_s() {
        let of = |scores: Scores, statistic: fn(&Scores) -> f64| {
            scores.interval(statistic, 20_000, SeedTree::new(5)).unwrap()
        };
        near(of(x(), Scores::mean), 0.53, 0.723_333);
        near(of(y(), Scores::mean), 0.511_905, 0.609_524);
        near(of(x(), Scores::iqm), 0.511_111, 0.727_778);
        near(of(y(), Scores::iqm), 0.522_727, 0.640_909);
        near(of(x(), Scores::median), 0.51, 0.78);
        near(of(y(), Scores::median), 0.528_571, 0.692_857);
        near(of(x(), |s| s.optimality_gap(1.0)), 0.33, 0.488_333);
        near(of(y(), |s| s.optimality_gap(1.0)), 0.397_619, 0.490_476);
        let seeds = SeedTree::new(6);
        let improvement = probability_of_improvement(&x(), &y(), 20_000, seeds).unwrap().1;
        near(improvement.unwrap(), 0.404_762, 0.816_667);
    }

    #[test]
    fn resamples_stay_within_their_task_and_repeat() {
        // Tasks without spread give no variance, however different their levels.
        let flat = Scores::of_tasks(vec![vec![0.0; 4], vec![1.0; 2]]).unwrap();
        let interval = flat.interval(Scores::mean, 200, SeedTree::new(1)).unwrap();
        assert_eq!(interval, Interval { low: 0.5, high: 0.5 });
        let redraw = |seed| x().interval(Scores::iqm, 300, SeedTree::new(seed)).unwrap();
        assert_eq!(redraw(3), redraw(3));
        assert_ne!(redraw(3), redraw(4));
        assert_eq!(x().interval(Scores::iqm, 0, SeedTree::new(1)), None);
    }

    #[test]
    fn the_quarters_are_cut_by_whole_scores() {
        let iqm = |scores: &[f64]| Scores::of_tasks(vec![scores.to_vec()]).unwrap().iqm();
        // Of three scores none is cut, of five one at each end.
        assert_eq!(iqm(&[0.0, 1.0, 5.0]), 2.0);
        assert_eq!(iqm(&[9.0, 1.0, 2.0, 3.0, -7.0]), 2.0);
    }

    #[test]
    fn invalid_tables_are_rejected() {
        let error_of = |tasks: Vec<Vec<f64>>| Scores::of_tasks(tasks).unwrap_err();
        assert_eq!(error_of(vec![]), ScoreError::NoTasks);
        assert_eq!(error_of(vec![vec![1.0], vec![]]), ScoreError::NoRuns { task: 1 });
        let infinite = error_of(vec![vec![1.0, f64::INFINITY]]);
        assert_eq!(infinite, ScoreError::Score { task: 0, run: 1, score: f64::INFINITY });
        let one = Scores::of_tasks(vec![vec![1.0]]).unwrap();
        let error = probability_of_improvement(&one, &x(), 0, SeedTree::new(0)).unwrap_err();
        assert_eq!(error, ScoreError::Tasks { x: 1, y: 3 });
    }
}
