//! The residual sum.

use crate::element::Element;
use crate::simd::{Kernel, LANES, Simd, dispatch};

/// Adds `y` to `x`; both have the same length, a multiple of sixteen.
///
/// # Panics
/// If the sizes do not match.
pub fn add<T: Element>(x: &mut [T], y: &[T]) {
    assert!(x.len() == y.len() && x.len().is_multiple_of(LANES));
    dispatch(Add { x, y });
}

struct Add<'a, T> {
    x: &'a mut [T],
    y: &'a [T],
}

impl<T: Element> Kernel for Add<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (x, y) in self.x.chunks_exact_mut(LANES).zip(self.y.chunks_exact(LANES)) {
            // SAFETY: the caller guarantees the instruction set; chunks have sixteen elements.
            unsafe {
                let sum = S::add(T::load::<S>(x.as_ptr()), T::load::<S>(y.as_ptr()));
                T::store::<S>(x.as_mut_ptr(), sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::add;
    use crate::Element;
    use half::bf16;

    fn check<T: Element + PartialEq + std::fmt::Debug>() {
        let numbers: Vec<T> = (0..48).map(|i| T::narrow(i as f32 / 7.0)).collect();
        let other: Vec<T> = numbers.iter().rev().copied().collect();
        let mut sum = numbers.clone();
        add(&mut sum, &other);
        for ((sum, a), b) in sum.iter().zip(&numbers).zip(&other) {
            assert_eq!(*sum, T::narrow(a.widen() + b.widen()));
        }
    }

    #[test]
    fn sums_are_rounded_once() {
        check::<f32>();
        check::<bf16>();
    }
}
