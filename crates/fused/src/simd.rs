//! Vectors of sixteen numbers, for the instruction set available at run time.
//!
//! A kernel is written once against [`Simd`] and compiled for each instruction set; [`dispatch`]
//! selects one at run time. Sums run in the same order on every run of one machine; between
//! machines with and without fused multiply-add the last digits differ.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod portable;

use half::bf16;

/// Elements per vector.
pub const LANES: usize = 16;

/// Operations on sixteen f32 numbers.
///
/// # Safety
/// The methods of an implementation may be called only if its instruction set is present, which
/// [`dispatch`] ensures; pointers must be valid for sixteen elements, at any alignment.
#[allow(clippy::missing_safety_doc, reason = "one condition for all, stated on the trait")]
pub trait Simd: Copy {
    type V: Copy;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, x: Self::V);
    unsafe fn load_bf16(from: *const bf16) -> Self::V;
    /// Rounds to the nearest, ties to even.
    unsafe fn store_bf16(to: *mut bf16, x: Self::V);
    /// The first and the second of each of sixteen pairs of bf16.
    unsafe fn load_pairs(from: *const u32) -> (Self::V, Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// a · b + c, rounded once if the processor supports it.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sqrt(x: Self::V) -> Self::V;
    /// To the nearest whole number.
    unsafe fn round(x: Self::V) -> Self::V;
    /// x · 2ⁿ for whole `n` in [−126, 127].
    unsafe fn scale(x: Self::V, n: Self::V) -> Self::V;
    /// `then` where a < b, else `otherwise`.
    unsafe fn where_less(a: Self::V, b: Self::V, then: Self::V, otherwise: Self::V) -> Self::V;
    /// `x` in lanes whose bit is set, `otherwise` elsewhere.
    unsafe fn where_bits(bits: u16, x: Self::V, otherwise: Self::V) -> Self::V;
    /// Prefetches the address `at`, which need not be valid.
    unsafe fn prefetch(at: *const u8);
    unsafe fn sum(x: Self::V) -> f32;
    unsafe fn largest(x: Self::V) -> f32;
}

/// A kernel: state and inputs in its fields.
pub trait Kernel {
    type Output;

    /// # Safety
    /// The instruction set of `S` is present. Mark it `#[inline(always)]`, so that it is
    /// compiled for that instruction set.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// Runs a kernel with the widest available instruction set.
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: both features have just been found.
        return unsafe { avx2::run(kernel) };
    }
    // SAFETY: the portable implementation has no requirements.
    unsafe { kernel.run::<portable::Portable>() }
}

/// e^x to within two units in the last place; 0 below −87.3, e^88.3 above 88.3.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // x = n ln 2 + r with |r| <= ln 2 / 2, and a polynomial for e^r. ln 2 is split in two parts, so
    // that r is exact.
    const LN2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    const TERMS: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];
    // SAFETY: guaranteed by the caller.
    unsafe {
        let low = S::splat(-87.3);
        let high = S::splat(88.3);
        let clamped = S::where_less(high, x, high, S::max(x, low));
        let n = S::round(S::mul(clamped, S::splat(std::f32::consts::LOG2_E)));
        let r = S::fma(n, S::splat(-LN2.0), clamped);
        let r = S::fma(n, S::splat(-LN2.1), r);
        let mut p = S::splat(TERMS[0]);
        for term in &TERMS[1..] {
            p = S::fma(p, r, S::splat(*term));
        }
        let e = S::add(S::fma(p, S::mul(r, r), r), S::splat(1.0));
        S::where_less(x, low, S::splat(0.0), S::scale(e, n))
    }
}

#[cfg(test)]
mod tests {
    use super::{Kernel, LANES, Simd, dispatch, exp, portable::Portable};
    use half::bf16;

    struct Exp<'a>(&'a mut [f32]);

    impl Kernel for Exp<'_> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            for chunk in self.0.chunks_exact_mut(LANES) {
                // SAFETY: a chunk has sixteen numbers.
                unsafe { S::store(chunk.as_mut_ptr(), exp::<S>(S::load(chunk.as_ptr()))) };
            }
        }
    }

    #[test]
    fn exp_is_within_two_ulp_over_the_whole_range() {
        let inputs: Vec<f32> = (0..16 * 4096).map(|i| -87.2 + 175.4 * i as f32 / 65536.0).collect();
        let mut ours = [inputs.clone(), inputs.clone()];
        dispatch(Exp(&mut ours[0]));
        // SAFETY: the portable implementation has no requirements.
        unsafe { Exp(&mut ours[1]).run::<Portable>() };
        for outputs in &ours {
            for (&x, &y) in inputs.iter().zip(outputs) {
                let exact = f64::from(x).exp();
                assert!((f64::from(y) / exact - 1.0).abs() < 2.4e-7, "e^{x}: {y} and {exact}");
            }
        }
        let mut ends = [f32::NEG_INFINITY, -88.0, 0.0, -1000.0].repeat(4);
        dispatch(Exp(&mut ends));
        assert_eq!(ends[..4], [0.0, 0.0, 1.0, 0.0]);
    }

    /// All other operations, by definition.
    struct Others<'a> {
        a: &'a [f32; LANES],
        b: &'a [f32; LANES],
        out: Vec<[f32; LANES]>,
    }

    impl Kernel for Others<'_> {
        type Output = Vec<[f32; LANES]>;
        #[inline(always)]
        unsafe fn run<S: Simd>(mut self) -> Self::Output {
            // SAFETY: arrays of sixteen.
            unsafe {
                let (a, b) = (S::load(self.a.as_ptr()), S::load(self.b.as_ptr()));
                let mut narrow = [bf16::ZERO; LANES];
                S::store_bf16(narrow.as_mut_ptr(), a);
                let pairs: [u32; LANES] = std::array::from_fn(|i| {
                    u32::from(bf16::from_f32(self.a[i]).to_bits())
                        | u32::from(bf16::from_f32(self.b[i]).to_bits()) << 16
                });
                let (first, second) = S::load_pairs(pairs.as_ptr());
                for v in [
                    S::add(a, b),
                    S::sub(a, b),
                    S::mul(a, b),
                    S::div(a, b),
                    S::max(a, b),
                    S::sqrt(S::mul(a, a)),
                    S::round(a),
                    S::scale(b, S::round(a)),
                    S::where_less(a, b, a, S::splat(7.0)),
                    S::where_bits(0b1010_0110_0000_1111, a, b),
                    S::load_bf16(narrow.as_ptr()),
                    first,
                    second,
                    S::splat(S::largest(a)),
                ] {
                    let mut row = [0.0; LANES];
                    S::store(row.as_mut_ptr(), v);
                    self.out.push(row);
                }
            }
            self.out
        }
    }

    #[test]
    fn wide_instructions_match_plain_loops() {
        let a: [f32; LANES] = std::array::from_fn(|i| (i as f32 * 1.7 - 11.3) * 1.003);
        let b: [f32; LANES] = std::array::from_fn(|i| 3.1 - i as f32 * 0.9);
        let kernel = || Others { a: &a, b: &b, out: Vec::new() };
        // SAFETY: the portable implementation has no requirements.
        let plain = unsafe { kernel().run::<Portable>() };
        assert_eq!(dispatch(kernel()), plain);
        assert_eq!(plain[0][3], a[3] + b[3]);
        assert_eq!(plain[10][5], bf16::from_f32(a[5]).to_f32());
        assert_eq!(plain[9][4], b[4]);
        assert_eq!(plain[9][9], a[9]);
    }
}
