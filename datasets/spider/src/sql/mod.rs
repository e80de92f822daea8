//! SQL, as the official Spider evaluator understands it and as SQLite does.
//!
//! The exact-match score is defined by a small recursive parser of the Spider authors, and
//! what it rejects scores 0. A real SQL parser would accept more (aliases of columns,
//! `LEFT JOIN`, `IS NULL`, lists after `IN`) and so disagree. This module therefore accepts
//! and rejects the same texts: [`token`] splits them, [`parse`] reads them, [`ast`] holds
//! what is left. Their quirks are kept in here, each with its consequence said beside it.
//!
//! Measured against sqlparser with SQLite's dialect, lowered into the same [`Query`]: all 9,693
//! gold queries of Spider that both read, and the golden predictions, have the same structure;
//! but of 1,148 golden predictions sqlparser reads 90 that the official parser rejects and
//! rejects 19 that it reads (mostly a WHERE after GROUP BY), it rejects 2 of 8,659 gold queries
//! of the training set, and of 60,000 queries with a random change 6.5 % come out differently,
//! which turns 650 verdicts of exact match. In every disagreement that was looked into, the
//! official program sided with this parser. The lowering was as long (476 lines beside 529) and
//! took 90 µs a query instead of 16. So exact match is defined here, and sqlparser ([`read`])
//! serves where its wider grammar is wanted: to mend, to guard, and to compare what the official
//! grammar rejects.

pub mod ast;
mod parse;
pub mod read;
mod token;

pub use ast::Query;
pub use parse::{Rejected, parse};
pub(crate) use read::DIALECT;
