//! Fused kernels for CPU cores.
//!
//! What a tensor library does in several passes over memory, each with its dispatch, is done
//! here in one. Slices in, slices out: nothing in this crate knows a tensor, a graph or a
//! model, so each kernel is tested against a few plain lines. All arithmetic is f32; numbers
//! in bf16 are widened as they are read and rounded as they are written.
//!
//! Work is cut the same way whatever the number of threads, and no sum is split between two
//! of them: the same input gives the same bytes on one thread and on many.

mod adamw;
pub mod attention;
mod element;
mod linear;
mod norm;
mod product;
mod rotary;
pub mod simd;
mod sum;
mod swiglu;
mod threads;

pub use adamw::AdamW;
pub use element::Element;
pub use linear::PackedWeight;
pub use norm::{rms_norm, rms_norm_backward};
pub use rotary::{Turn, rotary};
pub use sum::add;
pub use swiglu::{swiglu, swiglu_backward};

#[cfg(test)]
mod tests;
