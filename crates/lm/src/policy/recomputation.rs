//! Activation checkpointing (Chen et al. 2016), one checkpoint per layer.
//!
//! The forward pass keeps no graph, only each layer's input; the backward pass visits the layers in
//! reverse and runs each again, this time with a graph. Memory for activations falls from all
//! layers to one, at the cost of one more forward pass.

use tch::{Kind, Tensor, no_grad_guard};

use crate::error::LmError;
use crate::model::config::LlamaConfig;
use crate::model::forward::layer_forward;
use crate::model::forward::{Attention, Weights, rms_norm};
use crate::model::rotary::Angles;
use crate::model::rotary::Rotary;

/// The inputs of all layers, and of the final norm.
pub struct Checkpoints {
    inputs: Vec<Tensor>,
    ids: Tensor,
    angles: Angles,
}

impl Checkpoints {
    /// As [`crate::model::transform`], without a graph: hidden states [n, width] and the state for
    /// [`Checkpoints::backward`].
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward(
        weights: &Weights,
        config: &LlamaConfig,
        rotary: &Rotary,
        ids: &Tensor,
        positions: &Tensor,
        attention: &mut dyn Attention,
    ) -> Result<(Tensor, Self), LmError> {
        let _guard = no_grad_guard();
        let mut x = Tensor::f_embedding(&weights.embedding, ids, -1, false, false)?;
        let angles = rotary.angles(positions, x.kind());
        let mut inputs = Vec::with_capacity(weights.layers.len() + 1);
        for (index, layer) in weights.layers.iter().enumerate() {
            let next = layer_forward(layer, config, index, &x, &angles, attention)?;
            inputs.push(std::mem::replace(&mut x, next));
        }
        let hidden = rms_norm(&x, &weights.norm, config.norm_eps)?;
        inputs.push(x);
        Ok((hidden, Self { inputs, ids: ids.shallow_clone(), angles }))
    }

    /// Adds the gradients of all trained parameters behind `weights`, given d loss / d hidden [n,
    /// width].
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn backward(
        mut self,
        weights: &Weights,
        config: &LlamaConfig,
        attention: &mut dyn Attention,
        gradient: &Tensor,
    ) -> Result<(), LmError> {
        let mut gradient = gradient.shallow_clone();
        if let Some(x) = self.inputs.pop() {
            let x = leaf(&x);
            backward_from(&rms_norm(&x, &weights.norm, config.norm_eps)?, &gradient)?;
            gradient = x.grad();
        }
        for (index, layer) in weights.layers.iter().enumerate().rev() {
            let Some(x) = self.inputs.pop().map(|x| leaf(&x)) else { break };
            backward_from(
                &layer_forward(layer, config, index, &x, &self.angles, attention)?,
                &gradient,
            )?;
            gradient = x.grad();
        }
        if weights.embedding.requires_grad() {
            let x = Tensor::f_embedding(&weights.embedding, &self.ids, -1, false, false)?;
            backward_from(&x, &gradient)?;
        }
        Ok(())
    }
}

fn leaf(x: &Tensor) -> Tensor {
    x.detach().set_requires_grad(true)
}

/// Back-propagates `gradient` into the graph of `output`.
///
/// The bindings start only from scalars; the derivative of Σ output · gradient is exactly
/// `gradient`.
pub(crate) fn backward_from(output: &Tensor, gradient: &Tensor) -> Result<(), LmError> {
    let gradient = gradient.detach().to_kind(output.kind());
    Ok((output * gradient).f_sum(Kind::Float)?.f_backward()?)
}
