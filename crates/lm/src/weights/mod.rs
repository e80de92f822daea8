//! Weights on disk: Hugging Face folders of safetensors, GGUF files, PEFT adapters.
//!
//! Whatever the source, a model becomes the same list of tensors, in the names and the order
//! of [`projection_shapes`]. Every reader checks names and shapes against the configuration
//! before it copies a single value, and nothing is allocated on the word of a file alone:
//! sizes are compared with the bytes that are there.

pub mod gguf;
mod gguf_llama;
pub mod peft;
pub mod quant;
pub mod safetensors;

#[cfg(test)]
mod gguf_tests;
#[cfg(test)]
mod safetensors_tests;
#[cfg(test)]
pub(crate) mod test_model;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use memmap2::Mmap;
use serde_json::Value;
use tch::{Kind, Tensor};

use crate::{LlamaConfig, LmError, projection_shapes};

/// Tensors with their names, in an order that matters.
pub type NamedTensors = Vec<(String, Tensor)>;

/// Compares what a file holds (`present`: name → shape) with what `config` asks for.
///
/// Left out of the comparison: a head beside tied embeddings, and the rotary frequencies that
/// old checkpoints carry; both follow from the configuration.
///
/// # Errors
/// A missing tensor, a wrong shape, a tensor that has no place in the model.
pub(crate) fn check_tensors(
    path: &Path,
    config: &LlamaConfig,
    present: &BTreeMap<String, Vec<i64>>,
) -> Result<(), LmError> {
    let mut expected = BTreeMap::new();
    for (name, shape) in projection_shapes(config) {
        match present.get(&name) {
            None => return Err(LmError::file(path, format!("tensor `{name}` is missing"))),
            Some(found) if *found != shape => {
                return Err(LmError::file(
                    path,
                    format!(
                        "tensor `{name}` has shape {found:?}, the configuration asks for {shape:?}"
                    ),
                ));
            }
            Some(_) => {
                expected.insert(name, ());
            }
        }
    }
    let derived = |name: &str| {
        name.ends_with("rotary_emb.inv_freq") || (config.tied && name == "lm_head.weight")
    };
    match present.keys().find(|name| !expected.contains_key(*name) && !derived(name)) {
        Some(name) => Err(LmError::file(
            path,
            format!("tensor `{name}` has no place in a Llama of this configuration"),
        )),
        None => Ok(()),
    }
}

/// PyTorch's name of a number type, as configurations spell it.
pub(crate) fn kind_name(kind: Kind) -> Result<&'static str, LmError> {
    match kind {
        Kind::Float => Ok("float32"),
        Kind::BFloat16 => Ok("bfloat16"),
        Kind::Half => Ok("float16"),
        other => Err(LmError::Invalid(format!("weights cannot be stored as {other:?}"))),
    }
}

/// A file of JSON.
///
/// # Errors
/// A file that cannot be read or is no JSON.
pub(crate) fn read_json(path: &Path) -> Result<Value, LmError> {
    let text = std::fs::read_to_string(path).map_err(|e| LmError::file(path, e))?;
    serde_json::from_str(&text).map_err(|e| LmError::file(path, format!("no JSON: {e}")))
}

/// Maps a file into memory for reading.
pub(crate) fn map(path: &Path) -> Result<Mmap, LmError> {
    let file = File::open(path).map_err(|e| LmError::file(path, e))?;
    if !file.metadata().map_err(|e| LmError::file(path, e))?.is_file() {
        return Err(LmError::file(path, "is not a file"));
    }
    // SAFETY: the mapping is read-only and is dropped before the reader returns. A file that
    // another process shortens meanwhile would end this process, as it would any reader of a
    // mapped model; our own writers never change a file in place but replace it.
    unsafe { Mmap::map(&file) }.map_err(|e| LmError::file(path, e))
}

/// Writes a file so that it is either the old one or the whole new one.
pub(crate) fn replace_file(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), LmError> {
    leyden_core::write_atomically(path, fill)
        .map_err(|e| LmError::file(path, format!("cannot be written: {e}")))
}
