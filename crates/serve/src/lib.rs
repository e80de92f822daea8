//! The Lightning Server: agents in any language talk to it as to OpenAI, and what they do
//! becomes training data.
//!
//! A request passes through four layers, each of which knows only the next. The [`gateway`]
//! accepts connections, checks keys and limits, and finds out to which rollout a request
//! belongs. A [`protocol`] (OpenAI's chat, completions and responses, Anthropic's messages)
//! turns its body into an [`Ask`](backend::Ask) and the model's events back into a body. A
//! [`Backend`](backend::Backend) generates: an engine in this process, a trainer's rollout, or
//! servers elsewhere. The [`store`] keeps rollouts, calls and events in SQLite, durably, before
//! anything is acknowledged. No tensors in here.

pub mod backend;
pub mod call;
pub mod gateway;
pub mod live;
pub mod protocol;
pub mod store;
