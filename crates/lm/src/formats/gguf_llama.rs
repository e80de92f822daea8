//! A Llama in a GGUF file: configuration, weights and tokenizer in Hugging Face's form.
//!
//! llama.cpp uses its own tensor names and stores the rows of q and k with the two halves of a
//! rotation interleaved; both are converted here. Llama 3's frequency scaling is stored as a tensor
//! of divisors, from which the four values of `config.json` are recovered.

use std::f64::consts::PI;

use leyden_text::GgufTokenizer;
use tch::{Kind, Tensor};

use crate::error::LmError;
use crate::formats::gguf::Gguf;
use crate::formats::tensors::{NamedTensors, check_tensors};
use crate::model::config::{Llama3Scaling, LlamaConfig};
use crate::model::parameters::projection_shapes;
use crate::model::rotary::inverse_frequencies;

const ROPE_FREQUENCIES: &str = "rope_freqs.weight";

impl Gguf {
    /// The configuration of a file of architecture `llama`.
    ///
    /// # Errors
    /// Another architecture, a missing key, an unsupported kind of Llama.
    pub fn config(&self) -> Result<LlamaConfig, LmError> {
        match self.text("general.architecture")? {
            Some("llama") => {}
            Some(other) => {
                let what = format!("is `{other}`; only llama models are supported");
                return Err(self.key_error("general.architecture", what));
            }
            None => return Err(self.key_error("general.architecture", "is missing")),
        }
        if self.unsigned("llama.expert_count")?.unwrap_or(0) > 0 {
            return Err(self.key_error(
                "llama.expert_count",
                "indicates a mixture of experts, which is not supported",
            ));
        }
        let size = |key: &str| -> Result<Option<usize>, LmError> {
            Ok(self.unsigned(key)?.map(|n| usize::try_from(n).unwrap_or(usize::MAX)))
        };
        let required = |key: &str| size(key)?.ok_or_else(|| self.key_error(key, "is missing"));
        let hidden_size = required("llama.embedding_length")?;
        let heads = required("llama.attention.head_count")?;
        let kv_heads = size("llama.attention.head_count_kv")?.unwrap_or(heads);
        if heads == 0 || kv_heads == 0 || heads % kv_heads != 0 {
            let what = format!("is {kv_heads}, which does not divide the {heads} heads");
            return Err(self.key_error("llama.attention.head_count_kv", what));
        }
        let head_dim = match size("llama.attention.key_length")? {
            Some(n) => n,
            None => hidden_size / heads,
        };
        for key in ["llama.rope.dimension_count", "llama.attention.value_length"] {
            if size(key)?.is_some_and(|n| n != head_dim) {
                let what = format!("differs from the head width of {head_dim}");
                return Err(self.key_error(key, what));
            }
        }
        let shapes = self.shapes();
        let embedding = shapes.get("token_embd.weight").and_then(|shape| shape.first());
        let vocab_size = *embedding
            .ok_or_else(|| LmError::file(self.path(), "tensor `token_embd.weight` is missing"))?
            as usize;
        let mut config = LlamaConfig {
            vocab_size,
            hidden_size,
            intermediate_size: required("llama.feed_forward_length")?,
            layers: required("llama.block_count")?,
            heads,
            kv_heads,
            head_dim,
            norm_eps: self.norm_eps()?,
            rope_theta: self.float("llama.rope.freq_base")?.unwrap_or(10_000.0),
            rope_scaling: None,
            max_positions: required("llama.context_length")?,
            tied: !shapes.contains_key("output.weight"),
            bos: self.token_id("bos")?,
            eos: self.token_id("eos")?.into_iter().chain(self.token_id("eot")?).collect(),
        };
        config.eos.dedup();
        config.check_sizes().map_err(|what| LmError::file(self.path(), what))?;
        config.rope_scaling = self.rope_scaling(&config)?;
        Ok(config)
    }

