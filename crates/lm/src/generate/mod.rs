//! The generation engine: prompts in, sampled tokens and their log-probabilities out.
//!
//! Computed keys and values are reused wherever possible: the samples of one prompt share them in
//! memory and in the attention products, prompts with a common prefix compute it once, and a later
//! turn of a conversation computes only new tokens. The linear layers use no padding. A request's
//! output depends on its own prompt, settings and seed, and on other requests only through the
//! rounding of larger or smaller products; the same sequence of calls gives the same bytes.
//!
//! Requests are submitted one by one ([`Engine::submit`]) and join the running ones between two
//! forward passes ([`Engine::step`]), or all at once ([`Engine::generate`]).
//!
//! [`Engine`] distributes the work over shards; a shard admits requests, places them in the cache,
//! prefills, decodes and samples. A pass over the cache uses CPU kernels or tensor operations,
//! depending on the model and the device.

mod admission;
mod batch;
mod cache;
mod engine;
mod few_rows;
mod forward;
mod grammar;
mod job;
mod kernel_pass;
mod limits;
mod model;
mod packed;
mod pass;
mod prefill;
mod request;
mod sampler;
mod shard;
pub mod single;
mod store;
mod tensor_pass;
mod visibility;

pub use engine::Engine;
pub use limits::{EngineStats, Limits};
pub use request::{Completion, Constraint, Request, Sampled, StopCheck, Ticket, TokenLogprob};
