//! Extensions of experiment files by a program's benchmarks: keys and validation.
//!
//! In a separate file because it depends on the whole [`Experiment`], which the key types do not.

use super::Experiment;
use super::own::{KeyError, OwnKey};

/// Extensions of experiment files by the benchmarks of a program.
pub trait Schema: Send + Sync {
    /// The benchmarks' keys; paths are unique.
    fn keys(&self) -> Vec<OwnKey>;

    /// The possible values of a key that all benchmarks share (`agent.name`, `data.train`,
    /// `reward.name`), for its description.
    fn choices(&self, path: &str) -> Option<String> {
        let _ = path;
        None
    }

    /// Rejects experiments that cannot run, such as one with an unknown agent.
    ///
    /// # Errors
    /// The invalid key and the reason.
    fn check(&self, experiment: &Experiment) -> Result<(), KeyError> {
        let _ = experiment;
        Ok(())
    }
}

/// No benchmarks: only the trainer's keys.
impl Schema for () {
    fn keys(&self) -> Vec<OwnKey> {
        Vec::new()
    }
}
