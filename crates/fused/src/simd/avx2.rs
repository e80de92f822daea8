//! x86-64 with AVX2 and fused multiply-add (2013 and later): two registers of eight.

use std::arch::x86_64::*;

use half::bf16;

use super::{Kernel, Simd};

/// Needs AVX2 and FMA.
#[derive(Clone, Copy)]
pub struct Avx2;

/// # Safety
/// AVX2 and FMA are present.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: guaranteed by the caller.
    unsafe { kernel.run::<Avx2>() }
}

/// Numbers 0 to 7 and 8 to 15.
#[derive(Clone, Copy)]
pub struct Pair(__m256, __m256);

/// Applies one intrinsic to both halves. Macros rather than closures: a closure is a separate
/// function that would be compiled without AVX2.
macro_rules! both {
    ($intrinsic:ident, $($x:expr),+) => {
        unsafe { Pair($intrinsic($($x.0),+), $intrinsic($($x.1),+)) }
    };
}

#[inline(always)]
unsafe fn widened(from: *const bf16) -> __m256 {
    // SAFETY: AVX2 and eight numbers, as the trait requires.
    unsafe {
        let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
    }
}

/// x · 2ⁿ.
#[inline(always)]
unsafe fn scaled(x: __m256, n: __m256) -> __m256 {
    // SAFETY: AVX2, as the trait requires.
    unsafe {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
    }
}

#[inline(always)]
unsafe fn less(a: __m256, b: __m256, then: __m256, otherwise: __m256) -> __m256 {
    // SAFETY: AVX2, as the trait requires.
    unsafe { _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
}

/// `x` in lanes whose bit among the lower eight is set.
#[inline(always)]
unsafe fn chosen(bits: u16, x: __m256, otherwise: __m256) -> __m256 {
    // SAFETY: AVX2, as the trait requires.
    unsafe {
        let places = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        let set = _mm256_and_si256(_mm256_set1_epi32(i32::from(bits)), places);
        _mm256_blendv_ps(otherwise, x, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, places)))
    }
}

/// The upper halves of eight f32, rounded to the nearest, ties to even; NaN stays NaN.
#[inline(always)]
unsafe fn rounded_halves(x: __m256) -> __m256i {
    // SAFETY: AVX2, as the trait requires.
    unsafe {
        let bits = _mm256_castps_si256(x);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
        let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, bias));
        let quiet = _mm256_or_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(0x40));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
        _mm256_blendv_epi8(rounded, quiet, nan)
    }
}

// SAFETY of every block below: AVX2 and FMA, and sixteen numbers behind each pointer, as the
// trait demands.
#[allow(clippy::undocumented_unsafe_blocks, reason = "stated once, above")]
impl Simd for Avx2 {
    type V = Pair;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Pair {
        let v = unsafe { _mm256_set1_ps(x) };
        Pair(v, v)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Pair {
        unsafe { Pair(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Pair) {
        unsafe {
            _mm256_storeu_ps(to, x.0);
            _mm256_storeu_ps(to.add(8), x.1);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Pair {
        unsafe { Pair(widened(from), widened(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut bf16, x: Pair) {
        unsafe {
            let packed = _mm256_packus_epi32(rounded_halves(x.0), rounded_halves(x.1));
            // Packing works within register halves: 0 2 1 3 puts quarters in order.
            let ordered = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
            _mm256_storeu_si256(to.cast(), ordered);
        }
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const u32) -> (Pair, Pair) {
        unsafe {
            let (a, b) = (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast()));
            let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            let first = (_mm256_slli_epi32::<16>(a), _mm256_slli_epi32::<16>(b));
            let second = (_mm256_and_si256(a, upper), _mm256_and_si256(b, upper));
            (
                Pair(_mm256_castsi256_ps(first.0), _mm256_castsi256_ps(first.1)),
                Pair(_mm256_castsi256_ps(second.0), _mm256_castsi256_ps(second.1)),
            )
        }
    }
    #[inline(always)]
    unsafe fn add(a: Pair, b: Pair) -> Pair {
        both!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: Pair, b: Pair) -> Pair {
        both!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: Pair, b: Pair) -> Pair {
        both!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    unsafe fn div(a: Pair, b: Pair) -> Pair {
        both!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: Pair, b: Pair, c: Pair) -> Pair {
        both!(_mm256_fmadd_ps, a, b, c)
    }
    #[inline(always)]
    unsafe fn max(a: Pair, b: Pair) -> Pair {
        both!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    unsafe fn sqrt(x: Pair) -> Pair {
        both!(_mm256_sqrt_ps, x)
    }
    #[inline(always)]
    unsafe fn round(x: Pair) -> Pair {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        unsafe { Pair(_mm256_round_ps::<NEAREST>(x.0), _mm256_round_ps::<NEAREST>(x.1)) }
    }
    #[inline(always)]
    unsafe fn scale(x: Pair, n: Pair) -> Pair {
        both!(scaled, x, n)
    }
    #[inline(always)]
    unsafe fn where_less(a: Pair, b: Pair, then: Pair, otherwise: Pair) -> Pair {
        both!(less, a, b, then, otherwise)
    }
    #[inline(always)]
    unsafe fn where_bits(bits: u16, x: Pair, otherwise: Pair) -> Pair {
        unsafe { Pair(chosen(bits & 0xff, x.0, otherwise.0), chosen(bits >> 8, x.1, otherwise.1)) }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // Into the second-level cache: a panel does not fit the first.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn sum(x: Pair) -> f32 {
        unsafe {
            let eight = _mm256_add_ps(x.0, x.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    unsafe fn largest(x: Pair) -> f32 {
        unsafe {
            let eight = _mm256_max_ps(x.0, x.1);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}
