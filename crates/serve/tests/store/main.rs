//! Tests of the store.

mod crash;
mod files;
mod fixtures;
mod leases;
mod machine;
mod queries;
mod retention;
