//! Tests of the store.

mod crash;
mod files;
mod fixtures;
mod leases;
mod machine;
mod power;
mod queries;
mod retention;
