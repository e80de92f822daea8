//! The matrix product that all kernels here are built on.
//!
//! out[r][16 v + l] (+)= Σ_p a[r][p] · b[v][p][l]: rows of `a` against panels of sixteen columns.
//! Up to six rows are held in registers at a time, so that each load of a panel serves six rows and
//! each number of `a` sixteen columns; a single row processes four panels at a time, and the
//! remaining ones in four interleaved sums, to keep as many operations in flight.

use crate::simd::{LANES, Simd};

/// Maximum rows in registers: with two registers per vector, twelve of the sixteen registers hold
/// sums.
const ROWS: usize = 6;

/// Sums in flight for a single row: panels processed together, or parts of one.
const WIDE: usize = 4;

/// Element of a panel.
pub(crate) trait Word: Copy + Send + Sync + Default {
    /// Depths per word.
    const DEPTH: usize;

    /// sums[r] += a[r · stride ..][.. DEPTH] · b.
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn accumulate<S: Simd, const R: usize>(
        sums: &mut [S::V; R],
        a: *const f32,
        stride: usize,
        b: *const Self,
    );
}

impl Word for f32 {
    const DEPTH: usize = 1;

    #[inline(always)]
    unsafe fn accumulate<S: Simd, const R: usize>(
        sums: &mut [S::V; R],
        a: *const f32,
        stride: usize,
        b: *const Self,
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let b = S::load(b);
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum = S::fma(S::splat(*a.add(r * stride)), b, *sum);
            }
        }
    }
}

/// Two neighbouring depths in bf16, the first in the lower half.
impl Word for u32 {
    const DEPTH: usize = 2;

    #[inline(always)]
    unsafe fn accumulate<S: Simd, const R: usize>(
        sums: &mut [S::V; R],
        a: *const f32,
        stride: usize,
        b: *const Self,
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let (first, second) = S::load_pairs(b);
            for (r, sum) in sums.iter_mut().enumerate() {
                let a = a.add(r * stride);
                *sum = S::fma(S::splat(*a), first, *sum);
                *sum = S::fma(S::splat(*a.add(1)), second, *sum);
            }
        }
    }
}

/// Row-major elements; `stride` is the distance between rows.
#[derive(Clone, Copy)]
pub(crate) struct Matrix {
    pub at: *const f32,
    pub stride: usize,
}

/// Panels of sixteen columns: `panel` words between panels, `step` words between consecutive words
/// of depth.
#[derive(Clone, Copy)]
pub(crate) struct Panels<W> {
    pub at: *const W,
    pub panel: usize,
    pub step: usize,
}

/// Row-major results; a panel's columns are adjacent.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    pub at: *mut f32,
    pub stride: usize,
    /// Whether to add to the existing values.
    pub add: bool,
}

/// Multiplies `rows` rows of `a` by `panels` panels of `b`, over `depth` words.
///
/// # Safety
/// The instruction set of `S` is present; the pointers are valid for everything the shapes
/// describe.
#[inline(always)]
pub(crate) unsafe fn product<S: Simd, W: Word>(
    shape: (usize, usize, usize),
    a: Matrix,
    b: Panels<W>,
    out: Out,
) {
    // SAFETY: guaranteed by the caller.
    unsafe { product_of::<S, W, false>(shape, a, b, out, std::ptr::null()) };
}

/// As [`product`], for panels that come from memory and are not needed again soon: while one is
/// multiplied the next is prefetched, and at last the one at `after`, which need not exist.
///
/// # Safety
/// As [`product`].
#[inline(always)]
pub(crate) unsafe fn product_streamed<S: Simd, W: Word>(
    shape: (usize, usize, usize),
    a: Matrix,
    b: Panels<W>,
    out: Out,
    after: *const W,
) {
    // SAFETY: guaranteed by the caller.
    unsafe { product_of::<S, W, true>(shape, a, b, out, after) };
}

/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn product_of<S: Simd, W: Word, const STREAM: bool>(
    (rows, panels, depth): (usize, usize, usize),
    a: Matrix,
    b: Panels<W>,
    out: Out,
    after: *const W,
) {
    let mut panel = 0;
    while panel < panels {
        let wide = rows == 1 && panels - panel >= WIDE;
        // SAFETY: guaranteed by the caller.
        unsafe {
            let next = if panel + 1 < panels { b.at.add((panel + 1) * b.panel) } else { after };
            let b = Panels { at: b.at.add(panel * b.panel), ..b };
            let out = Out { at: out.at.add(panel * LANES), ..out };
            if wide {
                block::<S, W, 1, WIDE, false>(depth, a, b, out, Ahead::nothing());
            } else {
                column::<S, W, STREAM>(rows, depth, a, b, out, next);
            }
        }
        panel += if wide { WIDE } else { 1 };
    }
}

/// Memory to prefetch meanwhile: a number of bytes with every word of depth.
#[derive(Clone, Copy)]
struct Ahead {
    at: *const u8,
    pace: usize,
}

impl Ahead {
    fn nothing() -> Self {
        Self { at: std::ptr::null(), pace: 0 }
    }
}

/// All rows against one panel.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn column<S: Simd, W: Word, const STREAM: bool>(
    rows: usize,
    depth: usize,
    a: Matrix,
    b: Panels<W>,
    out: Out,
    next: *const W,
) {
    // Each block of rows prefetches its part of the next panel.
    let blocks = rows.div_ceil(ROWS);
    let pace = b.step * size_of::<W>() / blocks;
    let mut row = 0;
    while row < rows {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let a = Matrix { at: a.at.add(row * a.stride), ..a };
            let out = Out { at: out.at.add(row * out.stride), ..out };
            let ahead =
                Ahead { at: next.cast::<u8>().wrapping_add(row / ROWS * depth * pace), pace };
            match rows - row {
                1 => single::<S, W>(depth, a, b, out),
                2 => block::<S, W, 2, 1, STREAM>(depth, a, b, out, ahead),
                3 => block::<S, W, 3, 1, STREAM>(depth, a, b, out, ahead),
                4 => block::<S, W, 4, 1, STREAM>(depth, a, b, out, ahead),
                5 => block::<S, W, 5, 1, STREAM>(depth, a, b, out, ahead),
                _ => block::<S, W, ROWS, 1, STREAM>(depth, a, b, out, ahead),
            }
        }
        row += ROWS;
    }
}

