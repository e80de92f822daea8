//! Attention on a packed forest: each token attends to itself and its ancestors.
//!
//! A mask over a whole tree would be correct but wasteful: most pairs of its tokens are on
//! different branches. So a tree is cut into tiles of consecutive nodes. In depth-first order every
//! ancestor of a tile's nodes that precedes the tile is an ancestor of its first node. A tile
//! therefore needs the keys of one path and its own, and the work is the number of tokens times
//! their depth, not times the size of the tree. Tiles of similar length form one batch of scaled
//! dot-product attention, with a mask built once per pack for all layers. A tree that is a single
//! chain is plain causal attention.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use leyden_fused::attention::Plan;
use tch::{Device, Kind, Tensor};

use crate::error::LmError;
use crate::kernels;
use crate::model::forward::Attention;
use crate::policy::forest::Pack;

/// Nodes per tile. Longer tiles read more keys than needed, shorter ones copy the keys of the path
/// more often.
const TILE: usize = 128;

/// Key lengths of one batch differ by less than this.
const KEY_STEP: usize = 64;

/// Added to the score of a key that the query may not attend to.
const HIDDEN: f32 = f32::NEG_INFINITY;

/// Chains of at least this length are processed separately, with causal attention.
const LONG_CHAIN: usize = 512;

/// The ancestry of a pack, prepared for use in every layer.
pub struct ForestAttention {
    /// For the fused kernel, if it applies: the other fields are empty then.
    plan: Option<Arc<Plan>>,
    chains: Vec<Range<usize>>,
    batches: Vec<TileBatch>,
    /// [n]: index of each node's result in the concatenation of chains and batches; absent if there
    /// are only chains.
    order: Option<Tensor>,
    /// Whether several query heads share a key/value head.
    grouped: bool,
}

/// Tiles processed together, padded to the longest.
struct TileBatch {
    tiles: i64,
    /// [tiles · tile]: query nodes; the last is repeated as padding.
    queries: Tensor,
    /// [tiles · keys]: key nodes.
    keys: Tensor,
    /// [tiles, 1, tile, keys]: 0 where the query attends and −∞ elsewhere.
    mask: Tensor,
}

impl ForestAttention {
    /// For queries of `kind` with these numbers of heads and key/value heads and this head width.
    ///
    /// # Errors
    /// Errors of libtorch (memory).
    pub fn new(
        pack: &Pack,
        (heads, kv_heads, head_dim): (usize, usize, usize),
        kind: Kind,
        device: Device,
    ) -> Result<Self, LmError> {
        if kernels::fits_heads(head_dim, kind, device) {
            let plan = Arc::new(Plan::new(&pack.parents, &pack.trees));
            let (chains, batches) = (Vec::new(), Vec::new());
            return Ok(Self { plan: Some(plan), chains, batches, order: None, grouped: false });
        }
        let grouped = heads != kv_heads;
        Self::with_tile(pack, grouped, kind, device, TILE)
    }

    fn with_tile(
        pack: &Pack,
        grouped: bool,
        kind: Kind,
        device: Device,
        tile: usize,
    ) -> Result<Self, LmError> {
        // Many short chains, such as demonstrations, are cheaper as tiles: a separate slice for
        // each would cost a zeroed gradient of the whole pack for each.
        let (chains, trees): (Vec<_>, Vec<_>) = pack.trees.iter().cloned().partition(|tree| {
            pack.is_chain(tree) && (tree.len() >= LONG_CHAIN || pack.trees.len() == 1)
        });
        let mut buckets: BTreeMap<usize, Vec<Tile>> = BTreeMap::new();
        for tree in trees {
            for start in tree.clone().step_by(tile) {
                let tile = Tile::new(pack, start..tree.end.min(start + tile));
                buckets.entry(tile.keys.len().div_ceil(KEY_STEP)).or_default().push(tile);
            }
        }
        let mut order = vec![0; pack.len()];
        for (place, node) in chains.iter().cloned().flatten().enumerate() {
            order[node] = place as i64;
        }
        let mut next = chains.iter().map(Range::len).sum::<usize>();
        let mut batches = Vec::with_capacity(buckets.len());
        for tiles in buckets.into_values() {
            for member in &tiles {
                for (place, node) in member.nodes.clone().enumerate() {
                    order[node] = (next + place) as i64;
                }
                next += tile;
            }
            batches.push(TileBatch::new(pack, &tiles, tile, kind, device)?);
        }
        // Chains alone are already in order.
        let order = match batches.is_empty() {
            true => None,
            false => Some(Tensor::f_from_slice(&order)?.to_device(device)),
        };
        Ok(Self { plan: None, chains, batches, order, grouped })
    }
}

