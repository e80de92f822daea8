//! Reads training rollouts back, for steps that train on them again.

use leyden_core::{Call, FinishReason, Outcome, ProcessReward, Rollout, Signal, SignalKind};
use rusqlite::{Connection, Row};

use super::RolloutStore;
use crate::error::TrainError;

/// A group of training rollouts: its step and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    pub step: u64,
    pub group: usize,
}

impl RolloutStore {
    /// The groups of the training steps `first` to `last` with a trained call, ascending. Groups
    /// that dynamic sampling left out are not among them.
    ///
    /// # Errors
    /// Database errors.
    pub fn trained_groups(&self, first: u64, last: u64) -> Result<Vec<GroupKey>, TrainError> {
        trained_groups(&self.connection, first, last).map_err(|e| TrainError::file(&self.path, e))
    }

    /// The rollouts of a group, as they were written.
    ///
    /// # Errors
    /// Database errors.
    pub fn group(&self, key: GroupKey) -> Result<Vec<Rollout>, TrainError> {
        group(&self.connection, key).map_err(|e| TrainError::file(&self.path, e))
    }

    /// Records that the groups of step `step`, from number `first` on, are those of earlier steps.
    ///
    /// # Errors
    /// Database errors, including a full disk.
    pub fn write_replayed(
        &mut self,
        step: u64,
        first: usize,
        groups: &[GroupKey],
    ) -> Result<(), TrainError> {
        if groups.is_empty() {
            return Ok(());
        }
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            for (number, from) in (first..).zip(groups) {
                let row = [step as i64, number as i64, from.step as i64, from.group as i64];
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO replayed VALUES (?1, ?2, ?3, ?4)")?
                    .execute(row)?;
            }
            transaction.commit()
        };
        write(&mut self.connection).map_err(|e| self.failed(&e))
    }
}

fn trained_groups(
    connection: &Connection,
    first: u64,
    last: u64,
) -> Result<Vec<GroupKey>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT step, grp FROM rollouts
         WHERE step BETWEEN ?1 AND ?2 AND phase = 'train' AND EXISTS (
             SELECT 1 FROM calls WHERE calls.step = rollouts.step
                 AND calls.phase = rollouts.phase AND calls.rollout = rollouts.id
                 AND credit IS NOT NULL)
         ORDER BY step, grp",
    )?;
    let key = |row: &Row<'_>| {
        let (step, group): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok(GroupKey { step: step as u64, group: group as usize })
    };
    statement.query_map([first as i64, last as i64], key)?.collect()
}

fn group(connection: &Connection, key: GroupKey) -> Result<Vec<Rollout>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT id, task_id, answer, reward, missing FROM rollouts
         WHERE step = ?1 AND phase = 'train' AND grp = ?2 ORDER BY id",
    )?;
    let (step, group) = (key.step as i64, key.group as i64);
    let mut rows = statement.query([step, group])?;
    let mut rollouts = Vec::new();
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let outcome = match row.get::<_, Option<f64>>(3)? {
            Some(reward) => Outcome::Reward(reward),
            None => Outcome::Missing(row.get::<_, Option<String>>(4)?.unwrap_or_default()),
        };
        rollouts.push(Rollout {
            id: id as usize,
            task_id: row.get(1)?,
            group: key.group,
            calls: calls(connection, step, id)?,
            signals: signals(connection, step, id)?,
            process_rewards: process_rewards(connection, step, id)?,
            answer: row.get(2)?,
            outcome,
        });
    }
    Ok(rollouts)
}

fn calls(connection: &Connection, step: i64, rollout: i64) -> Result<Vec<Call>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT role, prompt_ids, response_ids, logprobs, text, finish, policy_version,
             constrained
         FROM calls WHERE step = ?1 AND phase = 'train' AND rollout = ?2 ORDER BY idx",
    )?;
    let call = |row: &Row<'_>| {
        let blob = |column: usize| row.get::<_, Vec<u8>>(column);
        let finish: String = row.get(5)?;
        Ok(Call {
            agent_role: row.get(0)?,
            prompt_ids: words(&blob(1)?, u32::from_le_bytes),
            response_ids: words(&blob(2)?, u32::from_le_bytes),
            logprobs: words(&blob(3)?, f32::from_le_bytes),
            text: row.get(4)?,
            finish: if finish == "length" { FinishReason::Length } else { FinishReason::Stop },
            policy_version: row.get::<_, i64>(6)? as u64,
            constrained: row.get::<_, Option<bool>>(7)?.unwrap_or(false),
        })
    };
    statement.query_map([step, rollout], call)?.collect()
}

fn signals(
    connection: &Connection,
    step: i64,
    rollout: i64,
) -> Result<Vec<Signal>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT kind, call, detail FROM signals
         WHERE step = ?1 AND phase = 'train' AND rollout = ?2 ORDER BY rowid",
    )?;
    let signal = |row: &Row<'_>| {
        let kind = signal_kind(row.get(0)?);
        Ok(Signal { kind, call: row.get::<_, i64>(1)? as usize, detail: row.get(2)? })
    };
    statement.query_map([step, rollout], signal)?.collect()
}

