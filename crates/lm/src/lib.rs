//! Language models on libtorch: everything that touches a tensor of a model.
//!
//! A model is read by [`formats`] into [`model::Parameters`] under the names of the Hugging Face
//! format. From them a [`model::Weights`] view in the compute type is made; the one forward pass
//! ([`model::transform`]) runs on packed tokens and is told by an [`model::Attention`] who may
//! look at whom. So training ([`policy`], a forest of prefixes), prefill and decoding
//! ([`generate`], a KV cache) and the padded oracle of the tests are the same code with another
//! attention. [`optim`] changes the parameters.
//!
//! Beside it stands a second, smaller family: the BERTs that make vectors of texts for search
//! ([`encoder`]).
//!
//! Things are imported by their wing (`leyden_lm::generate::Engine`). Inside the crate files
//! import files, never a wing's `mod.rs`, and form no circles: error, device, threads ← kernels ←
//! model ← formats ← policy, generate ← memory, golden.

pub mod device;
pub mod encoder;
mod error;
pub mod formats;
pub mod generate;
pub mod golden;
mod kernels;
pub mod memory;
pub mod model;
pub mod optim;
pub mod policy;
pub mod process;
pub mod threads;

pub use error::LmError;

/// The libtorch that this crate is built for and, by its build script's check, linked with.
pub const TORCH_VERSION: &str = "2.13.0";
