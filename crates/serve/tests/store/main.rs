//! The store: what it keeps, in which order, and through what.

mod crash;
mod files;
mod leases;
mod machine;
mod queries;
mod retention;
mod world;
