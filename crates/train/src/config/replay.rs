//! The keys of `[train.replay]`.

use serde::{Deserialize, Serialize};

/// Groups of earlier steps that are trained on again; see [`crate::replay`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayConfig {
    /// Number of latest steps whose groups can be drawn; 0 is off.
    pub steps: u64,
    /// Share of a step's `rollout.tasks` groups that are drawn from them.
    pub share: f64,
}

impl Default for ReplayConfig {
    fn default() -> Self {
        Self { steps: 0, share: 0.5 }
    }
}

impl ReplayConfig {
    pub fn is_on(&self) -> bool {
        self.steps > 0
    }

    /// Number of groups, of a step's `tasks`, that are drawn; fewer if there are not as many yet.
    pub fn groups(&self, tasks: usize) -> usize {
        if self.is_on() { (self.share * tasks as f64).round() as usize } else { 0 }
    }
}
