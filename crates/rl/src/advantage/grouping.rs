//! Groups the rows of a batch for comparison.
//!
//! A group contains the attempts at one task. Its entries, which are compared, are rows or rollouts
//! of several rows ([`GroupOver`]). All estimators that compare within a group share two rules,
//! implemented here: a group whose entries are all equal gets exactly 0, regardless of rounding,
//! and so does a group of one unless verl's conventions are configured. Over rollouts the former
//! holds even if the calls of a rollout have different returns, since an estimator that divides by
//! the deviation of the entries would divide these differences by 0.

use std::collections::HashMap;

use crate::advantage::batch::{AdvantageInputs, Compat, GroupCounters, GroupOver};
use crate::error::AdvantageError;
use crate::rows::Rows;

/// One unit of comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Mean of its rows' scores.
    pub score: f64,
    /// Its rows, in order.
    pub rows: Vec<usize>,
    /// Tokens inside the mask of all its rows.
    pub tokens: usize,
}

/// The attempts at one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The group's number in the batch.
    pub id: usize,
    pub entries: Vec<Entry>,
}

impl Group {
    /// The entries' scores.
    pub fn scores(&self) -> Vec<f64> {
        self.entries.iter().map(|entry| entry.score).collect()
    }

    /// Mean of the scores; exactly the score if all are equal.
    pub fn mean(&self) -> f64 {
        mean(self.entries.iter().map(|entry| entry.score))
    }

    /// Standard deviation of the scores with divisor n − 1; 0 for fewer than two, and exactly 0 for
    /// equal scores.
    pub fn sample_std(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.entries.iter().map(|entry| (entry.score - mean).powi(2)).sum();
        if self.is_single() { 0.0 } else { (squares / (self.entries.len() - 1) as f64).sqrt() }
    }

    /// Whether there is only one entry.
    pub fn is_single(&self) -> bool {
        self.entries.len() == 1
    }

    /// Whether there are several entries and all scores are equal.
    pub fn is_flat(&self) -> bool {
        let first = self.entries[0].score;
        !self.is_single() && self.entries.iter().all(|entry| entry.score == first)
    }
}

/// Baseline and divisor of an entry: `A = (score − baseline) / divisor`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    pub baseline: f64,
    pub divisor: f64,
}

/// All groups of a batch, in order of first appearance; none is empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Grouping {
    pub groups: Vec<Group>,
    rows: usize,
}

impl Grouping {
    /// Groups the rows.
    ///
    /// # Errors
    /// If a score is not finite: it would corrupt its whole group.
    ///
    /// # Panics
    /// If a per-row slice does not have one entry per row.
    pub fn new(batch: &AdvantageInputs, over: GroupOver) -> Result<Self, AdvantageError> {
        let rows = batch.rows.len();
        assert_eq!(batch.scores.len(), rows, "one score per row");
        assert_eq!(batch.groups.len(), rows, "one group per row");
        assert_eq!(batch.rollouts.len(), rows, "one rollout per row");
        let mut groups: Vec<Group> = Vec::new();
        let mut group_at = HashMap::new();
        let mut entry_at = HashMap::new();
        for (row, &score) in batch.scores.iter().enumerate() {
            if !score.is_finite() {
                return Err(AdvantageError::Score { row, score });
            }
            let id = batch.groups[row];
            let at = *group_at.entry(id).or_insert_with(|| {
                groups.push(Group { id, entries: Vec::new() });
                groups.len() - 1
            });
            let entries = &mut groups[at].entries;
            let next = entries.len();
            let entry = match over {
                GroupOver::Rows => next,
                GroupOver::Rollouts => *entry_at.entry((at, batch.rollouts[row])).or_insert(next),
            };
            if entry == next {
                entries.push(Entry { score: 0.0, rows: Vec::new(), tokens: 0 });
            }
            entries[entry].rows.push(row);
            entries[entry].tokens += batch.rows.active_length(row);
        }
        for entry in groups.iter_mut().flat_map(|group| &mut group.entries) {
            entry.score = mean(entry.rows.iter().map(|&row| batch.scores[row]));
        }
        Ok(Self { groups, rows })
    }

    /// Counts of groups by kind.
    pub fn counters(&self) -> GroupCounters {
        GroupCounters {
            groups: self.groups.len(),
            zero_variance: self.groups.iter().filter(|group| group.is_flat()).count(),
            singletons: self.groups.iter().filter(|group| group.is_single()).count(),
        }
    }

    /// Counts for estimators that do not compare within groups: a group of one has a gradient, and
    /// a group has none if all its advantages are 0.
    pub fn counters_without_comparison(&self, per_token: &[f64], rows: &Rows) -> GroupCounters {
        let is_zero = |row: usize| rows.active_in(row).all(|t| per_token[t] == 0.0);
        let all_zero = |group: &&Group| {
            group.entries.iter().flat_map(|entry| &entry.rows).all(|&row| is_zero(row))
        };
        GroupCounters {
            groups: self.groups.len(),
            zero_variance: self.groups.iter().filter(all_zero).count(),
            singletons: 0,
        }
    }

