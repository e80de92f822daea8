//! Curves, tables and pages from run folders.
//!
//! [`load`] reads a run folder, [`mod@write`] writes a report of one run or several: a
//! self-contained page, every chart as SVG and PNG, the table as CSV and Markdown.
//! Several runs of one configuration are seeds of one experiment; different configurations
//! are compared side by side. Equal runs give equal bytes.
//!
//! [`sweep`] does the same for a sweep folder: variants compared over their seeds, with verdicts
//! in words. [`compare`] compares two runs on the same test items. [`credit`] reports how well credit
//! rules agree with the true advantages of calls.
//!
//! [`recorded`] writes and reads the compact form in which runs are kept in a repository.
//!
//! [`export`] reads individual rollouts and exports them to other programs.
//!
//! The parts can be used for other pages: [`chart`] describes a chart, [`figures::draw`] adds the
//! curves of several seeds, [`svg::render`] draws several charts side by side, and
//! [`tensorboard`] writes the same metrics as event files.

pub mod chart;
pub mod compare;
pub mod credit;
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
