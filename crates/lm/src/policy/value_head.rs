//! A critic on the hidden states of the policy or of a trunk of its own.
//!
//! The state before an action is the normed hidden state from which the head predicts the action's
//! token. A small network on it predicts the expected return. It has its own parameters, and no
//! gradient flows through it into the policy: the critic uses the policy's features without
//! changing them. So it costs one forward pass, needs no second model, and the policy's update is
//! the same with and without it.
//!
//! With a trunk of its own, a copy of the policy ([`Policy::trunk`]), the gradient flows on into
//! that trunk, for a second model's memory and one backward pass more.

use leyden_core::SeedTree;
use tch::{Device, Kind, Tensor, no_grad_guard};

use crate::error::LmError;
use crate::model::init::normal;
use crate::model::parameters::Parameters;
use crate::policy::forest::Pack;
use crate::policy::trainable::Policy;

/// `v(h) = w₂ · silu(W₁ h + b₁) + b₂`, f32; 0 everywhere before training.
pub struct ValueHead {
    parameters: Parameters,
}

impl ValueHead {
    /// For states of width `width`, with `inner` hidden units.
    ///
    /// # Errors
    /// Errors of libtorch (memory).
    pub fn new(
        width: usize,
        inner: usize,
        device: Device,
        seed: SeedTree,
    ) -> Result<Self, LmError> {
        let (width, inner) = (width as i64, inner.max(1) as i64);
        let zeros = |shape: &[i64]| Tensor::f_zeros(shape, (Kind::Float, Device::Cpu));
        // Normed states have entries of about 1, so these sums do, too.
        let deviation = 1.0 / (width as f64).sqrt();
        let tensors = vec![
            ("inner.weight".to_owned(), normal(&[inner, width], deviation, seed.child("inner"))?),
            ("inner.bias".to_owned(), zeros(&[inner])?),
            ("value.weight".to_owned(), zeros(&[1, inner])?),
            ("value.bias".to_owned(), zeros(&[1])?),
        ];
        Ok(Self { parameters: Parameters::new(tensors, Kind::Float, device, true)? })
    }

    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The value of each state of `states` [n, width].
    ///
    /// # Errors
    /// States of another width.
    pub fn values(&self, states: &Tensor) -> Result<Vec<f64>, LmError> {
        let _guard = no_grad_guard();
        numbers(&self.forward(&constant(states))?)
    }

    /// Evaluates the states, calls `slope` for d loss / d value of each, and adds the gradients of
    /// the head to its gradient buffer.
    ///
    /// # Errors
    /// As [`ValueHead::values`]; a number of slopes other than the number of states.
    pub fn forward_backward(
        &self,
        states: &Tensor,
        slope: &mut dyn FnMut(&[f64]) -> Vec<f64>,
    ) -> Result<(), LmError> {
        self.differentiate(&constant(states), slope)
    }

    /// As [`ValueHead::forward_backward`]; returns d loss / d states [n, width], f32.
    ///
    /// # Errors
    /// As [`ValueHead::forward_backward`].
    pub fn forward_backward_through(
        &self,
        states: &Tensor,
        slope: &mut dyn FnMut(&[f64]) -> Vec<f64>,
    ) -> Result<Tensor, LmError> {
        let states = constant(states).set_requires_grad(true);
        self.differentiate(&states, slope)?;
        Ok(states.grad())
    }

    fn differentiate(
        &self,
        states: &Tensor,
        slope: &mut dyn FnMut(&[f64]) -> Vec<f64>,
    ) -> Result<(), LmError> {
        let values = self.forward(states)?;
        let predicted = numbers(&values)?;
        let slopes = slope(&predicted);
        if slopes.len() != predicted.len() {
            return Err(LmError::Invalid(format!(
                "the critic's loss returned {} derivatives for {} states",
                slopes.len(),
                predicted.len()
            )));
        }
        let slopes: Vec<f32> = slopes.iter().map(|&x| x as f32).collect();
        let slopes = Tensor::f_from_slice(&slopes)?.to_device(values.device());
        values.f_mul(&slopes)?.f_sum(Kind::Float)?.f_backward()?;
        Ok(())
    }

