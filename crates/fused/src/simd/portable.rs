//! Plain loops, for processors without a dedicated implementation.

use half::bf16;

use super::{LANES, Simd};

/// No requirements on the processor.
#[derive(Clone, Copy)]
pub struct Portable;

type V = [f32; LANES];

#[inline(always)]
fn each(f: impl FnMut(usize) -> f32) -> V {
    std::array::from_fn(f)
}

impl Simd for Portable {
    type V = V;

    #[inline(always)]
    unsafe fn splat(x: f32) -> V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> V {
        // SAFETY: sixteen numbers, as the trait requires.
        unsafe { from.cast::<V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: V) {
        // SAFETY: sixteen numbers, as the trait requires.
        unsafe { to.cast::<V>().write_unaligned(x) };
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> V {
        // SAFETY: sixteen numbers, as the trait requires.
        each(|i| unsafe { from.add(i).read_unaligned() }.to_f32())
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut bf16, x: V) {
        for (i, x) in x.into_iter().enumerate() {
            // SAFETY: sixteen numbers, as the trait requires.
            unsafe { to.add(i).write_unaligned(bf16::from_f32(x)) };
        }
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const u32) -> (V, V) {
        // SAFETY: sixteen pairs, as the trait requires.
        let word = |i: usize| unsafe { from.add(i).read_unaligned() };
        (each(|i| f32::from_bits(word(i) << 16)), each(|i| f32::from_bits(word(i) & 0xffff_0000)))
    }
    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: V, b: V, c: V) -> V {
        // Without a hardware instruction, `mul_add` would be a function call per element.
        each(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn sqrt(x: V) -> V {
        each(|i| x[i].sqrt())
    }
    #[inline(always)]
    unsafe fn round(x: V) -> V {
        each(|i| x[i].round_ties_even())
    }
    #[inline(always)]
    unsafe fn scale(x: V, n: V) -> V {
        each(|i| x[i] * f32::from_bits(((n[i] as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    unsafe fn where_less(a: V, b: V, then: V, otherwise: V) -> V {
        each(|i| if a[i] < b[i] { then[i] } else { otherwise[i] })
    }
    #[inline(always)]
    unsafe fn where_bits(bits: u16, x: V, otherwise: V) -> V {
        each(|i| if bits >> i & 1 == 1 { x[i] } else { otherwise[i] })
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
    #[inline(always)]
    unsafe fn sum(x: V) -> f32 {
        x.iter().sum()
    }
    #[inline(always)]
    unsafe fn largest(x: V) -> f32 {
        x.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }
}
