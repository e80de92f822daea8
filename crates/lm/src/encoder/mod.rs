//! Sentence encoders: a BERT that maps a text to one vector, for semantic search.
//!
//! Reads folders in the layout of sentence-transformers ([`modules`] documents the steps around the
//! transformer); the vectors equal those of that library. Texts are sorted by length and packed, so
//! that no arithmetic is spent on padding; apart from rounding, a text's vector does not depend on
//! the other texts of its batch.

mod config;
mod model;
mod modules;

use std::path::Path;

use leyden_text::Tokenizer;
use tch::{Device, Kind, Tensor, no_grad_guard};

use crate::encoder::config::BertConfig;
use crate::encoder::model::{Bert, Run};
use crate::encoder::modules::{Modules, Pooling, TextRules};
use crate::error::LmError;
use crate::formats::files::read_json;
use crate::formats::safetensors::SafetensorsFolder;

/// Tokens per forward pass: enough to saturate wide processors, while the widest layer of a large
/// encoder stays below 100 MB.
const BATCH_TOKENS: usize = 4096;

/// A BERT or RoBERTa with its tokenizer and pooling (Reimers and Gurevych 2019).
pub struct SentenceEncoder {
    bert: Bert,
    tokenizer: Tokenizer,
    rules: TextRules,
    pooling: Pooling,
    normalise: bool,
    dimensions: usize,
    device: Device,
}

impl SentenceEncoder {
    /// Reads a Hugging Face folder: `config.json`, `tokenizer.json`, weights as safetensors, and
    /// sentence-transformers' own files if present. Computes on `device` in `kind`.
    ///
    /// # Errors
    /// Anything missing, damaged or unsupported, with file and key or tensor; a tokenizer with
    /// more tokens than the embedding has rows.
    pub fn load(folder: &Path, device: Device, kind: Kind) -> Result<Self, LmError> {
        if !folder.is_dir() {
            let what = "is not a folder; give the folder of a sentence encoder";
            return Err(LmError::file(folder, what));
        }
        let modules = Modules::read(folder)?;
        let folder = modules.transformer.as_path();
        let path = folder.join("config.json");
        let config = BertConfig::from_json(&read_json(&path)?, &path)?;
        let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"))?;
        let (tokens, rows) = (tokenizer.vocab_size(), config.vocab_size);
        if tokens > rows {
            let what = format!("the tokenizer has {tokens} tokens, the embedding only {rows} rows");
            return Err(LmError::file(folder, what));
        }
        let _guard = no_grad_guard();
        Ok(Self {
            bert: Bert::load(&SafetensorsFolder::open(folder)?, &config, device, kind)?,
            tokenizer,
            rules: TextRules::read(folder, &config)?,
            pooling: modules.pooling,
            normalise: modules.normalise,
            dimensions: config.hidden_size,
            device,
        })
    }

    /// Whether `folder` contains an encoder, valid or not, and not a language model.
    pub fn is_in(folder: &Path) -> bool {
        let config = read_json(&folder.join("config.json")).unwrap_or_default();
        let kind = config["model_type"].as_str().unwrap_or_default();
        config::MODEL_TYPES.contains(&kind) || folder.join(modules::MODULES).is_file()
    }

    /// Dimension of the vectors.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Maximum tokens of a text, including special tokens; longer texts are truncated.
    pub fn max_tokens(&self) -> usize {
        self.rules.max_tokens
    }

    /// One vector per text, in order. A text without tokens gives zeros.
    ///
    /// # Errors
    /// Errors of the tokenizer and of libtorch (memory).
    pub fn encode(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Vec<f32>>, LmError> {
        let _guard = no_grad_guard();
        let tokens = texts
            .iter()
            .map(|text| self.tokens(text.as_ref()))
            .collect::<Result<Vec<_>, LmError>>()?;
        let mut order: Vec<usize> = (0..texts.len()).filter(|&i| !tokens[i].is_empty()).collect();
        order.sort_by_key(|&i| tokens[i].len());
        let mut vectors = vec![vec![0.0; self.dimensions]; texts.len()];
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(batch_size(rest, |i| tokens[i].len()));
            let members: Vec<&[u32]> = batch.iter().map(|&i| tokens[i].as_slice()).collect();
            for (&text, vector) in batch.iter().zip(self.encode_batch(&members)?) {
                vectors[text] = vector;
            }
            rest = later;
        }
        Ok(vectors)
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>, LmError> {
        let text = text.trim();
        let lower = self.rules.lower_case.then(|| text.to_lowercase());
        let text = lower.as_deref().unwrap_or(text);
        Ok(self.tokenizer.encode_sequence(text, self.rules.max_tokens)?)
    }

    /// The vectors of texts sorted by length.
    fn encode_batch(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, LmError> {
        let tokens: Vec<i64> = texts.concat().into_iter().map(i64::from).collect();
        let tokens = Tensor::f_from_slice(&tokens)?.f_to_device(self.device)?;
        let runs = runs(texts);
        let hidden = self.bert.forward(&tokens, &runs)?.f_to_kind(Kind::Float)?;
        let pooled = runs.iter().map(|run| {
            let tokens = run.of(&hidden)?;
            Ok(match self.pooling {
                Pooling::Mean => tokens.f_mean_dim(1, false, Kind::Float)?,
                Pooling::First => tokens.f_select(1, 0)?,
            })
        });
        let mut rows = Tensor::f_cat(&pooled.collect::<Result<Vec<_>, LmError>>()?, 0)?;
        if self.normalise {
            let norm = rows.f_square()?.f_sum_dim_intlist(1, true, Kind::Float)?.f_sqrt()?;
            rows = rows.f_div(&norm.f_clamp_min(1e-12)?)?;
        }
        Ok(Vec::try_from(&rows.f_to_device(Device::Cpu)?)?)
    }
}

/// Number of texts of `order`, at least one, in the next batch.
fn batch_size(order: &[usize], length: impl Fn(usize) -> usize) -> usize {
    let mut total = 0;
    let fits = order.iter().take_while(|&&i| {
        total += length(i);
        total <= BATCH_TOKENS
    });
    fits.count().max(1)
}

/// The runs of equal length in texts sorted by length.
fn runs(texts: &[&[u32]]) -> Vec<Run> {
    let mut start = 0;
    let equal = texts.chunk_by(|a, b| a.len() == b.len());
    let run = |texts: &[&[u32]]| {
        let (count, length) = (texts.len() as i64, texts[0].len() as i64);
        let run = Run { start, texts: count, length };
        start += count * length;
        run
    };
    equal.map(run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_full_but_never_empty() {
        let lengths = [10, 2000, 2086, 2087, 9000];
        let order: Vec<usize> = (0..lengths.len()).collect();
        let size = |from: usize| batch_size(&order[from..], |i| lengths[i]);
        assert_eq!([size(0), size(1), size(2), size(3), size(4)], [3, 2, 1, 1, 1]);
    }

    #[test]
    fn equal_lengths_are_one_run() {
        let texts: [&[u32]; 4] = [&[1], &[2], &[3, 4], &[5, 6, 7]];
        let run = |start, texts, length| Run { start, texts, length };
        assert_eq!(runs(&texts), [run(0, 2, 1), run(2, 1, 2), run(4, 1, 3)]);
    }
}
