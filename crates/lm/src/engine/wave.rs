//! One wave: requests that are generated together.
//!
//! Prefill of new trunks, then of each row's own tokens, which gives the first logits; from
//! then on all live rows advance by one token a step. Live rows are always rows 0 .. live of
//! the cache, so that a step works on a contiguous batch; rows that finish are swapped behind
//! them, where they stay cached.

use std::ops::Range;

use leyden_core::FinishReason;
use tch::{Device, Kind, Tensor};

use super::attention::{Pass, Sight, Writes};
use super::cache::{Admission, Cache, Conversation};
use super::prefill::{Packed, Piece, Trie, passes, span};
use super::sampler::{Draw, sample};
use super::straight;
use super::{Completion, Request, StopCheck};
use crate::{LlamaConfig, LmError, Rotary, Weights, transform};

/// The model and where it runs.
pub(super) struct Model {
    pub config: LlamaConfig,
    pub weights: Weights,
    pub rotary: Rotary,
    pub options: (Kind, Device),
}

impl Model {
    /// Hidden states [tokens, width] of packed tokens.
    fn forward(&self, packed: &Packed, pass: &mut Pass) -> Result<Tensor, LmError> {
        let tensor = |list: &[i64]| Tensor::f_from_slice(list)?.f_to_device(self.options.1);
        let (ids, positions) = (tensor(&packed.ids)?, tensor(&packed.positions)?);
        if let Pass::Fused(pass) = pass
            && let Some(hidden) = straight::transform(self, pass, (&ids, &positions))
        {
            return hidden;
        }
        transform(&self.weights, &self.config, &self.rotary, &ids, &positions, pass)
    }

    fn pass(
        &self,
        cache: &Cache,
        writes: &Writes,
        sights: &[Sight],
        trunk: bool,
    ) -> Result<Pass, LmError> {
        let target = if trunk { &cache.trunk_store } else { &cache.row_store };
        Pass::new(&self.config, self.options, target, writes, sights)
    }
}

/// One request of the wave while it is generated.
struct Row<'a> {
    entry: usize,
    request: &'a Request,
    stop: Option<Box<dyn StopCheck>>,
    /// Most tokens to generate: the request's own limit or the end of the context.
    limit: usize,
    /// The sampled token that has not been computed yet.
    next: u32,
    done: Completion,
    finished: bool,
}

impl Row<'_> {
    /// Takes in a sampled token.
    fn accept(&mut self, (id, logprob): (u32, f32)) {
        self.done.ids.push(id);
        self.done.logprobs.push(logprob);
        self.next = id;
        let stopped = self.request.stop_ids.contains(&id)
            || self.stop.as_mut().is_some_and(|stop| stop.stops(id));
        if stopped {
            self.done.finish = FinishReason::Stop;
        }
        self.finished = stopped || self.done.ids.len() >= self.limit;
    }

    fn draw(&self) -> Option<Draw<'_>> {
        let number = self.done.ids.len() as u64;
        (!self.finished).then(|| Draw {
            sampling: &self.request.sampling,
            uniform: self.request.seed.index(number).uniform(),
        })
    }
}