fn process_rewards(
    connection: &Connection,
    step: i64,
    rollout: i64,
) -> Result<Vec<ProcessReward>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT call, value FROM process_rewards
         WHERE step = ?1 AND phase = 'train' AND rollout = ?2 ORDER BY rowid",
    )?;
    let reward = |row: &Row<'_>| {
        Ok(ProcessReward { call: row.get::<_, i64>(0)? as usize, value: row.get(1)? })
    };
    statement.query_map([step, rollout], reward)?.collect()
}

fn words<T>(bytes: &[u8], word: impl Fn([u8; 4]) -> T) -> Vec<T> {
    bytes.chunks_exact(4).map(|b| word([b[0], b[1], b[2], b[3]])).collect()
}

/// The kind that [`super::signal_name`] names so.
fn signal_kind(name: String) -> SignalKind {
    serde_json::from_value(serde_json::Value::String(name.clone()))
        .unwrap_or(SignalKind::Other(name))
}

#[cfg(test)]
mod tests {
    use leyden_core::Task;

    use super::*;
    use crate::store::{CallCredit, Place, signal_name};

    fn task(id: &str) -> Task {
        Task {
            id: id.to_owned(),
            question: String::new(),
            gold: String::new(),
            labels: Vec::new(),
            fields: serde_json::Map::new(),
        }
    }

    /// A rollout with a value of every kind; numbers that are not short in binary.
    fn rollout(id: usize, group: usize, outcome: Outcome) -> Rollout {
        let call = |finish, constrained| Call {
            agent_role: "solve".to_owned(),
            prompt_ids: vec![1, u32::MAX, id as u32],
            response_ids: vec![2, 3],
            logprobs: vec![-0.1, -1e-7],
            text: "höchstens".to_owned(),
            finish,
            policy_version: 7,
            constrained,
        };
        let signal = |kind, call| Signal { kind, call, detail: "why".to_owned() };
        Rollout {
            id,
            task_id: format!("task-{group}"),
            group,
            calls: vec![call(FinishReason::Stop, false), call(FinishReason::Length, true)],
            signals: vec![
                signal(SignalKind::TurnLimit, 1),
                signal(SignalKind::Other("halfway".to_owned()), 0),
                signal(SignalKind::Other("other".to_owned()), 0),
            ],
            process_rewards: vec![
                ProcessReward { call: 1, value: 0.1 },
                ProcessReward { call: 0, value: 1.0 / 3.0 },
            ],
            answer: id.is_multiple_of(2).then(|| "a".to_owned()),
            outcome,
        }
    }

    #[test]
    fn rollouts_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = RolloutStore::open(&folder.path().join("rollouts.sqlite")).unwrap();
        let rollouts = [
            rollout(0, 0, Outcome::Reward(0.1 + 0.2)),
            rollout(1, 0, Outcome::Missing("late".to_owned())),
            rollout(2, 1, Outcome::Reward(0.0)),
            rollout(3, 1, Outcome::Reward(1.0)),
        ];
        let tasks = [task("task-0"), task("task-1")];
        let owners: Vec<&Task> = rollouts.iter().map(|r| &tasks[r.group]).collect();
        let trained = CallCredit { credit: Some(0.0), advantage: Some(0.0) };
        let none = CallCredit::default();
        // In step 4 the second group is left out.
        let all = vec![vec![trained, none]; 4];
        let some = vec![vec![trained; 2], vec![none; 2], vec![none; 2], vec![none; 2]];
        for (step, phase, credit) in
            [(3, "train", &all), (4, "train", &some), (4, "sampled", &all), (5, "train", &all)]
        {
            store.write(Place { step, phase }, &rollouts, &owners, credit, None).unwrap();
        }
        let key = |step, group| GroupKey { step, group };
        let groups = |first, last| store.trained_groups(first, last).unwrap();
        assert_eq!(groups(3, 4), [key(3, 0), key(3, 1), key(4, 0)]);
        assert_eq!(groups(0, 2), []);
        assert_eq!(store.group(key(3, 0)).unwrap(), rollouts[..2]);
        assert_eq!(store.group(key(5, 1)).unwrap(), rollouts[2..]);
        store.write_replayed(6, 2, &[key(3, 0), key(5, 1)]).unwrap();
        let count = |store: &RolloutStore| -> i64 {
            let sql = "SELECT count(*) FROM replayed";
            store.connection.query_row(sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!(count(&store), 2);
        store.forget_after(4).unwrap();
        assert_eq!((store.trained_groups(0, 9).unwrap().len(), count(&store)), (3, 0));
    }

    #[test]
    fn names_of_signals_are_read_back() {
        for kind in [
            SignalKind::ToolError,
            SignalKind::MalformedCall,
            SignalKind::UnknownTool,
            SignalKind::EmptyResult,
            SignalKind::RepeatedCall,
            SignalKind::TurnLimit,
            SignalKind::NoAnswer,
            SignalKind::Other("context_overflow".to_owned()),
        ] {
            assert_eq!(signal_kind(signal_name(&kind)), kind);
        }
    }
}
