//! The shape of a Llama, from Hugging Face's `config.json`.

use std::path::Path;

use serde_json::Value;

use crate::error::LmError;
use crate::formats::files::read_json;

/// Frequency scaling of Llama 3.1 and 3.2 (`rope_type = "llama3"`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Llama3Scaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_positions: f64,
}

/// Shape and constants of a Llama.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    /// Key/value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    pub head_dim: usize,
    pub norm_eps: f64,
    pub rope_theta: f64,
    pub rope_scaling: Option<Llama3Scaling>,
    /// Longest sequence the model was trained for.
    pub max_positions: usize,
    /// Whether the head is the embedding matrix.
    pub tied: bool,
    pub bos: Option<u32>,
    /// Token ids that end a turn.
    pub eos: Vec<u32>,
}

impl LlamaConfig {
    /// Number of parameters (a tied head counted once).
    pub fn parameters(&self) -> usize {
        let (d, f, hd) = (self.hidden_size, self.intermediate_size, self.head_dim);
        let attention = d * hd * (2 * self.heads + 2 * self.kv_heads);
        let layer = attention + 3 * d * f + 2 * d;
        let embeddings = self.vocab_size * d * if self.tied { 1 } else { 2 };
        embeddings + self.layers * layer + d
    }

    /// The maximum sequence length for a configured length of `requested` tokens: at most what the
    /// model was trained for, which is also used for 0.
    pub fn context(&self, requested: usize) -> usize {
        match requested {
            0 => self.max_positions,
            own => own.min(self.max_positions),
        }
    }

    /// Reads `config.json` of a Hugging Face folder.
    ///
    /// # Errors
    /// A missing file or key, or an architecture other than Llama, with file and key.
    pub fn from_file(path: &Path) -> Result<Self, LmError> {
        Self::from_json(&read_json(path)?, path)
    }