/// Generates for requests that [`Cache::admit`] has laid into the cache; `requests` and
/// their limits are in the order of the entries, and so is what comes back, beside the number
/// of prompt tokens that had to be computed.
pub(super) fn run(
    model: &Model,
    cache: &mut Cache,
    admission: &Admission,
    requests: &[(&Request, usize)],
    mut stops: Vec<Option<Box<dyn StopCheck>>>,
    prefill_tokens: usize,
) -> Result<(Vec<Completion>, usize), LmError> {
    let mut prefilled =
        prefill_trunks(model, cache, admission.first_new..admission.trunks, prefill_tokens)?;
    let mut rows: Vec<Row> = admission
        .order
        .iter()
        .map(|&entry| {
            let (request, limit) = requests[entry];
            let done = Completion {
                ids: vec![],
                logprobs: vec![],
                top: vec![],
                finish: FinishReason::Length,
                cached_tokens: 0,
            };
            let stop = stops[entry].take();
            Row { entry, request, stop, limit, next: 0, done, finished: false }
        })
        .collect();
    let (mut hidden, computed) = prefill_rows(model, cache, &rows, prefill_tokens)?;
    prefilled += computed;
    let mut decoding = Decoding { live: rows.len(), trunks: admission.trunks, pass: None };
    loop {
        let logits = model.weights.logits(&hidden)?;
        let draws: Vec<Option<Draw>> = rows[..decoding.live].iter().map(Row::draw).collect();
        let drawn = sample(&logits, &draws)?;
        for (row, drawn) in rows.iter_mut().zip(drawn) {
            if let Some(drawn) = drawn {
                row.accept(drawn);
            }
        }
        decoding.compact(cache, &mut rows)?;
        if decoding.live == 0 {
            break;
        }
        hidden = decoding.step(model, cache, &rows)?;
    }
    rows.sort_unstable_by_key(|row| row.entry);
    Ok((rows.into_iter().map(|row| row.done).collect(), prefilled))
}

/// Computes the trunks in `range`, tokens that several of them begin with only once.
fn prefill_trunks(
    model: &Model,
    cache: &Cache,
    range: Range<usize>,
    prefill_tokens: usize,
) -> Result<usize, LmError> {
    let trie = Trie::new(cache, range);
    let mut computed = 0;
    for pieces in passes(trie.pieces(cache), prefill_tokens) {
        let (packed, writes, sight) = trie.pass(cache, &pieces);
        let _ = model.forward(&packed, &mut model.pass(cache, &writes, &[sight], true)?)?;
        computed += packed.ids.len();
    }
    Ok(computed)
}

/// Computes what each row's prompt has beyond trunk and cached row; returns the hidden states
/// [rows, width] of the last tokens and the number of tokens computed.
fn prefill_rows(
    model: &Model,
    cache: &mut Cache,
    rows: &[Row],
    prefill_tokens: usize,
) -> Result<(Tensor, usize), LmError> {
    let pieces: Vec<Piece> = rows
        .iter()
        .enumerate()
        .map(|(slot, row)| {
            let end = row.request.prompt.len() - cache.trunk_length(slot);
            Piece { slot, tokens: cache.rows[slot].tokens.len()..end }
        })
        .collect();
    let ends: Vec<usize> = pieces.iter().map(|p| p.tokens.end).collect();
    let mut last = Vec::new();
    let mut computed = 0;
    for pieces in passes(pieces, prefill_tokens) {
        let mut packed = Packed::default();
        let mut writes = Writes::default();
        let (mut own, mut shared) = (Vec::new(), Vec::new());
        let mut closing = Vec::new();
        for Piece { slot, tokens } in &pieces {
            let before = cache.trunk_length(*slot);
            for column in tokens.clone() {
                let id = rows[*slot].request.prompt[before + column];
                let token = packed.push(id, before + column);
                writes.places.push((token, *slot, column));
                own.push((*slot, column + 1));
                shared.push((cache.rows[*slot].trunk, before));
            }
            if tokens.end == ends[*slot] {
                closing.push(packed.ids.len() as i64 - 1);
            }
        }
        let trunks = span_of(&shared);
        let sights = [
            Sight { store: &cache.row_store, slots: span(&pieces), tokens: own },
            Sight { store: &cache.trunk_store, slots: trunks, tokens: shared },
        ];
        let hidden = model.forward(&packed, &mut model.pass(cache, &writes, &sights, false)?)?;
        let closing = Tensor::f_from_slice(&closing)?.f_to_device(model.options.1)?;
        last.push(hidden.f_index_select(0, &closing)?);
        computed += packed.ids.len();
    }
    for (slot, row) in rows.iter().enumerate() {
        let start = cache.trunk_length(slot) + cache.rows[slot].tokens.len();
        cache.rows[slot].tokens.extend_from_slice(&row.request.prompt[start..]);
    }
    Ok((Tensor::f_cat(&last, 0)?, computed))
}

