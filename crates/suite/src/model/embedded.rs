//! The models that are embedded in the binary.
//!
//! `leyden model make-tiny` trains them; [`tiny`](super::tiny) says on what. `tiny` serves the worlds
//! of two to four calls, `tiny-long` those of longer rollouts.

use anyhow::{Context, Result};
use leyden_lm::formats::LoadedModel;
use serde_json::{Map, Value, json};

/// An embedded model.
#[derive(Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Its name among the sources of models.
    pub name: &'static str,
    files: [(&'static str, &'static [u8]); 5],
}

macro_rules! embedded {
    ($name:literal) => {
        Embedded {
            name: $name,
            files: [
                embedded!($name, "config.json"),
                embedded!($name, "generation_config.json"),
                embedded!($name, "model.safetensors"),
                embedded!($name, "tokenizer.json"),
                embedded!($name, "tokenizer_config.json"),
            ],
        }
    };
    ($name:literal, $file:literal) => {
        ($file, include_bytes!(concat!("../../assets/", $name, "/", $file)))
    };
}

/// All embedded models.
pub static EMBEDDED: [Embedded; 2] = [embedded!("tiny"), embedded!("tiny-long")];

impl Embedded {
    /// The model of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        EMBEDDED.iter().find(|model| model.name == name)
    }

    /// Writes its files to a temporary folder.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn unpack(&self) -> Result<tempfile::TempDir> {
        let folder = tempfile::tempdir().context("no temporary folder for the embedded model")?;
        for (name, bytes) in self.files {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).with_context(|| format!("{}", path.display()))?;
        }
        Ok(folder)
    }

    /// Loads it; also returns its files' hashes for the provenance.
    ///
    /// # Errors
    /// As [`Embedded::unpack`].
    pub fn load(&self) -> Result<(LoadedModel, Map<String, Value>)> {
        let model = LoadedModel::load(self.unpack()?.path())?;
        let hash = |bytes: &[u8]| json!(leyden_train::provenance::hash(bytes));
        let hashes: Map<String, Value> =
            self.files.iter().map(|(name, bytes)| ((*name).to_owned(), hash(bytes))).collect();
        let mut described = Map::new();
        described.insert("model".to_owned(), json!({ "source": self.name, "sha256": hashes }));
        Ok((model, described))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_of_the_worlds_are_embedded_and_small() {
        for (world, _) in crate::registry().worlds() {
            let model = world.model.and_then(Embedded::named);
            assert!(model.is_some(), "{}: {:?} is not embedded", world.name, world.model);
        }
        for model in &EMBEDDED {
            let bytes: usize = model.files.iter().map(|(_, bytes)| bytes.len()).sum();
            assert!(bytes <= 4_000_000, "{}: {bytes} bytes", model.name);
        }
    }
}
