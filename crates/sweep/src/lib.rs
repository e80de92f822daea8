//! Sweeps: one experiment in several variants under several seeds.
//!
//! A [`Sweep`] is read from a file and expanded into [`Cell`]s, one a variant and seed. They
//! are frozen in a [`SweepFolder`], which any number of workers share, on one machine or on
//! several: [`work`] takes the cells that are free, one after the other, and runs each as a
//! process of its own. A run that crashes, whose loss is no number or that runs out of memory
//! costs its own cell only, and since a run goes on where it was stopped, so does a sweep.
//!
//! The crate knows nothing of models and trainers. Whoever starts a sweep hands it the command
//! that runs a cell and a function that resolves a cell's configuration, so that what is wrong
//! with any cell is told before the first one runs ([`check`]).

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
pub use file::{ReportSettings, SweepFile};
pub use folder::{CELLS, State, SweepFolder};
pub use lock::{CellLock, Claim, claim};
pub use seeds::parse_seeds;
pub use slurm::{Job, quoted};
pub use work::{Event, Options, Tally, work};
