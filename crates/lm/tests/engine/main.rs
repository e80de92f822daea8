//! The generation engine: what it computes, what it reuses, where it stops.

mod arrivals;
#[path = "../common/mod.rs"]
mod common;
mod constraints;
mod helpers;
mod limits;
mod recomputation;
mod reuse;
