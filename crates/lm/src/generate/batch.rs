//! The requests that are computed together, each in a row of the cache.
//!
//! A row whose trunk is computed, and all of its own tokens but the last, is ready: a step of
//! decoding computes that last token, be it the prompt's or the one sampled before, and gives
//! the logits of the next one. A row that has finished may stay in the batch for a while; it
//! computes its last token again and again, at a column that is not counted as cached.

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
    /// Nothing is generated for it any more.
    pub over: bool,
}

impl Row {
    /// Tokens that the cache does not hold yet, if its trunk is whole.
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
    /// The pass of the last step of decoding and the cache's rows in it: kept while they are
    /// the same ones and lie where they lay.
    pass: Option<(Vec<usize>, Pass)>,
}

impl DecodeBatch {
    /// Must be told whenever anything moves in the cache.
    pub fn moved(&mut self) {
        self.pass = None;
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Requests that are not over.
    pub fn running(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| !row.over)
    }

    pub fn find(&self, ticket: Ticket) -> Option<usize> {
        self.rows.iter().position(|row| row.job.ticket == ticket && !row.over)
    }

    /// The last one that was submitted.
    pub fn youngest(&self) -> Option<usize> {
        let running = (0..self.rows.len()).filter(|&i| !self.rows[i].over);
        running.max_by_key(|&i| self.rows[i].job.ticket)
    }

    /// Drops finished rows and moves nothing.
    pub fn drop_over(&mut self) {
        self.rows.retain(|row| !row.over);
        self.moved();
    }

    /// Drops finished rows, and moves the others and their trunks to the front of the cache.
    ///
    /// Only once an eighth of the batch has finished: every batch size
    /// costs new kernels (oneDNN compiles them for each shape), more than a few idle rows.
    pub fn compact(&mut self, cache: &mut Cache) -> Result<(), LmError> {
        let over = self.rows.iter().filter(|row| row.over).count();
        if over < (self.rows.len() / 8).max(1) {
            return Ok(());
        }
        let live: Vec<bool> = self.rows.iter().map(|row| !row.over).collect();
        let mut swaps = Vec::new();
        for (a, b) in pairs_to_front(&live) {
            self.rows.swap(a, b);
            let (live, over) = (self.rows[a].slot, self.rows[b].slot);
            if over < live {
                swaps.push((over, live));
                (self.rows[a].slot, self.rows[b].slot) = (over, live);
            }
        }
        self.rows.truncate(self.rows.len() - over);
        cache.swap_rows(&swaps)?;
        let mut needed = vec![false; cache.trunks.len()];
        for row in &self.rows {
            needed[cache.rows[row.slot].trunk] = true;
        }
        cache.swap_trunks(&pairs_to_front(&needed))?;
        self.moved();
        Ok(())
    }

    /// The rows that a step of decoding computes.
    pub fn ready(&self, cache: &Cache) -> Vec<usize> {
        (0..self.rows.len()).filter(|&i| self.rows[i].is_ready(cache)).collect()
    }

    /// Columns that a step of decoding of the rows `ready` needs.
    pub fn columns(&self, cache: &Cache, ready: &[usize]) -> usize {
        let columns = ready.iter().map(|&i| 1 + cache.rows[self.rows[i].slot].tokens.len());
        columns.max().unwrap_or(0)
    }

    /// Computes the last token of the rows `ready`, for which the cache has room; returns
    /// hidden states [rows, width].
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
            let Row { ref job, slot, over } = self.rows[i];
            if !over {
                cache.rows[slot].tokens.extend(job.tokens.last());
            }
        }
        Ok(hidden)
    }
}

/// A pass that writes one token for each of `places` (slot, column).
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

/// Pairs whose swapping brings all that are true to the front.
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
    fn as_few_swaps_as_there_are_holes() {
        assert_eq!(pairs_to_front(&[true, false, true, false, true, true]), [(1, 4), (3, 5)]);
        assert_eq!(pairs_to_front(&[true, true, false]), []);
        assert_eq!(pairs_to_front(&[]), []);
    }
}
