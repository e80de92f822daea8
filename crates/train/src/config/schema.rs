//! What a program adds to experiment files: the keys of its benchmarks, and what it refuses.
//!
//! In a file of its own, because it knows the whole [`Experiment`], and the keys do not.

use super::Experiment;
use super::own::{KeyError, OwnKey};

/// What the benchmarks of a program add to experiment files.
pub trait Schema: Send + Sync {
    /// Their keys; a path occurs once.
    fn keys(&self) -> Vec<OwnKey>;

    /// What the values of a key that all benchmarks share (`agent.name`, `data.train`,
    /// `reward.name`) can be, for its description.
    fn choices(&self, path: &str) -> Option<String> {
        let _ = path;
        None
    }

    /// Refuses what no run could be made of, such as an unknown agent.
    ///
    /// # Errors
    /// The key and what is wrong with it.
    fn check(&self, experiment: &Experiment) -> Result<(), KeyError> {
        let _ = experiment;
        Ok(())
    }
}

/// No benchmarks: only the trainer's own keys.
impl Schema for () {
    fn keys(&self) -> Vec<OwnKey> {
        Vec::new()
    }
}
