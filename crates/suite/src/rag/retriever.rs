//! Opens the retriever configured in an experiment.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use leyden_core::Passage;
use leyden_retrieval::{Bm25, BuildOptions, Dense, EMBEDDINGS, MANIFEST, PassageFile, Retriever};
use leyden_train::progress::Progress;
use serde_json::{Value, json};

use super::encoder::{self, TextEncoder};
use crate::lines;
use crate::settings::BenchmarkSettings;

pub const METHOD: &str = "retrieval.method";
pub const CORPUS: &str = "retrieval.corpus";
pub const INDEX: &str = "retrieval.index";
pub const ENCODER: &str = "retrieval.encoder";

/// Configuration of the retriever.
#[derive(Debug, Clone)]
pub struct Retrieval {
    pub method: String,
    /// A JSONL file of passages; the paragraphs of the tasks if empty.
    pub corpus: String,
    /// Folder of the corpus's index; in memory if empty.
    pub index: String,
    /// Folder of a sentence encoder.
    pub encoder: String,
}

impl Retrieval {
    /// # Errors
    /// Keys that are not declared.
    pub fn of(settings: &BenchmarkSettings) -> Result<Self> {
        let text = |path| Ok::<_, anyhow::Error>(settings.text(path)?.to_owned());
        Ok(Self {
            method: text(METHOD)?,
            corpus: text(CORPUS)?,
            index: text(INDEX)?,
            encoder: text(ENCODER)?,
        })
    }
}

/// Opens the retriever of `config` over its corpus or over the tasks' passages; also returns its
/// provenance.
///
/// # Errors
/// An unknown method, a corpus without passages, a folder that is not an encoder, an index that
/// cannot be read or was built from other data.
pub fn open(
    config: &Retrieval,
    of_tasks: impl FnOnce() -> Vec<Passage>,
    device: &str,
) -> Result<(Arc<dyn Retriever>, Value)> {
    let method = config.method.as_str();
    if !["bm25", "dense", "hybrid"].contains(&method) {
        bail!("method: `{method}`: use bm25, dense or hybrid");
    }
    // Load it before indexing the corpus, which may take long.
    let loaded = match method {
        "bm25" => None,
        _ if config.encoder.is_empty() => {
            bail!("encoder: {method} needs the folder of a sentence encoder")
        }
        _ => Some(TextEncoder::load(Path::new(&config.encoder), device)?),
    };
    let (index, mut described) = bm25(config, of_tasks)?;
    let index = Arc::new(index);
    let Some(encoder) = loaded else { return Ok((index, described)) };
    described["method"] = json!(method);
    described["encoder"] = json!({ "folder": config.encoder, "sha256": encoder.fingerprint() });
    let kept = (!config.index.is_empty()).then(|| Path::new(&config.index).join(EMBEDDINGS));
    let vectors = encoder::embed(&encoder, &index, kept.as_deref())?;
    let (nearest, how) = encoder::nearest(vectors)?;
    described["cosine"] = json!(how);
    let dense = Arc::new(Dense::new(Arc::new(encoder), nearest, index.clone()));
    Ok(match method {
        "hybrid" => (Arc::new(encoder::hybrid(index, dense)), described),
        _ => (dense, described),
    })
}

fn bm25(config: &Retrieval, of_tasks: impl FnOnce() -> Vec<Passage>) -> Result<(Bm25, Value)> {
    let corpus = &config.corpus;
    if config.index.is_empty() {
        let passages = if corpus.is_empty() { of_tasks() } else { read(Path::new(corpus))? };
        let count = passages.len();
        let from = if corpus.is_empty() { "tasks" } else { corpus };
        let described = json!({ "method": "bm25", "corpus": from, "passages": count });
        return Ok((Bm25::in_memory(passages)?, described));
    }
    let folder = Path::new(&config.index);
    if !folder.join(MANIFEST).exists() {
        build(corpus, folder)?;
    }
    let index = Bm25::open(folder)?;
    let passages = leyden_retrieval::PassageStore::len(&index);
    let described = json!({ "method": "bm25", "index": config.index, "passages": passages });
    Ok((index, described))
}

/// The passages of a corpus file, JSONL or Parquet.
fn passages(path: &Path) -> Result<PassageFile> {
    Ok(PassageFile::of_lines(path.display().to_string(), lines::open(path)?))
}

/// Builds the index of a corpus file, which may be larger than memory.
fn build(corpus: &str, folder: &Path) -> Result<()> {
    if corpus.is_empty() {
        bail!("index: there is none in {}; specify a corpus to build it from", folder.display());
    }
    let mut file = passages(Path::new(corpus))?;
    let mut progress = Progress::new("passages", 0, 0);
    let options = BuildOptions::default();
    Bm25::build(folder, file.by_ref(), &options, &mut |done| {
        progress.update(done, || format!("into {}", folder.display()));
    })
    .with_context(|| format!("corpus {corpus}"))?;
    progress.end();
    report_rejected(&file);
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Passage>> {
    let mut file = passages(path)?;
    let passages: Result<Vec<Passage>, _> = file.by_ref().collect();
    let passages = passages.with_context(|| path.display().to_string())?;
    report_rejected(&file);
    if passages.is_empty() {
        bail!("corpus: there is no passage in {}", path.display());
    }
    Ok(passages)
}

fn report_rejected(file: &PassageFile) {
    for line in file.rejected().iter().take(5) {
        eprintln!("left out: {line}");
    }
    if file.rejected_count() > 5 {
        eprintln!("left out: {} more lines of the corpus", file.rejected_count() - 5);
    }
}
