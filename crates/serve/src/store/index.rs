//! In-memory index of rollouts, for the lookups of every request.
//!
//! SQLite is authoritative; this is a copy of a few columns, loaded on open and updated when a
//! group is durable, so that attributing a call needs no query.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::Connection;

use super::row::state_of;
use super::types::{DEFAULT_ATTEMPT, RolloutState};

/// A summary of a rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Brief {
    /// Its row in the database.
    pub(super) seq: i64,
    pub state: RolloutState,
    /// The current attempt; `None` means [`DEFAULT_ATTEMPT`].
    pub last_attempt_id: Option<Arc<str>>,
    pub is_train: bool,
    /// Whether a trainer in this process owns it.
    pub hosted: bool,
}

impl Brief {
    /// The current attempt.
    pub fn attempt(&self) -> &str {
        self.last_attempt_id.as_deref().unwrap_or(DEFAULT_ATTEMPT)
    }
}

/// A change of the index.
#[derive(Debug)]
pub(super) enum Effect {
    Put(String, Brief),
    Delete(String),
}

#[derive(Debug, Default)]
pub(super) struct Index {
    briefs: RwLock<HashMap<String, Brief>>,
}

impl Index {
    pub(super) fn load(db: &Connection) -> rusqlite::Result<Self> {
        let mut statement =
            db.prepare("SELECT id, seq, state, last_attempt_id, is_train, hosted FROM rollouts")?;
        let rows = statement.query_map([], |row| {
            let brief = Brief {
                seq: row.get(1)?,
                state: state_of(row.get(2)?)?,
                last_attempt_id: row.get::<_, Option<String>>(3)?.map(Into::into),
                is_train: row.get(4)?,
                hosted: row.get(5)?,
            };
            Ok((row.get::<_, String>(0)?, brief))
        })?;
        let briefs = rows.collect::<rusqlite::Result<HashMap<_, _>>>()?;
        Ok(Self { briefs: RwLock::new(briefs) })
    }

    pub(super) fn get(&self, id: &str) -> Option<Brief> {
        self.briefs.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Rollouts by state, in the order of [`RolloutState::ALL`].
    pub(super) fn counts(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        for brief in self.briefs.read().unwrap_or_else(PoisonError::into_inner).values() {
            counts[brief.state as usize] += 1;
        }
        counts
    }

    pub(super) fn apply(&self, effects: impl ExactSizeIterator<Item = Effect>) {
        if effects.len() == 0 {
            return;
        }
        let mut briefs = self.briefs.write().unwrap_or_else(PoisonError::into_inner);
        for effect in effects {
            match effect {
                Effect::Put(id, brief) => {
                    briefs.insert(id, brief);
                }
                Effect::Delete(id) => {
                    briefs.remove(&id);
                }
            }
        }
    }
}
