//! A pass over cached keys and values by tensor operations, on any device.
//!
//! For each segment the queries are arranged as a grid, slot by slot, so that all queries on one
//! slot are one matrix product: eight samples of one prompt read its keys once. The query heads
//! that share a kv head are further rows of that product, so keys are never repeated. One softmax
//! runs over both segments together; an additive mask hides columns that a token may not see,
//! including those beyond its length.

use tch::{Device, Kind, Tensor};

use crate::error::LmError;
use crate::generate::store::{Store, blocks};
use crate::generate::visibility::{Visibility, Writes};
use crate::model::config::LlamaConfig;
use crate::model::forward::Attention;

/// Positions of a pass's queries in the grid of one segment, [slots, kv_heads, per slot].
struct Grid {
    per_slot: i64,
    /// Token order → grid order and back, as indices for `index_select`; absent if the two orders
    /// are equal.
    reorder: Option<(Tensor, Tensor)>,
}

impl Grid {
    /// `slots[t]` is the slot that token `t` attends to, of `count`.
    fn new(slots: &[usize], count: usize, kv: usize, device: Device) -> Result<Self, LmError> {
        let mut filled = vec![0; count];
        let mut ranks = Vec::with_capacity(slots.len());
        for &slot in slots {
            ranks.push(filled[slot]);
            filled[slot] += 1;
        }
        let per_slot = filled.into_iter().max().unwrap_or(0);
        if per_slot == 1 && slots.len() == count && slots.is_sorted() {
            return Ok(Self { per_slot: 1, reorder: None });
        }
        // Empty positions of the grid repeat token 0; their results are not used.
        let mut spread = vec![0; count * kv * per_slot];
        let mut gather = Vec::with_capacity(slots.len() * kv);
        for (token, (slot, rank)) in slots.iter().zip(ranks).enumerate() {
            for head in 0..kv {
                let place = (slot * kv + head) * per_slot + rank;
                spread[place] = (token * kv + head) as i64;
                gather.push(place as i64);
            }
        }
        let tensor = |list: &[i64]| Tensor::f_from_slice(list)?.f_to_device(device);
        Ok(Self { per_slot: per_slot as i64, reorder: Some((tensor(&spread)?, tensor(&gather)?)) })
    }

    fn spread(&self, x: Tensor) -> Result<Tensor, LmError> {
        Ok(match &self.reorder {
            Some((spread, _)) => x.f_index_select(0, spread)?,
            None => x,
        })
    }

    fn gather(&self, x: Tensor) -> Result<Tensor, LmError> {
        Ok(match &self.reorder {
            Some((_, gather)) => x.f_index_select(0, gather)?,
            None => x,
        })
    }
}

/// Slots of one store that the tokens of a pass attend to.
struct Segment {
    /// Per layer, keys [slots · kv_heads, head_dim, columns], values [.., columns, head_dim].
    layers: Vec<(Tensor, Tensor)>,
    columns: i64,
    grid: Grid,
}

/// A pass by tensor operations, on any device.
pub(super) struct TensorPass {
    heads: i64,
    kv_heads: i64,
    head_dim: i64,
    device: Device,
    /// Per layer, the rows of the store that is written.
    flat: Vec<Tensor>,
    rows: Tensor,
    source: Option<Tensor>,
    segments: Vec<Segment>,
    /// [tokens, 1, 1, columns of all segments]: 0 or -inf.
    mask: Tensor,
}

impl TensorPass {
    /// As [`crate::generate::pass::Pass::new`].
    pub fn new(
        config: &LlamaConfig,
        (kind, device): (Kind, Device),
        target: &Store,
        writes: &Writes,
        views: &[Visibility],
    ) -> Result<Self, LmError> {
        let n = views[0].tokens.len();
        let (rows, source) = writes.index(target, n, config.kv_heads);
        let tensor = |list: &[i64]| Tensor::f_from_slice(list)?.f_to_device(device);
        let mut segments = Vec::with_capacity(views.len());
        for view in views {
            let longest = view.tokens.iter().map(|&(_, visible)| visible).max().unwrap_or(0);
            let columns = blocks(longest).min(view.store.capacity());
            let slots: Vec<usize> =
                view.tokens.iter().map(|&(slot, _)| slot - view.slots.start).collect();
            segments.push(Segment {
                layers: view.store.views(view.slots.clone(), columns)?,
                columns: columns as i64,
                grid: Grid::new(&slots, view.slots.len(), config.kv_heads, device)?,
            });
        }
        let total: usize = segments.iter().map(|s| s.columns as usize).sum();
        let mut mask = vec![f32::NEG_INFINITY; n * total];
        let mut start = 0;
        for (segment, view) in segments.iter().zip(views) {
            for (row, &(_, visible)) in mask.chunks_exact_mut(total).zip(&view.tokens) {
                row[start..start + visible].fill(0.0);
            }
            start += segment.columns as usize;
        }
        Ok(Self {
            heads: config.heads as i64,
            kv_heads: config.kv_heads as i64,
            head_dim: config.head_dim as i64,
            device,
            flat: target.flat()?,
            rows: tensor(&rows)?,
            source: source.map(|s| tensor(&s)).transpose()?,
            segments,
            mask: Tensor::f_from_slice(&mask)?
                .f_view([n as i64, 1, 1, total as i64])?
                .f_to_device(device)?
                .f_to_kind(kind)?,
        })
    }

