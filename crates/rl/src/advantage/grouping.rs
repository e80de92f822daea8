//! The rows of a batch as groups of things to be compared.
//!
//! A group holds what was tried on one task. What is compared are its entries: rows, or
//! rollouts of several rows ([`GroupOver`]). All estimators that compare within a group share
//! two rules, kept here: a group whose entries are all equal gets exactly 0, whatever rounding
//! would make of it, and so does a group of one unless verl's conventions are asked for.

use std::collections::HashMap;

use crate::advantage::batch::{AdvantageInputs, Compat, GroupCounters, GroupOver};
use crate::error::AdvantageError;
use crate::rows::Rows;

/// One thing that is compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Mean of its rows' scores.
    pub score: f64,
    /// Its rows, in order.
    pub rows: Vec<usize>,
    /// Tokens inside the mask of all its rows.
    pub tokens: usize,
}

/// What was tried on one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The number by which the batch calls it.
    pub id: usize,
    pub entries: Vec<Entry>,
}

impl Group {
    /// The entries' scores.
    pub fn scores(&self) -> Vec<f64> {
        self.entries.iter().map(|entry| entry.score).collect()
    }

    /// Mean of the scores; of equal scores it is exactly that score.
    pub fn mean(&self) -> f64 {
        mean(self.entries.iter().map(|entry| entry.score))
    }

    /// Standard deviation of the scores with divisor n − 1; 0 of fewer than two, and exactly 0
    /// of equal scores.
    pub fn sample_std(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.entries.iter().map(|entry| (entry.score - mean).powi(2)).sum();
        if self.is_single() { 0.0 } else { (squares / (self.entries.len() - 1) as f64).sqrt() }
    }

    /// Whether it has nothing to be compared with.
    pub fn is_single(&self) -> bool {
        self.entries.len() == 1
    }

    /// Whether there are several entries and all scores are equal.
    pub fn is_flat(&self) -> bool {
        let first = self.entries[0].score;
        !self.is_single() && self.entries.iter().all(|entry| entry.score == first)
    }
}

/// What an entry is compared with: `A = (score − baseline) / divisor`.
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
    /// Sorts the rows into groups.
    ///
    /// # Errors
    /// If a score is not finite: it would spoil its whole group.
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

    /// How many groups there are of which kind.
    pub fn counters(&self) -> GroupCounters {
        GroupCounters {
            groups: self.groups.len(),
            zero_variance: self.groups.iter().filter(|group| group.is_flat()).count(),
            singletons: self.groups.iter().filter(|group| group.is_single()).count(),
        }
    }

    /// The same where an estimator does not compare within groups: one rollout is enough to
    /// learn from, and a group teaches nothing if every advantage in it is 0.
    pub fn counters_without_comparison(&self, per_token: &[f64], rows: &Rows) -> GroupCounters {
        let is_zero = |row: usize| rows.active_in(row).all(|t| per_token[t] == 0.0);
        let quiet = |group: &&Group| {
            group.entries.iter().flat_map(|entry| &entry.rows).all(|&row| is_zero(row))
        };
        GroupCounters {
            groups: self.groups.len(),
            zero_variance: self.groups.iter().filter(quiet).count(),
            singletons: 0,
        }
    }

    /// One advantage per row: its score's distance from its group's mean, divided by the sample
    /// standard deviation plus `epsilon` where `divide_by_std` is set.
    pub fn standardised(
        &self,
        batch: &AdvantageInputs,
        compat: Option<Compat>,
        divide_by_std: bool,
        epsilon: f64,
    ) -> Vec<f64> {
        // verl adds the epsilon to the deviation of a group of one in f32, whatever the scores'
        // type.
        let single = if divide_by_std { f64::from(1.0 + epsilon as f32) } else { 1.0 };
        self.advantages(batch, compat, single, |group| {
            let divisor = if divide_by_std { group.sample_std() + epsilon } else { 1.0 };
            vec![Comparison { baseline: group.mean(), divisor }; group.entries.len()]
        })
    }

    /// One advantage per row, by comparing its score as `compare` says for each entry of its
    /// group.
    ///
    /// Flat groups and groups of one get 0 and are not asked about. Under verl's conventions a
    /// group of one is compared with baseline 0 and `single_divisor`.
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

/// The mean; 0 of nothing. Taken from the first value on, rounding cannot move the mean of equal
/// numbers.
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
    fn a_score_that_is_not_finite_is_refused_by_row() {
        let rows = Rows::dense(&[1, 1]);
        let batch = AdvantageInputs::of_outcomes(&rows, &[1.0, f64::INFINITY], &[0, 0], &[0, 1]);
        let error = Grouping::new(&batch, GroupOver::Rows).unwrap_err();
        assert_eq!(error, AdvantageError::Score { row: 1, score: f64::INFINITY });
    }
}
