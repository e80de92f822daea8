//! The Lightning Server: an OpenAI-compatible server that records agents' calls as training data.
//!
//! A request passes through four layers, each of which depends only on the next. The [`gateway`]
//! accepts connections, checks keys and limits, and attributes a request to a rollout. A
//! [`protocol`] (OpenAI's chat, completions and responses, Anthropic's messages) converts its body
//! to an [`Ask`](backend::Ask) and the model's events to a response body. A
//! [`Backend`](backend::Backend) generates: an engine in this process, a trainer's rollout, or a
//! remote server. The [`store`] writes rollouts, calls and events durably to SQLite before
//! anything is acknowledged. This crate handles no tensors.

pub mod backend;
pub mod call;
pub mod gateway;
pub mod live;
pub mod protocol;
pub mod store;
