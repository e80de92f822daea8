//! Recomputation of golden values from verl.
//!
//! A golden file (`made_with`, `cases`) has batches with the values that verl's `core_algos`
//! computed for them in f64: advantages and returns by estimator, policy losses with gradient and
//! metrics by loss and aggregation, KL estimates, aggregates, a value loss. [`check`] recomputes
//! all of them. Cases that verl rejected (`{"error": …}`) must be rejected here too. Names include
//! their parameters (`gae_gamma0.99_lambda0.95`), so files with other parameters can be checked as
//! well; the clip ranges are not in the file.

mod case;
mod families;
mod reader;

use std::path::{Path, PathBuf};

use leyden_core::GoldenReport;
use serde_json::Value;

use case::Case;
use families::Families;
use reader::Node;

pub use families::TOLERANCE;

/// Why a golden file cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    #[error("{} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not JSON: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{}: {key} {what}", path.display())]
    Malformed {
        path: PathBuf,
        /// Path in the file (`cases[2].mask[0]`).
        key: String,
        what: String,
    },
}

/// Recomputes a golden file of verl; one family per estimator, loss and aggregation.
///
/// # Errors
/// If the file cannot be read or does not have the structure described above.
pub fn check(path: &Path) -> Result<GoldenReport, GoldenError> {
    let read = |source| GoldenError::Read { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(read)?;
    let json = |source| GoldenError::Json { path: path.to_owned(), source };
    let value: Value = serde_json::from_str(&text).map_err(json)?;
    let mut families = Families::default();
    check_cases(&Node::root(&value), &mut families).map_err(|malformed| {
        GoldenError::Malformed { path: path.to_owned(), key: malformed.key, what: malformed.what }
    })?;
    Ok(GoldenReport { families: families.into_all() })
}

fn check_cases(root: &Node, families: &mut Families) -> Result<(), reader::Malformed> {
    for node in root.get("cases")?.items()? {
        let case = Case::read(&node)?;
        case.check_advantages(families)?;
        case.check_policy_losses(families)?;
        case.check_kl(families)?;
        case.check_aggregates(families)?;
        case.check_value_loss(families)?;
    }
    Ok(())
}
