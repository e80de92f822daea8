//! Language models on libtorch: everything that touches a tensor of a model.
//!
//! A model is read by [`weights`] into [`Parameters`] under the names of the Hugging Face
//! format. From them a [`Weights`] view in the compute type is made; the one forward pass
//! ([`transform`]) runs on packed tokens and is told by an [`Attention`] who may look at whom.
//! So training (a forest of prefixes), prefill and decoding (a KV cache) and the padded
//! oracle of the tests are the same code with another attention.
//!
//! Beside it stands a second, smaller family: the BERTs that make vectors of texts for search
//! ([`SentenceEncoder`]).

mod attention;
mod checkpoint;
mod config;
mod critic;
mod device;
mod encoder;
mod engine;
mod error;
pub mod forest;
mod fused;
pub mod golden;
mod head;
mod init;
mod loaded;
pub mod lora;
mod memory;
mod model;
mod muon;
mod optim;
mod parameters;
pub mod pieces;
mod policy;
mod presets;
mod process;
mod rotary;
mod schedule;
mod threads;
pub mod weights;

pub use attention::ForestAttention;
pub use config::{Llama3Scaling, LlamaConfig};
pub use critic::ValueHead;
pub use device::{parse_device, parse_kind};
pub use encoder::SentenceEncoder;
pub use engine::{
    Completion, Constraint, Engine, EngineStats, Limits, Request, Sampled, StopCheck, Ticket,
    TokenLogprob,
};
pub use error::LmError;
pub use init::initialise;
pub use loaded::{LoadedModel, load_weights, save_folder};
pub use memory::{
    MemoryLine, MemoryPlan, MemoryRequest, Training, available_memory, readable_bytes,
};
pub use model::{Attention, LayerWeights, LowRank, Weights, rms_norm, transform};
pub use muon::MuonConfig;
pub use optim::{Optimizer, OptimizerConfig, clip_grad_norm};
pub use parameters::{Parameters, layer_name, projection_shapes};
pub use policy::{Cotangent, Evaluated, Policy, PolicyOptions};
pub use process::settle_process;
pub use rotary::Rotary;
pub use schedule::{Decay, Schedule};
pub use threads::ThreadTeam;
pub use weights::NamedTensors;
pub use weights::peft::LoraConfig;

/// The libtorch that this crate is built for and, by its build script's check, linked with.
pub const TORCH_VERSION: &str = "2.13.0";
