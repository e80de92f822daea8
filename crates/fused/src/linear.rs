//! Products with a weight that is reused.
//!
//! A library's product converts the weight into its own layout on every call, which for a few rows
//! costs more than the arithmetic. Here the weight is packed into panels once.

use crate::element::{Element, per_word, place_in_panel};
use crate::product::{Matrix, Out, Panels, product_streamed};
use crate::simd::{Kernel, LANES, Simd, dispatch};
use crate::threads::{Shared, each};

/// Panels per task: 64 outputs.
const PANELS: usize = 4;

/// Rows per task.
const ROWS: usize = 96;

/// A matrix [out, in] in panels of sixteen outputs.
pub struct PackedWeight<T: Element> {
    /// [out / 16, in / per word, 16]
    words: Vec<T::Word>,
    out: usize,
    input: usize,
}

impl<T: Element> PackedWeight<T> {
    /// Whether a matrix with `input` columns can be packed.
    pub fn supported(input: usize) -> bool {
        input > 0 && input.is_multiple_of(LANES)
    }

    /// Packs `weight` [out, in], row-major.
    ///
    /// # Panics
    /// If `input` is not [supported](Self::supported) or the size is wrong.
    pub fn new(threads: usize, weight: &[T], out: usize, input: usize) -> Self {
        assert!(Self::supported(input) && weight.len() == out * input);
        let panels = out.div_ceil(LANES);
        let size = input / per_word::<T>() * LANES;
        let mut words = vec![T::Word::default(); panels * size];
        let shared = Shared::new(&mut words);
        each(threads, panels, |panel| {
            // SAFETY: each task writes its own panel; a word has the size of its elements.
            let numbers: &mut [T] = unsafe {
                let words = shared.part(panel * size, size);
                std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), LANES * input)
            };
            let rows =
                &weight[panel * LANES * input..weight.len().min((panel + 1) * LANES * input)];
            for (lane, row) in rows.chunks_exact(input).enumerate() {
                for (d, &x) in row.iter().enumerate() {
                    numbers[place_in_panel::<T>(d, lane)] = x;
                }
            }
        });
        Self { words, out, input }
    }

    /// Number of outputs: the rows of the matrix.
    pub fn outputs(&self) -> usize {
        self.out
    }

    /// Multiplies `x` [rows, in] by the transposed matrix into `y` [rows, out].
    ///
    /// # Panics
    /// If the sizes do not match.
    pub fn multiply(&self, threads: usize, x: &[T], y: &mut [T]) {
        let rows = x.len() / self.input;
        assert!(x.len() == rows * self.input && y.len() == rows * self.out);
        let mut wide = Vec::new();
        let x = if is_f32::<T>() {
            // SAFETY: `T` is f32, as just checked.
            unsafe { std::slice::from_raw_parts(x.as_ptr().cast::<f32>(), x.len()) }
        } else {
            wide.extend(x.iter().map(|x| x.widen()));
            &wide
        };
        let panels = self.out.div_ceil(LANES);
        let (groups, chunks) = (panels.div_ceil(PANELS), rows.div_ceil(ROWS));
        let y = Shared::new(y);
        each(threads, groups * chunks, |task| {
            // A group's tasks for all rows run consecutively, so the group is read from memory
            // once.
            let (group, chunk) = (task / chunks, task % chunks);
            let rows = chunk * ROWS..rows.min((chunk + 1) * ROWS);
            // Threads take tasks in turn, so this thread's next task is probably `threads` further
            // on.
            let after = (task + threads) / chunks * PANELS;
            let panels = group * PANELS..panels.min((group + 1) * PANELS);
            dispatch(Multiply { weight: self, x, rows, panels, after, y: &y });
        });
    }
}

/// A four-byte type with one element per word is f32.
fn is_f32<T: Element>() -> bool {
    per_word::<T>() == 1 && size_of::<T>() == size_of::<f32>()
}

