//! An engine behind a queue: conversations in, streamed replies out.
//!
//! The engine ([`leyden_lm::generate::Engine`]) knows token ids and forward passes; a server's clients
//! know messages and come and go as they like. [`EngineBackend`] joins the two. A request
//! passes three stations:
//!
//! 1. [`submit`](leyden_serve::backend::Backend::submit) counts it, or refuses it where too
//!    many wait. It never blocks.
//! 2. A few preparing threads render and tokenise its prompt and compile its grammar. A long
//!    prompt or a large schema so delays nobody whose tokens are being generated.
//! 3. One thread owns the engine. Between two forward passes it takes in what has been
//!    prepared, drops what nobody waits for any more, hands out tokens, and exchanges the
//!    weights where a trainer asks for it.
//!
//! Calls of one conversation grow by tokens: what the model wrote enters the next prompt as
//! the ids that it sampled.

mod backend;
mod conversations;
mod counters;
mod job;
mod options;
mod prepare;
mod worker;

// The helpers of the tests see this crate from outside.
#[cfg(test)]
extern crate self as leyden_inference;

#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod testing;

pub use backend::EngineBackend;
pub use counters::Stats;
pub use options::Options;
pub use worker::Model;
