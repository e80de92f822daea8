//! Rejection-sampling fine-tuning: a run's successful rollouts as demonstrations.
//!
//! A run stores every call of its rollouts as the model sampled it. Calls of rollouts with a high
//! reward can be imitated token for token, as STaR (Zelikman et al. 2022) and RAFT (Dong et al.
//! 2023) do with their own samples. No text is re-tokenised.

use std::collections::HashSet;
use std::path::Path;

use leyden_lm::policy::forest::Row;
use leyden_text::ChatFormat;
use rusqlite::{Connection, OpenFlags};

use crate::data::{Conversation, DemonstrationSource};
use crate::error::TrainError;

/// Deduplicated calls of successful rollouts.
pub struct Successes {
    rows: Vec<Row>,
    /// Number of rollouts that they come from.
    pub rollouts: usize,
    /// Number of successful rollouts whose question is a test question.
    pub held_out: usize,
}

impl Successes {
    /// The calls of all training rollouts of the run in `folder` with a reward of at least `least`,
    /// restricted to `roles` unless empty, without those of the questions `held_out`.
    ///
    /// # Errors
    /// If there is no run, or it has no such rollout.
    pub fn read(
        folder: &Path,
        least: f64,
        roles: &[String],
        held_out: &HashSet<String>,
    ) -> Result<Self, TrainError> {
        let path = folder.join("rollouts.sqlite");
        let fail = |e: rusqlite::Error| TrainError::file(&path, e);
        // The run may still be writing; committed rows can be read.
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .map_err(|_| {
                let what = "no such file; data.successes must be the folder of a run";
                TrainError::file(&path, what)
            })?;
        let mut statement = connection
            .prepare(
                "SELECT calls.step, rollout, role, prompt_ids, response_ids, question
                 FROM calls JOIN rollouts ON rollouts.step = calls.step
                     AND rollouts.phase = calls.phase AND rollouts.id = calls.rollout
                 WHERE calls.phase = 'train' AND reward >= ?1
                 ORDER BY calls.step, rollout, idx",
            )
            .map_err(fail)?;
        let mut found = statement.query([least]).map_err(fail)?;
        let (mut rows, mut known, mut rollouts) = (Vec::new(), HashSet::new(), HashSet::new());
        let mut tested = HashSet::new();
        while let Some(row) = found.next().map_err(fail)? {
            let role: String = row.get(2).map_err(fail)?;
            let ids = |column: usize| row.get::<_, Vec<u8>>(column).map(|bytes| words(&bytes));
            let (prompt, response) = (ids(3).map_err(fail)?, ids(4).map_err(fail)?);
            let selected = roles.is_empty() || roles.contains(&role);
            if !selected || response.is_empty() {
                continue;
            }
            let place = (row.get::<_, i64>(0).map_err(fail)?, row.get::<_, i64>(1).map_err(fail)?);
            let question: String = row.get(5).map_err(fail)?;
            if held_out.contains(question.trim()) {
                tested.insert(place);
                continue;
            }
            rollouts.insert(place);
            if known.insert((prompt.clone(), response.clone())) {
                rows.push(Row::call(&prompt, &response));
            }
        }
        if rows.is_empty() {
            let others = match tested.len() {
                0 => String::new(),
                _ => " for a question that is not in data.test".to_owned(),
            };
            return Err(TrainError::file(
                &path,
                format!("none of its training rollouts has a reward of at least {least}{others}"),
            ));
        }
        Ok(Self { rows, rollouts: rollouts.len(), held_out: tested.len() })
    }

    /// Number of distinct calls.
    pub fn calls(&self) -> usize {
        self.rows.len()
    }
}

impl DemonstrationSource for Successes {
    fn len(&self) -> Option<u64> {
        Some(self.rows.len() as u64)
    }

    fn conversation(&self, _: u64) -> Conversation {
        // The rows are token ids; there are no messages.
        Conversation::default()
    }

    fn row(&self, index: u64, _: &ChatFormat) -> Result<Row, TrainError> {
        Ok(self.rows[index as usize].clone())
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
