//! The columns that a pass over the cache reads and writes.

use std::ops::Range;

use crate::generate::store::Store;

/// The columns of one segment that each token of a pass attends to.
pub(super) struct Visibility<'a> {
    pub store: &'a Store,
    /// The range of slots that any token attends to.
    pub slots: Range<usize>,
    /// For each token its slot, and the number of visible columns of the slot.
    pub tokens: Vec<(usize, usize)>,
}

/// Positions in a store where the keys and values of a pass are written.
#[derive(Default)]
pub(super) struct Writes {
    /// (token, slot, column); a token may be written to several slots.
    pub places: Vec<(usize, usize, usize)>,
}

impl Writes {
    /// Rows of [`Store::flat`], and the rows of the stacked [keys; values] of `n` tokens that are
    /// written there (absent if in order).
    pub fn index(&self, store: &Store, n: usize, kv: usize) -> (Vec<i64>, Option<Vec<i64>>) {
        let mut rows = Vec::with_capacity(2 * self.places.len() * kv);
        for half in 0..2 {
            for &(_, slot, column) in &self.places {
                store.push_rows(&mut rows, half, slot, column);
            }
        }
        let in_order =
            self.places.len() == n && self.places.iter().enumerate().all(|(i, place)| place.0 == i);
        let source = (!in_order).then(|| {
            let stacked = |half: usize, token: usize| (half * n + token) * kv;
            (0..2)
                .flat_map(|half| self.places.iter().map(move |place| stacked(half, place.0)))
                .flat_map(|first| (first..first + kv).map(|row| row as i64))
                .collect()
        });
        (rows, source)
    }
}

/// The range from the first to the last slot that any token attends to.
pub(super) fn span_of(tokens: &[(usize, usize)]) -> Range<usize> {
    let slots = || tokens.iter().map(|&(slot, _)| slot);
    slots().min().unwrap_or(0)..slots().max().map_or(0, |last| last + 1)
}
