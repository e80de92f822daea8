//! Metrics of an update by agent role and by turn.
//!
//! A role or a turn that learns nothing, collapses or carries all of the loss is invisible in the
//! means over a step.

use std::collections::BTreeMap;

use leyden_core::record::PartRecord;

use crate::batch::Batch;

/// Sums over some rows; parts of a batch add up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    calls: usize,
    tokens: usize,
    loss: f64,
    entropy: f64,
    advantage: f64,
    advantage_size: f64,
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.tokens += other.tokens;
        self.loss += other.loss;
        self.entropy += other.entropy;
        self.advantage += other.advantage;
        self.advantage_size += other.advantage_size;
    }

    /// `mini_batches`: over how many the loss was summed.
    fn record(&self, mini_batches: usize) -> PartRecord {
        let per_token = |sum: f64| sum / self.tokens.max(1) as f64;
        PartRecord {
            calls: self.calls,
            tokens: self.tokens,
            loss: self.loss / mini_batches.max(1) as f64,
            entropy: per_token(self.entropy),
            advantage_mean: per_token(self.advantage),
            advantage_size: per_token(self.advantage_size),
        }
    }
}

/// The sums of every role and every turn.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Parts {
    by_role: BTreeMap<String, Sums>,
    by_turn: BTreeMap<usize, Sums>,
}

impl Parts {
    /// Adds row `row` of a batch with its loss and the entropies of its tokens.
    pub fn row(&mut self, batch: &Batch, row: usize, loss: f64, entropies: &[f64]) {
        let advantages = &batch.advantages[batch.shape.range(row)];
        let sums = Sums {
            calls: 1,
            tokens: entropies.len(),
            loss,
            entropy: entropies.iter().sum(),
            advantage: advantages.iter().sum(),
            advantage_size: advantages.iter().map(|a| a.abs()).sum(),
        };
        self.by_turn.entry(batch.turn(row)).or_default().add(&sums);
        match self.by_role.get_mut(batch.role(row)) {
            Some(known) => known.add(&sums),
            None => drop(self.by_role.insert(batch.role(row).to_owned(), sums)),
        }
    }

    pub fn merge(&mut self, other: &Self) {
        for (role, sums) in &other.by_role {
            self.by_role.entry(role.clone()).or_default().add(sums);
        }
        for (turn, sums) in &other.by_turn {
            self.by_turn.entry(*turn).or_default().add(sums);
        }
    }

    /// By role; empty if there is one.
    pub fn roles(&self, mini_batches: usize) -> BTreeMap<String, PartRecord> {
        records(&self.by_role, mini_batches)
    }

    /// By turn; empty if there is one.
    pub fn turns(&self, mini_batches: usize) -> BTreeMap<usize, PartRecord> {
        records(&self.by_turn, mini_batches)
    }
}

fn records<K: Clone + Ord>(
    parts: &BTreeMap<K, Sums>,
    mini_batches: usize,
) -> BTreeMap<K, PartRecord> {
    if parts.len() < 2 {
        return BTreeMap::new();
    }
    parts.iter().map(|(part, sums)| (part.clone(), sums.record(mini_batches))).collect()
}
