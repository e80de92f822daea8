//! Who looks at whom, cut into tiles.
//!
//! In depth-first order every ancestor of a tile's tokens that lies before the tile is an
//! ancestor of its first token. So a tile needs the keys of one path and its own, and each of
//! its tokens sees a beginning of the path and some of the tile.

use std::ops::Range;

use crate::simd::LANES;

/// Tokens of a tile. Longer tiles look at more than they need, shorter ones copy the keys of
/// their path more often.
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
    /// The ancestors of the first token, filled up to a multiple of sixteen, then the tokens
    /// themselves, filled up likewise.
    pub keys: Vec<Option<u32>>,
    /// Where the tile's own keys begin.
    pub own: usize,
    sights: Vec<Sight>,
}

/// What one token sees of its tile's keys: the first of the path, and those of its own tile
/// whose bit is set.
#[derive(Debug, Clone, Copy)]
struct Sight {
    path: u32,
    own: u128,
}

impl Tile {
    /// Bits of the sixteen keys of block `block` that token number `query` of the tile sees.
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

    /// Blocks of keys that any of `queries` (ascending) sees: this many from the first.
    #[inline(always)]
    pub fn blocks(&self, last_query: usize) -> usize {
        // A token sees nothing of its tile behind itself.
        self.own / LANES + (last_query + 1).div_ceil(LANES)
    }
}

impl Plan {
    /// Trees in depth-first order: `parents` of all tokens, and where each tree lies.
    ///
    /// # Panics
    /// Where a parent does not come before its child.
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
