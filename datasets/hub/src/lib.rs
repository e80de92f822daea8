//! Files from the Hugging Face hub, and Parquet rows as JSON.
//!
//! [`Hub`] downloads a file of a dataset or a model into the cache shared by all tools of the hub
//! and returns its path; [`parquet`] reads the hub's usual table format as JSON maps, so that
//! dataset loaders need not handle either.

mod hub;
mod model_cache;
pub mod parquet;

pub use hub::{Hub, HubError, Repository, RepositoryKind};
pub use model_cache::{CachedRepository, ModelCache};
