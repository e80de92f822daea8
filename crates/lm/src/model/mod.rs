//! Llama: its configuration, its parameters under their Hugging Face names, the weights in the
//! compute type, and the forward pass.

pub(crate) mod adapter;
pub(crate) mod config;
pub(crate) mod forward;
pub(crate) mod init;
pub(crate) mod parameters;
mod presets;
pub(crate) mod rotary;

pub use adapter::{Adapter, LoraConfig};
pub use config::{Llama3Scaling, LlamaConfig};
pub use forward::{Attention, LayerWeights, LowRank, Weights, rms_norm, swiglu, transform};
pub use init::initialise;
pub use parameters::{Parameters, layer_name, projection_shapes};
pub use rotary::{Rotary, rotate};
