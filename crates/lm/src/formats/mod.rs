//! Weights on disk: Hugging Face folders of safetensors, GGUF files, PEFT adapters.
//!
//! Every source yields the same list of tensors, in the names and the order of
//! [`projection_shapes`](crate::model::projection_shapes). Every reader checks names and shapes
//! against the configuration before it copies any value, and sizes stated by a file are checked
//! against its length before memory is allocated.

pub(crate) mod files;
pub mod gguf;
mod gguf_llama;
pub(crate) mod loaded;
pub mod peft;
pub mod quant;
pub mod safetensors;
pub(crate) mod tensors;

#[cfg(test)]
mod gguf_tests;
#[cfg(test)]
mod safetensors_tests;
#[cfg(test)]
pub(crate) mod test_model;

pub use loaded::{LoadedModel, load_weights, save_folder};
pub use tensors::NamedTensors;
