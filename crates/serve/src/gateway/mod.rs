//! HTTP: routes, keys, limits, and the attribution of requests to rollouts.

mod ids;
mod reports;
mod rollouts;

pub use rollouts::{Addresses, Ended, Happening, Registered, RolloutError, RolloutSpec, Rollouts};
