//! Attention over cached keys and values.
//!
//! A cache holds slots of `capacity` tokens. Keys and values are stored in the layout the products
//! read (see [`Layer::write`]), so decoding a token packs nothing. A query attends to the first
//! columns of its own slot and, optionally, of a trunk shared with other queries; queries on one
//! trunk read it once, together.

use std::slice::from_ref;

use super::forward::softmax;
use super::{Heads, Shape};
use crate::element::{Element, per_word, place_in_panel, widen};
use crate::product::{Matrix, Out, Panels, product};
use crate::simd::{Kernel, LANES, Simd, dispatch};
use crate::threads::{Shared, each};

/// Minimum and maximum tokens per task: as many as have scores that fit in a core's cache.
const TOKENS: [usize; 2] = [8, 32];

/// Scores per task.
const SCORES: usize = 32 * 1024;

/// Blocks of a slot to prefetch.
const FETCHED: usize = 4;

/// A slot's capacity must be a multiple of this many tokens.
pub const CAPACITY_STEP: usize = LANES;

/// One layer's cache, [2 (keys, values), slots, kv_heads, capacity, head_dim] numbers.
#[derive(Clone, Copy)]
pub struct Layer<T> {
    data: *mut T,
    slots: usize,
    capacity: usize,
}

// SAFETY: a view of memory; reading and writing it is unsafe or exclusive.
unsafe impl<T: Send> Send for Layer<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Layer<T> {}

impl<T: Element> Layer<T> {
    /// # Safety
    /// `data` is valid for reads and writes of the whole layer for the lifetime of this value, and
    /// no other code writes to it meanwhile. The capacity is a multiple of [`CAPACITY_STEP`], the
    /// numbers are finite.
    pub unsafe fn new(data: *mut T, slots: usize, capacity: usize) -> Self {
        Self { data, slots, capacity }
    }

    /// Keys (0) or values (1) of one slot and head, [capacity, head_dim] numbers.
    #[inline(always)]
    fn start(&self, shape: Shape, half: usize, slot: usize, head: usize) -> *mut T {
        assert!(slot < self.slots && head < shape.kv_heads);
        let vectors = ((half * self.slots + slot) * shape.kv_heads + head) * self.capacity;
        // SAFETY: inside the layer, as just asserted.
        unsafe { self.data.add(vectors * shape.head_dim) }
    }

    /// Writes the tokens' keys and values to their places (token, slot, column). Sixteen keys form
    /// a panel, with neighbouring elements of one key in a word; for values, a word holds
    /// neighbouring tokens' elements.
    pub fn write(
        &mut self,
        shape: Shape,
        places: &[(usize, usize, usize)],
        k: Heads<T>,
        v: Heads<T>,
    ) {
        dispatch(Write { shape, layer: *self, places, k, v });
    }
}

/// See [`Layer::write`].
struct Write<'a, T> {
    shape: Shape,
    layer: Layer<T>,
    places: &'a [(usize, usize, usize)],
    k: Heads<'a, T>,
    v: Heads<'a, T>,
}

impl<T: Element> Write<'_, T> {
    /// Start of the key panel and of the value word for a position.
    #[inline(always)]
    fn at(&self, slot: usize, column: usize, head: usize) -> (*mut T, *mut T) {
        let (hd, pair) = (self.shape.head_dim, per_word::<T>());
        assert!(column < self.layer.capacity);
        let keys = self.layer.start(self.shape, 0, slot, head);
        let values = self.layer.start(self.shape, 1, slot, head);
        // SAFETY: `column` is inside the slot.
        unsafe { (keys.add(column / LANES * LANES * hd), values.add(column / pair * hd * pair)) }
    }
}

impl<T: Element> Kernel for Write<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (hd, pair) = (self.shape.head_dim, per_word::<T>());
        for (place, &(token, slot, column)) in self.places.iter().enumerate() {
            // A key's elements are in separate cache lines: prefetch the next token's meanwhile.
            let next = self.places.get(place + 1);
            for head in 0..self.shape.kv_heads {
                if let Some(&(_, slot, column)) = next {
                    let (panel, word) = self.at(slot, column, head);
                    // SAFETY: the caller guarantees the instruction set.
                    unsafe {
                        fetch::<S, T>(panel, LANES * hd);
                        fetch::<S, T>(word, hd);
                    }
                }
                let (panel, word) = self.at(slot, column, head);
                let (k, v) = (self.k.at(token, head, hd), self.v.at(token, head, hd));
                // SAFETY: `column` is inside the slot, so are all positions. Two loops, so that f32
                // values are copied as a whole.
                unsafe {
                    for (d, &k) in k.iter().enumerate() {
                        *panel.add(place_in_panel::<T>(d, column % LANES)) = k;
                    }
                    let word = word.add(column % pair);
                    for (d, &v) in v.iter().enumerate() {
                        *word.add(d * pair) = v;
                    }
                }
            }
        }
    }
}

