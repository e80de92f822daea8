//! The parameters of a model: named views into one flat buffer per kind of treatment.
//!
//! All values lie in one tensor and all gradients in another of the same layout. The
//! gradient norm, clipping, AdamW and checkpoints are then a handful of operations on one
//! tensor instead of a few on each of hundreds: at 0.2 M parameters dispatch would cost more
//! than the arithmetic.

use tch::{Device, Kind, Tensor, no_grad};

use crate::{LlamaConfig, LmError};

/// Named tensors in one flat buffer. Leaves of the autograd graph where they are trained.
pub struct Parameters {
    flat: Tensor,
    /// Gradients in the same layout; absent where the parameters are frozen.
    grad: Option<Tensor>,
    entries: Vec<Entry>,
}

struct Entry {
    name: String,
    start: i64,
    leaf: Tensor,
}

impl Parameters {
    /// Copies `tensors` into a flat buffer of `kind` on `device`.
    ///
    /// With `trained`, each becomes a leaf whose gradient is a view of one flat gradient.
    pub fn new(
        tensors: Vec<(String, Tensor)>,
        kind: Kind,
        device: Device,
        trained: bool,
    ) -> Result<Self, LmError> {
        let total: i64 = tensors.iter().map(|(_, t)| t.numel() as i64).sum();
        let flat = Tensor::f_zeros([total], (kind, device))?;
        let grad = if trained { Some(Tensor::f_zeros([total], (kind, device))?) } else { None };
        let mut entries = Vec::with_capacity(tensors.len());
        let mut start = 0;
        for (name, tensor) in tensors {
            let count = tensor.numel() as i64;
            let shape = tensor.size();
            let view = flat.narrow(0, start, count).view(shape.as_slice());
            no_grad(|| view.shallow_clone().f_copy_(&tensor))?;
            drop(tensor);
            let mut leaf = view.detach();
            if let Some(grad) = &grad {
                let _ = leaf.requires_grad_(true);
                let gradient = grad.narrow(0, start, count).view(shape.as_slice());
                adopt_gradient(&leaf, &gradient)?;
            }
            entries.push(Entry { name, start, leaf });
            start += count;
        }
        Ok(Self { flat, grad, entries })
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// A name that the model does not have.
    pub fn get(&self, name: &str) -> Result<&Tensor, LmError> {
        let entry = self.entries.iter().find(|e| e.name == name);
        entry.map(|e| &e.leaf).ok_or_else(|| Self::missing(name))
    }

    pub(crate) fn missing(name: &str) -> LmError {
        LmError::Tensor { name: name.to_owned(), what: "is not part of the model".to_owned() }
    }

    /// Names and tensors in the order of the buffer.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|e| (e.name.as_str(), &e.leaf))
    }

    /// Name, start and length of each tensor in the flat buffer.
    pub fn layout(&self) -> impl Iterator<Item = (&str, i64, i64)> {
        self.entries.iter().map(|e| (e.name.as_str(), e.start, e.leaf.numel() as i64))
    }

    /// All values, [parameters]; writing to it changes the model.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// All gradients, [parameters], where trained.
    pub fn grad(&self) -> Option<&Tensor> {
        self.grad.as_ref()
    }

    /// Sets every gradient to zero, in place.
    pub fn zero_grad(&self) {
        if let Some(grad) = &self.grad {
            let _ = grad.shallow_clone().zero_();
        }
    }
}

/// Makes `gradient` the storage of `leaf.grad`, so that autograd accumulates into it.
fn adopt_gradient(leaf: &Tensor, gradient: &Tensor) -> Result<(), LmError> {
    // Autograd makes the gradient tensor on the first backward pass only.
    leaf.f_sum(leaf.kind())?.f_backward()?;
    leaf.grad().f_set_data(gradient)?;
    let _ = leaf.grad().f_zero_()?;
    Ok(())
}

/// `model.layers.{layer}.{rest}`.
pub fn layer_name(layer: usize, rest: &str) -> String {
    format!("model.layers.{layer}.{rest}")
}

/// Name and shape of every parameter of a model, in Hugging Face's names and order.
pub fn projection_shapes(config: &LlamaConfig) -> Vec<(String, Vec<i64>)> {
    let c = |n: usize| n as i64;
    let (d, f) = (c(config.hidden_size), c(config.intermediate_size));
    let (q, kv) = (c(config.heads * config.head_dim), c(config.kv_heads * config.head_dim));
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![c(config.vocab_size), d])];
    for layer in 0..config.layers {
        for (rest, shape) in [
            ("self_attn.q_proj.weight", vec![q, d]),
            ("self_attn.k_proj.weight", vec![kv, d]),
            ("self_attn.v_proj.weight", vec![kv, d]),
            ("self_attn.o_proj.weight", vec![d, q]),
            ("mlp.gate_proj.weight", vec![f, d]),
            ("mlp.up_proj.weight", vec![f, d]),
            ("mlp.down_proj.weight", vec![d, f]),
            ("input_layernorm.weight", vec![d]),
            ("post_attention_layernorm.weight", vec![d]),
        ] {
            shapes.push((layer_name(layer, rest), shape));
        }
    }
    shapes.push(("model.norm.weight".to_owned(), vec![d]));
    if !config.tied {
        shapes.push(("lm_head.weight".to_owned(), vec![c(config.vocab_size), d]));
    }
    shapes
}

#[cfg(test)]
mod tests {
    use super::Parameters;
    use tch::{Device, Kind, Tensor, no_grad};

    #[test]
    fn gradients_accumulate_in_the_flat_buffer_and_updates_reach_the_leaves() {
        let tensors = vec![
            ("a".to_owned(), Tensor::from_slice(&[1f32, 2.0])),
            ("b".to_owned(), Tensor::from_slice(&[3f32])),
        ];
        let parameters = Parameters::new(tensors, Kind::Float, Device::Cpu, true).unwrap();
        for _ in 0..2 {
            let (a, b) = (parameters.get("a").unwrap(), parameters.get("b").unwrap());
            (a.square().sum(Kind::Float) * b).sum(Kind::Float).backward();
        }
        let grad = Vec::<f32>::try_from(parameters.grad().unwrap()).unwrap();
        assert_eq!(grad, [12.0, 24.0, 10.0]);
        no_grad(|| {
            let _ = parameters.flat().shallow_clone().g_add_scalar_(1.0);
        });
        assert_eq!(Vec::<f32>::try_from(parameters.get("b").unwrap().detach()).unwrap(), [4.0]);
        parameters.zero_grad();
        assert_eq!(Vec::<f32>::try_from(parameters.grad().unwrap()).unwrap(), [0.0; 3]);
    }
}
