//! Rotary position embedding (Su et al. 2021) in halves: (a, b) → (a cos − b sin, b cos + a sin).
//! Its gradient is the same rotation by the opposite angle.

use crate::element::Element;
use crate::simd::{Kernel, LANES, Simd, dispatch};
use crate::threads::{Shared, each};

/// Tokens per task.
const TOKENS: usize = 64;

/// Half of [`LANES`], the remainder when half a head is not a multiple of sixteen.
const EIGHT: usize = LANES / 2;

/// Direction of the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Forth,
    Back,
}

/// Rotates the vectors [tokens, heads, head_dim] of `x`, whose tokens are `stride` elements apart,
/// by `cos` and `sin` [tokens, head_dim / 2]; `head_dim` is a multiple of sixteen.
///
/// # Panics
/// If the sizes do not match.
pub fn rotary<T: Element>(
    threads: usize,
    (heads, head_dim): (usize, usize),
    x: &[T],
    stride: usize,
    (cos, sin): (&[f32], &[f32]),
    turn: Turn,
    y: &mut [T],
) {
    let width = heads * head_dim;
    assert!(width > 0 && head_dim.is_multiple_of(LANES) && stride >= width);
    let tokens = y.len() / width;
    assert!(y.len().is_multiple_of(width) && cos.len() == sin.len());
    assert_eq!(cos.len(), tokens * head_dim / 2);
    assert!(tokens == 0 || x.len() >= (tokens - 1) * stride + width);
    let out = Shared::new(y);
    each(threads, tokens.div_ceil(TOKENS), |task| {
        let (start, end) = (task * TOKENS, tokens.min((task + 1) * TOKENS));
        // SAFETY: tasks write disjoint tokens.
        let y = unsafe { out.part(start * width, (end - start) * width) };
        let angles = start * head_dim / 2..end * head_dim / 2;
        dispatch(Rotary {
            heads,
            head_dim,
            x: &x[start * stride..],
            stride,
            cos: &cos[angles.clone()],
            sin: &sin[angles],
            turn,
            y,
        });
    });
}

struct Rotary<'a, T> {
    heads: usize,
    head_dim: usize,
    x: &'a [T],
    stride: usize,
    cos: &'a [f32],
    sin: &'a [f32],
    turn: Turn,
    y: &'a mut [T],
}

impl<T: Element> Kernel for Rotary<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let half = self.head_dim / 2;
        let sign = match self.turn {
            Turn::Forth => 1.0,
            Turn::Back => -1.0,
        };
        for (token, y) in self.y.chunks_exact_mut(self.heads * self.head_dim).enumerate() {
            let x = &self.x[token * self.stride..token * self.stride + y.len()];
            let angles = token * half..(token + 1) * half;
            let (cos, sin) = (&self.cos[angles.clone()], &self.sin[angles]);
            for (x, y) in x.chunks_exact(self.head_dim).zip(y.chunks_exact_mut(self.head_dim)) {
                let whole = half / LANES * LANES;
                for at in (0..whole).step_by(LANES) {
                    // SAFETY: guaranteed by the caller; sixteen elements from `at` in both halves.
                    unsafe {
                        let c = S::load(cos.as_ptr().add(at));
                        let s = S::mul(S::load(sin.as_ptr().add(at)), S::splat(sign));
                        let a = T::load::<S>(x.as_ptr().add(at));
                        let b = T::load::<S>(x.as_ptr().add(half + at));
                        let first = S::sub(S::mul(a, c), S::mul(b, s));
                        let second = S::fma(b, c, S::mul(a, s));
                        T::store::<S>(y.as_mut_ptr().add(at), first);
                        T::store::<S>(y.as_mut_ptr().add(half + at), second);
                    }
                }
                if whole < half {
                    turn_eight(whole, x, (cos, sin), sign, y);
                }
            }
        }
    }
}

/// Rotates the last eight pairs, from `at` on, of a head whose half is not a multiple of sixteen.
#[inline(always)]
fn turn_eight<T: Element>(
    at: usize,
    x: &[T],
    (cos, sin): (&[f32], &[f32]),
    sign: f32,
    y: &mut [T],
) {
    let half = x.len() / 2;
    let (a, b) = (&x[at..at + EIGHT], &x[half + at..half + at + EIGHT]);
    let (cos, sin) = (&cos[at..at + EIGHT], &sin[at..at + EIGHT]);
    let (first, second) = y.split_at_mut(half);
    let (first, second) = (&mut first[at..at + EIGHT], &mut second[at..at + EIGHT]);
    for i in 0..EIGHT {
        let (a, b, c, s) = (a[i].widen(), b[i].widen(), cos[i], sign * sin[i]);
        first[i] = T::narrow(a * c - b * s);
        second[i] = T::narrow(b * c + a * s);
    }
}
