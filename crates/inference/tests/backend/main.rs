//! The backend with a random model: what its answers are, and what it does when things go
//! wrong.

mod answers;
#[path = "../common/mod.rs"]
mod common;
mod conversations;
mod forms;
mod limits;
mod weights;
