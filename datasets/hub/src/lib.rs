//! Files from the Hugging Face hub, and Parquet rows as JSON.
//!
//! [`Hub`] brings a file of a dataset or a model into the cache that all tools of the hub
//! share and says where it lies; [`parquet`] turns the hub's usual table format into JSON
//! maps, so that a dataset's loader need not know either.

mod hub;
mod model_cache;
pub mod parquet;

pub use hub::{Hub, HubError, Repository, RepositoryKind};
pub use model_cache::{CachedRepository, ModelCache};
