//! Language models on libtorch: everything that touches a tensor of a model.
//!
//! A model is read by [`weights`] into [`Parameters`] under the names of the Hugging Face
//! format. From them a [`Weights`] view in the compute type is made; the one forward pass
//! ([`transform`]) runs on packed tokens and is told by an [`Attention`] who may look at whom.
//! So training (a forest of prefixes), prefill and decoding (a KV cache) and the padded
//! oracle of the tests are the same code with another attention.

mod config;
mod device;
mod error;
pub mod forest;
mod loaded;
mod model;
mod parameters;
mod rotary;
pub mod weights;

pub use config::{Llama3Scaling, LlamaConfig};
pub use device::{parse_device, parse_kind};
pub use error::LmError;
pub use loaded::{LoadedModel, load_weights, save_folder};
pub use model::{Attention, LayerWeights, LowRank, Weights, rms_norm, transform};
pub use parameters::{Parameters, layer_name, projection_shapes};
pub use rotary::Rotary;
pub use weights::NamedTensors;
pub use weights::peft::LoraConfig;
