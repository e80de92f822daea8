//! The generation engine: results, reuse, limits.

mod arrivals;
#[path = "../common/mod.rs"]
mod common;
mod constraints;
mod helpers;
mod limits;
mod recomputation;
mod reuse;
