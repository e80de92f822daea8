//! Attention over cached keys and values: one interface for prefill and decoding, with kernels on
//! CPU cores ([`KernelPass`]) and tensor operations on any device ([`TensorPass`]).
//!
//! A token attends to columns of two segments: the trunk (its prompt, shared by all samples of the
//! group and stored once) and its row (everything after it).

use tch::{Device, Kind, Tensor};

use crate::error::LmError;
use crate::generate::kernel_pass::KernelPass;
use crate::generate::store::Store;
use crate::generate::tensor_pass::TensorPass;
use crate::generate::visibility::{Visibility, Writes};
use crate::kernels;
use crate::model::config::LlamaConfig;
use crate::model::forward::Attention;

/// Attention of one pass over packed tokens; reused from step to step while decoding.
pub(super) enum Pass {
    Kernels(KernelPass),
    Tensors(TensorPass),
}

impl Pass {
    /// A pass that writes to `target` and reads `views`, one for each segment.
    ///
    /// The kind depends only on the model, its type and the device: all passes over a store use the
    /// same layout of keys and values.
    pub fn new(
        config: &LlamaConfig,
        options: (Kind, Device),
        target: &Store,
        writes: &Writes,
        views: &[Visibility],
    ) -> Result<Self, LmError> {
        Ok(match kernels::fits_heads(config.head_dim, options.0, options.1) {
            true => Self::Kernels(KernelPass::new(config, options.0, target, writes, views)),
            false => Self::Tensors(TensorPass::new(config, options, target, writes, views)?),
        })
    }

    /// Capacity of the first segment in columns.
    pub fn columns(&self) -> usize {
        match self {
            Self::Kernels(pass) => pass.columns(),
            Self::Tensors(pass) => pass.columns(),
        }
    }

    /// Advances a decoding pass by one step: `places[i]` is the (slot, column) at which token `i`
    /// is written in `target`, the store of the first segment, and which it now also attends to.
    pub fn advance(&mut self, target: &Store, places: &[(usize, usize)]) -> Result<(), LmError> {
        match self {
            Self::Kernels(pass) => {
                pass.advance(places);
                Ok(())
            }
            Self::Tensors(pass) => pass.advance(target, places),
        }
    }
}

impl Attention for Pass {
    fn attend(
        &mut self,
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<Tensor, LmError> {
        match self {
            Self::Kernels(pass) => pass.attend(layer, q, k, v),
            Self::Tensors(pass) => pass.attend(layer, q, k, v),
        }
    }
}
