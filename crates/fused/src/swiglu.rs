//! SwiGLU (Shazeer 2020): silu(gate) · up, and its gradients.

use crate::element::Element;
use crate::simd::{Kernel, LANES, Simd, dispatch, exp};
use crate::threads::{Shared, each};

/// Rows per task.
const ROWS: usize = 64;

/// silu(gate) · up [rows, inner] of `gate_up` [rows, 2 · inner], `inner` a multiple of sixteen.
///
/// # Panics
/// If the sizes do not match.
pub fn swiglu<T: Element>(threads: usize, inner: usize, gate_up: &[T], y: &mut [T]) {
    let rows = checked(inner, gate_up, y);
    let out = Shared::new(y);
    each(threads, rows.div_ceil(ROWS), |task| {
        let (start, end) = (task * ROWS, rows.min((task + 1) * ROWS));
        // SAFETY: tasks write disjoint rows.
        let y = unsafe { out.part(start * inner, (end - start) * inner) };
        dispatch(Forward { inner, gate_up: &gate_up[2 * start * inner..2 * end * inner], y });
    });
}

/// Gradient of `gate_up`, given the gradient of [`swiglu`]'s result.
///
/// # Panics
/// If the sizes do not match.
pub fn swiglu_backward<T: Element>(
    threads: usize,
    inner: usize,
    gate_up: &[T],
    of_y: &[T],
    of_gate_up: &mut [T],
) {
    let rows = checked(inner, gate_up, of_y);
    assert_eq!(gate_up.len(), of_gate_up.len());
    let out = Shared::new(of_gate_up);
    each(threads, rows.div_ceil(ROWS), |task| {
        let (start, end) = (task * ROWS * inner, rows.min((task + 1) * ROWS) * inner);
        // SAFETY: tasks write disjoint rows.
        let of_gate_up = unsafe { out.part(2 * start, 2 * (end - start)) };
        let gate_up = &gate_up[2 * start..2 * end];
        dispatch(Backward { inner, gate_up, of_y: &of_y[start..end], of_gate_up });
    });
}

fn checked<T>(inner: usize, gate_up: &[T], y: &[T]) -> usize {
    assert!(inner > 0 && inner.is_multiple_of(LANES) && y.len().is_multiple_of(inner));
    assert_eq!(gate_up.len(), 2 * y.len());
    y.len() / inner
}

/// 1 / (1 + e^−x)
#[inline(always)]
unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let one = S::splat(1.0);
        S::div(one, S::add(one, exp::<S>(S::sub(S::splat(0.0), x))))
    }
}

struct Forward<'a, T> {
    inner: usize,
    gate_up: &'a [T],
    y: &'a mut [T],
}

impl<T: Element> Kernel for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let rows = self.gate_up.chunks_exact(2 * self.inner);
        for (gate_up, y) in rows.zip(self.y.chunks_exact_mut(self.inner)) {
            for at in (0..self.inner).step_by(LANES) {
                // SAFETY: guaranteed by the caller; a row has 2 · `inner` elements.
                unsafe {
                    let gate = T::load::<S>(gate_up.as_ptr().add(at));
                    let up = T::load::<S>(gate_up.as_ptr().add(self.inner + at));
                    let silu = S::mul(gate, sigmoid::<S>(gate));
                    T::store::<S>(y.as_mut_ptr().add(at), S::mul(silu, up));
                }
            }
        }
    }
}

/// With σ = sigmoid(gate): d gate = dy · up · σ (1 + gate (1 − σ)), d up = dy · gate σ.
struct Backward<'a, T> {
    inner: usize,
    gate_up: &'a [T],
    of_y: &'a [T],
    of_gate_up: &'a mut [T],
}

impl<T: Element> Kernel for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let inner = self.inner;
        let rows = self.gate_up.chunks_exact(2 * inner).zip(self.of_y.chunks_exact(inner));
        for ((gate_up, of_y), out) in rows.zip(self.of_gate_up.chunks_exact_mut(2 * inner)) {
            for at in (0..inner).step_by(LANES) {
                // SAFETY: guaranteed by the caller; a row has 2 · `inner` elements.
                unsafe {
                    let gate = T::load::<S>(gate_up.as_ptr().add(at));
                    let up = T::load::<S>(gate_up.as_ptr().add(inner + at));
                    let dy = T::load::<S>(of_y.as_ptr().add(at));
                    let one = S::splat(1.0);
                    let sigma = sigmoid::<S>(gate);
                    let slope = S::mul(sigma, S::fma(gate, S::sub(one, sigma), one));
                    let of_gate = S::mul(S::mul(dy, up), slope);
                    T::store::<S>(out.as_mut_ptr().add(at), of_gate);
                    let of_up = S::mul(dy, S::mul(gate, sigma));
                    T::store::<S>(out.as_mut_ptr().add(inner + at), of_up);
                }
            }
        }
    }
}
