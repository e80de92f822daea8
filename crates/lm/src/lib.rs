//! Language models on libtorch: everything that operates on a model's tensors.
//!
//! [`formats`] loads a model into [`model::Parameters`] under the names of the Hugging Face format.
//! A [`model::Weights`] view in the compute type is built from them; the single forward pass
//! ([`model::transform`]) runs on packed tokens and takes an [`model::Attention`], which defines
//! what each token attends to. So training ([`policy`], a forest of prefixes), prefill and decoding
//! ([`generate`], a KV cache) and the padded oracle of the tests share this code and differ only in
//! the attention. [`optim`] updates the parameters.
//!
//! A second, smaller family are the BERTs that embed texts for search ([`encoder`]).
//!
//! Items are imported by module (`leyden_lm::generate::Engine`). Inside the crate, files import
//! files, never a directory's `mod.rs`, without cycles: error, device, threads ← kernels ← model ←
//! formats ← policy, generate ← memory, golden.

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

/// The libtorch version that this crate is built for; the build script checks the linked one.
pub const TORCH_VERSION: &str = "2.13.0";
