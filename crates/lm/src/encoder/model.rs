//! BERT's forward pass on packed tokens (Devlin et al. 2019; RoBERTa: Liu et al. 2019).
//!
//! Tokens of all texts are concatenated, [n, width], ordered by the texts' lengths. Texts of equal
//! length are then a view of shape [texts, length, width], so attention within a text needs neither
//! mask nor padding: one call per distinct length.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::encoder::config::{Activation, BertConfig};
use crate::error::LmError;
use crate::formats::safetensors::SafetensorsFolder;

/// Consecutive texts of equal length in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Number of tokens before the run.
    pub start: i64,
    pub texts: i64,
    /// Tokens per text.
    pub length: i64,
}

impl Run {
    /// The run's part of `x` [n, width] as [texts, length, width], without a copy.
    pub fn of(&self, x: &Tensor) -> Result<Tensor, LmError> {
        let rows = x.f_narrow(0, self.start, self.texts * self.length)?;
        Ok(rows.f_view([self.texts, self.length, -1])?)
    }
}

/// x Wᵀ + b.
struct Linear {
    /// [out, in]
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    fn apply(&self, x: &Tensor) -> Result<Tensor, LmError> {
        Ok(x.f_linear(&self.weight, Some(&self.bias))?)
    }
}

/// Layer normalisation with a scale and a shift (Ba et al. 2016).
struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl Norm {
    fn apply(&self, x: &Tensor) -> Result<Tensor, LmError> {
        let shape = self.weight.size();
        Ok(x.f_layer_norm(shape, Some(&self.weight), Some(&self.bias), self.eps, true)?)
    }
}

struct Layer {
    /// [3 · width, width]: queries, keys, values.
    qkv: Linear,
    output: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    output_norm: Norm,
}

/// A model's weights in the compute type.
pub(super) struct Bert {
    /// [vocabulary, width]
    words: Tensor,
    /// [longest text, width]: position and segment 0.
    positions: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    heads: i64,
    activation: Activation,
}

impl Bert {
    /// Copies the weights to `device` in `kind`. Heads and poolers in the files are ignored, and so
    /// are prefixes of the names (`bert.`, `roberta.`).
    ///
    /// # Errors
    /// Missing tensors, wrong shapes, unsupported types.
    pub fn load(
        files: &SafetensorsFolder,
        config: &BertConfig,
        device: Device,
        kind: Kind,
    ) -> Result<Self, LmError> {
        let reader = Reader::new(files, config.norm_eps, device, kind);
        let (width, inner) = (config.hidden_size as i64, config.intermediate_size as i64);
        let words = reader.tensor(WORDS, &[config.vocab_size as i64, width])?;
        let rows = [config.positions as i64, width];
        let positions = reader.tensor("embeddings.position_embeddings.weight", &rows)?;
        let segments = [config.segments as i64, width];
        let segments = reader.tensor("embeddings.token_type_embeddings.weight", &segments)?;
        let (first, longest) = (config.first_position as i64, config.max_tokens() as i64);
        let positions = positions.f_narrow(0, first, longest)?.f_add(&segments.f_select(0, 0)?)?;
        let layer = |number: usize| {
            let name = |rest: &str| format!("encoder.layer.{number}.{rest}");
            let linear = |rest: &str, out, into| reader.linear(&name(rest), out, into);
            let norm = |rest: &str| reader.norm(&name(rest), width);
            let q = linear("attention.self.query", width, width)?;
            let k = linear("attention.self.key", width, width)?;
            let v = linear("attention.self.value", width, width)?;
            Ok::<_, LmError>(Layer {
                qkv: Linear {
                    weight: Tensor::f_cat(&[&q.weight, &k.weight, &v.weight], 0)?,
                    bias: Tensor::f_cat(&[&q.bias, &k.bias, &v.bias], 0)?,
                },
                output: linear("attention.output.dense", width, width)?,
                attention_norm: norm("attention.output.LayerNorm")?,
                up: linear("intermediate.dense", inner, width)?,
                down: linear("output.dense", width, inner)?,
                output_norm: norm("output.LayerNorm")?,
            })
        };
        Ok(Self {
            words,
            positions,
            norm: reader.norm("embeddings.LayerNorm", width)?,
            layers: (0..config.layers).map(layer).collect::<Result<_, _>>()?,
            heads: config.heads as i64,
            activation: config.activation,
        })
    }

