//! Processes that a benchmark starts to run what is not trusted.
//!
//! Such a process is the program itself, started again as `PROGRAM worker NAME`: nothing else has
//! to be installed or found. [`set_program`] says that the program answers to these arguments.
//! Until then, as in tests and in programs that use the library only, a benchmark runs everything
//! in its own process.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// First argument of a worker; the second is the name of its benchmark.
pub const ARGUMENT: &str = "worker";

/// Declares that `program worker NAME` calls [`Benchmark::work`](crate::Benchmark::work) of the
/// benchmark NAME. The first call counts.
pub fn set_program(program: PathBuf) {
    let _ = PROGRAM.set(program);
}

/// The program that was declared.
pub(crate) fn program() -> Option<&'static Path> {
    PROGRAM.get().map(PathBuf::as_path)
}
