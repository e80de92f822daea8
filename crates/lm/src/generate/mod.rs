//! The generation engine: many prompts in, sampled tokens and their log-probabilities out.
//!
//! Nothing is computed twice that can be kept: one prompt's samples share its keys and values
//! in memory and in the attention products, prompts that begin alike are computed once as far
//! as they do, and a later turn of a conversation computes only what is new. Nothing is
//! padded in the linear layers. What a request generates depends on its own prompt, settings
//! and seed, and on its company only through the rounding of larger or smaller products; the
//! same call after the same calls gives the same bytes.
//!
//! Requests are handed in one by one ([`Engine::submit`]) and join those that are computed
//! between two forward passes ([`Engine::step`]), or all at once ([`Engine::generate`]).
//!
//! [`Engine`] shares the work among shards; a shard admits requests, lays them into the cache,
//! prefills, decodes and draws. A pass over the cache is by kernels of the CPU or by tensor
//! operations, whichever the model and the device allow.

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