/// Prefetches `count` elements.
#[inline(always)]
unsafe fn fetch<S: Simd, T>(from: *const T, count: usize) {
    const LINE: usize = 64;
    for line in 0..(count * size_of::<T>()).div_ceil(LINE) {
        // SAFETY: guaranteed by the caller; a prefetched address need not be valid.
        unsafe { S::prefetch(from.cast::<u8>().wrapping_add(line * LINE)) };
    }
}

/// The cached columns that one token attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VisibleColumns {
    /// Slot of the trunk and its number of visible columns; (0, 0) if there is no trunk.
    pub trunk: (usize, usize),
    /// The token's own slot and its number of visible columns.
    pub own: (usize, usize),
    pub token: usize,
}

/// Attention of `q`, one query per entry of `visible`, which must be sorted; the result is
/// written to `mixed` [tokens, heads, head_dim].
///
/// # Panics
/// If the shape is not supported, a slot does not exist or a column is beyond its capacity.
pub fn attend<T: Element>(
    threads: usize,
    shape: Shape,
    (own, trunk): (Layer<T>, Layer<T>),
    visible: &[VisibleColumns],
    q: Heads<T>,
    mixed: &mut [T],
) {
    assert!(shape.supported() && visible.is_sorted());
    assert_eq!(mixed.len(), visible.len() * shape.heads * shape.head_dim);
    for view in visible {
        assert!(view.own.1 <= own.capacity && view.trunk.1 <= trunk.capacity);
    }
    let chunks: Vec<&[VisibleColumns]> = visible
        .chunk_by(|a, b| a.trunk.0 == b.trunk.0)
        .flat_map(|group| {
            let columns = group.iter().map(|view| view.trunk.1 + view.own.1).max().unwrap_or(0);
            let fitting = SCORES / (columns * shape.shared()).max(1);
            group.chunks(fitting.clamp(TOKENS[0], TOKENS[1]))
        })
        .collect();
    let mixed = Shared::new(mixed);
    each(threads, chunks.len() * shape.kv_heads, |task| {
        let (visible, kv_head) = (chunks[task / shape.kv_heads], task % shape.kv_heads);
        dispatch(Attend { shape, own, trunk, visible, kv_head, q, mixed: &mixed });
    });
}

/// Tokens that share a trunk, for one key head.
struct Attend<'a, T> {
    shape: Shape,
    own: Layer<T>,
    trunk: Layer<T>,
    visible: &'a [VisibleColumns],
    kv_head: usize,
    q: Heads<'a, T>,
    mixed: &'a Shared<T>,
}

/// Columns in whole blocks.
fn blocks(columns: usize) -> usize {
    columns.div_ceil(LANES)
}

/// Bit mask of block `block` when the first `count` columns are visible.
#[inline(always)]
fn seen(count: usize, block: usize) -> u16 {
    match count.saturating_sub(block * LANES) {
        0 => 0,
        count @ 1..LANES => (1 << count) - 1,
        _ => u16::MAX,
    }
}

impl<T: Element> Kernel for Attend<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (hd, shared) = (self.shape.head_dim, self.shape.shared());
        let longest =
            |of: fn(&VisibleColumns) -> usize| self.visible.iter().map(of).max().unwrap_or(0);
        let trunk_blocks = blocks(longest(|view| view.trunk.1));
        let own_blocks = blocks(longest(|view| view.own.1));
        let width = (trunk_blocks + own_blocks) * LANES;
        let rows = self.visible.len() * shared;
        let mut queries = vec![0.0; rows * hd];
        let mut scores = vec![0.0; rows * width];
        let mut out = vec![0.0; rows * hd];
        for (place, view) in self.visible.iter().enumerate() {
            for head in 0..shared {
                let row = place * shared + head;
                let from = self.q.at(view.token, self.kv_head * shared + head, hd);
                // SAFETY: the caller guarantees the instruction set.
                unsafe { widen::<S, T>(from, &mut queries[row * hd..(row + 1) * hd]) };
            }
        }
        // Tokens that read the same slot: the slot, its blocks, and the rows of the scores.
        let groups: Vec<(usize, usize, usize)> = self
            .visible
            .chunk_by(|a, b| a.own.0 == b.own.0)
            .map(|group| {
                let columns = group.iter().map(|view| view.own.1).max().unwrap_or(0);
                (group[0].own.0, blocks(columns), group.len() * shared)
            })
            .collect();
        // Rows `first .. first + count` of the scores, starting at a column.
        let part = |first: usize, count: usize, column: usize| Part { first, count, column, width };
        let trunk_slot = self.visible[0].trunk.0;
        if trunk_blocks > 0 {
            let part = part(0, rows, 0);
            // SAFETY: guaranteed by the caller.
            unsafe {
                self.score::<S>(&self.trunk, trunk_slot, trunk_blocks, part, &queries, &mut scores);
            }
        }
        let mut first = 0;
        for (number, &(slot, blocks, count)) in groups.iter().enumerate() {
            let part = part(first, count, trunk_blocks * LANES);
            // SAFETY: guaranteed by the caller.
            unsafe {
                self.fetch_next::<S>(0, groups.get(number + 1));
                self.score::<S>(&self.own, slot, blocks, part, &queries, &mut scores);
            }
            first += count;
        }
        // SAFETY: guaranteed by the caller.
        unsafe { self.fetch_next::<S>(1, groups.first()) };
        let scale = 1.0 / (hd as f32).sqrt();
        let mut inverses = vec![0.0; rows];
        for (row, inverse) in inverses.iter_mut().enumerate() {
            let view = &self.visible[row / shared];
            let bits = |block: usize| match block.checked_sub(trunk_blocks) {
                None => seen(view.trunk.1, block),
                Some(block) => seen(view.own.1, block),
            };
            // Blocks after the token's own last block hold no valid scores.
            let used = trunk_blocks + blocks(view.own.1);
            let scores = &mut scores[row * width..(row + 1) * width];
            scores[used * LANES..].fill(0.0);
            // SAFETY: guaranteed by the caller.
            let (sum, _) = unsafe { softmax::<S>(scores, from_ref(&(0..used)), scale, bits) };
            *inverse = 1.0 / sum;
        }
        if trunk_blocks > 0 {
            let part = part(0, rows, 0);
            // SAFETY: guaranteed by the caller.
            unsafe {
                self.mix::<S>(
                    &self.trunk,
                    trunk_slot,
                    trunk_blocks,
                    part,
                    &scores,
                    &mut out,
                    false,
                );
            }
        }
        let mut first = 0;
        for (number, &(slot, blocks, count)) in groups.iter().enumerate() {
            let add = trunk_blocks > 0;
            let part = part(first, count, trunk_blocks * LANES);
            // SAFETY: guaranteed by the caller.
            unsafe {
                self.fetch_next::<S>(1, groups.get(number + 1));
                self.mix::<S>(&self.own, slot, blocks, part, &scores, &mut out, add);
            }
            first += count;
        }
        for (row, inverse) in inverses.iter().enumerate() {
            let head = self.kv_head * shared + row % shared;
            let token = self.visible[row / shared].token;
            // SAFETY: exactly one task writes each (token, head); sixteen elements from `at` on.
            unsafe {
                let to = self.mixed.part((token * self.shape.heads + head) * hd, hd);
                for at in (0..hd).step_by(LANES) {
                    let x = S::load(out.as_ptr().add(row * hd + at));
                    T::store::<S>(to.as_mut_ptr().add(at), S::mul(x, S::splat(*inverse)));
                }
            }
        }
    }
}

