//! A prediction beside its reference, on one file.
//!
//! Both queries and the comparison of their results are one unit of work, so that a worker does
//! all of it: results need not be sent, and a comparison that takes long is bounded as well.

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::compare::same_result;
use super::limits::{Limits, QueryError};
use super::sandbox::run;

/// Two queries whose results are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub gold: String,
    /// `None` if it is the same query, which then runs once.
    pub predicted: Option<String>,
    /// Whether the order of rows counts.
    pub ordered: bool,
}

/// The outcome of a [`Check`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Checked {
    Same,
    Different,
    /// The prediction did not run.
    Failed(QueryError),
    /// The reference did not run.
    GoldFailed(QueryError),
}

/// Runs a check on one connection; each of the queries has `limits`.
pub(super) fn check(connection: &Connection, check: &Check, limits: &Limits) -> Checked {
    let expected = match run(connection, &check.gold, limits) {
        Ok(expected) => expected,
        Err(error) => return Checked::GoldFailed(error),
    };
    let Some(predicted) = &check.predicted else { return Checked::Same };
    // One row more than expected is enough to know.
    let limits = Limits { rows: expected.rows.len(), ..limits.clone() };
    match run(connection, predicted, &limits) {
        Ok(result) if same_result(&expected, &result, check.ordered) => Checked::Same,
        Ok(_) | Err(QueryError::Rows(_)) => Checked::Different,
        Err(error) => Checked::Failed(error),
    }
}
