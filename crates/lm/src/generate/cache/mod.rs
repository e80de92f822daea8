//! Bookkeeping of cached tokens.
//!
//! A conversation consists of a trunk (its first prompt except the last token, shared with all
//! conversations that begin with the same prompt) and its own row (that last token and everything
//! after it). A later turn reuses a row as far as its prompt repeats it. The last token of a prompt
//! is never part of a trunk: it is the first input of each sample, so that prefill needs no logits
//! and all samples start alike.
//!
//! This module contains the bookkeeping and the placement of a whole wave of requests; [`arrivals`]
//! admits single requests while others run.

mod arrivals;

use std::collections::HashSet;

use crate::error::LmError;
use crate::generate::request::Ticket;
use crate::generate::store::{Store, blocks};

/// The beginning of a prompt, in the trunk store's slot of the same index.
pub(super) struct Trunk {
    pub tokens: Vec<u32>,
    /// Number of tokens, from the first, that have been computed.
    pub computed: usize,
    used: u64,
}

impl Trunk {
    pub fn is_whole(&self) -> bool {
        self.computed == self.tokens.len()
    }
}

/// One conversation, in the row store's slot of the same index.
pub(super) struct Conversation {
    /// Absent once forgotten, or if another request of the same call has the key.
    pub key: Option<u64>,
    /// The submitted request that is computed in this row.
    running: Option<Ticket>,
    /// Meaningless in a free row.
    pub trunk: usize,
    /// The tokens after the trunk that have been computed.
    pub tokens: Vec<u32>,
    used: u64,
    /// Tokens that a running request had on arrival, beyond the trunk.
    expected: usize,
}

impl Conversation {
    fn free() -> Self {
        Self { key: None, running: None, trunk: 0, tokens: Vec::new(), used: 0, expected: 0 }
    }

    fn is_free(&self) -> bool {
        self.running.is_none() && self.tokens.is_empty()
    }

    /// Whether this is a conversation on the given trunk.
    fn has(&self, trunk: usize) -> bool {
        !self.is_free() && self.trunk == trunk
    }

    /// Number of tokens to reserve: one more than it has, if it runs.
    fn reserved(&self) -> usize {
        match self.running {
            Some(_) => self.expected.max(self.tokens.len() + 1),
            None => self.tokens.len(),
        }
    }
}

/// The part of a cached conversation that a prompt repeats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reuse {
    pub row: usize,
    /// Tokens of the row that are kept.
    pub kept: usize,
}

/// A request to be placed in the cache.
pub(super) struct Entry<'a> {
    pub key: Option<u64>,
    pub prompt: &'a [u32],
    pub reuse: Option<Reuse>,
    /// Maximum number of tokens in its row when it is finished.
    pub need: usize,
}

impl Entry<'_> {
    /// The trunk of a conversation that begins with this prompt.
    fn trunk(&self) -> &[u32] {
        &self.prompt[..self.prompt.len() - 1]
    }
}

/// The cache: trunks, conversations and their memory.
pub(super) struct Cache {
    pub trunks: Vec<Trunk>,
    pub rows: Vec<Conversation>,
    pub trunk_store: Store,
    pub row_store: Store,
    clock: u64,
}

/// The result of [`Cache::admit`].
pub(super) struct Admission {
    /// For row 0, 1, …, the index of its entry.
    pub order: Vec<usize>,
    /// The wave's first trunk that is not computed yet; those after it are sorted.
    pub first_new: usize,
}

impl Cache {
    pub fn new(trunk_store: Store, row_store: Store) -> Self {
        Self { trunks: Vec::new(), rows: Vec::new(), trunk_store, row_store, clock: 0 }
    }

    /// Removes everything and frees the memory.
    pub fn clear(&mut self) {
        self.trunks.clear();
        self.rows.clear();
        self.trunk_store.clear();
        self.row_store.clear();
    }

    /// Forgets one conversation; its slot is reused when the next one is needed. A running request
    /// continues, but is not kept under the key.
    pub fn forget(&mut self, key: u64) {
        for row in self.rows.iter_mut().filter(|row| row.key == Some(key)) {
            row.key = None;
            if row.running.is_none() {
                row.tokens.clear();
            }
        }
    }

    /// Ends the computation in a row; it stays cached as the most recently used.
    pub fn release(&mut self, row: usize) {
        self.clock += 1;
        let clock = self.clock;
        let Conversation { running, used, trunk, .. } = &mut self.rows[row];
        (*running, *used) = (None, clock);
        self.trunks[*trunk].used = clock;
    }