/// Some rows of the scores, and the column at which a segment begins.
#[derive(Clone, Copy)]
struct Part {
    first: usize,
    count: usize,
    column: usize,
    /// Columns of the scores.
    width: usize,
}

// Methods rather than closures: a closure is a separate function that would be compiled without the
// instruction set.
impl<T: Element> Attend<'_, T> {
    /// Prefetches the beginning of the keys (0) or values (1) that are needed next: slots are not
    /// adjacent, and a short one is finished before the hardware prefetcher has detected the next.
    #[inline(always)]
    unsafe fn fetch_next<S: Simd>(&self, half: usize, group: Option<&(usize, usize, usize)>) {
        let Some(&(slot, blocks, _)) = group else { return };
        let count = blocks.min(FETCHED) * LANES * self.shape.head_dim;
        // SAFETY: guaranteed by the caller.
        unsafe { fetch::<S, T>(self.own.start(self.shape, half, slot, self.kv_head), count) };
    }

    /// Queries against `blocks` blocks of a slot's keys.
    #[inline(always)]
    unsafe fn score<S: Simd>(
        &self,
        layer: &Layer<T>,
        slot: usize,
        blocks: usize,
        part: Part,
        queries: &[f32],
        scores: &mut [f32],
    ) {
        let hd = self.shape.head_dim;
        let depth = hd / per_word::<T>();
        let keys = layer.start(self.shape, 0, slot, self.kv_head);
        let to = part.first * part.width + part.column;
        // SAFETY: guaranteed by the caller; the blocks are inside the slot's capacity.
        unsafe {
            product::<S, T::Word>(
                (part.count, blocks, depth),
                Matrix { at: queries.as_ptr().add(part.first * hd), stride: hd },
                Panels { at: keys.cast(), panel: depth * LANES, step: LANES },
                Out { at: scores.as_mut_ptr().add(to), stride: part.width, add: false },
            );
        }
    }

    /// Probabilities times `blocks` blocks of a slot's values.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "a product's operands, place and result")]
    unsafe fn mix<S: Simd>(
        &self,
        layer: &Layer<T>,
        slot: usize,
        blocks: usize,
        part: Part,
        scores: &[f32],
        out: &mut [f32],
        add: bool,
    ) {
        let hd = self.shape.head_dim;
        let values = layer.start(self.shape, 1, slot, self.kv_head);
        let from = part.first * part.width + part.column;
        // SAFETY: guaranteed by the caller; the blocks are inside the slot's capacity.
        unsafe {
            product::<S, T::Word>(
                (part.count, hd / LANES, blocks * LANES / per_word::<T>()),
                Matrix { at: scores.as_ptr().add(from), stride: part.width },
                Panels { at: values.cast(), panel: LANES, step: hd },
                Out { at: out.as_mut_ptr().add(part.first * hd), stride: hd, add },
            );
        }
    }
}
