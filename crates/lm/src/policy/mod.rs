//! The model for training: a forest of prefixes in, log-probabilities and gradients out; adapters;
//! the critic's value head.

pub mod forest;
pub(crate) mod forest_attention;
pub mod head;
pub mod lora;
mod recomputation;
pub(crate) mod trainable;
pub(crate) mod value_head;

pub use forest_attention::ForestAttention;
pub use trainable::{Cotangent, Evaluated, Policy, PolicyOptions};
pub use value_head::ValueHead;
