//! Named tensors, and the check of a file's tensors against a model's.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Kind, Tensor};

use crate::error::LmError;
use crate::model::config::LlamaConfig;
use crate::model::parameters::projection_shapes;

/// Tensors with their names; the order is significant.
pub type NamedTensors = Vec<(String, Tensor)>;

/// Compares a file's tensors (`present`: name → shape) with those that `config` requires.
///
/// Not compared: a head next to tied embeddings, and the rotary frequencies in old checkpoints;
/// both follow from the configuration.
///
/// # Errors
/// A missing tensor, a wrong shape, an unexpected tensor.
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
                        "tensor `{name}` has shape {found:?}, the configuration requires {shape:?}"
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
