//! RMSNorm (Zhang and Sennrich 2019): y = w · x / rms(x), and its gradients.

use crate::element::Element;
use crate::simd::{Kernel, LANES, Simd, dispatch};
use crate::threads::{Shared, each};

/// Rows per task. The row sums that the weight's gradient needs are computed in chunks of this size
/// regardless of the number of threads.
const ROWS: usize = 128;

/// y `[rows, width]` for `x` `[rows, width]` and `weight` `[width]`; the width is a multiple of
/// sixteen.
///
/// # Panics
/// If the sizes do not match.
pub fn rms_norm<T: Element>(threads: usize, x: &[T], weight: &[T], eps: f32, y: &mut [T]) {
    let width = checked(x, weight, y);
    let out = Shared::new(y);
    each(threads, x.len().div_ceil(width * ROWS), |task| {
        let start = task * ROWS * width;
        let x = &x[start..x.len().min(start + ROWS * width)];
        // SAFETY: tasks write disjoint rows.
        let y = unsafe { out.part(start, x.len()) };
        dispatch(Forward { x, weight, eps, y });
    });
}

/// Gradients of [`rms_norm`], given the gradient of y: writes that of x to `of_x`, returns that of
/// the weight.
///
/// # Panics
/// If the sizes do not match.
pub fn rms_norm_backward<T: Element>(
    threads: usize,
    x: &[T],
    weight: &[T],
    eps: f32,
    of_y: &[T],
    of_x: &mut [T],
) -> Vec<f32> {
    let width = checked(x, weight, of_x);
    assert_eq!(x.len(), of_y.len());
    let tasks = x.len().div_ceil(width * ROWS);
    let mut partial = vec![0.0; tasks * width];
    let (out, sums) = (Shared::new(of_x), Shared::new(&mut partial));
    each(threads, tasks, |task| {
        let start = task * ROWS * width;
        let end = x.len().min(start + ROWS * width);
        // SAFETY: tasks write disjoint rows and sums.
        let (of_x, of_weight) =
            unsafe { (out.part(start, end - start), sums.part(task * width, width)) };
        dispatch(Backward {
            x: &x[start..end],
            weight,
            eps,
            of_y: &of_y[start..end],
            of_x,
            of_weight,
        });
    });
    let mut total = vec![0.0; width];
    for partial in partial.chunks_exact(width) {
        total.iter_mut().zip(partial).for_each(|(total, x)| *total += x);
    }
    total
}

fn checked<T>(x: &[T], weight: &[T], y: &[T]) -> usize {
    let width = weight.len();
    assert!(width > 0 && width.is_multiple_of(LANES) && x.len().is_multiple_of(width));
    assert_eq!(x.len(), y.len());
    width
}

/// A function rather than a closure, which would be compiled without the instruction set.
#[inline(always)]
unsafe fn load<S: Simd, T: Element>(from: &[T], at: usize) -> S::V {
    // SAFETY: guaranteed by the caller: sixteen numbers from `at` on.
    unsafe { T::load::<S>(from.as_ptr().add(at)) }
}

/// 1 / rms(x)
#[inline(always)]
unsafe fn inverse_rms<S: Simd, T: Element>(x: &[T], eps: f32) -> f32 {
    // SAFETY: guaranteed by the caller; `x` is a multiple of sixteen long.
    unsafe {
        let mut sum = S::splat(0.0);
        for at in (0..x.len()).step_by(LANES) {
            let x = T::load::<S>(x.as_ptr().add(at));
            sum = S::fma(x, x, sum);
        }
        1.0 / (S::sum(sum) / x.len() as f32 + eps).sqrt()
    }
}

struct Forward<'a, T> {
    x: &'a [T],
    weight: &'a [T],
    eps: f32,
    y: &'a mut [T],
}

impl<T: Element> Kernel for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let width = self.weight.len();
        for (x, y) in self.x.chunks_exact(width).zip(self.y.chunks_exact_mut(width)) {
            // SAFETY: guaranteed by the caller; rows are a multiple of sixteen long.
            unsafe {
                let inverse = S::splat(inverse_rms::<S, T>(x, self.eps));
                for at in (0..width).step_by(LANES) {
                    let normed = S::mul(T::load::<S>(x.as_ptr().add(at)), inverse);
                    let w = T::load::<S>(self.weight.as_ptr().add(at));
                    T::store::<S>(y.as_mut_ptr().add(at), S::mul(normed, w));
                }
            }
        }
    }
}

/// With x̂ = x / rms(x) and g = w · dy: dx = (g − x̂ · mean(g · x̂)) / rms(x), dw = Σ dy · x̂.
struct Backward<'a, T> {
    x: &'a [T],
    weight: &'a [T],
    eps: f32,
    of_y: &'a [T],
    of_x: &'a mut [T],
    of_weight: &'a mut [f32],
}

impl<T: Element> Kernel for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let width = self.weight.len();
        let rows = self.x.chunks_exact(width).zip(self.of_y.chunks_exact(width));
        for ((x, of_y), of_x) in rows.zip(self.of_x.chunks_exact_mut(width)) {
            // SAFETY: guaranteed by the caller; rows are a multiple of sixteen long.
            unsafe {
                let inverse = inverse_rms::<S, T>(x, self.eps);
                let mut sum = S::splat(0.0);
                for at in (0..width).step_by(LANES) {
                    let g = S::mul(load::<S, T>(of_y, at), load::<S, T>(self.weight, at));
                    sum = S::fma(g, load::<S, T>(x, at), sum);
                }
                let mean = S::splat(S::sum(sum) * inverse / width as f32);
                let inverse = S::splat(inverse);
                for at in (0..width).step_by(LANES) {
                    let dy = load::<S, T>(of_y, at);
                    let normed = S::mul(load::<S, T>(x, at), inverse);
                    let to = self.of_weight.as_mut_ptr().add(at);
                    S::store(to, S::fma(dy, normed, S::load(to)));
                    let g = S::mul(dy, load::<S, T>(self.weight, at));
                    let slope = S::sub(g, S::mul(normed, mean));
                    T::store::<S>(of_x.as_mut_ptr().add(at), S::mul(slope, inverse));
                }
            }
        }
    }
}
