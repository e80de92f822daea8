//! Queries in processes of their own, which end where a query goes past its limits.
//!
//! The progress handler of [`super::sandbox`] is called between instructions of SQLite. One
//! instruction may sort a million rows or search one long string in another, so inside a process
//! neither time nor memory has a hard bound. Here a pool of processes runs the queries:
//!
//! - time: [`Workers`] waits for [`Limits::time`](super::Limits) and a little longer, then kills the
//!   process; the process itself has a limit of CPU time, should its parent be gone;
//! - memory: SQLite's heap has a hard limit of [`Limits::memory`](super::Limits), which a query
//!   meets as an error; the address space of the process has a limit above it.
//!
//! Parent and worker talk over a socket pair in frames: a length of four bytes, then the message in
//! postcard's encoding. Any program can be the worker that calls [`serve`] when it is started with
//! the arguments given to [`Workers::new`].

mod frame;
mod pool;
mod serve;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::check::{Check, Checked};
use super::limits::{Limits, QueryError};
use super::sandbox::ResultSet;

pub use pool::Workers;
pub use serve::serve;

/// Work for a worker.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    database: PathBuf,
    limits: Limits,
    work: Work,
}

#[derive(Debug, Serialize, Deserialize)]
enum Work {
    Query(String),
    Check(Check),
}

/// The answer to a request, in the same order as [`Work`].
#[derive(Debug, Serialize, Deserialize)]
enum Done {
    Query(Result<ResultSet, QueryError>),
    Check(Checked),
    /// The database cannot be opened.
    NotOpened(QueryError),
}

impl Work {
    /// Queries that run within the limits one after another.
    fn queries(&self) -> u32 {
        match self {
            Self::Query(_) => 1,
            Self::Check(_) => 2,
        }
    }
}