    /// The part of the conversation `key` that can be reused for `prompt`: at least one token of
    /// the prompt is always left to compute.
    pub fn reuse(&self, key: u64, prompt: &[u32]) -> Option<Reuse> {
        let row = self.rows.iter().position(|row| row.key == Some(key))?;
        let Conversation { trunk, tokens, .. } = &self.rows[row];
        let rest = prompt.strip_prefix(self.trunks[*trunk].tokens.as_slice())?;
        let kept = common_prefix(rest, tokens).min(rest.len().checked_sub(1)?);
        Some(Reuse { row, kept })
    }

    /// Length of a row's trunk.
    pub fn trunk_length(&self, row: usize) -> usize {
        self.trunks[self.rows[row].trunk].tokens.len()
    }

    /// Number of `entries`, from the first, that fit into `limit` tokens of cache together; 0 if
    /// not even the first does.
    pub fn fitting(&self, entries: &[Entry], limit: usize) -> usize {
        let (mut longest_row, mut longest_trunk) = (0, 0);
        let mut trunks = HashSet::new();
        for (i, entry) in entries.iter().enumerate() {
            let trunk = match entry.reuse {
                Some(reuse) => &self.trunks[self.rows[reuse.row].trunk].tokens,
                None => entry.trunk(),
            };
            trunks.insert(trunk);
            longest_row = longest_row.max(blocks(entry.need));
            longest_trunk = longest_trunk.max(blocks(trunk.len()));
            if (i + 1) * longest_row + trunks.len() * longest_trunk > limit {
                return i;
            }
        }
        entries.len()
    }

    /// Places the wave's conversations in rows 0, 1, …, ordered by trunk, and their trunks in
    /// trunks 0, 1, …; other cached entries stay behind them as far as `limit` allows, and the
    /// least recently used are evicted first.
    pub fn admit(&mut self, entries: &[Entry], limit: usize) -> Result<Admission, LmError> {
        self.clock += 1;
        let (old, new) = self.trunks_of(entries);
        let trunk_of = |entry: &Entry| match entry.reuse {
            Some(reuse) => old.iter().position(|&t| t == self.rows[reuse.row].trunk),
            None => old
                .iter()
                .position(|&t| self.trunks[t].tokens == entry.trunk())
                .or_else(|| new.binary_search(&entry.trunk()).ok().map(|i| old.len() + i)),
        };
        let mut placed: Vec<(usize, usize)> = entries
            .iter()
            .enumerate()
            .map(|(i, entry)| (trunk_of(entry).expect("`trunks_of` covers every entry"), i))
            .collect();
        placed.sort_unstable();
        let retained = self.retained(entries, &old, &new, limit);

        // The new order of both stores, with matching bookkeeping.
        let mut trunk_order: Vec<Option<usize>> = old.iter().copied().map(Some).collect();
        trunk_order.extend(new.iter().map(|_| None));
        trunk_order.extend(retained.trunks.iter().copied().map(Some));
        let mut row_order: Vec<Option<usize>> =
            placed.iter().map(|&(_, i)| entries[i].reuse.map(|r| r.row)).collect();
        row_order.extend(retained.rows.iter().copied().map(Some));
        let rows = self.new_rows(entries, &placed, &retained.rows, &trunk_order);
        let trunks = self.new_trunks(&trunk_order, old.len(), &new);

        let fed =
            placed.iter().map(|&(trunk, i)| entries[i].prompt.len() - trunks[trunk].tokens.len());
        let longest_row = fed.chain(rows.iter().map(|r| r.tokens.len())).max().unwrap_or(0);
        let longest_trunk = trunks.iter().map(|t| t.tokens.len()).max().unwrap_or(0);
        self.row_store.arrange(&row_order, longest_row)?;
        self.trunk_store.arrange(&trunk_order, longest_trunk)?;
        (self.rows, self.trunks) = (rows, trunks);
        Ok(Admission { order: placed.into_iter().map(|(_, i)| i).collect(), first_new: old.len() })
    }

