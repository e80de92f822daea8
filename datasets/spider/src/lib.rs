//! Spider: questions about databases, answered with SQL (Yu et al. 2018).
//!
//! The [`loader`] converts its questions to tasks, [`database`] runs queries in a sandbox, and
//! three rules judge them like the official programs: [`execution`] match (the reward), [`exact`]
//! set match with its parts, and [`mod@hardness`]. [`table`] combines them into the official table;
//! [`golden`] compares all of them with verdicts of the official programs. [`clauses`] compares
//! queries that the official grammar rejects.

pub mod clauses;
pub mod database;
pub mod exact;
pub mod execution;
pub mod gold;
pub mod golden;
pub mod hardness;
pub mod loader;
pub mod schema;
pub mod scorer;
mod spider;
pub mod sql;
pub mod table;

pub use database::{Database, DatabaseError, Databases, Detail, Limits, QueryError, Workers};
pub use exact::{ExactMatch, exact_match};
pub use execution::{Verdict, judge};
pub use hardness::{Hardness, hardness};
pub use loader::Loaded;
pub use scorer::SpiderScorer;
pub use spider::{MatchError, Matched, Spider};
