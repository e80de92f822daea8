//! Fused kernels for CPU cores.
//!
//! Each kernel does in one pass what a tensor library does in several passes over memory, each with
//! its own dispatch. Inputs and outputs are slices: this crate depends on no tensor, graph or model
//! type, so each kernel is tested against a few plain lines. All arithmetic is f32; bf16 numbers
//! are widened on load and rounded on store.
//!
//! Work is split the same way regardless of the number of threads, and no sum is split between two
//! threads: the same input gives the same bytes on one thread and on many.

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
