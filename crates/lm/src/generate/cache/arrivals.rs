//! Space for requests that arrive while others run.
//!
//! The bookkeeping is changed first, request by request, together with the current location of the
//! keys and values; both stores are rearranged once, at the end. Running rows and their trunks move
//! to the front, so that a pass over them spans no others; idle ones stay as far as there is space,
//! and the least recently used are evicted first. Memory is kept unless it is needed, and grows by
//! more than is needed, so that few arrivals copy a whole store.

use crate::error::LmError;
use crate::generate::batch::pairs_to_front;
use crate::generate::cache::{Cache, Conversation, Trunk, common_prefix};
use crate::generate::job::Job;
use crate::generate::request::Ticket;
use crate::generate::store::{BLOCK, blocks};

/// Where the beginning of a request's tokens is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// In a row, of which `kept` tokens stay; the row itself is taken over if it is not in use.
    Row { row: usize, kept: usize, taken: bool },
    /// Its whole trunk is cached, or about to be computed.
    Trunk(usize),
    /// A new trunk, of which the first `kept` tokens are copied from another.
    New { copied: Option<usize>, kept: usize },
}

/// How a request would be placed in the cache.
pub(in crate::generate) struct Arrival {
    source: Source,
    /// Tokens that are already cached or are computed for another request.
    pub found: usize,
    /// Tokens in its own row and, for a new one, in its trunk.
    row_tokens: usize,
    new_trunk: Option<usize>,
}

/// A new arrangement of the cache under construction. The cache must not be used otherwise before
/// [`Rearrangement::commit`].
pub(in crate::generate) struct Rearrangement<'a> {
    cache: &'a mut Cache,
    limit: usize,
    /// For each row and each trunk, the slot that currently holds its keys and values.
    rows: Vec<Option<usize>>,
    trunks: Vec<Option<usize>>,
    /// Number of columns that every row must have.
    columns: usize,
}

impl Cache {
    /// Begins to rearrange the cache, within `limit` tokens of memory.
    pub fn rearrange(&mut self, limit: usize) -> Rearrangement<'_> {
        self.clock += 1;
        for trunk in 0..self.trunks.len() {
            if !self.trunks[trunk].is_whole() && !self.is_needed(trunk) {
                // Its request is gone; the part that was computed is valid.
                let Trunk { tokens, computed, .. } = &mut self.trunks[trunk];
                tokens.truncate(*computed);
            }
        }
        let rows = (0..self.rows.len()).map(Some).collect();
        let trunks = (0..self.trunks.len()).map(Some).collect();
        Rearrangement { cache: self, limit, rows, trunks, columns: 0 }
    }

    /// Whether a running request uses a trunk.
    fn is_needed(&self, trunk: usize) -> bool {
        self.rows.iter().any(|row| row.running.is_some() && row.trunk == trunk)
    }

    /// Number of `tokens` (a prompt of `prompt` tokens, possibly with generated ones) found in the
    /// cache; see [`Rearrangement::find`].
    pub fn found(&self, key: Option<u64>, tokens: &[u32], prompt: usize) -> usize {
        self.source(key, tokens, prompt).1
    }

    /// The source with the most of `tokens`, and their number.
    fn source(&self, key: Option<u64>, tokens: &[u32], prompt: usize) -> (Source, usize) {
        let own = &tokens[..prompt - 1];
        let (mut source, mut found) = (Source::New { copied: None, kept: 0 }, 0);
        let mut copied = 0;
        for (number, trunk) in self.trunks.iter().enumerate() {
            let common = common_prefix(own, &trunk.tokens);
            if common == own.len() && common == trunk.tokens.len() {
                (source, found) = (Source::Trunk(number), common);
                break;
            }
            found = found.max(common);
            if common.min(trunk.computed) > copied {
                copied = common.min(trunk.computed);
                source = Source::New { copied: Some(number), kept: copied };
            }
        }
        let mut row_found = found;
        for (number, row) in self.rows.iter().enumerate().filter(|(_, row)| !row.is_free()) {
            let trunk = self.trunks[row.trunk].tokens.as_slice();
            let Some(rest) = tokens.strip_prefix(trunk).filter(|rest| !rest.is_empty()) else {
                continue;
            };
            let kept = common_prefix(rest, &row.tokens).min(rest.len() - 1);
            let whole = kept == row.tokens.len() || (key.is_some() && row.key == key);
            let taken = row.running.is_none() && whole;
            // Of equal candidates, prefer a row that can be taken over to one that must be copied.
            let better = trunk.len() + kept > row_found
                || (trunk.len() + kept == row_found && taken && is_copy(source));
            if kept > 0 && better {
                row_found = trunk.len() + kept;
                source = Source::Row { row: number, kept, taken };
            }
        }
        (source, row_found)
    }
}

fn is_copy(source: Source) -> bool {
    matches!(source, Source::Row { taken: false, .. })
}

