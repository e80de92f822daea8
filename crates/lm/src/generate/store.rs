//! Storage of keys and values: one tensor per layer, with a slot for each sequence.
//!
//! Layout per layer: [2 (keys, values), slots, kv_heads, capacity, head_dim]. (The fused CPU
//! kernels use their own order of elements within blocks of sixteen tokens; whole blocks and slots
//! move in the same way.) A range of slots is then one batch for `bmm` without copying, and
//! appending a token writes its keys and values with one `index_copy_`. The capacity is the
//! smallest multiple of [`BLOCK`] that holds the longest sequence, for two reasons: oneDNN's bf16
//! products copy operands that are not contiguous, and compile a kernel for each new shape, so
//! lengths must not change with every token.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use crate::error::LmError;
use crate::kernels::CachedLayer;
use crate::model::config::LlamaConfig;

/// Columns are added in multiples of this many tokens.
pub(super) const BLOCK: usize = 32;

/// `tokens` rounded up to whole blocks, at least one.
pub(super) fn blocks(tokens: usize) -> usize {
    tokens.max(1).next_multiple_of(BLOCK)
}

/// Keys and values of many sequences.
pub(super) struct Store {
    layers: Vec<Tensor>,
    count: usize,
    slots: usize,
    capacity: usize,
    kv_heads: usize,
    head_dim: usize,
    options: (Kind, Device),
}

impl Store {
    /// An empty store for a model of this shape.
    pub fn new(config: &LlamaConfig, kind: Kind, device: Device) -> Self {
        Self {
            layers: Vec::new(),
            count: config.layers,
            slots: 0,
            capacity: 0,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            options: (kind, device),
        }
    }

    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Tokens that fit into one slot.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Number of tokens for which memory is allocated.
    pub fn tokens(&self) -> usize {
        self.slots * self.capacity
    }

    /// Frees the memory.
    pub fn clear(&mut self) {
        (self.layers, self.slots, self.capacity) = (Vec::new(), 0, 0);
    }

    /// Rearranges the slots: slot `i` becomes the former slot `order[i]` (a new sequence if
    /// `None`), with a capacity of `capacity` tokens each. Slots beyond `order` are lost.
    pub fn arrange(&mut self, order: &[Option<usize>], capacity: usize) -> Result<(), LmError> {
        let capacity = blocks(capacity);
        let slots = order.len();
        let fits = slots == self.slots && capacity == self.capacity && !self.layers.is_empty();
        let moves: Vec<(i64, i64)> = order
            .iter()
            .enumerate()
            .filter_map(|(to, from)| from.map(|from| (from as i64, to as i64)))
            .filter(|(from, to)| !fits || from != to)
            .collect();
        if fits && moves.is_empty() {
            return Ok(());
        }
        let common = capacity.min(self.capacity) as i64;
        for layer in 0..self.count {
            // Zeros instead of uninitialised memory: masked values must still be finite.
            let mut target = if fits {
                self.layers[layer].shallow_clone()
            } else {
                let size = [2, slots, self.kv_heads, capacity, self.head_dim].map(|n| n as i64);
                Tensor::f_zeros(size, self.options)?
            };
            if !moves.is_empty() {
                let from = self.layers[layer].f_narrow(3, 0, common)?;
                copy_slots(&from, &target.f_narrow(3, 0, common)?, &moves)?;
            }
            if !fits {
                match self.layers.get_mut(layer) {
                    Some(old) => *old = target,
                    None => self.layers.push(std::mem::replace(&mut target, Tensor::new())),
                }
            }
        }
        (self.slots, self.capacity) = (slots, capacity);
        Ok(())
    }

    /// Grows each slot to `capacity` tokens, keeping the contents.
    pub fn grow(&mut self, capacity: usize) -> Result<(), LmError> {
        let order: Vec<Option<usize>> = (0..self.slots).map(Some).collect();
        self.arrange(&order, capacity)
    }

    /// One layer in the form of the fused kernels.
    pub fn layer(&self, layer: usize) -> CachedLayer {
        CachedLayer::new(&self.layers[layer], self.slots, self.capacity)
    }

    /// Per layer the first `columns` keys, transposed [slots · kv_heads, head_dim, columns],
    /// and values [slots · kv_heads, columns, head_dim] of a range of slots: views.
    pub fn views(
        &self,
        slots: Range<usize>,
        columns: usize,
    ) -> Result<Vec<(Tensor, Tensor)>, LmError> {
        let (columns, hd) = (columns as i64, self.head_dim as i64);
        let half = |layer: &Tensor, half: i64| -> Result<Tensor, LmError> {
            Ok(layer
                .f_select(0, half)?
                .f_narrow(0, slots.start as i64, slots.len() as i64)?
                .f_narrow(2, 0, columns)?
                .f_view([-1, columns, hd])?)
        };
        self.layers
            .iter()
            .map(|layer| Ok((half(layer, 0)?.f_transpose(1, 2)?, half(layer, 1)?)))
            .collect()
    }