    /// One advantage per row: the score minus its group's mean, divided by the sample standard
    /// deviation plus `epsilon` if `divide_by_std` is set.
    pub fn standardised(
        &self,
        batch: &AdvantageInputs,
        compat: Option<Compat>,
        divide_by_std: bool,
        epsilon: f64,
    ) -> Vec<f64> {
        // verl adds the epsilon to the deviation of a group of one in f32, regardless of the
        // scores' type.
        let single = if divide_by_std { f64::from(1.0 + epsilon as f32) } else { 1.0 };
        self.advantages(batch, compat, single, |group| {
            let divisor = if divide_by_std { group.sample_std() + epsilon } else { 1.0 };
            vec![Comparison { baseline: group.mean(), divisor }; group.entries.len()]
        })
    }

    /// One advantage per row, with the [`Comparison`] that `compare` returns for each entry of the
    /// row's group.
    ///
    /// Flat groups and groups of one get 0 without calling `compare`. Under verl's conventions a
    /// group of one has baseline 0 and divisor `single_divisor`.
    pub fn advantages(
        &self,
        batch: &AdvantageInputs,
        compat: Option<Compat>,
        single_divisor: f64,
        compare: impl Fn(&Group) -> Vec<Comparison>,
    ) -> Vec<f64> {
        let mut per_row = vec![0.0; self.rows];
        for group in &self.groups {
            let comparisons = match compat {
                _ if group.is_flat() => continue,
                None if group.is_single() => continue,
                Some(Compat::Verl) if group.is_single() => {
                    vec![Comparison { baseline: 0.0, divisor: single_divisor }]
                }
                _ => compare(group),
            };
            for (entry, comparison) in group.entries.iter().zip(comparisons) {
                for &row in &entry.rows {
                    per_row[row] = (batch.scores[row] - comparison.baseline) / comparison.divisor;
                }
            }
        }
        per_row
    }
}

/// The mean; 0 without values. Offsets from the first value, so that rounding cannot shift the mean
/// of equal numbers.
fn mean(values: impl ExactSizeIterator<Item = f64> + Clone) -> f64 {
    let n = values.len() as f64;
    let Some(first) = values.clone().next() else { return 0.0 };
    first + values.map(|x| x - first).sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_or_rollouts_are_the_entries() {
        let rows = Rows::dense(&[2, 1, 3, 1]);
        let batch = AdvantageInputs::of_outcomes(
            &rows,
            &[1.0, 1.0, 0.0, 0.5],
            &[9, 9, 9, 4],
            &[0, 0, 1, 2],
        );
        let by_row = Grouping::new(&batch, GroupOver::Rows).unwrap();
        assert_eq!(by_row.groups[0].scores(), [1.0, 1.0, 0.0]);
        let by_rollout = Grouping::new(&batch, GroupOver::Rollouts).unwrap();
        assert_eq!(by_rollout.groups[0].scores(), [1.0, 0.0]);
        assert_eq!(
            by_rollout.groups[0].entries[0],
            Entry { score: 1.0, rows: vec![0, 1], tokens: 3 }
        );
        let counters = GroupCounters { groups: 2, zero_variance: 0, singletons: 1 };
        assert_eq!(by_rollout.counters(), counters);
    }

    #[test]
    fn rollouts_of_equal_scores_have_no_variance_even_if_their_calls_differ() {
        let rows = Rows::dense(&[1; 4]);
        let scores = [0.5, 1.0, 1.0, 0.5];
        let batch = AdvantageInputs::of_outcomes(&rows, &scores, &[0; 4], &[0, 0, 1, 1]);
        let compare = |over| {
            let grouping = Grouping::new(&batch, over).unwrap();
            let flat = grouping.counters().zero_variance;
            (grouping.standardised(&batch, None, false, 0.0), flat)
        };
        assert_eq!(compare(GroupOver::Rollouts), (vec![0.0; 4], 1));
        assert_eq!(compare(GroupOver::Rows), (vec![-0.25, 0.25, 0.25, -0.25], 0));
    }

    #[test]
    fn a_non_finite_score_is_rejected_by_row() {
        let rows = Rows::dense(&[1, 1]);
        let batch = AdvantageInputs::of_outcomes(&rows, &[1.0, f64::INFINITY], &[0, 0], &[0, 1]);
        let error = Grouping::new(&batch, GroupOver::Rows).unwrap_err();
        assert_eq!(error, AdvantageError::Score { row: 1, score: f64::INFINITY });
    }
}
