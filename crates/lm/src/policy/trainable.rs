//! The model for training: log-probabilities of actions, and their gradients.
//!
//! A [`Policy`] takes a [`Pack`] of prefix trees, returns the log-probability of every unique
//! action token, receives d loss / d log-probability (losses are computed without tensors) and adds
//! the gradients to its flat gradient buffer. No graph of the head is kept (see
//! [`crate::policy::head`]); the graph of the layers is kept, or recomputed layer by layer with
//! activation checkpointing.

use tch::{Device, Kind, Tensor, no_grad_guard};

use crate::error::LmError;
use crate::model::config::LlamaConfig;
use crate::model::forward::{Weights, transform};
use crate::model::parameters::Parameters;
use crate::model::rotary::Rotary;
use crate::policy::forest::Pack;
use crate::policy::forest_attention::ForestAttention;
use crate::policy::head::{Head, HeadCotangent};
use crate::policy::lora::Lora;
use crate::policy::recomputation::{Checkpoints, backward_from};

/// Computation options of a policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PolicyOptions {
    /// Type of activations and of the compute weights. Parameters of another type are converted;
    /// gradients arrive in the parameters' type.
    pub compute: Kind,
    /// Trade one more forward pass for the memory of all layers' activations.
    pub checkpointing: bool,
    /// Maximum number of actions whose logits exist at once; by default as many as fit 256 MB.
    pub head_chunk: Option<usize>,
}

impl Default for PolicyOptions {
    fn default() -> Self {
        Self { compute: Kind::Float, checkpointing: false, head_chunk: None }
    }
}

/// Numbers per unique action of a pack, in the order of [`Pack::actions`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluated {
    /// Log-probability of the action at the given temperature.
    pub logp: Vec<f64>,
    /// Entropy in nats of the distribution it was drawn from.
    pub entropy: Vec<f64>,
}

/// Derivatives of the loss with respect to the evaluated numbers; rows that share an action are
/// summed (see [`Pack::scatter`]).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cotangent {
    pub logp: Vec<f64>,
    /// Absent if the loss does not contain the entropy.
    pub entropy: Option<Vec<f64>>,
}

impl Cotangent {
    fn is_zero(&self) -> bool {
        let zero = |values: &[f64]| values.iter().all(|&x| x == 0.0);
        zero(&self.logp) && self.entropy.as_deref().is_none_or(zero)
    }
}

/// A trainable Llama: full fine-tuning, or LoRA adapters on a frozen base.
pub struct Policy {
    config: LlamaConfig,
    parameters: Parameters,
    adapted: Option<Adapted>,
    rotary: Rotary,
    options: PolicyOptions,
    device: Device,
}

struct Adapted {
    lora: Lora,
    /// The frozen base in the compute type.
    base: Weights,
}

impl Policy {
    /// Full fine-tuning, or a frozen model for evaluation, depending on `parameters`.
    pub fn new(config: LlamaConfig, parameters: Parameters, options: PolicyOptions) -> Self {
        let device = parameters.flat().device();
        let rotary = Rotary::new(&config, device);
        Self { config, parameters, adapted: None, rotary, options, device }
    }

    /// Adapters on frozen `parameters`.
    ///
    /// # Errors
    /// Parameters that are trained or incomplete.
    pub fn with_lora(
        config: LlamaConfig,
        parameters: Parameters,
        lora: Lora,
        options: PolicyOptions,
    ) -> Result<Self, LmError> {
        if parameters.grad().is_some() {
            return Err(LmError::Invalid(
                "LoRA keeps its base frozen, but the parameters given have gradients".to_owned(),
            ));
        }
        let base = {
            let _guard = no_grad_guard();
            Weights::of(&parameters, &config, options.compute)?
        };
        let mut policy = Self::new(config, parameters, options);
        policy.adapted = Some(Adapted { lora, base });
        Ok(policy)
    }

    /// A replica that shares this policy's weights but has its own gradients: for threads that
    /// share a batch.
    ///
    /// # Errors
    /// Adapters, which have no replicas; errors of libtorch (memory).
    pub fn replica(&self) -> Result<Self, LmError> {
        if self.adapted.is_some() {
            return Err(LmError::Invalid("a policy with adapters has no replicas".to_owned()));
        }
        Ok(Self::new(self.config.clone(), self.parameters.replica()?, self.options))
    }

    /// A copy with trained parameters of its own and without a language-model head: the trunk of a
    /// critic. Of a policy with adapters these are copied, and the frozen base is shared.
    ///
    /// # Errors
    /// Errors of libtorch (memory).
    pub fn trunk(&self) -> Result<Self, LmError> {
        let Some(Adapted { lora, base }) = &self.adapted else {
            let layers = self.parameters.iter().filter(|(name, _)| *name != "lm_head.weight");
            let tensors = layers.map(|(name, tensor)| (name.to_owned(), tensor.detach())).collect();
            let kind = self.parameters.flat().kind();
            let parameters = Parameters::new(tensors, kind, self.device, true)?;
            // As if tied: there is no head to look up.
            let config = LlamaConfig { tied: true, ..self.config.clone() };
            return Ok(Self::new(config, parameters, self.options));
        };
        let config = lora.config().clone();
        let lora = Lora::from_adapters(config, &self.config, self.device, lora.adapters()?)?;
        let mut trunk = Self::new(self.config.clone(), self.parameters.replica()?, self.options);
        trunk.adapted = Some(Adapted { lora, base: base.shallow_clone() });
        Ok(trunk)
    }

    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    pub fn options(&self) -> &PolicyOptions {
        &self.options
    }

