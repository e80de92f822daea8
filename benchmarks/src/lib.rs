//! What the benches and the measuring binaries share.
//!
//! Two kinds of measurement live in this package. The criterion benches under `benches/`
//! watch single pieces on small inputs and need nothing but the checkout. The binaries
//! `generate`, `train_step` and `grpo_step` do a real model's work and print a line of JSON;
//! `peers/compare.py` runs them in turn with other tools that do the same work on the same
//! input, read from the same file ([`work`]). The binary `growth` asks instead how time and
//! memory grow with a size, on random models, and what follows for a large one ([`growth`],
//! [`predict`]).

pub mod growth;
pub mod play;
pub mod predict;
pub mod process;
pub mod tiny;
pub mod update;
pub mod work;
