//! The shape of a BERT, from Hugging Face's `config.json`.

use std::path::Path;

use serde_json::Value;

use crate::error::LmError;

/// Supported values of `model_type`.
pub(super) const MODEL_TYPES: [&str; 4] = ["bert", "roberta", "xlm-roberta", "camembert"];

/// The non-linearity of the feed-forward layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    /// x Φ(x), with the error function.
    Gelu,
    /// The same, with Φ approximated by a tanh.
    GeluTanh,
    Relu,
}

/// Shape and constants of a BERT or RoBERTa.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BertConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub norm_eps: f64,
    pub activation: Activation,
    /// Rows of the position embedding.
    pub positions: usize,
    /// The position of a text's first token: RoBERTa starts after its padding id.
    pub first_position: usize,
    /// Rows of the segment embedding; single texts use segment 0.
    pub segments: usize,
}

impl BertConfig {
    /// Parses a `config.json`; `path` is used in messages.
    ///
    /// # Errors
    /// A missing key, an unsupported architecture or sizes out of range; with file and key.
    pub fn from_json(json: &Value, path: &Path) -> Result<Self, LmError> {
        let key = |key: &str, what: String| LmError::Key {
            path: path.to_owned(),
            key: key.to_owned(),
            what,
        };
        let text = |name: &str| json.get(name).and_then(Value::as_str);
        let number = |name: &str| {
            let missing = || key(name, "is missing or not an integer".to_owned());
            json.get(name).and_then(Value::as_u64).map(|n| n as usize).ok_or_else(missing)
        };
        let first_position = match text("model_type") {
            Some("bert") => 0,
            Some(kind) if MODEL_TYPES.contains(&kind) => number("pad_token_id")?.saturating_add(1),
            Some(other) => {
                let what = format!("is `{other}`; encoders are {}", MODEL_TYPES.join(", "));
                return Err(key("model_type", what));
            }
            None => return Err(key("model_type", "is missing".to_owned())),
        };
        if let Some(other) = text("position_embedding_type").filter(|kind| *kind != "absolute") {
            let what = format!("is `{other}`; only absolute positions are supported");
            return Err(key("position_embedding_type", what));
        }
        let activation = match text("hidden_act") {
            Some("gelu") | None => Activation::Gelu,
            Some("gelu_new" | "gelu_pytorch_tanh") => Activation::GeluTanh,
            Some("relu") => Activation::Relu,
            Some(other) => {
                let what = format!("is `{other}`; known are gelu, gelu_new and relu");
                return Err(key("hidden_act", what));
            }
        };
        let config = Self {
            vocab_size: number("vocab_size")?,
            hidden_size: number("hidden_size")?,
            intermediate_size: number("intermediate_size")?,
            layers: number("num_hidden_layers")?,
            heads: number("num_attention_heads")?,
            norm_eps: json.get("layer_norm_eps").and_then(Value::as_f64).unwrap_or(1e-12),
            activation,
            positions: number("max_position_embeddings")?,
            first_position,
            segments: number("type_vocab_size").unwrap_or(2),
        };
        config.check_sizes().map_err(|what| LmError::file(path, what))?;
        Ok(config)
    }

    /// Maximum tokens of a text, including special tokens.
    pub fn max_tokens(&self) -> usize {
        self.positions - self.first_position
    }

    /// Rejects implausible sizes, so that later arithmetic cannot overflow.
    fn check_sizes(&self) -> Result<(), String> {
        for (what, size, most) in [
            ("a vocabulary of", self.vocab_size, 1 << 24),
            ("a width of", self.hidden_size, 1 << 16),
            ("a feed-forward width of", self.intermediate_size, 1 << 18),
            ("layers numbering", self.layers, 1 << 10),
            ("positions numbering", self.positions, 1 << 20),
            ("segments numbering", self.segments, 1 << 10),
        ] {
            if size == 0 || size > most {
                return Err(format!("it has {what} {size}; supported are 1 to {most}"));
            }
        }
        if self.heads == 0 || !self.hidden_size.is_multiple_of(self.heads) {
            let (heads, width) = (self.heads, self.hidden_size);
            return Err(format!("its {heads} heads do not divide its width of {width}"));
        }
        if self.positions <= self.first_position {
            let (rows, first) = (self.positions, self.first_position);
            return Err(format!("its {rows} positions end before the first text's, {first}"));
        }
        if !(self.norm_eps >= 0.0 && self.norm_eps.is_finite()) {
            return Err("its layer_norm_eps is not a finite number of at least 0".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unsupported_configurations_are_rejected_with_their_key() {
        let good = json!({
            "model_type": "bert", "vocab_size": 20, "hidden_size": 8, "intermediate_size": 16,
            "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 12,
        });
        let read = |json: &Value| BertConfig::from_json(json, Path::new("config.json"));
        assert_eq!(read(&good).unwrap().max_tokens(), 12);
        for (key, value, words) in [
            ("model_type", json!("mpnet"), "key `model_type` is `mpnet`"),
            ("model_type", json!(null), "key `model_type` is missing"),
            ("model_type", json!("roberta"), "key `pad_token_id` is missing"),
            ("position_embedding_type", json!("relative_key"), "only absolute positions"),
            ("hidden_act", json!("silu"), "key `hidden_act` is `silu`"),
            ("hidden_size", json!(-1), "key `hidden_size` is missing or not an integer"),
            ("hidden_size", json!(9), "2 heads do not divide its width of 9"),
            ("num_attention_heads", json!(0), "0 heads"),
            ("vocab_size", json!(u64::MAX), "a vocabulary of"),
            ("layer_norm_eps", json!(-1.0), "layer_norm_eps"),
        ] {
            let mut json = good.clone();
            json[key] = value;
            let error = read(&json).unwrap_err().to_string();
            assert!(error.starts_with("config.json: ") && error.contains(words), "{error}");
        }
        let mut roberta = good;
        roberta["model_type"] = json!("roberta");
        roberta["pad_token_id"] = json!(1);
        assert_eq!(read(&roberta).unwrap().max_tokens(), 10);
        roberta["pad_token_id"] = json!(11);
        assert!(read(&roberta).unwrap_err().to_string().contains("positions end before"));
    }
}
