//! AdamW (Loshchilov and Hutter 2019) in one pass over parameters, gradients and moments.

use crate::element::Element;
use crate::simd::{Kernel, LANES, Simd, dispatch};
use crate::threads::{Shared, each};

/// Parameters per task.
const BLOCK: usize = 1 << 16;

/// One step's constants: p ← p (1 − lr · decay) − lr m̂ / (√v̂ + eps).
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    /// t, from 1.
    pub step: i32,
}

/// Factors of the formula, each computed in f64 and rounded once: 1 − 0.999 in f32 would be
/// wrong in its fifth digit.
#[derive(Clone, Copy)]
struct Factors {
    fresh1: f32,
    beta2: f32,
    fresh2: f32,
    eps: f32,
    kept: f32,
    /// −lr / (1 − beta1ᵗ)
    rate: f32,
    /// 1 / √(1 − beta2ᵗ)
    root: f32,
}

impl AdamW {
    /// Updates `values` and both moments from `gradients`; all slices have the same length.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn step<P: Element, G: Element>(
        self,
        threads: usize,
        values: &mut [P],
        gradients: &[G],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let n = values.len();
        assert!(gradients.len() == n && first.len() == n && second.len() == n);
        let factors = self.factors();
        let outs = (Shared::new(values), Shared::new(first), Shared::new(second));
        each(threads, n.div_ceil(BLOCK), |task| {
            let (start, end) = (task * BLOCK, n.min((task + 1) * BLOCK));
            let length = end - start;
            // SAFETY: tasks write disjoint ranges.
            let (p, m, v) = unsafe {
                (outs.0.part(start, length), outs.1.part(start, length), outs.2.part(start, length))
            };
            dispatch(Step { factors, p, g: &gradients[start..end], m, v });
        });
    }

    fn factors(&self) -> Factors {
        let correction = |beta: f64| 1.0 - beta.powi(self.step);
        Factors {
            fresh1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            fresh2: (1.0 - self.beta2) as f32,
            eps: self.eps as f32,
            kept: (1.0 - self.lr * self.weight_decay) as f32,
            rate: (-self.lr / correction(self.beta1)) as f32,
            root: (1.0 / correction(self.beta2).sqrt()) as f32,
        }
    }
}

struct Step<'a, P, G> {
    factors: Factors,
    p: &'a mut [P],
    g: &'a [G],
    m: &'a mut [f32],
    v: &'a mut [f32],
}

impl<P: Element, G: Element> Kernel for Step<'_, P, G> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let whole = self.p.len() / LANES * LANES;
        for at in (0..whole).step_by(LANES) {
            // SAFETY: guaranteed by the caller; all four slices have sixteen elements from `at` on.
            unsafe {
                self.factors.block::<S, P, G>(
                    self.p.as_mut_ptr().add(at),
                    self.g.as_ptr().add(at),
                    self.m.as_mut_ptr().add(at),
                    self.v.as_mut_ptr().add(at),
                );
            }
        }
        // The remaining elements, padded to a full block.
        let rest = whole..self.p.len();
        let (mut p, mut g) = ([P::default(); LANES], [G::default(); LANES]);
        let (mut m, mut v) = ([0.0; LANES], [0.0; LANES]);
        let count = rest.len();
        p[..count].copy_from_slice(&self.p[rest.clone()]);
        g[..count].copy_from_slice(&self.g[rest.clone()]);
        m[..count].copy_from_slice(&self.m[rest.clone()]);
        v[..count].copy_from_slice(&self.v[rest.clone()]);
        // SAFETY: arrays of sixteen.
        unsafe {
            let (p, m, v) = (p.as_mut_ptr(), m.as_mut_ptr(), v.as_mut_ptr());
            self.factors.block::<S, P, G>(p, g.as_ptr(), m, v);
        }
        self.p[rest.clone()].copy_from_slice(&p[..count]);
        self.m[rest.clone()].copy_from_slice(&m[..count]);
        self.v[rest].copy_from_slice(&v[..count]);
    }
}

impl Factors {
    /// Updates sixteen parameters.
    #[inline(always)]
    unsafe fn block<S: Simd, P: Element, G: Element>(
        &self,
        p: *mut P,
        g: *const G,
        m: *mut f32,
        v: *mut f32,
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let gradient = G::load::<S>(g);
            let old = S::load(m);
            let first = S::fma(S::splat(self.fresh1), S::sub(gradient, old), old);
            let square = S::mul(gradient, S::mul(gradient, S::splat(self.fresh2)));
            let second = S::fma(S::load(v), S::splat(self.beta2), square);
            S::store(m, first);
            S::store(v, second);
            let root = S::mul(S::sqrt(second), S::splat(self.root));
            let step = S::div(first, S::add(root, S::splat(self.eps)));
            let kept = S::mul(P::load::<S>(p), S::splat(self.kept));
            P::store::<S>(p, S::fma(step, S::splat(self.rate), kept));
        }
    }
}
