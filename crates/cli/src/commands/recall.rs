//! `leyden data recall`: recall of the supporting passages, per retriever.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use leyden_suite::recall::{self, Options};

use super::write_json;
use crate::start;

/// Arguments of `leyden data recall`.
#[derive(clap::Args)]
pub struct Arguments {
    /// MuSiQue files; their distinct paragraphs are the corpus
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Folder of a sentence encoder; without one, only BM25 is measured
    #[arg(long, value_name = "FOLDER")]
    encoder: Option<PathBuf>,
    /// File that caches the passages' embeddings between runs (.safetensors)
    #[arg(long, value_name = "FILE", requires = "encoder")]
    embeddings: Option<PathBuf>,
    /// Values of k for recall@k
    #[arg(long, value_delimiter = ',', default_value = "2,4,10,20")]
    k: Vec<NonZeroUsize>,
    /// Device of the encoder: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Threads of libtorch and of the search; by default one per core
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Also write the results as JSON
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(threads) = arguments.threads {
        start::set_threads(threads.get())?;
    }
    let figures = recall::recall(&Options {
        data: arguments.data.clone(),
        encoder: arguments.encoder.clone(),
        embeddings: arguments.embeddings.clone(),
        depths: arguments.k.clone(),
        device: arguments.device.clone(),
    })?;
    if let Some(path) = &arguments.json {
        write_json(path, &figures)?;
    }
    Ok(ExitCode::SUCCESS)
}
