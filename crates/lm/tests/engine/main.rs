//! The generation engine: what it computes, what it reuses, where it stops.

#[path = "../common/mod.rs"]
mod common;
mod helpers;
mod limits;
mod recomputation;
mod reuse;