    /// Values [n] of f32 `states` [n, width].
    fn forward(&self, states: &Tensor) -> Result<Tensor, LmError> {
        let part = |name: &str| self.parameters.get(name);
        let inner = states.f_linear(part("inner.weight")?, Some(part("inner.bias")?))?.f_silu()?;
        Ok(inner.f_linear(part("value.weight")?, Some(part("value.bias")?))?.f_squeeze_dim(1)?)
    }
}

/// The states in f32, outside of any graph.
fn constant(states: &Tensor) -> Tensor {
    states.detach().to_kind(Kind::Float)
}

fn numbers(values: &Tensor) -> Result<Vec<f64>, LmError> {
    let values = values.detach().to_kind(Kind::Double).to_device(Device::Cpu);
    Ok(Vec::<f64>::try_from(values)?)
}

impl Policy {
    /// The state before each unique action of a pack, in their order: [actions, width] in the
    /// compute type, without a graph.
    ///
    /// # Errors
    /// As [`Policy::evaluate`].
    pub fn states(&self, pack: &Pack) -> Result<Tensor, LmError> {
        let _guard = no_grad_guard();
        let hidden = self.hidden(&self.weights()?, pack)?;
        Ok(hidden.f_index_select(0, &parents(pack, hidden.device())?)?)
    }

    /// Computes the states as [`Policy::states`], calls `slope` with them for
    /// d loss / d states [actions, width], and adds the gradients of the trained parameters to
    /// their gradient buffer.
    ///
    /// # Errors
    /// As [`Policy::forward_backward`]; those of `slope`.
    pub fn states_forward_backward(
        &self,
        pack: &Pack,
        slope: &mut dyn FnMut(&Tensor) -> Result<Tensor, LmError>,
    ) -> Result<(), LmError> {
        let pass = self.pass(pack)?;
        let hidden = pass.hidden.detach();
        let parents = parents(pack, hidden.device())?;
        let of_states = slope(&hidden.f_index_select(0, &parents)?)?;
        let mut gradient =
            Tensor::f_zeros(hidden.size().as_slice(), (Kind::Float, hidden.device()))?;
        let _ = gradient.f_index_add_(0, &parents, &of_states.to_kind(Kind::Float))?;
        self.backward(pass, &gradient)
    }
}

/// The node before each action, `[actions]`.
fn parents(pack: &Pack, device: Device) -> Result<Tensor, LmError> {
    let parents: Vec<i64> = pack.actions.iter().map(|action| action.parent as i64).collect();
    Ok(Tensor::f_from_slice(&parents)?.to_device(device))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::optimizer::{Optimizer, OptimizerConfig};

    fn head() -> ValueHead {
        ValueHead::new(4, 8, Device::Cpu, SeedTree::new(3)).unwrap()
    }

    fn states(n: i64) -> Tensor {
        normal(&[n, 4], 1.0, SeedTree::new(9)).unwrap()
    }

    #[test]
    fn values_are_zero_before_training() {
        assert_eq!(head().values(&states(5)).unwrap(), [0.0; 5]);
    }

    #[test]
    fn it_fits_the_value_of_each_state() {
        let (head, states) = (head(), states(6));
        let worth = [0.0, 1.0, 0.25, -0.5, 1.0, 0.0];
        let config = OptimizerConfig { lr: 0.02, weight_decay: 0.0, ..OptimizerConfig::default() };
        let mut optimizer = Optimizer::new(head.parameters(), config).unwrap();
        for _ in 0..600 {
            head.parameters().zero_grad();
            let mut slope = |predicted: &[f64]| {
                predicted.iter().zip(worth).map(|(v, r)| v - r).collect::<Vec<f64>>()
            };
            head.forward_backward(&states, &mut slope).unwrap();
            optimizer.step(head.parameters(), 1.0).unwrap();
        }
        for (predicted, worth) in head.values(&states).unwrap().iter().zip(worth) {
            assert!((predicted - worth).abs() < 0.05, "{predicted} for {worth}");
        }
    }

    #[test]
    fn slopes_must_be_one_for_each_state() {
        let error = head().forward_backward(&states(3), &mut |_| vec![1.0]).unwrap_err();
        assert!(error.to_string().contains("1 derivatives for 3 states"), "{error}");
    }
}
