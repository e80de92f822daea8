//! Generated worlds in the formats of the real datasets.
//!
//! A laptop should see a reward curve rise in minutes, without a download and without a
//! licence question. So each world is code: a seed and an index give a task, the same one on
//! every machine, and no data is stored. The worlds are small enough for a model of a million
//! parameters and honest enough to measure generalisation: test tasks differ from training
//! tasks in their wording, their numbers or their names, and say in which.

pub mod calc;
mod draws;
mod files;
mod fill;
pub mod musique;
pub mod names;
pub mod spider;

pub use calc::{MiniCalc, Noise, Retelling};
pub use files::ExportError;
pub use musique::MiniMusique;
pub use spider::MiniSpider;