    pub fn device(&self) -> Device {
        self.device
    }

    pub fn rotary(&self) -> &Rotary {
        &self.rotary
    }

    /// The whole model, without adapters.
    pub fn base(&self) -> &Parameters {
        &self.parameters
    }

    pub fn lora(&self) -> Option<&Lora> {
        self.adapted.as_ref().map(|a| &a.lora)
    }

    /// The parameters that the optimiser updates: the adapters if there are any, else the whole
    /// model.
    pub fn trained(&self) -> &Parameters {
        self.lora().map_or(&self.parameters, Lora::parameters)
    }

    /// Weights in the compute type with adapters as low-rank terms; part of the graph if gradients
    /// are enabled.
    ///
    /// # Errors
    /// A missing parameter.
    pub fn weights(&self) -> Result<Weights, LmError> {
        match &self.adapted {
            None => Weights::of(&self.parameters, &self.config, self.options.compute),
            Some(adapted) => {
                let mut weights = adapted.base.shallow_clone();
                adapted.lora.attach(&mut weights, &self.config)?;
                Ok(weights)
            }
        }
    }

    /// Weights for generation: the compute type, adapters merged, no graph.
    ///
    /// They may share storage with the parameters, so rebuild them after each optimiser step and do
    /// not use older ones.
    ///
    /// # Errors
    /// A missing parameter.
    pub fn inference_weights(&self) -> Result<Weights, LmError> {
        let _guard = no_grad_guard();
        match self.lora() {
            None => Weights::of(&self.parameters, &self.config, self.options.compute),
            Some(lora) => self.merged(lora),
        }
    }

    /// As [`Policy::inference_weights`], with other values of the trained parameters: `trained`,
    /// in the layout of [`Parameters::flat`]. They may share storage with it.
    ///
    /// # Errors
    /// Another number of values; a missing parameter.
    pub fn inference_weights_of(&self, trained: &Tensor) -> Result<Weights, LmError> {
        let _guard = no_grad_guard();
        match self.lora() {
            None => {
                let parameters = self.parameters.with_values(trained)?;
                Weights::of(&parameters, &self.config, self.options.compute)
            }
            Some(lora) => self.merged(&lora.with_values(trained)?),
        }
    }

    /// The base in the compute type with the adapters `lora` merged.
    fn merged(&self, lora: &Lora) -> Result<Weights, LmError> {
        let merged = lora.merge(&self.parameters)?;
        Weights::from_lookup(&self.config, self.options.compute, |name| {
            let found = merged.iter().find(|(n, _)| n == name);
            found.map(|(_, t)| t).ok_or_else(|| Parameters::missing(name))
        })
    }

    /// Log-probabilities and entropies, without a graph.
    ///
    /// # Errors
    /// A token outside the vocabulary; errors of libtorch (memory).
    pub fn evaluate(&self, pack: &Pack, temperature: f64) -> Result<Evaluated, LmError> {
        let _guard = no_grad_guard();
        self.evaluate_with(&self.weights()?, pack, temperature)
    }

    /// As [`Policy::evaluate`], with the model without its adapters: the reference of a KL penalty
    /// needs no second model.
    ///
    /// # Errors
    /// As [`Policy::evaluate`].
    pub fn evaluate_base(&self, pack: &Pack, temperature: f64) -> Result<Evaluated, LmError> {
        let _guard = no_grad_guard();
        match &self.adapted {
            Some(adapted) => self.evaluate_with(&adapted.base, pack, temperature),
            None => self.evaluate_with(&self.weights()?, pack, temperature),
        }
    }

    fn evaluate_with(
        &self,
        weights: &Weights,
        pack: &Pack,
        temperature: f64,
    ) -> Result<Evaluated, LmError> {
        let hidden = self.hidden(weights, pack)?;
        let (logp, entropy) = self.head(weights, pack, temperature)?.forward(&hidden)?;
        Ok(Evaluated { logp, entropy })
    }

    /// Normed hidden states [n, width] of all nodes, without a graph if gradients are disabled.
    ///
    /// # Errors
    /// As [`Policy::evaluate`].
    pub fn hidden(&self, weights: &Weights, pack: &Pack) -> Result<Tensor, LmError> {
        let mut input = self.input(pack)?;
        let (ids, positions) = (&input.ids, &input.positions);
        transform(weights, &self.config, &self.rotary, ids, positions, &mut input.attention)
    }

