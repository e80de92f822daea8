//! Generated worlds in the formats of the real datasets.
//!
//! For reward curves that rise within minutes on a laptop, without downloads and licence
//! questions. Each world is code: a seed and an index determine a task, the same one on every
//! machine, and no data is stored. The worlds are small enough for a model of a million parameters
//! and still measure generalisation: test tasks differ from training tasks in their wording, their
//! numbers or their names, which labels record.

pub mod calc;
mod draws;
mod files;
mod fill;
pub mod ledger;
pub mod musique;
pub mod names;
pub mod spider;

pub use calc::{MiniCalc, Noise, Paraphrase};
pub use files::ExportError;
pub use ledger::MiniLedger;
pub use musique::MiniMusique;
pub use spider::MiniSpider;