impl Rearrangement<'_> {
    /// Looks up the beginning of `job` in the cache.
    pub fn find(&self, job: &Job) -> Arrival {
        let key = job.named.then_some(job.key);
        let (source, found) = self.cache.source(key, &job.tokens, job.prompt);
        let trunk = match source {
            Source::Row { row, .. } => self.cache.trunk_length(row),
            Source::Trunk(_) | Source::New { .. } => job.prompt - 1,
        };
        let new_trunk = matches!(source, Source::New { .. }).then_some(trunk);
        Arrival { source, found, row_tokens: job.tokens.len() - trunk, new_trunk }
    }

    /// Whether there is space next to the running requests, with some reserve, so that the request
    /// is not evicted with the next token.
    pub fn fits(&self, arrival: &Arrival) -> bool {
        let running: Vec<&Conversation> =
            self.cache.rows.iter().filter(|row| row.running.is_some()).collect();
        let mut trunks: Vec<usize> = running.iter().map(|row| row.trunk).collect();
        match arrival.source {
            Source::Row { row, .. } => trunks.push(self.cache.rows[row].trunk),
            Source::Trunk(trunk) => trunks.push(trunk),
            Source::New { .. } => {}
        }
        trunks.sort_unstable();
        trunks.dedup();
        let slack = if running.is_empty() { 0 } else { BLOCK };
        let longest = running.iter().map(|row| row.reserved()).max().unwrap_or(0);
        let longest_trunk = trunks.iter().map(|&t| self.cache.trunks[t].tokens.len()).max();
        let longest_trunk = longest_trunk.unwrap_or(0).max(arrival.new_trunk.unwrap_or(0));
        let rows =
            (running.len() + 1).saturating_mul(blocks(longest.max(arrival.row_tokens) + slack));
        let trunks = trunks.len() + usize::from(arrival.new_trunk.is_some());
        rows.saturating_add(trunks.saturating_mul(blocks(longest_trunk))) <= self.limit
    }

    /// Assigns a row and a trunk to `job`; it must fit.
    pub fn place(&mut self, job: &Job, arrival: &Arrival) {
        let mut kept = Vec::new();
        let (mut slot, mut origin) = (None, None);
        let trunk = match arrival.source {
            Source::Row { row, kept: count, taken } => {
                kept.extend_from_slice(&self.cache.rows[row].tokens[..count]);
                origin = self.rows[row];
                slot = taken.then_some(row);
                self.cache.rows[row].trunk
            }
            Source::Trunk(trunk) => trunk,
            Source::New { copied, kept } => self.new_trunk(job, copied, kept),
        };
        let key = job.named.then_some(job.key);
        let slot = slot.or_else(|| self.cache.rows.iter().position(Conversation::is_free));
        let conversation = Conversation {
            key,
            running: Some(job.ticket),
            trunk,
            tokens: kept,
            used: self.cache.clock,
            expected: arrival.row_tokens,
        };
        match slot {
            Some(slot) => {
                self.cache.rows[slot] = conversation;
                self.rows[slot] = origin;
            }
            None => {
                self.cache.rows.push(conversation);
                self.rows.push(origin);
            }
        }
        self.evict();
    }

    fn new_trunk(&mut self, job: &Job, copied: Option<usize>, computed: usize) -> usize {
        let trunk = Trunk { tokens: job.trunk().to_vec(), computed, used: self.cache.clock };
        let origin = copied.and_then(|from| self.trunks[from]);
        let free = |&t: &usize| {
            self.cache.trunks[t].tokens.is_empty() && !self.cache.rows.iter().any(|r| r.has(t))
        };
        if let Some(slot) = (0..self.trunks.len()).find(free) {
            self.cache.trunks[slot] = trunk;
            self.trunks[slot] = origin;
            return slot;
        }
        self.cache.trunks.push(trunk);
        self.trunks.push(origin);
        self.trunks.len() - 1
    }

    /// Widens the rows to at least `columns`, if there is space for that next to the running
    /// requests.
    pub fn widen(&mut self, columns: usize) -> bool {
        let running = self.cache.rows.iter().filter(|row| row.running.is_some());
        let mut trunks: Vec<usize> = running.clone().map(|row| row.trunk).collect();
        trunks.sort_unstable();
        trunks.dedup();
        let longest = running.clone().map(Conversation::reserved).max().unwrap_or(0).max(columns);
        let longest_trunk = trunks.iter().map(|&t| self.cache.trunks[t].tokens.len()).max();
        let tokens =
            running.count() * blocks(longest) + trunks.len() * blocks(longest_trunk.unwrap_or(0));
        if tokens > self.limit {
            return false;
        }
        self.columns = columns;
        self.evict();
        true
    }

    /// Capacities that rows and trunks need.
    fn capacities(&self) -> (usize, usize) {
        let longest = self.cache.rows.iter().map(Conversation::reserved).max();
        let longest_trunk = self.cache.trunks.iter().map(|t| t.tokens.len()).max();
        (blocks(longest.unwrap_or(0).max(self.columns)), blocks(longest_trunk.unwrap_or(0)))
    }

    fn tokens(&self, (row, trunk): (usize, usize)) -> usize {
        let rows = self.rows.len().saturating_mul(row);
        rows.saturating_add(self.trunks.len().saturating_mul(trunk))
    }

    /// Evicts idle entries until the rest fits: free slots, unused trunks, then whole
    /// conversations.
    fn evict(&mut self) {
        while self.tokens(self.capacities()) > self.limit {
            let Cache { rows, trunks, .. } = &*self.cache;
            if let Some(row) = rows.iter().position(Conversation::is_free) {
                self.remove_row(row);
                continue;
            }
            let unused = (0..trunks.len()).filter(|&t| !rows.iter().any(|row| row.has(t)));
            if let Some(trunk) = unused.min_by_key(|&t| trunks[t].used) {
                self.remove_trunk(trunk);
                continue;
            }
            let idle = (0..rows.len()).filter(|&r| rows[r].running.is_none());
            let Some(row) = idle.min_by_key(|&r| rows[r].used) else { return };
            self.remove_row(row);
        }
    }

    fn remove_row(&mut self, row: usize) {
        self.cache.rows.swap_remove(row);
        self.rows.swap_remove(row);
    }

    fn remove_trunk(&mut self, trunk: usize) {
        self.cache.trunks.swap_remove(trunk);
        self.trunks.swap_remove(trunk);
        let moved = self.trunks.len();
        for row in self.cache.rows.iter_mut().filter(|row| row.trunk == moved) {
            row.trunk = trunk;
        }
    }

    /// Moves running rows and their trunks to the front, and sorts the trunks to be computed by
    /// their tokens: they are computed in that order, and a pass over neighbours then spans no
    /// others.
    fn sort(&mut self) {
        let running: Vec<bool> = self.cache.rows.iter().map(|row| row.running.is_some()).collect();
        for (a, b) in pairs_to_front(&running) {
            self.cache.rows.swap(a, b);
            self.rows.swap(a, b);
        }
        let needed: Vec<bool> = (0..self.trunks.len()).map(|t| self.cache.is_needed(t)).collect();
        for (a, b) in pairs_to_front(&needed) {
            self.swap_trunks(a, b);
        }
        let missing = |&t: &usize| !self.cache.trunks[t].is_whole() && self.cache.is_needed(t);
        let places: Vec<usize> = (0..self.trunks.len()).filter(missing).collect();
        // Few requests arrive at a time.
        for (number, &place) in places.iter().enumerate() {
            let least = places[number..].iter().min_by_key(|&&t| &self.cache.trunks[t].tokens);
            self.swap_trunks(place, least.copied().unwrap_or(place));
        }
    }

    fn swap_trunks(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        self.cache.trunks.swap(a, b);
        self.trunks.swap(a, b);
        for row in &mut self.cache.rows {
            row.trunk = match row.trunk {
                t if t == a => b,
                t if t == b => a,
                t => t,
            };
        }
    }

    /// Adds free slots up to `wanted`, as far as the limit allows with these capacities.
    fn add_free_slots(&mut self, wanted: (usize, usize), capacities: (usize, usize)) {
        let (row, trunk) = capacities;
        while self.rows.len() < wanted.0
            && self.tokens(capacities).saturating_add(row) <= self.limit
        {
            self.cache.rows.push(Conversation::free());
            self.rows.push(None);
        }
        while self.trunks.len() < wanted.1
            && self.tokens(capacities).saturating_add(trunk) <= self.limit
        {
            self.cache.trunks.push(Trunk { tokens: Vec::new(), computed: 0, used: 0 });
            self.trunks.push(None);
        }
    }

    /// Moves keys and values to their new locations.
    pub fn commit(mut self) -> Result<(), LmError> {
        self.sort();
        let (rows, trunks) = (&self.cache.row_store, &self.cache.trunk_store);
        // Capacities are kept, and those that must grow grow by a quarter, if there is space.
        let grown = |now: usize, needed: usize| {
            if needed <= now { now } else { needed.max(blocks(now + now / 4)) }
        };
        let (slots, trunk_slots) = (rows.slots(), trunks.slots());
        let needed = self.capacities();
        let generous = (grown(rows.capacity(), needed.0), grown(trunks.capacity(), needed.1));
        let kept = (needed.0.max(rows.capacity()), needed.1.max(trunks.capacity()));
        let choices = [generous, kept, needed];
        let capacities =
            choices.into_iter().find(|&c| self.tokens(c) <= self.limit).unwrap_or(needed);
        let more = |now: usize, needed: usize| {
            if needed <= now { now } else { needed.max(now + now / 4 + 1) }
        };
        let wanted = (more(slots, self.rows.len()), more(trunk_slots, self.trunks.len()));
        self.add_free_slots(wanted, capacities);
        let Self { cache, rows, trunks, .. } = self;
        cache.row_store.arrange(&rows, capacities.0)?;
        cache.trunk_store.arrange(&trunks, capacities.1)
    }
}

impl Cache {
    /// The row of each running request.
    pub fn running(&self) -> impl Iterator<Item = (Ticket, usize)> {
        let numbered = self.rows.iter().enumerate();
        numbered.filter_map(|(slot, row)| row.running.map(|ticket| (ticket, slot)))
    }
}
