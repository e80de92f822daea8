//! Curves, tables and pages from run folders.
//!
//! [`load`] reads what a run left, [`mod@write`] makes a folder from one run or several: a page
//! that needs nothing but itself, every chart as SVG and PNG, the table as CSV and Markdown.
//! Several runs of one configuration are seeds of one experiment; different configurations
//! are compared side by side. Equal runs give equal bytes.
//!
//! [`sweep`] does the same for a sweep folder: variants compared over their seeds, with
//! verdicts in words. [`compare`] sets two runs side by side on the same test items.
//!
//! [`recorded`] is what is kept of runs in a repository, and how it is read again.
//!
//! [`export`] reads the rollouts themselves, one by one, and writes them for other programs.
//!
//! The pieces serve other pages too: [`chart`] describes a chart, [`figures::draw`] puts the
//! curves of several seeds into it, [`svg::render`] sets several charts side by side, and
//! [`tensorboard`] writes the same figures as event files.

pub mod chart;
pub mod compare;
pub mod experiment;
pub mod export;
pub mod figures;
pub mod recorded;
pub mod rollouts;
pub mod roofline;
pub mod svg;
pub mod sweep;
pub mod table;
pub mod tensorboard;

mod axis;
mod curves;
mod error;
mod interval;
mod items;
mod marks;
mod metric;
mod page;
mod raster;
mod run;
mod text;
mod transcript;
mod write;

pub use error::ReportError;
pub use interval::Estimate;
pub use raster::png;
pub use run::{ReferenceLevel, Run, load};
pub use write::{Options, Written, write};
