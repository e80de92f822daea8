//! `rollouts.sqlite`: every call of a run, with its token ids, log-probabilities and credit.

pub mod read;

use std::path::{Path, PathBuf};

use leyden_core::{Rollout, SignalKind, Task};
use rusqlite::{Connection, params};

use crate::error::TrainError;
use crate::folder::RESUME;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS rollouts (
    step INTEGER, phase TEXT, id INTEGER, task_id TEXT, grp INTEGER, question TEXT, gold TEXT,
    answer TEXT, reward REAL, missing TEXT, labels TEXT, PRIMARY KEY (step, phase, id))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS calls (
    step INTEGER, phase TEXT, rollout INTEGER, idx INTEGER, role TEXT, prompt_ids BLOB,
    response_ids BLOB, logprobs BLOB, prompt_text TEXT, text TEXT, finish TEXT,
    policy_version INTEGER, credit REAL, advantage REAL, constrained INTEGER,
    PRIMARY KEY (step, phase, rollout, idx)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signals (
    step INTEGER, phase TEXT, rollout INTEGER, call INTEGER, kind TEXT, detail TEXT);
CREATE INDEX IF NOT EXISTS signals_by_step ON signals (step, phase, rollout);
CREATE TABLE IF NOT EXISTS process_rewards (
    step INTEGER, phase TEXT, rollout INTEGER, call INTEGER, value REAL);
CREATE INDEX IF NOT EXISTS process_rewards_by_step ON process_rewards (step, phase, rollout);
CREATE TABLE IF NOT EXISTS replayed (
    step INTEGER, grp INTEGER, from_step INTEGER, from_grp INTEGER, PRIMARY KEY (step, grp))
    WITHOUT ROWID;
";

/// The rollout store of a run folder.
pub struct RolloutStore {
    connection: Connection,
    path: PathBuf,
}

/// Credit and advantage of one call; absent for untrained calls.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CallCredit {
    pub credit: Option<f64>,
    pub advantage: Option<f64>,
}

/// Turns token ids into readable text.
pub type Decode<'a> = &'a dyn Fn(&[u32]) -> String;

/// The step and phase that a rollout belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    pub step: u64,
    /// `train`, `greedy` or `sampled`.
    pub phase: &'a str,
}

impl RolloutStore {
    /// Opens or creates the store.
    ///
    /// # Errors
    /// A file that cannot be opened or is not a rollout store.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let fail = |e: rusqlite::Error| TrainError::file(path, e);
        let connection = Connection::open(path).map_err(fail)?;
        // A crash may lose the rollouts since the last checkpoint, which are then regenerated;
        // earlier ones are on disk: see `sync`.
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
            .map_err(fail)?;
        connection.execute_batch(SCHEMA).map_err(fail)?;
        add_column(&connection, "rollouts", "labels TEXT").map_err(fail)?;
        add_column(&connection, "calls", "constrained INTEGER").map_err(fail)?;
        Ok(Self { connection, path: path.to_owned() })
    }

    /// Syncs everything written so far to disk, so that it survives a power failure.
    ///
    /// Commits go to the write-ahead log, which SQLite otherwise syncs only before a WAL
    /// checkpoint. A WAL checkpoint may be blocked while a report or the live page reads; a commit
    /// with `synchronous = FULL` syncs the log in any case, with its name in the folder.
    ///
    /// # Errors
    /// Database errors, including a full disk.
    pub fn sync(&self) -> Result<(), TrainError> {
        // Writing a setting is the smallest commit.
        let commit = "PRAGMA synchronous = FULL; PRAGMA user_version = 0;";
        let done = self.connection.execute_batch(commit);
        let relaxed = self.connection.execute_batch("PRAGMA synchronous = NORMAL;");
        done.and(relaxed).map_err(|e| self.failed(&e))
    }

    /// The error of a write.
    fn failed(&self, error: &rusqlite::Error) -> TrainError {
        TrainError::file(&self.path, format!("{error} ({RESUME})"))
    }

    /// Deletes everything after `step`, which a resumed run regenerates.
    ///
    /// # Errors
    /// Database errors.
    pub fn forget_after(&mut self, step: i64) -> Result<(), TrainError> {
        for table in ["rollouts", "calls", "signals", "process_rewards", "replayed"] {
            self.connection
                .execute(&format!("DELETE FROM {table} WHERE step > ?1"), [step])
                .map_err(|e| self.failed(&e))?;
        }
        Ok(())
    }

    /// Writes the rollouts of one step or evaluation in one transaction. `credit` has one entry per
    /// rollout and call, or is empty; `prompt_text` decodes prompts to be stored as text.
    ///
    /// # Errors
    /// Database errors, including a full disk.
    pub fn write(
        &mut self,
        place: Place<'_>,
        rollouts: &[Rollout],
        tasks: &[&Task],
        credit: &[Vec<CallCredit>],
        prompt_text: Option<Decode<'_>>,
    ) -> Result<(), TrainError> {
        write(&mut self.connection, place, rollouts, tasks, credit, prompt_text)
            .map_err(|e| self.failed(&e))
    }
}