    /// Evaluates, calls `cotangent` for the derivative of the loss, and adds the gradients of the
    /// trained parameters to their gradient buffer.
    ///
    /// Gradients of several packs accumulate, so a batch may be split into packs arbitrarily; zero
    /// them before the first.
    ///
    /// # Errors
    /// As [`Policy::evaluate`]; a cotangent whose length differs from the number of actions; a
    /// policy without trained parameters.
    pub fn forward_backward(
        &self,
        pack: &Pack,
        temperature: f64,
        cotangent: &mut dyn FnMut(&Evaluated) -> Cotangent,
    ) -> Result<Evaluated, LmError> {
        let pass = self.pass(pack)?;
        let mut head = self.head(&pass.weights, pack, temperature)?;
        let (logp, entropy) = head.forward(&pass.hidden)?;
        let evaluated = Evaluated { logp, entropy };
        let cotangent = checked(cotangent(&evaluated), pack.actions.len())?;
        if cotangent.is_zero() {
            return Ok(evaluated);
        }
        let of_head =
            HeadCotangent { logp: &cotangent.logp, entropy: cotangent.entropy.as_deref() };
        let weight_grad = self.head_gradient()?;
        let gradient = head.backward(&pass.hidden, &of_head, weight_grad.as_ref())?;
        self.backward(pass, &gradient)?;
        Ok(evaluated)
    }

    /// A forward pass through the layers that [`Policy::backward`] can differentiate.
    ///
    /// # Errors
    /// As [`Policy::evaluate`]; a policy without trained parameters.
    pub(super) fn pass(&self, pack: &Pack) -> Result<Pass, LmError> {
        if self.trained().grad().is_none() {
            return Err(LmError::Invalid("this policy is frozen and has no gradients".to_owned()));
        }
        let weights = self.weights()?;
        let mut input = self.input(pack)?;
        let (config, rotary) = (&self.config, &self.rotary);
        let Input { ids, positions, attention } = &mut input;
        let (hidden, checkpoints) = if self.options.checkpointing {
            let (hidden, checkpoints) =
                Checkpoints::forward(&weights, config, rotary, ids, positions, attention)?;
            (hidden, Some(checkpoints))
        } else {
            (transform(&weights, config, rotary, ids, positions, attention)?, None)
        };
        Ok(Pass { weights, input, hidden, checkpoints })
    }

    /// Adds the gradients of the trained parameters to their gradient buffer, given
    /// d loss / d hidden [n, width].
    ///
    /// # Errors
    /// Errors of libtorch (memory).
    pub(super) fn backward(&self, pass: Pass, gradient: &Tensor) -> Result<(), LmError> {
        let Pass { weights, mut input, hidden, checkpoints } = pass;
        match checkpoints {
            None => backward_from(&hidden, gradient),
            Some(saved) => saved.backward(&weights, &self.config, &mut input.attention, gradient),
        }
    }

    /// The head's part of the gradient buffer: the embedding's if tied, none if frozen.
    fn head_gradient(&self) -> Result<Option<Tensor>, LmError> {
        if self.parameters.grad().is_none() {
            return Ok(None);
        }
        let name = if self.config.tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
        Ok(Some(self.parameters.get(name)?.grad()))
    }

    fn head<'a>(
        &self,
        weights: &Weights,
        pack: &'a Pack,
        temperature: f64,
    ) -> Result<Head<'a>, LmError> {
        let mut head = Head::new(pack, &weights.head, temperature)?;
        if let Some(actions) = self.options.head_chunk {
            head.set_chunk(actions);
        }
        Ok(head)
    }

    fn input(&self, pack: &Pack) -> Result<Input, LmError> {
        let vocabulary = self.config.vocab_size;
        if let Some(&id) = pack.ids.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(LmError::TokenOutside { id, vocabulary });
        }
        let ids: Vec<i64> = pack.ids.iter().map(|&id| i64::from(id)).collect();
        let positions: Vec<i64> = pack.positions.iter().map(|&p| p as i64).collect();
        let LlamaConfig { heads, kv_heads, head_dim, .. } = self.config;
        let (shape, kind) = ((heads, kv_heads, head_dim), self.options.compute);
        Ok(Input {
            ids: Tensor::f_from_slice(&ids)?.to_device(self.device),
            positions: Tensor::f_from_slice(&positions)?.to_device(self.device),
            attention: ForestAttention::new(pack, shape, kind, self.device)?,
        })
    }
}

/// A forward pass through the layers, with their graph or the inputs to recompute it from.
pub(super) struct Pass {
    weights: Weights,
    input: Input,
    /// Normed hidden states [n, width] of all nodes.
    pub hidden: Tensor,
    checkpoints: Option<Checkpoints>,
}

struct Input {
    ids: Tensor,
    positions: Tensor,
    attention: ForestAttention,
}

fn checked(cotangent: Cotangent, actions: usize) -> Result<Cotangent, LmError> {
    let entropies = cotangent.entropy.as_ref().map_or(actions, Vec::len);
    if cotangent.logp.len() != actions || entropies != actions {
        return Err(LmError::Invalid(format!(
            "the loss returned {} derivatives ({entropies} of entropies) for {actions} actions",
            cotangent.logp.len()
        )));
    }
    Ok(cotangent)
}
