//! Attention visibility, cut into tiles.
//!
//! In depth-first order, every ancestor of a tile's tokens that precedes the tile is an ancestor of
//! its first token. A tile therefore needs the keys of one path and its own, and each of its tokens
//! sees a prefix of the path and some of the tile.

use std::ops::Range;

use crate::simd::LANES;

/// Tokens per tile. Longer tiles read more keys than needed, shorter ones copy the keys of their
/// path more often.
const TILE: usize = 128;

/// The ancestry of packed trees.
#[derive(Debug)]
pub struct Plan {
    tokens: usize,
    /// By tree, the largest first.
    pub(super) trees: Vec<Vec<Tile>>,
}

/// Consecutive tokens of one tree.
#[derive(Debug)]
pub(super) struct Tile {
    pub tokens: Range<u32>,
    /// The ancestors of the first token, padded to a multiple of sixteen, then the tokens
    /// themselves, padded likewise.
    pub keys: Vec<Option<u32>>,
    /// Index of the tile's first own key.
    pub own: usize,
    sights: Vec<Sight>,
}

/// Keys of the tile that one token sees: the first of the path, and the tile's own keys whose bit
/// is set.
#[derive(Debug, Clone, Copy)]
struct Sight {
    path: u32,
    own: u128,
}

impl Tile {
    /// Visibility mask of the sixteen keys of block `block` for token number `query` of the tile.
    #[inline(always)]
    pub fn seen(&self, query: usize, block: usize) -> u16 {
        let sight = self.sights[query];
        let start = block * LANES;
        if start >= self.own {
            return (sight.own >> (start - self.own)) as u16;
        }
        match (sight.path as usize).saturating_sub(start) {
            0 => 0,
            count @ 1..LANES => (1 << count) - 1,
            _ => u16::MAX,
        }
    }

    /// Blocks of keys that any of `queries` sees, as ascending runs of adjacent blocks.
    pub fn runs(&self, queries: Range<usize>) -> Vec<Range<usize>> {
        let sights = &self.sights[queries];
        let path = sights.iter().map(|sight| sight.path as usize).max().unwrap_or(0);
        let own = sights.iter().fold(0, |bits, sight| bits | sight.own);
        let first = self.own / LANES;
        let own = (0..TILE / LANES)
            .filter(|block| (own >> (block * LANES)) as u16 != 0)
            .map(|block| first + block..first + block + 1);
        let mut runs: Vec<Range<usize>> = Vec::new();
        for block in std::iter::once(0..path.div_ceil(LANES)).chain(own) {
            match runs.last_mut() {
                Some(run) if run.end == block.start => run.end = block.end,
                _ if block.is_empty() => {}
                _ => runs.push(block),
            }
        }
        runs
    }
}

impl Plan {
    /// Trees in depth-first order: `parents` of all tokens, and each tree's token range.
    ///
    /// # Panics
    /// If a parent does not come before its child.
    pub fn new(parents: &[Option<usize>], trees: &[Range<usize>]) -> Self {
        let mut depths = vec![0_u32; parents.len()];
        for (token, parent) in parents.iter().enumerate() {
            if let Some(parent) = *parent {
                assert!(parent < token, "token {token} comes before its parent {parent}");
                depths[token] = depths[parent] + 1;
            }
        }
        let mut trees: Vec<Vec<Tile>> = trees
            .iter()
            .map(|tree| {
                tree.clone()
                    .step_by(TILE)
                    .map(|start| tile(parents, &depths, start..tree.end.min(start + TILE)))
                    .collect()
            })
            .collect();
        trees.sort_by_key(|tiles| {
            std::cmp::Reverse(tiles.iter().map(|t| t.keys.len()).sum::<usize>())
        });
        Self { tokens: parents.len(), trees }
    }

    /// Tokens of all trees.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

fn tile(parents: &[Option<usize>], depths: &[u32], tokens: Range<usize>) -> Tile {
    let mut keys = Vec::new();
    let mut ancestor = parents[tokens.start];
    while let Some(token) = ancestor {
        keys.push(Some(token as u32));
        ancestor = parents[token];
    }
    keys.reverse();
    let path = keys.len() as u32;
    keys.resize(keys.len().next_multiple_of(LANES), None);
    let own = keys.len();
    keys.extend(tokens.clone().map(|token| Some(token as u32)));
    keys.resize(keys.len().next_multiple_of(LANES), None);
    let mut sights: Vec<Sight> = Vec::with_capacity(tokens.len());
    for (place, token) in tokens.clone().enumerate() {
        let itself = 1_u128 << place;
        sights.push(match parents[token] {
            None => Sight { path: 0, own: itself },
            Some(parent) if parent >= tokens.start => {
                let Sight { path, own } = sights[parent - tokens.start];
                Sight { path, own: own | itself }
            }
            Some(parent) => {
                let seen = depths[parent] + 1;
                assert!(seen <= path, "trees are not in depth-first order at token {token}");
                Sight { path: seen, own: itself }
            }
        });
    }
    Tile { tokens: tokens.start as u32..tokens.end as u32, keys, own, sights }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::{Plan, TILE, Tile};

    #[test]
    fn a_branch_is_not_computed_for_its_neighbours() {
        // A trunk that fills a tile, and two branches in the next: one of three blocks that leaves
        // the trunk at its end, one of two that leaves it in its first block.
        let after = |parent: usize, count: usize, from: usize| {
            std::iter::once(Some(parent)).chain((from..from + count - 1).map(Some))
        };
        let parents: Vec<Option<usize>> = std::iter::once(None)
            .chain((0..TILE - 1).map(Some))
            .chain(after(TILE - 1, 48, TILE))
            .chain(after(2, 32, TILE + 48))
            .collect();
        let plan = Plan::new(&parents, std::slice::from_ref(&(0..parents.len())));
        let [first, second] = &plan.trees[0][..] else { panic!("two tiles") };
        let runs = |tile: &Tile, queries: Range<usize>| -> Vec<(usize, usize)> {
            tile.runs(queries).into_iter().map(|run| (run.start, run.end)).collect()
        };
        assert_eq!(runs(first, 0..16), [(0, 1)]);
        assert_eq!(runs(first, 100..TILE), [(0, 8)]);
        assert_eq!(runs(second, 0..16), [(0, 9)]);
        assert_eq!(runs(second, 20..48), [(0, 11)], "the path and its own branch up to itself");
        assert_eq!(runs(second, 48..64), [(0, 1), (11, 12)], "no trunk's end, no neighbour");
        assert_eq!(runs(second, 40..50), [(0, 12)]);
    }
}