/// One row against one panel, in interleaved sums: one sum would wait for each addition before
/// the next.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn single<S: Simd, W: Word>(depth: usize, a: Matrix, b: Panels<W>, out: Out) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut sums = [[S::splat(0.0)]; WIDE];
        let whole = depth / WIDE * WIDE;
        for word in (0..whole).step_by(WIDE) {
            for (i, sum) in sums.iter_mut().enumerate() {
                let (a, b) = (a.at.add((word + i) * W::DEPTH), b.at.add((word + i) * b.step));
                W::accumulate::<S, 1>(sum, a, 0, b);
            }
        }
        for word in whole..depth {
            let (a, b) = (a.at.add(word * W::DEPTH), b.at.add(word * b.step));
            W::accumulate::<S, 1>(&mut sums[0], a, 0, b);
        }
        let [[first], [second], [third], [fourth]] = sums;
        let mut sum = S::add(S::add(first, second), S::add(third, fourth));
        if out.add {
            sum = S::add(sum, S::load(out.at));
        }
        S::store(out.at, sum);
    }
}

/// `R` rows against `P` panels, all sums in registers.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn block<S: Simd, W: Word, const R: usize, const P: usize, const STREAM: bool>(
    depth: usize,
    a: Matrix,
    b: Panels<W>,
    out: Out,
    ahead: Ahead,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut sums = [[S::splat(0.0); R]; P];
        if out.add {
            for (p, sums) in sums.iter_mut().enumerate() {
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = S::load(out.at.add(r * out.stride + p * LANES));
                }
            }
        }
        for word in 0..depth {
            if STREAM {
                S::prefetch(ahead.at.wrapping_add(word * ahead.pace));
            }
            let a_at = a.at.add(word * W::DEPTH);
            for (p, sums) in sums.iter_mut().enumerate() {
                let b = b.at.add(p * b.panel + word * b.step);
                W::accumulate::<S, R>(sums, a_at, a.stride, b);
            }
        }
        for (p, sums) in sums.iter().enumerate() {
            for (r, sum) in sums.iter().enumerate() {
                S::store(out.at.add(r * out.stride + p * LANES), *sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Matrix, Out, Panels, Word, product};
    use crate::simd::{Kernel, LANES, Simd, dispatch};
    use half::bf16;

    struct Product<'a, W> {
        shape: (usize, usize, usize),
        a: &'a [f32],
        b: &'a [W],
        out: &'a mut [f32],
    }

    impl<W: Word> Kernel for Product<'_, W> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            let (rows, panels, depth) = self.shape;
            let a = Matrix { at: self.a.as_ptr(), stride: depth * W::DEPTH };
            let b = Panels { at: self.b.as_ptr(), panel: depth * LANES, step: LANES };
            let out = Out { at: self.out.as_mut_ptr(), stride: panels * LANES, add: true };
            assert_eq!(self.a.len(), rows * depth * W::DEPTH);
            assert_eq!(self.out.len(), rows * panels * LANES);
            // SAFETY: the lengths have been checked.
            unsafe { product::<S, W>(self.shape, a, b, out) };
        }
    }

    #[test]
    fn products_are_exact_for_all_row_and_panel_counts() {
        // Small whole numbers: every sum is exact, in bf16 too.
        let number = |i: usize| (i * 7 % 11) as f32 - 5.0;
        for rows in 1..=14 {
            for panels in 1..=6 {
                let depth = 10;
                let a: Vec<f32> = (0..rows * depth).map(number).collect();
                let b = |v: usize, p: usize, l: usize| number(v * 31 + p * 17 + l);
                let expected: Vec<f32> = (0..rows * panels * LANES)
                    .map(|i| {
                        let (r, column) = (i / (panels * LANES), i % (panels * LANES));
                        let (v, l) = (column / LANES, column % LANES);
                        1.0 + (0..depth).map(|p| a[r * depth + p] * b(v, p, l)).sum::<f32>()
                    })
                    .collect();
                let places = |step: usize| {
                    (0..panels * depth / step * LANES).map(move |i| {
                        let (v, rest) = (i / (depth / step * LANES), i % (depth / step * LANES));
                        (v, rest / LANES * step, rest % LANES)
                    })
                };
                let wide: Vec<f32> = places(1).map(|(v, p, l)| b(v, p, l)).collect();
                let mut out = vec![1.0; rows * panels * LANES];
                let (a, b_) = (a.as_slice(), wide.as_slice());
                dispatch(Product { shape: (rows, panels, depth), a, b: b_, out: &mut out });
                assert_eq!(out, expected, "{rows} rows, {panels} panels");
                let bits = |x: f32| u32::from(bf16::from_f32(x).to_bits());
                let pairs: Vec<u32> = places(2)
                    .map(|(v, p, l)| bits(b(v, p, l)) | bits(b(v, p + 1, l)) << 16)
                    .collect();
                let mut out = vec![1.0; rows * panels * LANES];
                let shape = (rows, panels, depth / 2);
                dispatch(Product { shape, a, b: &pairs, out: &mut out });
                assert_eq!(out, expected, "{rows} rows, {panels} panels of pairs");
            }
        }
    }
}
