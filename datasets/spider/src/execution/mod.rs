//! Test-suite execution match: does a prediction give what the reference gives?
//!
//! Both queries run on every content of the database; the results must be equal each time.
//! Rule: Zhong, Yu and Klein 2020, "Semantic Evaluation for Text-to-SQL with Distilled Test
//! Suites", with DISTINCT dropped and values as predicted, which are its defaults. Unlike
//! the original, nothing that a prediction does outlives its run: see
//! [`database`](crate::database).

mod mend;

use std::sync::Arc;

use rayon::prelude::*;

use crate::database::{
    Check, Checked, Database, DatabaseError, Databases, QueryError, ResultSet, STATEMENT_BYTES,
};
use mend::{fix_year, mend};

pub use crate::database::same_result;

/// What became of a prediction.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Its results are those of the reference.
    Match,
    /// It ran and gave something else.
    Different,
    /// It did not run.
    Failed(QueryError),
}

impl Verdict {
    pub fn matches(&self) -> bool {
        *self == Self::Match
    }

    /// Whether the prediction ran, whatever it gave.
    pub fn ran(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }
}

/// Why nothing can be said about a prediction.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ExecutionError {
    #[error("its reference query does not run on the database {database}: {error}")]
    Gold { database: String, error: QueryError },
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// One prediction to judge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Case<'a> {
    pub database: &'a str,
    pub gold: &'a str,
    pub predicted: &'a str,
}

/// The result of a reference query as it is judged, on the database's own file.
///
/// # Errors
/// Whatever stops it; see [`QueryError`].
pub fn gold_result(database: &Database, gold: &str) -> Result<ResultSet, QueryError> {
    database.query(&fix_year(&mend(gold)))
}

/// Judges many predictions on all threads; verdicts in the order of the cases.
pub fn judge_all(
    databases: &Databases,
    cases: &[Case<'_>],
) -> Vec<Result<Verdict, ExecutionError>> {
    let judge_one = |case: &Case<'_>| {
        let database: Arc<Database> = databases.get(case.database)?;
        judge(&database, case.gold, case.predicted)
    };
    cases.par_iter().map(judge_one).collect()
}

/// Judges one prediction.
///
/// # Errors
/// Only where the reference itself does not run or the database cannot be read.
pub fn judge(database: &Database, gold: &str, predicted: &str) -> Result<Verdict, ExecutionError> {
    let too_long = predicted.len() > STATEMENT_BYTES;
    let (gold, predicted) = (mend(gold), if too_long { String::new() } else { mend(predicted) });
    let ordered = gold.to_lowercase().contains("order by");
    let same_text = gold == predicted;
    let (gold, predicted) = (fix_year(&gold), fix_year(&predicted));
    let predicted = (!same_text && !too_long).then_some(predicted);
    let check = Check { gold, predicted, ordered };
    let broken = |error| ExecutionError::Gold { database: database.id().to_owned(), error };
    for file in database.files() {
        match file.check(&check, database.limits()) {
            Checked::Same if too_long => return Ok(Verdict::Failed(QueryError::Bytes)),
            Checked::Same => {}
            Checked::Different => return Ok(Verdict::Different),
            Checked::GoldFailed(error) | Checked::Failed(error @ QueryError::Database(_)) => {
                return Err(broken(error));
            }
            Checked::Failed(error) => return Ok(Verdict::Failed(error)),
        }
    }
    Ok(Verdict::Match)
}
