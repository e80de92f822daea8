//! SQL as the official Spider evaluator understands it.
//!
//! The exact-match score is defined by a small recursive parser of the Spider authors, and
//! what it rejects scores 0. A real SQL parser would accept more (aliases of columns,
//! `LEFT JOIN`, `IS NULL`, lists after `IN`) and so disagree. This module therefore accepts
//! and rejects the same texts: [`token`] splits them, [`parse`] reads them, [`ast`] holds
//! what is left. Their quirks are kept in here, each with its consequence said beside it.

pub mod ast;
mod parse;
mod token;

pub use ast::Query;
pub use parse::{Rejected, parse};
