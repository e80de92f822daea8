//! One module per command.

pub mod compare;
pub mod data;
pub mod doctor;
pub mod eval;
pub mod kernels;
pub mod model;
pub mod recall;
pub mod report;
pub mod rollouts;
pub mod run;
pub mod score;
pub mod serve;
pub mod sft;
pub mod sweep;
pub mod verify;

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes a command's results as indented JSON.
fn write_json(path: &Path, figures: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(figures)? + "\n";
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
