//! The one matrix product that everything here is made of.
//!
//! out[r][16 v + l] (+)= Σ_p a[r][p] · b[v][p][l]: rows of `a` against panels of sixteen
//! columns. Up to six rows are held in registers at a time, so that each load of a panel
//! serves six rows and each number of `a` sixteen columns; a single row takes four panels at a
//! time, so that as many sums are under way.

use crate::simd::{LANES, Simd};

/// Most rows in registers: with two registers a vector, twelve sums of sixteen registers.
const ROWS: usize = 6;

/// Panels that a single row takes together.
const WIDE: usize = 4;

/// What a panel is made of.
pub(crate) trait Word: Copy + Send + Sync + Default {
    /// Depths in one word.
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
        // SAFETY: as the caller promises.
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
        // SAFETY: as the caller promises.
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

/// Row-major numbers: `stride` from one row to the next.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub at: *const f32,
    pub stride: usize,
}

/// Panels of sixteen columns: `panel` words from one to the next, `step` from one word of
/// depth to the next.
#[derive(Clone, Copy)]
pub(crate) struct Panels<W> {
    pub at: *const W,
    pub panel: usize,
    pub step: usize,
}

/// Row-major results, a panel's columns side by side.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    pub at: *mut f32,
    pub stride: usize,
    /// Whether to add to what is there.
    pub add: bool,
}

/// `rows` rows of `a` times `panels` panels of `b`, over `depth` words.
///
/// # Safety
/// The instruction set of `S`; everything that the shapes name lies behind the pointers.
#[inline(always)]
pub(crate) unsafe fn product<S: Simd, W: Word>(
    (rows, panels, depth): (usize, usize, usize),
    a: Rows,
    b: Panels<W>,
    out: Out,
) {
    let mut panel = 0;
    while panel < panels {
        let wide = rows == 1 && panels - panel >= WIDE;
        // SAFETY: as the caller promises.
        unsafe {
            let b = Panels { at: b.at.add(panel * b.panel), ..b };
            let out = Out { at: out.at.add(panel * LANES), ..out };
            if wide {
                block::<S, W, 1, WIDE>(depth, a, b, out);
            } else {
                column::<S, W>(rows, depth, a, b, out);
            }
        }
        panel += if wide { WIDE } else { 1 };
    }
}

/// All rows against one panel.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn column<S: Simd, W: Word>(rows: usize, depth: usize, a: Rows, b: Panels<W>, out: Out) {
    let mut row = 0;
    while row < rows {
        // SAFETY: as the caller promises.
        unsafe {
            let a = Rows { at: a.at.add(row * a.stride), ..a };
            let out = Out { at: out.at.add(row * out.stride), ..out };
            match rows - row {
                1 => block::<S, W, 1, 1>(depth, a, b, out),
                2 => block::<S, W, 2, 1>(depth, a, b, out),
                3 => block::<S, W, 3, 1>(depth, a, b, out),
                4 => block::<S, W, 4, 1>(depth, a, b, out),
                5 => block::<S, W, 5, 1>(depth, a, b, out),
                _ => block::<S, W, ROWS, 1>(depth, a, b, out),
            }
        }
        row += ROWS;
    }
}

/// `R` rows against `P` panels, all sums in registers.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn block<S: Simd, W: Word, const R: usize, const P: usize>(
    depth: usize,
    a: Rows,
    b: Panels<W>,
    out: Out,
) {
    // SAFETY: as the caller promises.
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
    use super::{Out, Panels, Rows, Word, product};
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
            let a = Rows { at: self.a.as_ptr(), stride: depth * W::DEPTH };
            let b = Panels { at: self.b.as_ptr(), panel: depth * LANES, step: LANES };
            let out = Out { at: self.out.as_mut_ptr(), stride: panels * LANES, add: true };
            assert_eq!(self.a.len(), rows * depth * W::DEPTH);
            assert_eq!(self.out.len(), rows * panels * LANES);
            // SAFETY: the lengths have been checked.
            unsafe { product::<S, W>(self.shape, a, b, out) };
        }
    }

    #[test]
    fn products_of_every_number_of_rows_and_panels_are_right() {
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
