//! Sweeps: one experiment in several variants with several seeds.
//!
//! A [`Sweep`] is read from a file and expanded into [`Cell`]s, one per variant and seed. They
//! are frozen in a [`SweepFolder`], which any number of workers on one or several machines share:
//! [`work`] claims free cells one after another and runs each in a separate process. A crash, a
//! NaN loss or an out-of-memory error fails only its own cell, and since runs can be resumed, so
//! can sweeps.
//!
//! With `[tune]` in the file a sweep has two phases: tuning cells, one per variant, point of a grid
//! and tuning seed, and then the cells of the comparison, each variant with the point that is best
//! for it ([`Choice`]). A variant's cells are free once all its tuning cells have ended.
//!
//! The crate is independent of models and trainers. The caller provides the command that runs a
//! cell, the measure of tuning cells ([`Measure`]), and a function that resolves a cell's
//! configuration, so that all cells are validated before the first one runs ([`check`]).

mod cell;
mod check;
mod choice;
mod error;
mod file;
mod folder;
mod lock;
mod queue;
mod seeds;
mod slurm;
mod tune;
mod work;

pub use cell::{Cell, Sweep};
pub use check::{Revision, check};
pub use choice::{CHOICES, Choice, Measure, PointMean};
pub use error::SweepError;
pub use file::{FailedCells, ReportSettings, SweepFile};
pub use folder::{CELLS, State, SweepFolder, TUNING};
pub use lock::{CellLock, Claim, claim};
pub use seeds::parse_seeds;
pub use slurm::{Job, quoted};
pub use work::{Event, Options, Tally, work};
