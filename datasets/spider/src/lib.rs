//! Spider: questions about databases, answered with SQL (Yu et al. 2018).
//!
//! The [`loader`] makes tasks of its questions, the [`database`] room runs queries so that
//! none can do harm, and three rules judge them as the official programs do: [`execution`]
//! match (the reward), [`exact`] set match with its parts, and [`mod@hardness`]. [`table`] puts
//! them together as the official table; [`golden`] compares all with the official programs'
//! own verdicts. Of queries that the official grammar rejects, [`clauses`] says where they differ.

pub mod clauses;
pub mod database;
pub mod exact;
pub mod execution;
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
