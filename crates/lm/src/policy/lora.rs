//! LoRA (Hu et al. 2021): a frozen projection W becomes W + (alpha / rank) · B A, and only A
//! and B are trained.
//!
//! The adapters are separate [`Parameters`], so that optimiser, clipping and checkpoints treat them
//! like any other model. A starts uniform in ±1/√in (Kaiming with a = √5, as in PEFT) and B at
//! zero, so training starts exactly at the base.

use leyden_core::SeedTree;
use tch::{Device, Kind, Tensor, no_grad_guard};

use crate::error::LmError;
use crate::model::adapter::{Adapter, LoraConfig};
use crate::model::config::LlamaConfig;
use crate::model::forward::{LowRank, Weights};
use crate::model::init::uniform;
use crate::model::parameters::Parameters;
use crate::model::parameters::layer_name;

/// A projection of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Projection {
    Query,
    Key,
    Value,
    Output,
    Gate,
    Up,
    Down,
}

impl Projection {
    /// All of a layer, in the order of its matrices.
    const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// The name of the module in a layer, in Hugging Face's format.
    fn module(self) -> &'static str {
        match self {
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// Whether a configuration's `target` selects this projection: by the module's last name.
    fn is(self, target: &str) -> bool {
        self.module().rsplit('.').next() == Some(target)
    }

    /// (out, in) of its matrix.
    fn shape(self, config: &LlamaConfig) -> (i64, i64) {
        let (d, f) = (config.hidden_size as i64, config.intermediate_size as i64);
        let q = (config.heads * config.head_dim) as i64;
        let kv = (config.kv_heads * config.head_dim) as i64;
        match self {
            Self::Query => (q, d),
            Self::Key | Self::Value => (kv, d),
            Self::Output => (d, q),
            Self::Gate | Self::Up => (f, d),
            Self::Down => (d, f),
        }
    }
}

/// The adapters of a model.
pub struct Lora {
    config: LoraConfig,
    /// The adapted projections, in the model's order.
    places: Vec<Place>,
    parameters: Parameters,
}

#[derive(Clone)]
struct Place {
    layer: usize,
    projection: Projection,
    /// For example `model.layers.0.self_attn.q_proj`.
    module: String,
}

impl Lora {
    /// Initial adapters on the target projections of every layer, f32 on `device`; drawn from
    /// `seed` and the module's name.
    ///
    /// # Errors
    /// Rank 0; no target, an unknown or a duplicate one.
    pub fn new(
        config: LoraConfig,
        model: &LlamaConfig,
        device: Device,
        seed: SeedTree,
    ) -> Result<Self, LmError> {
        check(&config)?;
        let mut adapters = Vec::new();
        for place in places(model) {
            if !config.targets.iter().any(|target| place.projection.is(target)) {
                continue;
            }
            let (out, input) = place.projection.shape(model);
            let (rank, bound) = (config.rank as i64, 1.0 / (input as f64).sqrt());
            let a = uniform(&[rank, input], bound, seed.child(&place.module))?;
            let b = Tensor::f_zeros([out, rank], (Kind::Float, Device::Cpu))?;
            adapters.push(Adapter { module: place.module, a, b });
        }
        Self::from_adapters(config, model, device, adapters)
    }

    /// Adapters read from a file. They need not cover every layer.
    ///
    /// # Errors
    /// An adapter of the wrong shape or for no projection of the model, by its module's name.
    pub fn from_adapters(
        config: LoraConfig,
        model: &LlamaConfig,
        device: Device,
        mut adapters: Vec<Adapter>,
    ) -> Result<Self, LmError> {
        check(&config)?;
        let (mut tensors, mut found) = (Vec::new(), Vec::new());
        for place in places(model) {
            let Some(at) = adapters.iter().position(|a| a.module == place.module) else { continue };
            let Adapter { module, a, b } = adapters.swap_remove(at);
            let ((out, input), rank) = (place.projection.shape(model), config.rank as i64);
            if a.size() != [rank, input] || b.size() != [out, rank] {
                let (a, b) = (a.size(), b.size());
                let what = format!(
                    "its adapter is {a:?} and {b:?}, but rank {rank} requires [{rank}, {input}] and \
                     [{out}, {rank}]"
                );
                return Err(LmError::Tensor { name: module, what });
            }
            tensors.push((name_a(&module), a));
            tensors.push((name_b(&module), b));
            found.push(place);
        }
        if let Some(Adapter { module, .. }) = adapters.into_iter().next() {
            let what = "has an adapter, but the model has no such projection".to_owned();
            return Err(LmError::Tensor { name: module, what });
        }
        let parameters = Parameters::new(tensors, Kind::Float, device, true)?;
        Ok(Self { config, places: found, parameters })
    }

