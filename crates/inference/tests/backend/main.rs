//! The backend with a random model: its answers, and its behaviour under failures.

mod answers;
#[path = "../common/mod.rs"]
mod common;
mod conversations;
mod forms;
mod limits;
mod weights;
