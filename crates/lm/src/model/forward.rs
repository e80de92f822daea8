//! Llama's forward pass on packed tokens.
//!
//! Tokens of all sequences are concatenated, [n, width], without padding; only attention needs to
//! know which token belongs to which sequence, so it is a parameter.

use tch::{Kind, Tensor};

use crate::error::LmError;
use crate::kernels;
use crate::kernels::Packed;
use crate::model::config::LlamaConfig;
use crate::model::parameters::Parameters;
use crate::model::parameters::layer_name;
use crate::model::rotary::Rotary;
use crate::model::rotary::{Angles, rotate};

/// Defines which tokens attend to each other. One implementation per way of running the model: a
/// prefix forest, prefill into a KV cache, decoding from it.
pub trait Attention {
    /// Attends with queries `q` [n, heads, head_dim] to the keys and values of this call ([n,
    /// kv_heads, head_dim], rotated) and those cached for `layer`; returns [n, heads · head_dim].
    fn attend(
        &mut self,
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<Tensor, LmError>;
}

/// A low-rank addition to rows `start .. start + rows` of a projection's output:
/// scale · (x Aᵀ) Bᵀ (LoRA, Hu et al. 2021).
pub struct LowRank {
    pub start: i64,
    /// [rank, in]
    pub a: Tensor,
    /// [rows, rank]
    pub b: Tensor,
    pub scale: f64,
}

/// One layer's projections packed for the fused products of few rows.
pub struct PackedLayer {
    pub(crate) qkv: Packed,
    pub(crate) output: Packed,
    pub(crate) gate_up: Packed,
    pub(crate) down: Packed,
}

/// One layer's weights in the compute type. Projections that read the same input are one matrix:
/// fewer, larger products.
pub struct LayerWeights {
    pub input_norm: Tensor,
    /// [(heads + 2 · kv_heads) · head_dim, width]: queries, keys, values.
    pub qkv: Tensor,
    pub qkv_low_rank: Vec<LowRank>,
    /// [width, heads · head_dim]
    pub output: Tensor,
    pub output_low_rank: Vec<LowRank>,
    pub post_norm: Tensor,
    /// [2 · intermediate, width]: gate, up.
    pub gate_up: Tensor,
    pub gate_up_low_rank: Vec<LowRank>,
    /// [width, intermediate]
    pub down: Tensor,
    pub down_low_rank: Vec<LowRank>,
    /// See [`Weights::pack`].
    pub packed: Option<PackedLayer>,
}

impl LayerWeights {
    /// Whether any projection has a low-rank addition.
    pub(crate) fn has_low_rank(&self) -> bool {
        let all = [
            &self.qkv_low_rank,
            &self.output_low_rank,
            &self.gate_up_low_rank,
            &self.down_low_rank,
        ];
        all.iter().any(|terms| !terms.is_empty())
    }
}

/// A model's weights in the compute type.
pub struct Weights {
    /// [vocabulary, width]
    pub embedding: Tensor,
    pub layers: Vec<LayerWeights>,
    pub norm: Tensor,
    /// [vocabulary, width]; the embedding itself if tied.
    pub head: Tensor,
    /// See [`Weights::pack`].
    pub packed_head: Option<Packed>,
}

impl Weights {
    /// Views (same type) or copies (other type) of `parameters` in `kind`. With gradients enabled
    /// and trained parameters this is part of the graph: gradients arrive at the parameters in
    /// their own type.
    pub fn of(parameters: &Parameters, config: &LlamaConfig, kind: Kind) -> Result<Self, LmError> {
        Self::build(config, kind, |name| parameters.get(name), |first| parameters.stacked(first))
    }

    /// As [`Weights::of`], from any function that finds tensors by their Hugging Face names.
    pub fn from_lookup<'t>(
        config: &LlamaConfig,
        kind: Kind,
        find: impl Fn(&str) -> Result<&'t Tensor, LmError>,
    ) -> Result<Self, LmError> {
        Self::build(config, kind, find, |_| None)
    }