/// Adds a column (`name TYPE`) that stores of earlier versions lack.
fn add_column(connection: &Connection, table: &str, column: &str) -> Result<(), rusqlite::Error> {
    let name = column.split(' ').next().unwrap_or_default();
    let known: bool = connection.query_row(
        "SELECT count(*) > 0 FROM pragma_table_info(?1) WHERE name = ?2",
        [table, name],
        |row| row.get(0),
    )?;
    if !known {
        connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column}"))?;
    }
    Ok(())
}

/// Labels as one JSON object.
fn labels(task: &Task) -> String {
    let object: serde_json::Map<String, serde_json::Value> =
        task.labels.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    serde_json::Value::Object(object).to_string()
}

fn write(
    connection: &mut Connection,
    place: Place<'_>,
    rollouts: &[Rollout],
    tasks: &[&Task],
    credit: &[Vec<CallCredit>],
    prompt_text: Option<Decode<'_>>,
) -> Result<(), rusqlite::Error> {
    let step = place.step as i64;
    let transaction = connection.transaction()?;
    {
        let mut insert_rollout = transaction.prepare_cached(
            "INSERT OR REPLACE INTO rollouts (step, phase, id, task_id, grp, question, gold,
                answer, reward, missing, labels)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?;
        let mut insert_call = transaction.prepare_cached(
            "INSERT OR REPLACE INTO calls
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?;
        let mut insert_signal =
            transaction.prepare_cached("INSERT INTO signals VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        let mut insert_reward = transaction
            .prepare_cached("INSERT INTO process_rewards VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for (index, (rollout, task)) in rollouts.iter().zip(tasks).enumerate() {
            let id = rollout.id as i64;
            let missing = match &rollout.outcome {
                leyden_core::Outcome::Missing(why) => Some(why),
                leyden_core::Outcome::Reward(_) => None,
            };
            insert_rollout.execute(params![
                step,
                place.phase,
                id,
                rollout.task_id,
                rollout.group as i64,
                task.question,
                task.gold,
                rollout.answer,
                rollout.outcome.reward(),
                missing,
                labels(task),
            ])?;
            for (number, call) in rollout.calls.iter().enumerate() {
                let credit =
                    credit.get(index).and_then(|c| c.get(number)).copied().unwrap_or_default();
                insert_call.execute(params![
                    step,
                    place.phase,
                    id,
                    number as i64,
                    call.agent_role,
                    words(&call.prompt_ids, u32::to_le_bytes),
                    words(&call.response_ids, u32::to_le_bytes),
                    words(&call.logprobs, f32::to_le_bytes),
                    prompt_text.map(|text| text(&call.prompt_ids)),
                    call.text,
                    match call.finish {
                        leyden_core::FinishReason::Stop => "stop",
                        leyden_core::FinishReason::Length => "length",
                    },
                    call.policy_version as i64,
                    credit.credit,
                    credit.advantage,
                    call.constrained,
                ])?;
            }
            for reward in &rollout.process_rewards {
                let call = reward.call as i64;
                insert_reward.execute(params![step, place.phase, id, call, reward.value])?;
            }
            for signal in &rollout.signals {
                let kind = signal_name(&signal.kind);
                insert_signal.execute(params![
                    step,
                    place.phase,
                    id,
                    signal.call as i64,
                    kind,
                    signal.detail
                ])?;
            }
        }
    }
    transaction.commit()
}

fn words<T: Copy>(values: &[T], bytes: impl Fn(T) -> [u8; 4]) -> Vec<u8> {
    values.iter().flat_map(|&v| bytes(v)).collect()
}

/// The name of a signal kind in files: `tool_error`, or a name defined by an external agent.
pub fn signal_name(kind: &SignalKind) -> String {
    match kind {
        SignalKind::Other(name) => name.clone(),
        known => match serde_json::to_value(known) {
            Ok(serde_json::Value::String(name)) => name,
            _ => format!("{known:?}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use leyden_core::{Outcome, ProcessReward};

    use super::*;

    #[test]
    fn labels_are_stored_also_in_a_store_of_an_older_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rollouts.sqlite");
        let old = SCHEMA.replace(" labels TEXT,", "").replace(" constrained INTEGER,", "");
        assert_ne!(old, SCHEMA);
        Connection::open(&path).unwrap().execute_batch(&old).unwrap();
        let mut store = RolloutStore::open(&path).unwrap();
        let task = Task {
            id: "t".to_owned(),
            question: "q".to_owned(),
            gold: "g".to_owned(),
            labels: vec![("hops".to_owned(), "2".to_owned())],
            fields: serde_json::Map::new(),
        };
        let rollout = Rollout {
            id: 0,
            task_id: "t".to_owned(),
            group: 0,
            calls: Vec::new(),
            signals: Vec::new(),
            process_rewards: vec![ProcessReward { call: 1, value: 0.5 }],
            answer: None,
            outcome: Outcome::Reward(1.0),
        };
        let place = Place { step: 0, phase: "sampled" };
        store.write(place, &[rollout], &[&task], &[], None).unwrap();
        let read = "SELECT labels FROM rollouts";
        let kept: String = store.connection.query_row(read, [], |row| row.get(0)).unwrap();
        assert_eq!(kept, r#"{"hops":"2"}"#);
        let read = "SELECT call, value FROM process_rewards";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let kept: (i64, f64) = store.connection.query_row(read, [], row).unwrap();
        assert_eq!(kept, (1, 0.5));
    }
}
