//! Storage types of the kernels' elements.

use half::bf16;

use crate::product::Word;
use crate::simd::{LANES, Simd};

/// f32 or bf16, read and written as f32.
#[allow(private_bounds, reason = "the packed layout is private to this crate")]
pub trait Element: Copy + Send + Sync + Default + 'static {
    /// Four bytes of packed elements.
    type Word: Word;
    fn widen(self) -> f32;
    fn narrow(x: f32) -> Self;
    /// # Safety
    /// As [`Simd`]: the pointer is valid for reading sixteen elements.
    unsafe fn load<S: Simd>(from: *const Self) -> S::V;
    /// # Safety
    /// As [`Simd`]: the pointer is valid for writing sixteen elements.
    unsafe fn store<S: Simd>(to: *mut Self, x: S::V);
}

impl Element for f32 {
    type Word = f32;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        // SAFETY: guaranteed by the caller.
        unsafe { S::load(from) }
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut Self, x: S::V) {
        // SAFETY: guaranteed by the caller.
        unsafe { S::store(to, x) };
    }
}

impl Element for bf16 {
    type Word = u32;

    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        bf16::from_f32(x)
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        // SAFETY: guaranteed by the caller.
        unsafe { S::load_bf16(from) }
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut Self, x: S::V) {
        // SAFETY: guaranteed by the caller.
        unsafe { S::store_bf16(to, x) };
    }
}

/// Widens `from`, whose length is a multiple of sixteen, into `to`.
#[inline(always)]
pub(crate) unsafe fn widen<S: Simd, T: Element>(from: &[T], to: &mut [f32]) {
    assert!(from.len() == to.len() && from.len().is_multiple_of(LANES));
    for at in (0..from.len()).step_by(LANES) {
        // SAFETY: sixteen numbers from `at` on, as just asserted.
        unsafe { S::store(to.as_mut_ptr().add(at), T::load::<S>(from.as_ptr().add(at))) };
    }
}

/// Elements of `T` per word.
pub(crate) const fn per_word<T: Element>() -> usize {
    <T::Word as Word>::DEPTH
}

/// Index of element `d` of vector `lane` in a panel of sixteen interleaved vectors, in words of one
/// vector's adjacent elements: [elements / per word, 16].
#[inline(always)]
pub(crate) fn place_in_panel<T: Element>(d: usize, lane: usize) -> usize {
    let pair = per_word::<T>();
    (d / pair * LANES + lane) * pair + d % pair
}
