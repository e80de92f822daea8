//! Single kernels of training and generation, for whoever measures them.
//!
//! The model calls these from inside; here they can be called alone, at any shape, so that a
//! benchmark times the code that runs and not a copy of it.

pub use crate::engine::single::{DecodeAttention, draw};
pub use crate::head::{Head, HeadCotangent};
pub use crate::model::swiglu;
pub use crate::rotary::rotate;