    fn build<'t>(
        config: &LlamaConfig,
        kind: Kind,
        find: impl Fn(&str) -> Result<&'t Tensor, LmError>,
        stacked: impl Fn(&str) -> Option<&'t Tensor>,
    ) -> Result<Self, LmError> {
        let get = |name: &str| Ok::<_, LmError>(find(name)?.to_kind(kind));
        let mut layers = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            let one = |rest: &str| get(&layer_name(layer, rest));
            let several = |rests: &[&str]| match stacked(&layer_name(layer, rests[0])) {
                Some(stack) => Ok::<_, LmError>(stack.to_kind(kind)),
                None => {
                    let parts =
                        rests.iter().map(|rest| one(rest)).collect::<Result<Vec<_>, _>>()?;
                    Ok(Tensor::f_cat(&parts, 0)?)
                }
            };
            layers.push(LayerWeights {
                input_norm: one("input_layernorm.weight")?,
                qkv: several(&[
                    "self_attn.q_proj.weight",
                    "self_attn.k_proj.weight",
                    "self_attn.v_proj.weight",
                ])?,
                qkv_low_rank: Vec::new(),
                output: one("self_attn.o_proj.weight")?,
                output_low_rank: Vec::new(),
                post_norm: one("post_attention_layernorm.weight")?,
                gate_up: several(&["mlp.gate_proj.weight", "mlp.up_proj.weight"])?,
                gate_up_low_rank: Vec::new(),
                down: one("mlp.down_proj.weight")?,
                down_low_rank: Vec::new(),
                packed: None,
            });
        }
        let embedding = get("model.embed_tokens.weight")?;
        let head = if config.tied { embedding.shallow_clone() } else { get("lm_head.weight")? };
        Ok(Self { embedding, layers, norm: get("model.norm.weight")?, head, packed_head: None })
    }

    /// Packs copies of the matrices for fast products of few rows, if there are kernels for them
    /// (see [`crate::kernels`]): for generation, whose weights are constant for many steps. They
    /// serve every product without low-rank terms.
    pub fn pack(&mut self) {
        for layer in &mut self.layers {
            let (qkv, output) = (Packed::of(&layer.qkv), Packed::of(&layer.output));
            let (gate_up, down) = (Packed::of(&layer.gate_up), Packed::of(&layer.down));
            layer.packed = match (qkv, output, gate_up, down) {
                (Some(qkv), Some(output), Some(gate_up), Some(down)) => {
                    Some(PackedLayer { qkv, output, gate_up, down })
                }
                _ => None,
            };
        }
        self.packed_head = Packed::of(&self.head);
    }

    /// Logits [n, vocabulary] of hidden states [n, width].
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, LmError> {
        project(hidden, &self.head, self.packed_head.as_ref(), &[])
    }

    /// The same tensors, without low-rank terms and packed copies.
    pub fn shallow_clone(&self) -> Self {
        let layers = self.layers.iter().map(|layer| LayerWeights {
            input_norm: layer.input_norm.shallow_clone(),
            qkv: layer.qkv.shallow_clone(),
            qkv_low_rank: Vec::new(),
            output: layer.output.shallow_clone(),
            output_low_rank: Vec::new(),
            post_norm: layer.post_norm.shallow_clone(),
            gate_up: layer.gate_up.shallow_clone(),
            gate_up_low_rank: Vec::new(),
            down: layer.down.shallow_clone(),
            down_low_rank: Vec::new(),
            packed: None,
        });
        Self {
            embedding: self.embedding.shallow_clone(),
            layers: layers.collect(),
            norm: self.norm.shallow_clone(),
            head: self.head.shallow_clone(),
            packed_head: None,
        }
    }
}

/// x · weight / rms(x) (Zhang and Sennrich 2019); the mean square in f32 for every type.
///
/// # Errors
/// Errors of libtorch.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, LmError> {
    if let Some(y) = kernels::rms_norm(x, weight, eps) {
        return y;
    }
    let wide = x.to_kind(Kind::Float);
    let mean_square = wide.square().mean_dim(-1, true, Kind::Float);
    Ok((wide * (mean_square + eps).rsqrt()).to_kind(x.kind()) * weight)
}