/// From the first to the last slot that any token sees.
fn span_of(tokens: &[(usize, usize)]) -> Range<usize> {
    let slots = || tokens.iter().map(|&(slot, _)| slot);
    slots().min().unwrap_or(0)..slots().max().map_or(0, |last| last + 1)
}

/// The state of the decoding loop: the live rows and trunks at the front of the cache.
struct Decoding {
    live: usize,
    trunks: usize,
    /// Kept from step to step until rows leave or the store grows.
    pass: Option<Pass>,
}

impl Decoding {
    /// Swaps finished rows, and trunks that no live row needs, behind the live ones.
    ///
    /// Only once an eighth of the batch has finished: every batch size costs new kernels
    /// (oneDNN compiles them for each shape), more than a few idle rows.
    fn compact(&mut self, cache: &mut Cache, rows: &mut [Row]) -> Result<(), LmError> {
        let finished = rows[..self.live].iter().filter(|row| row.finished).count();
        if finished < (self.live / 8).max(1) {
            return Ok(());
        }
        let live: Vec<bool> = rows[..self.live].iter().map(|row| !row.finished).collect();
        let pairs = pairs_to_front(&live);
        for &(a, b) in &pairs {
            rows.swap(a, b);
        }
        cache.swap_rows(&pairs)?;
        self.live -= finished;
        let mut needed = vec![false; self.trunks];
        for row in &cache.rows[..self.live] {
            needed[row.trunk] = true;
        }
        cache.swap_trunks(&pairs_to_front(&needed))?;
        self.trunks = needed.into_iter().filter(|&n| n).count();
        self.pass = None;
        Ok(())
    }

    /// Computes the next token of every live row; returns hidden states [live, width].
    ///
    /// A finished row that is still in the batch computes its last token again and again, at
    /// a column that is not counted as cached.
    fn step(&mut self, model: &Model, cache: &mut Cache, rows: &[Row]) -> Result<Tensor, LmError> {
        let mut packed = Packed::default();
        let mut places = Vec::with_capacity(self.live);
        for (slot, row) in rows[..self.live].iter().enumerate() {
            let Conversation { trunk, ref tokens, .. } = cache.rows[slot];
            packed.push(row.next, cache.trunks[trunk].tokens.len() + tokens.len());
            places.push((slot, tokens.len()));
        }
        let columns = 1 + places.iter().map(|&(_, column)| column).max().unwrap_or(0);
        if columns > cache.row_store.capacity() {
            cache.row_store.grow(columns)?;
            self.pass = None;
        }
        let reusable = self.pass.take().filter(|pass| columns <= pass.columns());
        let pass = match reusable {
            Some(mut pass) => {
                pass.advance(&cache.row_store, &places)?;
                self.pass.insert(pass)
            }
            None => self.pass.insert(self.fresh_pass(model, cache, &places)?),
        };
        let hidden = model.forward(&packed, pass)?;
        for (row, live) in cache.rows.iter_mut().zip(&rows[..self.live]) {
            if !live.finished {
                row.tokens.push(live.next);
            }
        }
        Ok(hidden)
    }

    fn fresh_pass(
        &self,
        model: &Model,
        cache: &Cache,
        places: &[(usize, usize)],
    ) -> Result<Pass, LmError> {
        let writes = Writes {
            places: places.iter().enumerate().map(|(i, &(s, column))| (i, s, column)).collect(),
        };
        let own = places.iter().map(|&(slot, column)| (slot, column + 1)).collect();
        let shared = cache.rows[..self.live]
            .iter()
            .map(|row| (row.trunk, cache.trunks[row.trunk].tokens.len()))
            .collect();
        let sights = [
            Sight { store: &cache.row_store, slots: 0..self.live, tokens: own },
            Sight { store: &cache.trunk_store, slots: 0..self.trunks, tokens: shared },
        ];
        model.pass(cache, &writes, &sights, false)
    }
}

/// Pairs whose swapping brings all that are true to the front.
fn pairs_to_front(wanted: &[bool]) -> Vec<(usize, usize)> {
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
