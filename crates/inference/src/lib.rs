//! An engine behind a queue: conversations in, streamed replies out.
//!
//! The engine ([`leyden_lm::generate::Engine`]) handles token ids and forward passes; a server's
//! clients send messages and disconnect at any time. [`EngineBackend`] connects the two. A request
//! passes three stages:
//!
//! 1. [`submit`](leyden_serve::backend::Backend::submit) counts it, or rejects it if too many
//!    wait. It never blocks.
//! 2. Preparing threads render and tokenise its prompt and compile its grammar, so that a long
//!    prompt or a large schema does not delay requests that are being generated.
//! 3. One thread owns the engine. Between two forward passes it submits prepared requests,
//!    cancels those whose client has disconnected, streams tokens, and replaces the weights when
//!    a trainer requests it.
//!
//! Calls of one conversation grow by tokens: the model's output enters the next prompt as the
//! sampled ids.

mod backend;
mod conversations;
mod counters;
mod job;
mod options;
mod prepare;
mod worker;

// The test helpers access this crate as an external one.
#[cfg(test)]
extern crate self as leyden_inference;

#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod testing;

pub use backend::EngineBackend;
pub use counters::Stats;
pub use options::Options;
pub use worker::Model;