    fn norm_eps(&self) -> Result<f64, LmError> {
        let key = "llama.attention.layer_norm_rms_epsilon";
        let stored = self.float(key)?.ok_or_else(|| self.key_error(key, "is missing"))?;
        // The file stores the f32 nearest to a decimal number; 1e-5 is meant, not 9.99999975e-6.
        Ok((stored as f32).to_string().parse().unwrap_or(stored))
    }

    fn token_id(&self, which: &str) -> Result<Option<u32>, LmError> {
        let key = format!("tokenizer.ggml.{which}_token_id");
        // llama.cpp writes −1, as an unsigned number, for a missing token.
        let id = self.unsigned(&key)?.filter(|id| *id != u64::from(u32::MAX));
        id.map(|id| u32::try_from(id).map_err(|_| self.key_error(&key, "is not a token id")))
            .transpose()
    }

    fn rope_scaling(&self, config: &LlamaConfig) -> Result<Option<Llama3Scaling>, LmError> {
        let key = "llama.rope.scaling.type";
        if let Some(other) = self.text(key)?.filter(|kind| *kind != "none") {
            let what = format!("is `{other}`; supported are none and Llama 3's own scaling");
            return Err(self.key_error(key, what));
        }
        let Some(shape) = self.shapes().remove(ROPE_FREQUENCIES) else { return Ok(None) };
        let unfit =
            |what: &str| LmError::file(self.path(), format!("tensor `{ROPE_FREQUENCIES}` {what}"));
        if shape != [(config.head_dim / 2) as i64] {
            return Err(unfit("does not have one divisor per pair of a head's dimensions"));
        }
        let divisors = self.tensor(ROPE_FREQUENCIES)?.to_kind(Kind::Double);
        let divisors = Vec::<f64>::try_from(&divisors)?;
        match find_scaling(config, &divisors) {
            Some(scaling) => Ok(Some(scaling)),
            None => Err(unfit("is not a frequency scaling of the Llama 3 kind")),
        }
    }

    /// The weights in the order of [`projection_shapes`].
    ///
    /// # Errors
    /// Missing or unexpected tensors, wrong shapes.
    pub fn weights(&self, config: &LlamaConfig) -> Result<NamedTensors, LmError> {
        let mut present = self.shapes();
        present.remove(ROPE_FREQUENCIES);
        // Unexpected tensors keep their names, so that errors can name them.
        let present = present
            .into_iter()
            .map(|(name, shape)| (hugging_face_name(&name).unwrap_or(name), shape))
            .collect();
        check_tensors(self.path(), config, &present)?;
        projection_shapes(config)
            .into_iter()
            .map(|(name, _)| {
                let tensor = self.tensor(&ggml_name(&name))?;
                let heads = match name.rsplit('.').nth(1) {
                    Some("q_proj") => config.heads,
                    Some("k_proj") => config.kv_heads,
                    _ => return Ok((name, tensor)),
                };
                Ok((name, halves_apart(&tensor, heads)?))
            })
            .collect()
    }

    /// The tokenizer's metadata.
    ///
    /// # Errors
    /// A file without a tokenizer; keys of the wrong type.
    pub fn tokenizer(&self) -> Result<GgufTokenizer, LmError> {
        let key = |rest: &str| format!("tokenizer.ggml.{rest}");
        let text = |name: &str| Ok::<_, LmError>(self.text(name)?.map(str::to_owned));
        let missing = |name: &str| self.key_error(name, "is missing");
        Ok(GgufTokenizer {
            model: text(&key("model"))?.ok_or_else(|| missing(&key("model")))?,
            pre: text(&key("pre"))?.unwrap_or_default(),
            tokens: self.texts(&key("tokens"))?.ok_or_else(|| missing(&key("tokens")))?,
            token_types: self.integers(&key("token_type"))?.unwrap_or_default(),
            merges: self.texts(&key("merges"))?.unwrap_or_default(),
            bos: self.token_id("bos")?,
            eos: self.token_id("eos")?,
            pad: self.token_id("padding")?,
            add_bos: self.boolean(&key("add_bos_token"))?.unwrap_or(false),
            chat_template: text("tokenizer.chat_template")?,
        })
    }
}