/// Consecutive nodes of one tree.
struct Tile {
    nodes: Range<usize>,
    /// The path to the first node, then the nodes themselves.
    keys: Vec<usize>,
}

impl Tile {
    fn new(pack: &Pack, nodes: Range<usize>) -> Self {
        let mut keys = Vec::new();
        let mut node = pack.parents[nodes.start];
        while let Some(ancestor) = node {
            keys.push(ancestor);
            node = pack.parents[ancestor];
        }
        keys.reverse();
        keys.extend(nodes.clone());
        Self { nodes, keys }
    }
}

impl TileBatch {
    fn new(
        pack: &Pack,
        tiles: &[Tile],
        tile: usize,
        kind: Kind,
        device: Device,
    ) -> Result<Self, LmError> {
        let width = tiles.iter().map(|t| t.keys.len()).max().unwrap_or(0);
        let (mut queries, mut keys) = (Vec::new(), Vec::new());
        let mut mask = Vec::with_capacity(tiles.len() * tile * width);
        for member in tiles {
            let padding = width - member.keys.len();
            keys.extend(member.keys.iter().map(|&node| node as i64));
            keys.resize(keys.len() + padding, member.keys[0] as i64);
            for i in 0..tile {
                let query = (member.nodes.start + i).min(member.nodes.end - 1);
                queries.push(query as i64);
                let seen = |&key: &usize| if pack.sees(query, key) { 0.0 } else { HIDDEN };
                mask.extend(member.keys.iter().map(seen));
                mask.resize(mask.len() + padding, HIDDEN);
            }
        }
        let shape = [tiles.len() as i64, 1, tile as i64, width as i64];
        Ok(Self {
            tiles: tiles.len() as i64,
            queries: Tensor::f_from_slice(&queries)?.to_device(device),
            keys: Tensor::f_from_slice(&keys)?.to_device(device),
            mask: Tensor::f_from_slice(&mask)?.f_view(shape)?.to_device(device).to_kind(kind),
        })
    }

    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, grouped: bool) -> Result<Tensor, LmError> {
        // [n, heads, head_dim] → [tiles, heads, length, head_dim]
        let part = |x: &Tensor, nodes: &Tensor| -> Result<Tensor, LmError> {
            let (heads, size) = (x.size()[1], x.size()[2]);
            let rows = x.f_reshape([-1, heads * size])?.f_index_select(0, nodes)?;
            Ok(rows.f_view([self.tiles, -1, heads, size])?.transpose(1, 2))
        };
        let (queries, keys) = (part(q, &self.queries)?, part(k, &self.keys)?);
        let values = part(v, &self.keys)?;
        let mixed = attention(&queries, &keys, &values, Some(&self.mask), grouped)?;
        Ok(mixed.transpose(1, 2).f_reshape([-1, q.size()[1] * q.size()[2]])?)
    }
}

fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    grouped: bool,
) -> Result<Tensor, LmError> {
    let causal = mask.is_none();
    Ok(Tensor::f_scaled_dot_product_attention(q, k, v, mask, 0.0, causal, None, grouped)?)
}

