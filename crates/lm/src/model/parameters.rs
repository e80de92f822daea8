//! The parameters of a model: named views into one flat buffer.
//!
//! All values are in one tensor and all gradients in another of the same layout. The gradient norm,
//! clipping, AdamW and checkpoints are then a few operations on one tensor instead of a few on each
//! of hundreds: at 0.2 M parameters dispatch would cost more than the arithmetic.

use tch::{Device, Kind, Tensor, no_grad};

use crate::error::LmError;
use crate::model::config::LlamaConfig;

/// Named tensors in one flat buffer. If trained, they are leaves of the autograd graph.
pub struct Parameters {
    flat: Tensor,
    /// Gradients in the same layout; absent if the parameters are frozen.
    grad: Option<Tensor>,
    entries: Vec<Entry>,
    /// Adjacent matrices as one: by the first one's name, a leaf over all of them.
    stacks: Vec<(String, Tensor)>,
}

/// Projections of one input that are adjacent in a model's order.
const STACKS: [&[&str]; 2] = [
    &["self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"],
    &["mlp.gate_proj.weight", "mlp.up_proj.weight"],
];

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
        let shapes = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
        let parameters = Self::over(flat, grad, shapes)?;
        for (entry, (_, tensor)) in parameters.entries.iter().zip(tensors) {
            no_grad(|| entry.leaf.detach().f_copy_(&tensor))?;
        }
        Ok(parameters)
    }

    /// Views of `flat`, with gradients in `grad`.
    fn over(
        flat: Tensor,
        grad: Option<Tensor>,
        shapes: Vec<(String, Vec<i64>)>,
    ) -> Result<Self, LmError> {
        let mut entries = Vec::with_capacity(shapes.len());
        let mut start = 0;
        for (name, shape) in shapes {
            let leaf = leaf(&flat, grad.as_ref(), start, &shape)?;
            entries.push(Entry { name, start, leaf });
            start += shape.iter().product::<i64>();
        }
        let mut stacks = Vec::new();
        for (at, first) in entries.iter().enumerate() {
            if let Some(shape) = stack_shape(&entries[at..]) {
                stacks.push((first.name.clone(), leaf(&flat, grad.as_ref(), first.start, &shape)?));
            }
        }
        Ok(Self { flat, grad, entries, stacks })
    }

    /// A replica that shares the values but has its own gradients: for threads that share a batch.
    ///
    /// # Errors
    /// Errors of libtorch (memory).
    pub fn replica(&self) -> Result<Self, LmError> {
        let grad = self.grad.as_ref().map(Tensor::f_zeros_like).transpose()?;
        let shapes = self.iter().map(|(name, leaf)| (name.to_owned(), leaf.size())).collect();
        Self::over(self.flat.shallow_clone(), grad, shapes)
    }

    /// These parameters, frozen, with other values: `flat`, `[parameters]`, which they share.
    ///
    /// # Errors
    /// Another number of values; errors of libtorch (memory).
    pub fn with_values(&self, flat: &Tensor) -> Result<Self, LmError> {
        if flat.size() != self.flat.size() {
            let (given, own) = (flat.size(), self.flat.size());
            return Err(LmError::Invalid(format!("{given:?} values for {own:?} parameters")));
        }
        let shapes = self.iter().map(|(name, leaf)| (name.to_owned(), leaf.size())).collect();
        Self::over(flat.shallow_clone(), None, shapes)
    }

    /// The matrix of all projections that read the same input as `first` (the query or the gate
    /// projection), if they are adjacent: the operand of a layer's product, without a copy.
    pub fn stacked(&self, first: &str) -> Option<&Tensor> {
        self.stacks.iter().find(|(name, _)| name == first).map(|(_, leaf)| leaf)
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

    /// All values, `[parameters]`; writing to it changes the model.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// All gradients, `[parameters]`, if trained.
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

/// A view of the buffer as a separate tensor, with its gradient if present.
fn leaf(
    flat: &Tensor,
    grad: Option<&Tensor>,
    start: i64,
    shape: &[i64],
) -> Result<Tensor, LmError> {
    let part = |x: &Tensor| x.f_narrow(0, start, shape.iter().product())?.f_view(shape);
    let mut leaf = part(flat)?.detach();
    if let Some(grad) = grad {
        let _ = leaf.requires_grad_(true);
        adopt_gradient(&leaf, &part(grad)?)?;
    }
    Ok(leaf)
}

/// Shape of the stack that begins with the first of `entries`, if there is one.
fn stack_shape(entries: &[Entry]) -> Option<Vec<i64>> {
    STACKS.iter().find_map(|stack| {
        let layer = entries.first()?.name.strip_suffix(stack[0])?;
        let members = entries.get(..stack.len())?;
        let mut rows = 0;
        let columns = *members[0].leaf.size().last()?;
        for (member, rest) in members.iter().zip(*stack) {
            if member.name.strip_prefix(layer) != Some(*rest) {
                return None;
            }
            match member.leaf.size().as_slice() {
                [r, c] if *c == columns => rows += r,
                _ => return None,
            }
        }
        Some(vec![rows, columns])
    })
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
    fn neighbouring_projections_are_one_matrix_with_the_same_gradient() {
        let config = crate::formats::test_model::config(true);
        let tensors = crate::formats::test_model::tensors(&config);
        let parameters = Parameters::new(tensors, Kind::Float, Device::Cpu, true).unwrap();
        for (first, others) in [
            (
                "self_attn.q_proj.weight",
                &["self_attn.k_proj.weight", "self_attn.v_proj.weight"][..],
            ),
            ("mlp.gate_proj.weight", &["mlp.up_proj.weight"]),
        ] {
            let name = |rest: &str| super::layer_name(0, rest);
            let get = |rest: &&str| parameters.get(&name(rest)).unwrap();
            let members: Vec<_> = std::iter::once(&first).chain(others).map(get).collect();
            let stack = parameters.stacked(&name(first)).unwrap();
            assert!(stack.equal(&Tensor::cat(&members, 0)));
            (stack.square().sum(Kind::Float) / 2.0).backward();
            for member in members {
                assert!(member.grad().equal(member));
            }
            assert!(others.iter().all(|other| parameters.stacked(&name(other)).is_none()));
        }
    }

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

    #[test]
    fn a_replica_follows_the_values_and_has_gradients_of_its_own() {
        let tensors = vec![("a".to_owned(), Tensor::from_slice(&[1f32, 2.0]))];
        let parameters = Parameters::new(tensors, Kind::Float, Device::Cpu, true).unwrap();
        let replica = parameters.replica().unwrap();
        no_grad(|| {
            let _ = parameters.flat().shallow_clone().g_add_scalar_(1.0);
        });
        replica.get("a").unwrap().square().sum(Kind::Float).backward();
        let gradient = |of: &Parameters| Vec::<f32>::try_from(of.grad().unwrap()).unwrap();
        assert_eq!(gradient(&replica), [4.0, 6.0]);
        assert_eq!(gradient(&parameters), [0.0, 0.0]);
    }
}
