//! Which tokens of prompts are computed together.
//!
//! Tokens are packed without padding, sequence after sequence, in passes of bounded size.
//! Only the attention grid is padded (to its longest sequence), so a pass is also closed
//! before padding would take more than about half of the grid.

use std::ops::Range;

use super::attention::{Sight, Writes};
use super::cache::{Cache, common_prefix};

/// Consecutive tokens of the sequence in one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub slot: usize,
    pub tokens: Range<usize>,
}

/// Cuts `pieces`, whose slots ascend, into passes of at most `limit` tokens.
pub(super) fn passes(pieces: impl IntoIterator<Item = Piece>, limit: usize) -> Vec<Vec<Piece>> {
    let limit = limit.max(1);
    let mut passes: Vec<Vec<Piece>> = Vec::new();
    let mut open: Vec<Piece> = Vec::new();
    let mut count = 0;
    for Piece { slot, mut tokens } in pieces {
        while !tokens.is_empty() {
            let take = tokens.len().min(limit - count);
            if let Some(first) = open.first() {
                let longest = open.iter().map(|p| p.tokens.len()).max().unwrap_or(0).max(take);
                let grid = (slot + 1 - first.slot) * longest;
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

/// Slots from the first to the last of a pass.
pub(super) fn span(pass: &[Piece]) -> Range<usize> {
    match (pass.first(), pass.last()) {
        (Some(first), Some(last)) => first.slot..last.slot + 1,
        _ => 0..0,
    }
}

/// Sorted prompts as a trie: a prompt computes only what differs from its predecessor.
pub(super) struct Trie {
    first: usize,
    /// For each prompt, how many tokens it shares with the one before it.
    shared: Vec<usize>,
}

impl Trie {
    /// Over the trunks in slots `range`, which are sorted.
    pub fn new(cache: &Cache, range: Range<usize>) -> Self {
        let tokens = |slot: usize| cache.trunks[slot].tokens.as_slice();
        let shared = range
            .clone()
            .map(|slot| {
                if slot == range.start { 0 } else { common_prefix(tokens(slot - 1), tokens(slot)) }
            })
            .collect();
        Self { first: range.start, shared }
    }

    /// The tokens to compute, each once.
    pub fn pieces(&self, cache: &Cache) -> Vec<Piece> {
        let piece = |(i, &from): (usize, &usize)| {
            let slot = self.first + i;
            Piece { slot, tokens: from..cache.trunks[slot].tokens.len() }
        };
        self.shared.iter().enumerate().map(piece).filter(|p| !p.tokens.is_empty()).collect()
    }

    /// Token ids and positions of a pass, where each is written, being part of every trunk
    /// below it, and what it sees: itself and all before it.
    pub fn pass<'a>(&self, cache: &'a Cache, pass: &[Piece]) -> (Packed, Writes, Sight<'a>) {
        let mut packed = Packed::default();
        let mut writes = Writes::default();
        let mut seen = Vec::new();
        for Piece { slot, tokens } in pass {
            let below = &self.shared[slot - self.first + 1..];
            for position in tokens.clone() {
                let token = packed.push(cache.trunks[*slot].tokens[position], position);
                writes.places.push((token, *slot, position));
                let sharing = below.iter().take_while(|&&shared| shared > position).count();
                writes.places.extend((1..=sharing).map(|i| (token, slot + i, position)));
                seen.push((*slot, position + 1));
            }
        }
        (packed, writes, Sight { store: &cache.trunk_store, slots: span(pass), tokens: seen })
    }
}

/// Token ids and their positions, packed.
#[derive(Default)]
pub(super) struct Packed {
    pub ids: Vec<i64>,
    pub positions: Vec<i64>,
}

impl Packed {
    /// Adds a token; returns its place.
    pub fn push(&mut self, id: u32, position: usize) -> usize {
        self.ids.push(i64::from(id));
        self.positions.push(position as i64);
        self.ids.len() - 1
    }
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
