//! Prefill: grouping of prompt tokens into passes, and the execution of one pass.
//!
//! Tokens are packed without padding, sequence after sequence, in passes of bounded size. Only the
//! attention grid is padded (to its longest sequence), so a pass is also closed before padding
//! would exceed about half of the grid. There is no plan beyond one pass: each pass is the first
//! one of the remaining work, so that requests may arrive and leave, and their tokens move, between
//! two passes.

use std::ops::Range;

use tch::Tensor;

use crate::error::LmError;
use crate::generate::batch::Row;
use crate::generate::cache::{Cache, common_prefix};
use crate::generate::model::Model;
use crate::generate::packed::Packed;
use crate::generate::visibility::{Visibility, Writes, span_of};

/// Consecutive tokens of the sequence in one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub slot: usize,
    pub tokens: Range<usize>,
}

/// Cuts `pieces` into passes of at most `limit` tokens.
pub(super) fn passes(pieces: impl IntoIterator<Item = Piece>, limit: usize) -> Vec<Vec<Piece>> {
    let limit = limit.max(1);
    let mut passes: Vec<Vec<Piece>> = Vec::new();
    let mut open: Vec<Piece> = Vec::new();
    let mut count = 0;
    for Piece { slot, mut tokens } in pieces {
        while !tokens.is_empty() {
            let take = tokens.len().min(limit - count);
            if !open.is_empty() {
                let longest = open.iter().map(|p| p.tokens.len()).max().unwrap_or(0).max(take);
                let slots = span(&open);
                let grid = (slots.end.max(slot + 1) - slots.start.min(slot)) * longest;
                if take == 0 || grid > 2 * (count + take) + 64 {
                    passes.push(std::mem::take(&mut open));
                    count = 0;
                    continue;
                }
            }
            open.push(Piece { slot, tokens: tokens.start..tokens.start + take });
            count += take;
            tokens.start += take;
        }
    }
    if !open.is_empty() {
        passes.push(open);
    }
    passes
}

/// The range from the first to the last slot of a pass.
fn span(pass: &[Piece]) -> Range<usize> {
    let slots = || pass.iter().map(|piece| piece.slot);
    slots().min().unwrap_or(0)..slots().max().map_or(0, |last| last + 1)
}

/// Sorted prompts as a trie: a prompt computes only what differs from its predecessor.
struct Trie {
    /// The trunks, sorted by their tokens.
    slots: Vec<usize>,
    /// For each of them, the number of tokens shared with its predecessor.
    shared: Vec<usize>,
}

impl Trie {
    fn new(cache: &Cache, mut slots: Vec<usize>) -> Self {
        let tokens = |slot: usize| cache.trunks[slot].tokens.as_slice();
        slots.sort_by(|&a, &b| tokens(a).cmp(tokens(b)));
        let pairs = slots.windows(2).map(|pair| common_prefix(tokens(pair[0]), tokens(pair[1])));
        let shared = std::iter::once(0).chain(pairs).take(slots.len()).collect();
        Self { slots, shared }
    }

    /// The tokens to compute, without duplicates.
    fn pieces(&self, cache: &Cache) -> Vec<Piece> {
        let piece = |(&slot, &shared): (&usize, &usize)| {
            let trunk = &cache.trunks[slot];
            Piece { slot, tokens: shared.max(trunk.computed)..trunk.tokens.len() }
        };
        self.slots.iter().zip(&self.shared).map(piece).filter(|p| !p.tokens.is_empty()).collect()
    }

    /// The trunks that repeat a piece, and the end of the repeated tokens.
    fn repeats<'a>(&'a self, piece: &Piece) -> impl Iterator<Item = (usize, usize)> + 'a {
        let Range { start, mut end } = piece.tokens;
        let own = self.slots.iter().position(|&slot| slot == piece.slot);
        let below = own.map_or(self.slots.len(), |own| own + 1)..self.slots.len();
        below.map_while(move |i| {
            end = end.min(self.shared[i]);
            (end > start).then_some((self.slots[i], end))
        })
    }

    /// Token ids and positions of a pass, the positions where each is written (in every trunk that
    /// repeats it), and what it attends to: itself and all tokens before it.
    fn pass<'a>(&self, cache: &'a Cache, pass: &[Piece]) -> (Packed, Writes, Visibility<'a>) {
        let mut packed = Packed::default();
        let mut writes = Writes::default();
        let mut seen = Vec::new();
        for piece in pass {
            let slot = piece.slot;
            let repeats: Vec<(usize, usize)> = self.repeats(piece).collect();
            for position in piece.tokens.clone() {
                let token = packed.push(cache.trunks[slot].tokens[position], position);
                writes.places.push((token, slot, position));
                let sharing = repeats.iter().take_while(|&&(_, end)| end > position);
                writes.places.extend(sharing.map(|&(other, _)| (token, other, position)));
                seen.push((slot, position + 1));
            }
        }
        (packed, writes, Visibility { store: &cache.trunk_store, slots: span(pass), tokens: seen })
    }

    /// Records the tokens computed by a pass.
    fn note(&self, cache: &mut Cache, pass: &[Piece]) {
        for piece in pass {
            cache.trunks[piece.slot].computed = piece.tokens.end;
            for (other, end) in self.repeats(piece) {
                let computed = &mut cache.trunks[other].computed;
                if *computed >= piece.tokens.start {
                    *computed = end.max(*computed);
                }
            }
        }
    }
}

