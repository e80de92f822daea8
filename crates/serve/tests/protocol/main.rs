//! The wire formats over a model that follows a script: what clients read, what is asked of the
//! model, what is recorded.

mod calls;
mod chat;
mod completions;
mod fuzz;
mod messages;
mod refusals;
mod responses;
mod room;