    /// Parses a `config.json`; `path` is used in messages.
    ///
    /// # Errors
    /// As [`LlamaConfig::from_file`].
    pub fn from_json(json: &Value, path: &Path) -> Result<Self, LmError> {
        let key = |key: &str, what: &str| LmError::Key {
            path: path.to_owned(),
            key: key.to_owned(),
            what: what.to_owned(),
        };
        let number = |name: &str| {
            json.get(name)
                .and_then(Value::as_u64)
                .map(|n| n as usize)
                .ok_or_else(|| key(name, "is missing or not an integer"))
        };
        let optional = |name: &str| json.get(name).and_then(Value::as_f64);
        match json.get("model_type").and_then(Value::as_str) {
            Some("llama") => {}
            Some(other) => {
                return Err(key(
                    "model_type",
                    &format!("is `{other}`; only llama models are supported"),
                ));
            }
            None => return Err(key("model_type", "is missing")),
        }
        match json.get("hidden_act").and_then(Value::as_str) {
            None | Some("silu" | "swish") => {}
            Some(other) => {
                return Err(key("hidden_act", &format!("is `{other}`; only silu is supported")));
            }
        }
        for bias in ["attention_bias", "mlp_bias"] {
            if json.get(bias).and_then(Value::as_bool) == Some(true) {
                return Err(key(bias, "is true; Llama with biases is not supported"));
            }
        }
        let hidden_size = number("hidden_size")?;
        let heads = number("num_attention_heads")?;
        let kv_heads =
            json.get("num_key_value_heads").and_then(Value::as_u64).map_or(heads, |n| n as usize);
        if heads == 0 || kv_heads == 0 || heads % kv_heads != 0 {
            return Err(key("num_key_value_heads", "must divide num_attention_heads"));
        }
        // transformers 5 writes `rope_parameters`; earlier versions `rope_scaling` + `rope_theta`.
        let rope = json.get("rope_parameters").filter(|v| v.is_object());
        let rope = rope.or_else(|| json.get("rope_scaling").filter(|v| v.is_object()));
        let rope_theta = rope
            .and_then(|r| r.get("rope_theta"))
            .and_then(Value::as_f64)
            .or_else(|| optional("rope_theta"))
            .unwrap_or(10_000.0);
        let config = Self {
            vocab_size: number("vocab_size")?,
            hidden_size,
            intermediate_size: number("intermediate_size")?,
            layers: number("num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim: json
                .get("head_dim")
                .and_then(Value::as_u64)
                .map_or(hidden_size / heads, |n| n as usize),
            norm_eps: optional("rms_norm_eps").unwrap_or(1e-6),
            rope_theta,
            rope_scaling: rope.map(|r| rope_scaling(r, &key)).transpose()?.flatten(),
            max_positions: number("max_position_embeddings").unwrap_or(2048),
            tied: json.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
            bos: json.get("bos_token_id").and_then(Value::as_u64).map(|n| n as u32),
            eos: ids(json.get("eos_token_id")),
        };
        config.check_sizes().map_err(|what| LmError::file(path, what))?;
        Ok(config)
    }

    /// Rejects implausible sizes: a damaged or hostile file must not cause huge allocations, and
    /// later arithmetic cannot overflow.
    pub(crate) fn check_sizes(&self) -> Result<(), String> {
        let attention = self.heads.saturating_mul(self.head_dim);
        for (what, size, most) in [
            ("a vocabulary of", self.vocab_size, 1 << 24),
            ("a width of", self.hidden_size, 1 << 17),
            ("a feed-forward width of", self.intermediate_size, 1 << 20),
            ("an attention width (heads times head width) of", attention, 1 << 17),
            ("layers numbering", self.layers, 1 << 12),
        ] {
            if size == 0 || size > most {
                return Err(format!("it has {what} {size}; supported are 1 to {most}"));
            }
        }
        if !self.head_dim.is_multiple_of(2) {
            let width = self.head_dim;
            return Err(format!("its heads are {width} wide; rotary positions need an even width"));
        }
        if !(self.rope_theta > 0.0 && self.norm_eps >= 0.0) {
            return Err("its rope_theta or norm epsilon is not finite and in range".to_owned());
        }
        Ok(())
    }

    /// The JSON that transformers reads.
    pub fn to_json(&self, dtype: &str) -> Value {
        let mut json = serde_json::json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "max_position_embeddings": self.max_positions,
            "tie_word_embeddings": self.tied,
            "attention_bias": false,
            "mlp_bias": false,
            "bos_token_id": self.bos,
            "eos_token_id": match self.eos.as_slice() {
                [] => Value::Null,
                [one] => Value::from(*one),
                several => Value::from(several.to_vec()),
            },
            "torch_dtype": dtype,
        });
        if let Some(scaling) = self.rope_scaling {
            json["rope_scaling"] = serde_json::json!({
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_positions,
            });
        }
        json
    }
}

fn rope_scaling(
    rope: &Value,
    key: &impl Fn(&str, &str) -> LmError,
) -> Result<Option<Llama3Scaling>, LmError> {
    let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str);
    match kind {
        None | Some("default") => return Ok(None),
        Some("llama3") => {}
        Some(other) => {
            return Err(key(
                "rope_type",
                &format!("is `{other}`; supported are default and llama3"),
            ));
        }
    }
    let number = |name: &str| {
        rope.get(name)
            .and_then(Value::as_f64)
            .ok_or_else(|| key(name, "is missing or not a number"))
    };
    Ok(Some(Llama3Scaling {
        factor: number("factor")?,
        low_freq_factor: number("low_freq_factor")?,
        high_freq_factor: number("high_freq_factor")?,
        original_max_positions: number("original_max_position_embeddings")?,
    }))
}

fn ids(value: Option<&Value>) -> Vec<u32> {
    match value {
        Some(Value::Array(list)) => {
            list.iter().filter_map(Value::as_u64).map(|n| n as u32).collect()
        }
        Some(one) => one.as_u64().map(|n| n as u32).into_iter().collect(),
        None => Vec::new(),
    }
}
