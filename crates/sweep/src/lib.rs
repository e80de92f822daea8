//! Sweeps: one experiment in several variants with several seeds.
//!
//! A [`Sweep`] is read from a file and expanded into [`Cell`]s, one per variant and seed. They
//! are frozen in a [`SweepFolder`], which any number of workers on one or several machines share:
//! [`work`] claims free cells one after another and runs each in a separate process. A crash, a
//! NaN loss or an out-of-memory error fails only its own cell, and since runs can be resumed, so
//! can sweeps.
//!
//! The crate is independent of models and trainers. The caller provides the command that runs a
//! cell and a function that resolves a cell's configuration, so that all cells are validated
//! before the first one runs ([`check`]).

mod cell;
mod check;
mod error;
mod file;
mod folder;
mod lock;
mod seeds;
mod slurm;
mod work;

pub use cell::{Cell, Sweep};
pub use check::{Revision, check};
pub use error::SweepError;
pub use file::{FailedCells, ReportSettings, SweepFile};
pub use folder::{CELLS, State, SweepFolder};
pub use lock::{CellLock, Claim, claim};
pub use seeds::parse_seeds;
pub use slurm::{Job, quoted};
pub use work::{Event, Options, Tally, work};