    /// Per layer, all vectors as rows: [2 · slots · kv_heads · capacity, head_dim], views.
    pub fn flat(&self) -> Result<Vec<Tensor>, LmError> {
        let hd = self.head_dim as i64;
        self.layers.iter().map(|layer| Ok(layer.f_view([-1, hd])?)).collect()
    }

    /// Appends to `index` the rows of [`Store::flat`] for one half (0 keys, 1 values) of token
    /// `column` in `slot`: one row per kv head.
    pub fn push_rows(&self, index: &mut Vec<i64>, half: usize, slot: usize, column: usize) {
        let first = (half * self.slots + slot) * self.kv_heads * self.capacity + column;
        index.extend((0..self.kv_heads).map(|head| (first + head * self.capacity) as i64));
    }
}

/// Copies slots (dimension 1) from one tensor to another, or within one: `moves` are pairs of
/// source and target.
fn copy_slots(from: &Tensor, to: &Tensor, moves: &[(i64, i64)]) -> Result<(), LmError> {
    let device = from.device();
    let index = |of: fn(&(i64, i64)) -> i64| {
        let list: Vec<i64> = moves.iter().map(of).collect();
        Tensor::f_from_slice(&list)?.f_to_device(device)
    };
    if device != Device::Cpu {
        let moved = from.f_index_select(1, &index(|m| m.0)?)?;
        let _ = to.shallow_clone().f_index_copy_(1, &index(|m| m.1)?, &moved)?;
        return Ok(());
    }
    // On the CPU `index_copy_` copies element by element (7 % of a tiny model's step); runs of
    // slots are copied as memory. Within one tensor a slot may be overwritten before it is copied.
    let within = from.data_ptr() == to.data_ptr();
    let source =
        if within { from.f_index_select(1, &index(|m| m.0)?)? } else { from.shallow_clone() };
    let pairs: Vec<(i64, i64)> = match within {
        true => (0..).zip(moves.iter().map(|m| m.1)).collect(),
        false => moves.to_vec(),
    };
    for run in pairs.chunk_by(|a, b| (b.0, b.1) == (a.0 + 1, a.1 + 1)) {
        let (first, length) = (run[0], run.len() as i64);
        let part = source.f_narrow(1, first.0, length)?;
        to.f_narrow(1, first.1, length)?.f_copy_(&part)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::{BLOCK, Store};
    use crate::model::config::LlamaConfig;

    fn config() -> LlamaConfig {
        LlamaConfig {
            vocab_size: 8,
            hidden_size: 4,
            intermediate_size: 4,
            layers: 2,
            heads: 2,
            kv_heads: 2,
            head_dim: 2,
            norm_eps: 1e-5,
            rope_theta: 1e4,
            rope_scaling: None,
            max_positions: 64,
            tied: true,
            bos: None,
            eos: vec![],
        }
    }

    /// The first number of the keys of a slot's column 3.
    fn mark(store: &Store, slot: usize) -> f64 {
        store.views(slot..slot + 1, 4).unwrap()[1].0.double_value(&[0, 0, 3])
    }

    #[test]
    fn slots_keep_their_contents_when_moved_and_grown() {
        let mut store = Store::new(&config(), Kind::Float, Device::Cpu);
        store.arrange(&[None, None, None], 5).unwrap();
        assert_eq!(store.capacity(), BLOCK);
        for slot in 0..3 {
            let mut index = Vec::new();
            store.push_rows(&mut index, 0, slot, 3);
            let flat = store.flat().unwrap();
            let _ = flat[1].narrow(0, index[0], 1).fill_(10.0 + slot as f64);
        }
        store.arrange(&[Some(2), Some(1), Some(0)], 5).unwrap();
        assert_eq!([0, 1, 2].map(|s| mark(&store, s)), [12.0, 11.0, 10.0]);
        store.grow(BLOCK + 1).unwrap();
        assert_eq!(store.capacity(), 2 * BLOCK);
        store.arrange(&[Some(1), None, Some(2), Some(0)], 1).unwrap();
        assert_eq!(store.capacity(), BLOCK);
        assert_eq!([0, 1, 2, 3].map(|s| mark(&store, s)), [11.0, 0.0, 10.0, 12.0]);
    }
}
