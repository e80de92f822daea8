//! Attention on a packed forest: each token looks at itself and its ancestors.
//!
//! Trees are independent, so each is one call of scaled dot-product attention. A tree that is
//! a single chain is plain causal attention; any other gets its mask from the subtree
//! intervals of the layout, made once per pack and used by all layers.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use crate::forest::Pack;
use crate::{Attention, LmError};

/// The ancestry of a pack, ready for use in every layer.
pub struct ForestAttention {
    trees: Vec<Tree>,
    /// Whether several query heads share a key/value head.
    grouped: bool,
}

struct Tree {
    start: i64,
    length: i64,
    /// [length, length], 0 where the row may look at the column and −∞ elsewhere; absent for
    /// a chain.
    mask: Option<Tensor>,
}

impl ForestAttention {
    /// `kind` is the type of the queries; `grouped` says whether there are fewer key/value
    /// heads than query heads.
    ///
    /// # Errors
    /// libtorch's own (memory).
    pub fn new(pack: &Pack, grouped: bool, kind: Kind, device: Device) -> Result<Self, LmError> {
        let trees = pack
            .trees
            .iter()
            .map(|tree| {
                let chain = pack.is_chain(tree);
                let mask = if chain { None } else { Some(mask(pack, tree, kind, device)?) };
                Ok(Tree { start: tree.start as i64, length: tree.len() as i64, mask })
            })
            .collect::<Result<_, LmError>>()?;
        Ok(Self { trees, grouped })
    }
}

/// The mask of one tree: node i looks at node j iff j ≤ i < ends[j].
///
/// Additive rather than boolean: libtorch would convert a boolean mask in every call.
fn mask(pack: &Pack, tree: &Range<usize>, kind: Kind, device: Device) -> Result<Tensor, LmError> {
    let ends: Vec<i64> = pack.ends[tree.clone()].iter().map(|&e| (e - tree.start) as i64).collect();
    let ends = Tensor::f_from_slice(&ends)?.to_device(device);
    let column = Tensor::f_arange(tree.len() as i64, (Kind::Int64, device))?;
    let row = column.unsqueeze(1);
    let hidden = row.f_lt_tensor(&column)?.f_logical_or(&row.f_ge_tensor(&ends)?)?;
    let n = tree.len() as i64;
    Ok(Tensor::f_zeros([n, n], (kind, device))?.f_masked_fill(&hidden, f64::NEG_INFINITY)?)
}

impl Attention for ForestAttention {
    fn attend(
        &mut self,
        _layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<Tensor, LmError> {
        let width = q.size()[1] * q.size()[2];
        let mut pieces = Vec::with_capacity(self.trees.len());
        for tree in &self.trees {
            // [n, heads, head_dim] → [1, heads, length, head_dim]
            let part =
                |x: &Tensor| x.narrow(0, tree.start, tree.length).transpose(0, 1).unsqueeze(0);
            let mixed = Tensor::f_scaled_dot_product_attention(
                &part(q),
                &part(k),
                &part(v),
                tree.mask.as_ref(),
                0.0,
                tree.mask.is_none(),
                None,
                self.grouped,
            )?;
            pieces.push(mixed.squeeze_dim(0).transpose(0, 1).f_reshape([tree.length, width])?);
        }
        Ok(Tensor::f_cat(&pieces, 0)?)
    }
}
