//! Shared code of the criterion benches and the measuring binaries.
//!
//! The criterion benches under `benches/` measure single components on small inputs and need
//! only the checkout. The binaries `generate`, `train_step` and `grpo_step` run a real model and
//! print a line of JSON; `peers/compare.py` runs them in turn with other tools that do the same
//! work on the same input, read from the same file ([`work`]). The binary `growth` measures how
//! time and memory scale with a size, on random models, and predicts a large one ([`growth`],
//! [`predict`]).

pub mod growth;
pub mod play;
pub mod predict;
pub mod process;
pub mod tiny;
pub mod update;
pub mod work;
