//! Measured limits of the machine.
//!
//! Three numbers suffice for these kernels: memory copy bandwidth, matrix-product throughput per
//! number type, and the dispatch cost of an operation. They are measured with libtorch itself, so a
//! kernel that reaches the roof is as fast as this libtorch on this machine; a hand-written kernel
//! may be faster.

use leyden_lm::LmError;
use serde::Serialize;
use tch::{Device, Kind, Tensor, no_grad_guard};

use crate::clock::Clock;

/// Bytes of the copied arrays: larger than any cache.
const COPIED: i64 = 256 << 20;

/// Edge length of the multiplied matrices.
const EDGE: i64 = 2048;

/// FLOP/s below which a type is assumed to have no native instructions.
const SLOW: f64 = 20e9;

/// Measured limits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Roof {
    /// Bytes per second moved by a copy, counting reads and writes.
    pub copy: f64,
    /// FLOP/s of matrix products.
    pub products_f32: f64,
    pub products_bf16: f64,
    /// Seconds per operation on a single element.
    pub dispatch: f64,
}

impl Roof {
    /// # Errors
    /// Out of memory for the arrays.
    pub fn measure(device: Device, clock: &Clock) -> Result<Self, LmError> {
        Self::of(device, clock, COPIED, EDGE)
    }

    /// Like [`Roof::measure`], with arrays of `copied` bytes and matrices of `edge`².
    ///
    /// # Errors
    /// Out of memory for the arrays.
    pub fn of(device: Device, clock: &Clock, copied: i64, edge: i64) -> Result<Self, LmError> {
        let _guard = no_grad_guard();
        let from = Tensor::f_ones([copied / 4], (Kind::Float, device))?;
        let mut to = Tensor::f_zeros([copied / 4], (Kind::Float, device))?;
        let copy = clock.time(&mut |_| {
            to.f_copy_(&from)?;
            Ok(())
        })?;
        let products_of = |kind: Kind, edge: i64| {
            let a = Tensor::f_ones([edge, edge], (kind, device))?;
            let b = Tensor::f_ones([edge, edge], (kind, device))?;
            let time = clock.time(&mut |_| {
                let _ = a.f_mm(&b)?;
                Ok(())
            })?;
            Ok::<_, LmError>(2.0 * (edge as f64).powi(3) / time.least)
        };
        // Without native instructions for a type, large matrices would take minutes.
        let products = |kind: Kind| match products_of(kind, edge / 4)? {
            slow if slow < SLOW => Ok(slow),
            _ => products_of(kind, edge),
        };
        let mut one = Tensor::f_zeros([1], (Kind::Float, device))?;
        let dispatch = clock.time(&mut |_| {
            let _ = one.f_add_scalar_(1.0)?;
            Ok(())
        })?;
        Ok(Self {
            copy: 2.0 * copied as f64 / copy.least,
            products_f32: products(Kind::Float)?,
            products_bf16: products(Kind::BFloat16)?,
            dispatch: dispatch.median,
        })
    }

    /// FLOP/s of matrix products in `kind`.
    pub fn products(&self, kind: Kind) -> f64 {
        if kind == Kind::Float { self.products_f32 } else { self.products_bf16 }
    }
}
