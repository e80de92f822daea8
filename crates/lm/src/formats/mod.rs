//! Weights on disk: Hugging Face folders of safetensors, GGUF files, PEFT adapters.
//!
//! Whatever the source, a model becomes the same list of tensors, in the names and the order
//! of [`projection_shapes`](crate::model::projection_shapes). Every reader checks names and shapes against the configuration
//! before it copies a single value, and nothing is allocated on the word of a file alone:
//! sizes are compared with the bytes that are there.

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