/// A range of rows and a range of panels.
struct Multiply<'a, T: Element> {
    weight: &'a PackedWeight<T>,
    x: &'a [f32],
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
    /// The panel that is probably multiplied next.
    after: usize,
    y: &'a Shared<T>,
}

impl<T: Element> Kernel for Multiply<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let PackedWeight { ref words, out, input } = *self.weight;
        let (rows, panels) = (self.rows.len(), self.panels.len());
        let depth = input / per_word::<T>();
        let size = depth * LANES;
        let stride = panels * LANES;
        let first = self.panels.start * LANES;
        let count = stride.min(out - first);
        let words = &words[self.panels.start * size..self.panels.end * size];
        let x = &self.x[self.rows.start * input..self.rows.end * input];
        let multiply = (
            (rows, panels, depth),
            Matrix { at: x.as_ptr(), stride: input },
            Panels { at: words.as_ptr(), panel: size, step: LANES },
        );
        let after = self.weight.words.as_ptr().wrapping_add(self.after * size);
        if is_f32::<T>() && count == stride {
            // The sums of whole panels are the result.
            let end = (self.rows.end - 1) * out + first + count;
            let y = self.y.pointer(self.rows.start * out + first..end).cast();
            // SAFETY: the caller guarantees the instruction set; the slices have the lengths given
            // by the shape; exactly one task writes these rows and columns of `y`.
            unsafe {
                let (shape, x, words) = multiply;
                let out = Out { at: y, stride: out, add: false };
                product_streamed::<S, T::Word>(shape, x, words, out, after);
            }
            return;
        }
        let mut sums = [0.0; ROWS * PANELS * LANES];
        // SAFETY: as above.
        unsafe {
            let (shape, x, words) = multiply;
            let out = Out { at: sums.as_mut_ptr(), stride, add: false };
            product_streamed::<S, T::Word>(shape, x, words, out, after);
        }
        for (row, sums) in self.rows.zip(sums.chunks_exact(stride)) {
            // SAFETY: exactly one task writes these rows and columns.
            let y = unsafe { self.y.part(row * out + first, count) };
            let whole = count / LANES * LANES;
            for at in (0..whole).step_by(LANES) {
                // SAFETY: sixteen numbers from `at` on in both.
                unsafe { T::store::<S>(y.as_mut_ptr().add(at), S::load(sums.as_ptr().add(at))) };
            }
            for at in whole..count {
                y[at] = T::narrow(sums[at]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PackedWeight;
    use crate::Element;
    use half::bf16;

    fn check<T: Element>(rows: usize, out: usize, input: usize) {
        let number = |i: usize| T::narrow((i * 13 % 17) as f32 / 8.0 - 1.0);
        let weight: Vec<T> = (0..out * input).map(number).collect();
        let x: Vec<T> = (0..rows * input).map(|i| number(i + 5)).collect();
        let packed = PackedWeight::new(2, &weight, out, input);
        let mut y = [vec![T::default(); rows * out], vec![T::default(); rows * out]];
        packed.multiply(1, &x, &mut y[0]);
        packed.multiply(3, &x, &mut y[1]);
        for (i, (a, b)) in y[0].iter().zip(&y[1]).enumerate() {
            let (row, column) = (i / out, i % out);
            let terms = x[row * input..][..input].iter().zip(&weight[column * input..][..input]);
            // Multiples of 1/64 below 2^17: exact in f32 in any order.
            let expected = T::narrow(terms.map(|(x, w)| x.widen() * w.widen()).sum());
            assert_eq!(a.widen(), expected.widen(), "{rows} rows, [{row}, {column}]");
            assert_eq!(a.widen(), b.widen());
        }
    }

    #[test]
    fn packed_products_match_plain_products() {
        for (rows, out, input) in [(1, 160, 32), (1, 7, 16), (5, 100, 48), (200, 33, 64)] {
            check::<f32>(rows, out, input);
            check::<bf16>(rows, out, input);
        }
    }
}