/// The trunks that `rows` wait for, without duplicates.
fn missing_trunks(cache: &Cache, rows: &[Row]) -> Vec<usize> {
    let trunks = rows.iter().filter(|row| !row.finished).map(|row| cache.rows[row.slot].trunk);
    let mut missing: Vec<usize> = trunks.filter(|&t| !cache.trunks[t].is_whole()).collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// Runs one pass over the trunks that `rows` wait for; shared prefixes are computed only once.
/// Returns the number of tokens computed: 0 if nothing is missing.
pub(super) fn trunks(
    model: &Model,
    cache: &mut Cache,
    rows: &[Row],
    limit: usize,
) -> Result<usize, LmError> {
    let trie = Trie::new(cache, missing_trunks(cache, rows));
    let Some(pass) = passes(trie.pieces(cache), limit).into_iter().next() else { return Ok(0) };
    let (packed, writes, view) = trie.pass(cache, &pass);
    let _ = model.forward(&packed, &mut model.pass(cache, &writes, &[view], true)?)?;
    trie.note(cache, &pass);
    Ok(packed.ids.len())
}

/// The tokens of each row that are still to be computed, except the last `spared`; none for rows
/// that wait for their trunk.
fn pieces_of_rows(cache: &Cache, rows: &[Row], spared: usize) -> Vec<Piece> {
    let piece = |row: &Row| {
        let left = row.left(cache).filter(|_| !row.finished)?.saturating_sub(spared);
        let done = cache.rows[row.slot].tokens.len();
        (left > 0).then(|| Piece { slot: row.slot, tokens: done..done + left })
    };
    let mut pieces: Vec<Piece> = rows.iter().filter_map(piece).collect();
    pieces.sort_unstable_by_key(|piece| piece.slot);
    pieces
}

/// One pass over the rows' tokens after their trunks, except the last `spared` tokens of each.
/// Returns the number of tokens computed, and hidden states [rows, width] of rows that are now
/// computed to their last token, if any, in the order of their slots.
pub(super) fn rows(
    model: &Model,
    cache: &mut Cache,
    rows: &[Row],
    (limit, spared): (usize, usize),
) -> Result<(usize, Option<Tensor>), LmError> {
    let pieces = pieces_of_rows(cache, rows, spared);
    let Some(pass) = passes(pieces, limit).into_iter().next() else { return Ok((0, None)) };
    let tokens_of = |slot: usize| {
        rows.iter().find(|row| row.slot == slot).map_or(&[][..], |row| &row.job.tokens)
    };
    let mut packed = Packed::default();
    let mut writes = Writes::default();
    let (mut own, mut shared) = (Vec::new(), Vec::new());
    let mut closing = Vec::new();
    for Piece { slot, tokens } in &pass {
        let (ids, before) = (tokens_of(*slot), cache.trunk_length(*slot));
        for column in tokens.clone() {
            let token = packed.push(ids[before + column], before + column);
            writes.places.push((token, *slot, column));
            own.push((*slot, column + 1));
            shared.push((cache.rows[*slot].trunk, before));
        }
        if before + tokens.end == ids.len() {
            closing.push(packed.ids.len() as i64 - 1);
        }
    }
    let views = [
        Visibility { store: &cache.row_store, slots: span(&pass), tokens: own },
        Visibility { store: &cache.trunk_store, slots: span_of(&shared), tokens: shared },
    ];
    let hidden = model.forward(&packed, &mut model.pass(cache, &writes, &views, false)?)?;
    for Piece { slot, tokens } in &pass {
        let before = cache.trunk_length(*slot);
        let ids = &tokens_of(*slot)[before + tokens.start..before + tokens.end];
        cache.rows[*slot].tokens.extend_from_slice(ids);
    }
    let closing = match closing.is_empty() {
        true => None,
        false => {
            let closing = Tensor::f_from_slice(&closing)?.f_to_device(model.options.1)?;
            Some(hidden.f_index_select(0, &closing)?)
        }
    };
    Ok((packed.ids.len(), closing))
}

/// Whether any row waits for its trunk or lacks more than the token that decoding computes.
pub(super) fn is_pending(cache: &Cache, rows: &[Row]) -> bool {
    rows.iter().any(|row| !row.finished && row.left(cache).is_none_or(|left| left > 1))
}

#[cfg(test)]
mod tests {
    use super::{Piece, passes};

    fn piece(slot: usize, tokens: std::ops::Range<usize>) -> Piece {
        Piece { slot, tokens }
    }

    #[test]
    fn passes_hold_at_most_the_limit_and_cut_long_pieces() {
        let cut = passes([piece(0, 0..5), piece(1, 2..4), piece(2, 0..9)], 6);
        assert_eq!(
            cut,
            [
                vec![piece(0, 0..5), piece(1, 2..3)],
                vec![piece(1, 3..4), piece(2, 0..5)],
                vec![piece(2, 5..9)],
            ]
        );
    }

    #[test]
    fn a_long_piece_does_not_pad_many_short_ones() {
        let mut pieces = vec![piece(0, 0..300)];
        pieces.extend((1..16).map(|slot| piece(slot, 250..300)));
        let cut = passes(pieces, 10_000);
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>()[0], 2);
        let padded: usize = cut
            .iter()
            .map(|pass| {
                super::span(pass).len() * pass.iter().map(|p| p.tokens.len()).max().unwrap()
            })
            .sum();
        assert!(padded <= 2 * (300 + 15 * 50) + 64 * cut.len(), "{padded}");
    }
}