    /// The last layer's vectors [n, width] of `tokens` [n], whose texts `runs` describe.
    ///
    /// # Errors
    /// Errors of libtorch (memory).
    pub fn forward(&self, tokens: &Tensor, runs: &[Run]) -> Result<Tensor, LmError> {
        let mut positions = Vec::with_capacity(tokens.numel());
        for run in runs {
            (0..run.texts).for_each(|_| positions.extend(0..run.length));
        }
        let positions = Tensor::f_from_slice(&positions)?.f_to_device(tokens.device())?;
        let words = self.words.f_index_select(0, tokens)?;
        let places = self.positions.f_index_select(0, &positions)?;
        let mut x = self.norm.apply(&words.f_add(&places)?)?;
        for layer in &self.layers {
            let mixed = self.attend(&layer.qkv.apply(&x)?, runs)?;
            x = layer.attention_norm.apply(&layer.output.apply(&mixed)?.f_add(&x)?)?;
            let inner = self.activate(&layer.up.apply(&x)?)?;
            x = layer.output_norm.apply(&layer.down.apply(&inner)?.f_add(&x)?)?;
        }
        Ok(x)
    }

    /// Attention of every token over its own text. `qkv` [n, 3 · width] → [n, width].
    fn attend(&self, qkv: &Tensor, runs: &[Run]) -> Result<Tensor, LmError> {
        let mut pieces = Vec::with_capacity(runs.len());
        for run in runs {
            // → [3, texts, heads, length, head width]
            let shape = [run.texts, run.length, 3, self.heads, -1];
            let parts = run.of(qkv)?.f_view(shape)?.f_permute([2, 0, 3, 1, 4])?;
            let part = |number| parts.f_select(0, number);
            let (q, k, v) = (part(0)?, part(1)?, part(2)?);
            let none = None::<&Tensor>;
            let mixed =
                Tensor::f_scaled_dot_product_attention(&q, &k, &v, none, 0.0, false, None, false)?;
            pieces.push(mixed.f_transpose(1, 2)?.f_reshape([run.texts * run.length, -1])?);
        }
        Ok(Tensor::f_cat(&pieces, 0)?)
    }

    fn activate(&self, x: &Tensor) -> Result<Tensor, LmError> {
        Ok(match self.activation {
            Activation::Gelu => x.f_gelu("none")?,
            Activation::GeluTanh => x.f_gelu("tanh")?,
            Activation::Relu => x.f_relu()?,
        })
    }
}

const WORDS: &str = "embeddings.word_embeddings.weight";

/// Looks up tensors by their names in BERT and checks their shapes.
struct Reader<'a> {
    files: &'a SafetensorsFolder,
    shapes: BTreeMap<String, Vec<i64>>,
    /// Prefix of every name.
    prefix: String,
    eps: f64,
    device: Device,
    kind: Kind,
}

impl<'a> Reader<'a> {
    fn new(files: &'a SafetensorsFolder, eps: f64, device: Device, kind: Kind) -> Self {
        let shapes = files.shapes();
        let prefix = shapes.keys().find_map(|name| name.strip_suffix(WORDS)).unwrap_or_default();
        let prefix = prefix.to_owned();
        Self { files, shapes, prefix, eps, device, kind }
    }

    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, LmError> {
        let name = format!("{}{name}", self.prefix);
        if let Some(found) = self.shapes.get(&name).filter(|found| *found != shape) {
            let what = format!(
                "tensor `{name}` has shape {found:?}, the configuration requires {shape:?}"
            );
            return Err(LmError::file(self.files.source(), what));
        }
        Ok(self.files.weight(&name)?.f_to_device(self.device)?.f_to_kind(self.kind)?)
    }

    fn linear(&self, name: &str, out: i64, into: i64) -> Result<Linear, LmError> {
        let weight = self.tensor(&format!("{name}.weight"), &[out, into])?;
        Ok(Linear { weight, bias: self.tensor(&format!("{name}.bias"), &[out])? })
    }

    fn norm(&self, name: &str, width: i64) -> Result<Norm, LmError> {
        let weight = self.tensor(&format!("{name}.weight"), &[width])?;
        Ok(Norm { weight, bias: self.tensor(&format!("{name}.bias"), &[width])?, eps: self.eps })
    }
}