impl Attention for ForestAttention {
    fn attend(
        &mut self,
        _layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<Tensor, LmError> {
        if let Some(plan) = &self.plan {
            return kernels::tree_attention(plan, q, k, v);
        }
        let width = q.size()[1] * q.size()[2];
        let mut pieces = Vec::with_capacity(self.chains.len() + self.batches.len());
        for chain in &self.chains {
            let (start, length) = (chain.start as i64, chain.len() as i64);
            // [n, heads, head_dim] → [1, heads, length, head_dim]
            let part = |x: &Tensor| x.narrow(0, start, length).transpose(0, 1).unsqueeze(0);
            let mixed = attention(&part(q), &part(k), &part(v), None, self.grouped)?;
            pieces.push(mixed.squeeze_dim(0).transpose(0, 1).f_reshape([length, width])?);
        }
        for batch in &self.batches {
            pieces.push(batch.attend(q, k, v, self.grouped)?);
        }
        let mixed = Tensor::f_cat(&pieces, 0)?;
        Ok(match &self.order {
            Some(order) => mixed.f_index_select(0, order)?,
            None => mixed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::ForestAttention;
    use crate::model::forward::Attention;
    use crate::model::init::normal;
    use crate::policy::forest::{Pack, Row, pack};
    use leyden_core::SeedTree;
    use tch::{Device, Kind, Tensor};

    /// Two trees with repeated branching, and a chain between them.
    fn forest() -> Pack {
        let seed = SeedTree::new(2);
        let (mut rows, mut groups) = (Vec::new(), Vec::new());
        for (group, count) in [(0, 9), (1, 1), (2, 5)] {
            for row in 0..count {
                let at = seed.index(group).index(row);
                let mut ids: Vec<u32> = (0..40).map(|i| i / 10).collect();
                ids.truncate((at.uniform() * 40.0) as usize);
                ids.extend((0..20).map(|i| (at.index(i).uniform() * 3.0) as u32));
                rows.push(Row { ids, actions: Vec::new() });
                groups.push(group as usize);
            }
        }
        pack(&rows, &groups, usize::MAX).unwrap().remove(0)
    }

    fn naive(pack: &Pack, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let n = pack.len();
        let seen: Vec<bool> = (0..n * n).map(|i| pack.sees(i / n, i % n)).collect();
        let hidden = Tensor::from_slice(&seen).view([n as i64, n as i64]).logical_not();
        let repeat = q.size()[1] / k.size()[1];
        let heads = |x: &Tensor, by: i64| x.repeat_interleave_self_int(by, 1, None).transpose(0, 1);
        let scores = heads(q, 1).matmul(&heads(k, repeat).transpose(1, 2));
        let scores = scores / (q.size()[2] as f64).sqrt();
        let weights = scores.masked_fill(&hidden, f64::NEG_INFINITY).softmax(-1, Kind::Float);
        weights.matmul(&heads(v, repeat)).transpose(0, 1).reshape([n as i64, -1])
    }

    #[test]
    fn tiles_match_masked_attention_and_its_gradient_for_every_size() {
        let pack = forest();
        let n = pack.len() as i64;
        assert!(pack.trees.iter().filter(|t| pack.is_chain(t)).count() == 1 && n > 200);
        let random = |heads, name: &str| {
            let x = normal(&[n, heads, 8], 1.0, SeedTree::new(3).child(name)).unwrap();
            x.set_requires_grad(true)
        };
        let cotangent = random(4, "cotangent").detach().view([n, 32]);
        for kv in [4, 2] {
            let (q, k, v) = (random(4, "q"), random(kv, "k"), random(kv, "v"));
            let gradient = |y: &Tensor| {
                let sum = (y * &cotangent).sum(Kind::Float);
                Tensor::run_backward(&[sum], &[&q, &k, &v], false, false)
            };
            let expected = naive(&pack, &q, &k, &v);
            let expected_gradient = gradient(&expected);
            for tile in [1, 7, 32, 128, 4096] {
                let mut attention =
                    ForestAttention::with_tile(&pack, kv != 4, Kind::Float, Device::Cpu, tile)
                        .unwrap();
                let ours = attention.attend(0, &q, &k, &v).unwrap();
                let error = (&ours - &expected).abs().max().double_value(&[]);
                assert!(error < 1e-5, "tile {tile}: {error}");
                for (ours, expected) in gradient(&ours).iter().zip(&expected_gradient) {
                    let error = (ours - expected).abs().max().double_value(&[]);
                    assert!(error < 2e-5, "tile {tile}: gradient {error}");
                }
            }
        }
    }
}