    /// The trunks that `entries` need: existing ones, in order of first use, and new ones, sorted.
    fn trunks_of<'a>(&self, entries: &'a [Entry]) -> (Vec<usize>, Vec<&'a [u32]>) {
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for entry in entries {
            let found = match entry.reuse {
                Some(reuse) => Some(self.rows[reuse.row].trunk),
                None => self.trunks.iter().position(|t| t.tokens == entry.trunk()),
            };
            match found {
                Some(trunk) if !old.contains(&trunk) => old.push(trunk),
                Some(_) => {}
                None => new.push(entry.trunk()),
            }
        }
        new.sort_unstable();
        new.dedup();
        (old, new)
    }

    /// The conversations of the wave as `placed` (trunk, entry), then the retained ones.
    fn new_rows(
        &mut self,
        entries: &[Entry],
        placed: &[(usize, usize)],
        retained: &[usize],
        trunk_order: &[Option<usize>],
    ) -> Vec<Conversation> {
        let continued = |&(trunk, i): &(usize, usize)| {
            let Entry { key, reuse, .. } = entries[i];
            let tokens = reuse
                .map_or_else(Vec::new, |reuse| self.rows[reuse.row].tokens[..reuse.kept].to_vec());
            Conversation { key, trunk, tokens, used: self.clock, ..Conversation::free() }
        };
        let mut rows: Vec<Conversation> = placed.iter().map(continued).collect();
        for &row in retained {
            let mut kept = std::mem::replace(&mut self.rows[row], Conversation::free());
            let trunk = trunk_order.iter().position(|&t| t == Some(kept.trunk));
            kept.trunk = trunk.expect("the trunk of a retained row is retained");
            rows.push(kept);
        }
        rows
    }

    /// The trunks in their new order: `old` ones of the wave, `new` ones, retained ones.
    fn new_trunks(&mut self, order: &[Option<usize>], old: usize, new: &[&[u32]]) -> Vec<Trunk> {
        let mut created = new.iter();
        let mut trunk = |(i, from): (usize, &Option<usize>)| match *from {
            Some(from) => {
                let Trunk { ref mut tokens, computed, used } = self.trunks[from];
                let used = if i < old { self.clock } else { used };
                Trunk { tokens: std::mem::take(tokens), computed, used }
            }
            None => {
                let tokens = created.next().expect("one for each new trunk").to_vec();
                Trunk { tokens, computed: 0, used: self.clock }
            }
        };
        order.iter().enumerate().map(&mut trunk).collect()
    }

    /// The conversations and trunks outside the wave that may be retained.
    fn retained(&self, entries: &[Entry], old: &[usize], new: &[&[u32]], limit: usize) -> Retained {
        let need = entries.iter().map(|e| e.need).max().unwrap_or(0);
        let mine = |row: &Conversation| {
            row.key.is_none() || entries.iter().any(|entry| entry.key == row.key)
        };
        let mut retained = Retained {
            rows: (0..self.rows.len()).filter(|&r| !mine(&self.rows[r])).collect(),
            trunks: (0..self.trunks.len()).filter(|t| !old.contains(t)).collect(),
        };
        let length = |t: &usize| self.trunks[*t].tokens.len();
        loop {
            let longest_row = retained.rows.iter().map(|&r| self.rows[r].tokens.len()).max();
            let longest_trunk = retained.trunks.iter().chain(old).map(length);
            let longest_trunk = longest_trunk.chain(new.iter().map(|t| t.len())).max();
            let row_tokens = blocks(longest_row.unwrap_or(0).max(need));
            let trunk_tokens = blocks(longest_trunk.unwrap_or(0));
            let tokens = (entries.len() + retained.rows.len()) * row_tokens
                + (old.len() + new.len() + retained.trunks.len()) * trunk_tokens;
            if tokens <= limit {
                return retained;
            }
            // First evict trunks that no conversation uses, then whole conversations.
            let oldest_trunk = retained
                .trunks
                .iter()
                .copied()
                .filter(|&t| retained.rows.iter().all(|&r| self.rows[r].trunk != t))
                .min_by_key(|&t| self.trunks[t].used);
            let oldest_row = retained.rows.iter().copied().min_by_key(|&r| self.rows[r].used);
            match (oldest_trunk, oldest_row) {
                (Some(trunk), _) => retained.trunks.retain(|&t| t != trunk),
                (None, Some(row)) => retained.rows.retain(|&r| r != row),
                (None, None) => return retained,
            }
        }
    }

    /// Swaps the given pairs of rows.
    pub fn swap_rows(&mut self, pairs: &[(usize, usize)]) -> Result<(), LmError> {
        let order = swapped(self.rows.len(), pairs);
        for &(a, b) in pairs {
            self.rows.swap(a, b);
        }
        self.row_store.arrange(&order, self.row_store.capacity())
    }

    /// Swaps the given pairs of trunks.
    pub fn swap_trunks(&mut self, pairs: &[(usize, usize)]) -> Result<(), LmError> {
        let order = swapped(self.trunks.len(), pairs);
        for &(a, b) in pairs {
            self.trunks.swap(a, b);
        }
        for row in &mut self.rows {
            // A swap is its own inverse.
            row.trunk = order.get(row.trunk).copied().flatten().unwrap_or(row.trunk);
        }
        self.trunk_store.arrange(&order, self.trunk_store.capacity())
    }
}

struct Retained {
    rows: Vec<usize>,
    trunks: Vec<usize>,
}

fn swapped(count: usize, pairs: &[(usize, usize)]) -> Vec<Option<usize>> {
    let mut order: Vec<Option<usize>> = (0..count).map(Some).collect();
    for &(a, b) in pairs {
        order.swap(a, b);
    }
    order
}

/// Number of tokens with which both begin.
pub(super) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
