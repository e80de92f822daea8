//! Loads a model from a path: configuration, weights and chat format of a Hugging Face folder or a
//! GGUF file; exports it to a folder.

use std::path::Path;
use std::sync::Arc;

use leyden_text::{ChatFormat, ControlTokens};
use tch::{Kind, Tensor};

use crate::error::LmError;
use crate::formats::gguf::Gguf;
use crate::formats::safetensors;
use crate::formats::tensors::NamedTensors;
use crate::model::config::LlamaConfig;

/// A model's files, loaded on the CPU in the files' own number types.
pub struct LoadedModel {
    pub config: LlamaConfig,
    /// In the order of [`projection_shapes`](crate::model::projection_shapes).
    pub tensors: NamedTensors,
    /// Tokenizer, chat template and the tokens that end a turn.
    pub format: Arc<ChatFormat>,
}

impl LoadedModel {
    /// Reads a Hugging Face folder or a `.gguf` file.
    ///
    /// # Errors
    /// Anything missing, damaged or unsupported, with file and key or tensor; a tokenizer with
    /// more tokens than the embedding has rows.
    pub fn load(path: &Path) -> Result<Self, LmError> {
        // Weights last: they take longest, and a missing template is reported at once.
        let model = if path.is_dir() {
            let config = LlamaConfig::from_file(&path.join("config.json"))?;
            let format = Arc::new(ChatFormat::from_folder(path)?);
            check_vocabulary(path, &config, &format)?;
            let tensors = safetensors::read_folder(path, &config)?;
            Self { config, tensors, format }
        } else if is_gguf(path) {
            let file = Gguf::open(path)?;
            let config = file.config()?;
            let meta = file.tokenizer()?;
            let format = ChatFormat::from_gguf(&meta, &path.display().to_string())
                .map_err(|e| LmError::file(path, e))?
                .with_stop_ids(config.eos.iter().copied());
            let format = Arc::new(format);
            check_vocabulary(path, &config, &format)?;
            let tensors = file.weights(&config)?;
            Self { config, tensors, format }
        } else {
            return Err(unknown(path));
        };
        Ok(model)
    }

    /// Chooses how the names of control tokens in messages are encoded. To be called before the
    /// format is shared.
    #[must_use]
    pub fn with_control_tokens(mut self, control_tokens: ControlTokens) -> Self {
        if let Some(format) = Arc::get_mut(&mut self.format) {
            format.set_control_tokens(control_tokens);
        }
        self
    }

    /// Writes the model as a folder; see [`save_folder`].
    ///
    /// # Errors
    /// Errors of [`save_folder`].
    pub fn save(&self, folder: &Path, kind: Kind) -> Result<(), LmError> {
        let tensors: Vec<_> = self.tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
        save_folder(folder, &self.config, &tensors, kind, &self.format)
    }
}

/// Loads only configuration and weights, for models without a tokenizer.
///
/// # Errors
/// As [`LoadedModel::load`].
pub fn load_weights(path: &Path) -> Result<(LlamaConfig, NamedTensors), LmError> {
    if path.is_dir() {
        let config = LlamaConfig::from_file(&path.join("config.json"))?;
        let tensors = safetensors::read_folder(path, &config)?;
        Ok((config, tensors))
    } else if is_gguf(path) {
        let file = Gguf::open(path)?;
        let config = file.config()?;
        let tensors = file.weights(&config)?;
        Ok((config, tensors))
    } else {
        Err(unknown(path))
    }
}

/// Writes a folder that transformers loads: configuration, weights in `kind`, tokenizer and
/// chat template.
///
/// # Errors
/// Tensors that do not match `config`; file-system errors.
pub fn save_folder(
    folder: &Path,
    config: &LlamaConfig,
    tensors: &[(&str, &Tensor)],
    kind: Kind,
    format: &ChatFormat,
) -> Result<(), LmError> {
    safetensors::write_folder(folder, config, tensors, kind)?;
    format.save_to_folder(folder)?;
    Ok(())
}

fn is_gguf(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

fn unknown(path: &Path) -> LmError {
    let what = if path.exists() {
        "is neither a model folder nor a .gguf file"
    } else {
        "does not exist; give a model folder or a .gguf file"
    };
    LmError::file(path, what)
}

/// An id without a row in the embedding would otherwise fail in the middle of a run.
fn check_vocabulary(path: &Path, config: &LlamaConfig, format: &ChatFormat) -> Result<(), LmError> {
    let tokens = format.tokenizer().vocab_size();
    if tokens > config.vocab_size {
        let what = format!(
            "the tokenizer has {tokens} tokens, the embedding only {} rows",
            config.vocab_size
        );
        return Err(LmError::file(path, what));
    }
    Ok(())
}