/// silu(gate) · up of `gate_up` [n, 2 · intermediate] (Shazeer 2020).
///
/// # Errors
/// Errors of libtorch.
pub fn swiglu(gate_up: &Tensor) -> Result<Tensor, LmError> {
    if let Some(y) = kernels::swiglu(gate_up) {
        return y;
    }
    let halves = gate_up.f_split(gate_up.size()[1] / 2, 1)?;
    Ok(halves[0].silu() * &halves[1])
}

/// x Wᵀ plus the low-rank additions.
fn project(
    x: &Tensor,
    weight: &Tensor,
    packed: Option<&Packed>,
    low_rank: &[LowRank],
) -> Result<Tensor, LmError> {
    let y = match packed.and_then(|packed| packed.multiply(x)) {
        Some(y) => y?,
        None => x.f_linear(weight, None::<&Tensor>)?,
    };
    if low_rank.is_empty() {
        return Ok(y);
    }
    // Columns between the adapted projections pass through unchanged.
    let mut pieces = Vec::new();
    let mut at = 0;
    for adapter in low_rank {
        let rows = adapter.b.size()[0];
        if adapter.start > at {
            pieces.push(y.narrow(1, at, adapter.start - at));
        }
        let delta =
            x.f_linear(&adapter.a, None::<&Tensor>)?.f_linear(&adapter.b, None::<&Tensor>)?
                * adapter.scale;
        pieces.push(y.narrow(1, adapter.start, rows) + delta);
        at = adapter.start + rows;
    }
    let width = y.size()[1];
    if at < width {
        pieces.push(y.narrow(1, at, width - at));
    }
    Ok(Tensor::f_cat(&pieces, 1)?)
}

/// One layer: x + attention(norm(x)), then + SwiGLU(norm(·)); `x` is [n, width].
pub fn layer_forward(
    weights: &LayerWeights,
    config: &LlamaConfig,
    index: usize,
    x: &Tensor,
    angles: &Angles,
    attention: &mut dyn Attention,
) -> Result<Tensor, LmError> {
    let n = x.size()[0];
    let (heads, kv, hd) = (config.heads as i64, config.kv_heads as i64, config.head_dim as i64);
    let packed = weights.packed.as_ref();
    let normed = rms_norm(x, &weights.input_norm, config.norm_eps)?;
    let qkv = project(&normed, &weights.qkv, packed.map(|p| &p.qkv), &weights.qkv_low_rank)?;
    // Split rather than narrowed: the gradient of a split is one concatenation, that of each narrow
    // a zeroed tensor of the full size and an addition.
    let qkv = qkv.f_split_with_sizes([(heads + kv) * hd, kv * hd], 1)?;
    // Queries and keys are rotated together: they are adjacent in the product.
    let turned = rotate(&qkv[0].f_view([n, heads + kv, hd])?, angles)?;
    let turned = turned.f_split_with_sizes([heads, kv], 1)?;
    let (q, k, v) = (&turned[0], &turned[1], qkv[1].f_view([n, kv, hd])?);
    let mixed = attention.attend(index, q, k, &v)?;
    let output = packed.map(|p| &p.output);
    let x = x + project(&mixed, &weights.output, output, &weights.output_low_rank)?;
    let normed = rms_norm(&x, &weights.post_norm, config.norm_eps)?;
    let gate_up = packed.map(|p| &p.gate_up);
    let gate_up = project(&normed, &weights.gate_up, gate_up, &weights.gate_up_low_rank)?;
    let activated = swiglu(&gate_up)?;
    Ok(&x + project(&activated, &weights.down, packed.map(|p| &p.down), &weights.down_low_rank)?)
}

/// The model without its head: token `ids` `[n]` at `positions` `[n]` → normed hidden states [n,
/// width].
///
/// # Errors
/// Errors of libtorch (memory, device).
pub fn transform(
    weights: &Weights,
    config: &LlamaConfig,
    rotary: &Rotary,
    ids: &Tensor,
    positions: &Tensor,
    attention: &mut dyn Attention,
) -> Result<Tensor, LmError> {
    let mut x = Tensor::f_embedding(&weights.embedding, ids, -1, false, false)?;
    let angles = rotary.angles(positions, x.kind());
    for (index, layer) in weights.layers.iter().enumerate() {
        x = layer_forward(layer, config, index, &x, &angles, attention)?;
    }
    rms_norm(&x, &weights.norm, config.norm_eps)
}