    pub fn columns(&self) -> usize {
        self.segments[0].columns as usize
    }

    pub fn advance(&mut self, target: &Store, places: &[(usize, usize)]) -> Result<(), LmError> {
        let total = self.mask.size()[3];
        let mut rows = Vec::with_capacity(2 * places.len() * self.kv_heads as usize);
        for half in 0..2 {
            for &(slot, column) in places {
                target.push_rows(&mut rows, half, slot, column);
            }
        }
        self.rows = Tensor::f_from_slice(&rows)?.f_to_device(self.device)?;
        let seen: Vec<i64> = places
            .iter()
            .enumerate()
            .map(|(token, &(_, column))| token as i64 * total + column as i64)
            .collect();
        let seen = Tensor::f_from_slice(&seen)?.f_to_device(self.device)?;
        let _ = self.mask.f_view([-1])?.f_index_fill_(0, &seen, 0.0)?;
        Ok(())
    }

    /// Writes keys and values `k`, `v` [n, kv_heads, head_dim] of a layer into the store.
    fn write(&self, layer: usize, k: &Tensor, v: &Tensor) -> Result<(), LmError> {
        let mut stacked = Tensor::f_cat(&[k, v], 0)?.f_view([-1, self.head_dim])?;
        if let Some(source) = &self.source {
            stacked = stacked.f_index_select(0, source)?;
        }
        let _ = self.flat[layer].shallow_clone().f_index_copy_(0, &self.rows, &stacked)?;
        Ok(())
    }

    /// Probabilities [n · kv_heads, heads per kv head, columns] from scaled queries
    /// [n · kv_heads, heads per kv head · head_dim].
    fn probabilities(&self, layer: usize, queries: &Tensor) -> Result<Tensor, LmError> {
        let (kv, hd) = (self.kv_heads, self.head_dim);
        let rows = queries.size()[0];
        let shared = self.heads / kv;
        let mut parts = Vec::with_capacity(self.segments.len());
        for Segment { layers, columns, grid } in &self.segments {
            let grouped =
                grid.spread(queries.shallow_clone())?.f_view([-1, grid.per_slot * shared, hd])?;
            let scores = grouped.f_bmm(&layers[layer].0)?.f_view([-1, shared * columns])?;
            parts.push(grid.gather(scores)?.f_view([rows, shared, *columns])?);
        }
        let scores = match parts.len() {
            1 => parts.remove(0),
            _ => Tensor::f_cat(&parts, 2)?,
        };
        let total = scores.size()[2];
        let masked = scores.f_view([rows / kv, kv, shared, total])?.f_add_(&self.mask)?;
        Ok(masked.f_softmax(-1, masked.kind())?.f_view([rows, shared, total])?)
    }
}

impl Attention for TensorPass {
    fn attend(
        &mut self,
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<Tensor, LmError> {
        let (kv, hd) = (self.kv_heads, self.head_dim);
        let shared = self.heads / kv;
        let n = q.size()[0];
        self.write(layer, k, v)?;
        let scale = 1.0 / (hd as f64).sqrt();
        let queries = q.f_mul_scalar(scale)?.f_reshape([n * kv, shared * hd])?;
        let probabilities = self.probabilities(layer, &queries)?;
        let mut sum: Option<Tensor> = None;
        let mut start = 0;
        for Segment { layers, columns, grid } in &self.segments {
            let part = grid.spread(probabilities.f_narrow(2, start, *columns)?)?;
            let part = match &grid.reorder {
                Some(_) => part.f_view([-1, grid.per_slot * shared, *columns])?,
                None => part,
            };
            let mixed = part.f_bmm(&layers[layer].1)?.f_view([-1, shared * hd])?;
            let mixed = grid.gather(mixed)?;
            sum = Some(match sum {
                Some(mut sum) => sum.f_add_(&mixed)?,
                None => mixed,
            });
            start += columns;
        }
        let sum = sum.ok_or_else(|| LmError::Invalid("attention over nothing".to_owned()))?;
        Ok(sum.f_view([n, self.heads * hd])?)
    }
}