    /// These adapters, frozen, with other values: `flat`, as in [`Parameters::with_values`].
    ///
    /// # Errors
    /// As there.
    pub fn with_values(&self, flat: &Tensor) -> Result<Self, LmError> {
        Ok(Self {
            config: self.config.clone(),
            places: self.places.clone(),
            parameters: self.parameters.with_values(flat)?,
        })
    }

    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The trained parameters: `<module>.lora_A.weight` and `<module>.lora_B.weight`.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// All adapters by module, sharing storage with the parameters.
    ///
    /// # Errors
    /// None in practice: the names are generated here.
    pub fn adapters(&self) -> Result<Vec<Adapter>, LmError> {
        let adapter = |place: &Place| {
            let a = self.parameters.get(&name_a(&place.module))?.detach();
            let b = self.parameters.get(&name_b(&place.module))?.detach();
            Ok(Adapter { module: place.module.clone(), a, b })
        };
        self.places.iter().map(adapter).collect()
    }

    /// Adds the adapters to `weights` as low-rank terms in the type of the weights; part of the
    /// graph if gradients are enabled.
    ///
    /// # Errors
    /// None in practice: the names are generated here.
    pub fn attach(&self, weights: &mut Weights, model: &LlamaConfig) -> Result<(), LmError> {
        let kind = weights.embedding.kind();
        for Place { layer, projection, module } in &self.places {
            let low_rank = LowRank {
                start: start(*projection, model),
                a: self.parameters.get(&name_a(module))?.to_kind(kind),
                b: self.parameters.get(&name_b(module))?.to_kind(kind),
                scale: self.scale(),
            };
            let layer = &mut weights.layers[*layer];
            let list = match projection {
                Projection::Query | Projection::Key | Projection::Value => &mut layer.qkv_low_rank,
                Projection::Output => &mut layer.output_low_rank,
                Projection::Gate | Projection::Up => &mut layer.gate_up_low_rank,
                Projection::Down => &mut layer.down_low_rank,
            };
            list.push(low_rank);
        }
        Ok(())
    }

    /// alpha / rank.
    pub fn scale(&self) -> f64 {
        self.config.alpha / self.config.rank as f64
    }

    /// The base with the adapters merged, by name in the base's order and type: for saving as a
    /// full model or for the engine. Tensors without an adapter are shared.
    ///
    /// # Errors
    /// A base without an adapted projection.
    pub fn merge(&self, base: &Parameters) -> Result<Vec<(String, Tensor)>, LmError> {
        let _guard = no_grad_guard();
        let mut adapters: Vec<(String, Adapter)> =
            self.adapters()?.into_iter().map(|a| (format!("{}.weight", a.module), a)).collect();
        let mut merged = Vec::new();
        for (name, tensor) in base.iter() {
            let Some(at) = adapters.iter().position(|(target, _)| target == name) else {
                merged.push((name.to_owned(), tensor.detach()));
                continue;
            };
            let (_, adapter) = adapters.swap_remove(at);
            let delta = adapter.b.f_matmul(&adapter.a)? * self.scale();
            let sum = tensor.to_kind(Kind::Float) + delta;
            merged.push((name.to_owned(), sum.to_kind(tensor.kind())));
        }
        match adapters.first() {
            None => Ok(merged),
            Some((name, _)) => {
                let what = "has an adapter but is not part of the base".to_owned();
                Err(LmError::Tensor { name: name.clone(), what })
            }
        }
    }
}

/// First row of a projection in the matrix it is part of (see [`crate::model::LayerWeights`]).
fn start(projection: Projection, config: &LlamaConfig) -> i64 {
    let rows = match projection {
        Projection::Key => config.heads * config.head_dim,
        Projection::Value => (config.heads + config.kv_heads) * config.head_dim,
        Projection::Up => config.intermediate_size,
        _ => 0,
    };
    rows as i64
}

/// Every projection of a model in its order.
fn places(model: &LlamaConfig) -> impl Iterator<Item = Place> {
    (0..model.layers).flat_map(|layer| {
        Projection::ALL.map(|projection| Place {
            layer,
            projection,
            module: layer_name(layer, projection.module()),
        })
    })
}

fn check(config: &LoraConfig) -> Result<(), LmError> {
    let invalid = |what: String| Err(LmError::Invalid(format!("LoRA: {what}")));
    if config.rank == 0 {
        return invalid("rank is 0".to_owned());
    }
    if config.targets.is_empty() {
        return invalid("targets is empty".to_owned());
    }
    for (i, target) in config.targets.iter().enumerate() {
        if !Projection::ALL.iter().any(|p| p.is(target)) {
            let known = Projection::ALL.map(|p| p.module().rsplit('.').next().unwrap_or_default());
            return invalid(format!(
                "target `{target}` is unknown; known are {}",
                known.join(", ")
            ));
        }
        if config.targets[..i].contains(target) {
            return invalid(format!("target `{target}` is named twice"));
        }
    }
    Ok(())
}

fn name_a(module: &str) -> String {
    format!("{module}.lora_A.weight")
}

fn name_b(module: &str) -> String {
    format!("{module}.lora_B.weight")
}
