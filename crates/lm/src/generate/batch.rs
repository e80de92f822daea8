//! The requests that are computed together, each in one row of the cache.
//!
//! A row whose trunk is computed, and all of its own tokens except the last, is ready: a decoding
//! step computes that last token, of the prompt or sampled before, and yields the logits of the
//! next one. A finished row may stay in the batch for a while; it recomputes its last token, at a
//! column that is not counted as cached.

use tch::Tensor;

use crate::error::LmError;
use crate::generate::cache::Cache;
use crate::generate::job::Job;
use crate::generate::model::Model;
use crate::generate::packed::Packed;
use crate::generate::pass::Pass;
use crate::generate::request::Ticket;
use crate::generate::visibility::{Visibility, Writes, span_of};

/// One request of the batch.
pub(super) struct Row {
    pub job: Job,
    /// Its row in the cache.
    pub slot: usize,
    /// Generation has ended.
    pub finished: bool,
}

impl Row {
    /// Number of tokens not yet cached, if its trunk is complete.
    pub fn left(&self, cache: &Cache) -> Option<usize> {
        let row = &cache.rows[self.slot];
        let trunk = &cache.trunks[row.trunk];
        trunk.is_whole().then(|| self.job.tokens.len() - trunk.tokens.len() - row.tokens.len())
    }

    pub fn is_ready(&self, cache: &Cache) -> bool {
        self.left(cache) == Some(1)
    }
}

/// The batch, in the order in which its rows are computed.
#[derive(Default)]
pub(super) struct DecodeBatch {
    pub rows: Vec<Row>,
    /// The pass of the last decoding step and its cache rows: reused while the rows and their
    /// positions are unchanged.
    pass: Option<(Vec<usize>, Pass)>,
}

impl DecodeBatch {
    /// Must be called whenever anything moves in the cache.
    pub fn invalidate(&mut self) {
        self.pass = None;
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Requests still being generated.
    pub fn running(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| !row.finished)
    }

    pub fn find(&self, ticket: Ticket) -> Option<usize> {
        self.rows.iter().position(|row| row.job.ticket == ticket && !row.finished)
    }

    /// The most recently submitted request.
    pub fn youngest(&self) -> Option<usize> {
        let running = (0..self.rows.len()).filter(|&i| !self.rows[i].finished);
        running.max_by_key(|&i| self.rows[i].job.ticket)
    }

    /// Drops finished rows without moving anything.
    pub fn drop_finished(&mut self) {
        self.rows.retain(|row| !row.finished);
        self.invalidate();
    }

    /// Drops finished rows, and moves the others and their trunks to the front of the cache.
    ///
    /// Only once an eighth of the batch has finished: every batch size costs new kernels (oneDNN
    /// compiles them for each shape), more than a few idle rows.
    pub fn compact(&mut self, cache: &mut Cache) -> Result<(), LmError> {
        let finished = self.rows.iter().filter(|row| row.finished).count();
        if finished < (self.rows.len() / 8).max(1) {
            return Ok(());
        }
        let live: Vec<bool> = self.rows.iter().map(|row| !row.finished).collect();
        let mut swaps = Vec::new();
        for (a, b) in pairs_to_front(&live) {
            self.rows.swap(a, b);
            let (live, finished) = (self.rows[a].slot, self.rows[b].slot);
            if finished < live {
                swaps.push((finished, live));
                (self.rows[a].slot, self.rows[b].slot) = (finished, live);
            }
        }
        self.rows.truncate(self.rows.len() - finished);
        cache.swap_rows(&swaps)?;
        let mut needed = vec![false; cache.trunks.len()];
        for row in &self.rows {
            needed[cache.rows[row.slot].trunk] = true;
        }
        cache.swap_trunks(&pairs_to_front(&needed))?;
        self.invalidate();
        Ok(())
    }

    /// The rows that a decoding step computes.
    pub fn ready(&self, cache: &Cache) -> Vec<usize> {
        (0..self.rows.len()).filter(|&i| self.rows[i].is_ready(cache)).collect()
    }

    /// Number of columns that a decoding step of the rows `ready` needs.
    pub fn columns(&self, cache: &Cache, ready: &[usize]) -> usize {
        let columns = ready.iter().map(|&i| 1 + cache.rows[self.rows[i].slot].tokens.len());
        columns.max().unwrap_or(0)
    }

    /// Computes the last token of the rows `ready`, for which the cache has space; returns hidden
    /// states [rows, width].
    pub fn decode(
        &mut self,
        model: &Model,
        cache: &mut Cache,
        ready: &[usize],
    ) -> Result<Tensor, LmError> {
        let mut packed = Packed::default();
        let mut places = Vec::with_capacity(ready.len());
        for &i in ready {
            let Row { ref job, slot, .. } = self.rows[i];
            let column = cache.rows[slot].tokens.len();
            let position = cache.trunk_length(slot) + column;
            packed.push(job.tokens[position], position);
            places.push((slot, column));
        }
        let columns = self.columns(cache, ready);
        let slots: Vec<usize> = places.iter().map(|&(slot, _)| slot).collect();
        let same = |kept: &(Vec<usize>, Pass)| kept.0 == slots && columns <= kept.1.columns();
        let pass = match self.pass.take().filter(same) {
            Some((_, mut pass)) => {
                pass.advance(&cache.row_store, &places)?;
                pass
            }
            None => decoding_pass(model, cache, &places)?,
        };
        let (_, pass) = self.pass.insert((slots, pass));
        let hidden = model.forward(&packed, pass)?;
        for &i in ready {
            let Row { ref job, slot, finished } = self.rows[i];
            if !finished {
                cache.rows[slot].tokens.extend(job.tokens.last());
            }
        }
        Ok(hidden)
    }
}

/// A pass that writes one token to each of `places` (slot, column).
fn decoding_pass(model: &Model, cache: &Cache, places: &[(usize, usize)]) -> Result<Pass, LmError> {
    let writes = Writes {
        places: places.iter().enumerate().map(|(i, &(s, column))| (i, s, column)).collect(),
    };
    let own: Vec<_> = places.iter().map(|&(slot, column)| (slot, column + 1)).collect();
    let shared: Vec<_> = places
        .iter()
        .map(|&(slot, _)| (cache.rows[slot].trunk, cache.trunk_length(slot)))
        .collect();
    let views = [
        Visibility { store: &cache.row_store, slots: span_of(&own), tokens: own },
        Visibility { store: &cache.trunk_store, slots: span_of(&shared), tokens: shared },
    ];
    model.pass(cache, &writes, &views, false)
}

/// Pairs of positions to swap so that all true entries come to the front.
pub(super) fn pairs_to_front(wanted: &[bool]) -> Vec<(usize, usize)> {
    let count = wanted.iter().filter(|&&w| w).count();
    let holes = (0..count).filter(|&i| !wanted[i]);
    let movers = (count..wanted.len()).filter(|&i| wanted[i]);
    holes.zip(movers).collect()
}

#[cfg(test)]
mod tests {
    use super::pairs_to_front;

    #[test]
    fn swaps_are_as_few_as_possible() {
        assert_eq!(pairs_to_front(&[true, false, true, false, true, true]), [(1, 4), (3, 5)]);
        assert_eq!(pairs_to_front(&[true, true, false]), []);
        assert_eq!(pairs_to_front(&[]), []);
    }
}