/// Pairs of names: in a layer, then outside of layers.
const LAYER_NAMES: [(&str, &str); 9] = [
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("attn_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
];
const OTHER_NAMES: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

fn hugging_face_name(name: &str) -> Option<String> {
    let stem = name.strip_suffix(".weight")?;
    if let Some((layer, part)) = stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        let (_, theirs) = LAYER_NAMES.iter().find(|(ours, _)| *ours == part)?;
        return Some(format!("model.layers.{layer}.{theirs}.weight"));
    }
    let (_, theirs) = OTHER_NAMES.iter().find(|(ours, _)| *ours == stem)?;
    Some(format!("{theirs}.weight"))
}

/// The inverse of [`hugging_face_name`] for names of [`projection_shapes`].
fn ggml_name(name: &str) -> String {
    let stem = name.strip_suffix(".weight").unwrap_or(name);
    let in_layer = stem.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    let other = |names: &[(&str, &str)], stem: &str| {
        names.iter().find(|(_, theirs)| *theirs == stem).map_or("", |(ours, _)| *ours).to_owned()
    };
    match in_layer {
        Some((layer, part)) => format!("blk.{layer}.{}.weight", other(&LAYER_NAMES, part)),
        None => format!("{}.weight", other(&OTHER_NAMES, stem)),
    }
}

/// Rows (head, pair, half) → (head, half, pair): GGUF stores the two rows of a rotation adjacent,
/// Hugging Face half a head apart.
fn halves_apart(weight: &Tensor, heads: usize) -> Result<Tensor, LmError> {
    let (rows, columns) = weight.size2()?;
    let heads = heads as i64;
    let pairs = weight.f_view([heads, rows / heads / 2, 2, columns])?;
    Ok(pairs.f_transpose(1, 2)?.f_contiguous()?.f_view([rows, columns])?)
}

/// Recovers the scaling that divides each frequency by its divisor.
///
/// The divisors determine `factor`, `original / low_freq_factor` and `original / high_freq_factor`,
/// on which alone the frequencies depend. Meta's own values are tried first; otherwise the two
/// ratios are computed from two blended frequencies, with `low_freq_factor` = 1.
fn find_scaling(config: &LlamaConfig, divisors: &[f64]) -> Option<Llama3Scaling> {
    let frequencies = inverse_frequencies(config);
    let factor = divisors.iter().copied().fold(1.0, f64::max);
    let scaling = |high_freq_factor: f64, original_max_positions: f64| Llama3Scaling {
        factor,
        low_freq_factor: 1.0,
        high_freq_factor,
        original_max_positions,
    };
    let reproduces = |scaling: &Llama3Scaling| {
        let scaled = LlamaConfig { rope_scaling: Some(*scaling), ..config.clone() };
        let scaled = inverse_frequencies(&scaled);
        frequencies
            .iter()
            .zip(&scaled)
            .zip(divisors)
            .all(|((plain, scaled), divisor)| (plain / scaled / divisor - 1.0).abs() < 1e-4)
    };
    // A blend s = (original / wavelength − low) / (high − low) is a line in 1 / wavelength.
    let blended: Vec<(f64, f64)> = frequencies
        .iter()
        .zip(divisors)
        .filter(|(_, divisor)| **divisor > 1.0 + 1e-6 && **divisor < factor * (1.0 - 1e-6))
        .map(|(f, divisor)| (f / (2.0 * PI), (1.0 / divisor - 1.0 / factor) / (1.0 - 1.0 / factor)))
        .collect();
    let fitted = match (blended.first(), blended.last()) {
        (Some((x1, s1)), Some((x2, s2))) if x1 != x2 => {
            let slope = (s2 - s1) / (x2 - x1);
            let intercept = s1 - slope * x1;
            let high = 1.0 - 1.0 / intercept;
            Some(scaling((high * 1e3).round() / 1e3, (slope * (high - 1.0)).round()))
        }
        _ => None,
    };
    [Some(scaling(4.0, 8192.0)), fitted].into_iter().flatten().find(reproduces)
}
