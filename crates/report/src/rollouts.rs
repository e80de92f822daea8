//! Sample rollouts for manual inspection, from `rollouts.sqlite`.
//!
//! Two views: the same test tasks before and after training, selected by the change of their
//! reward (with the count of each kind, so that the selection cannot flatter the run); and one
//! training group of the first and of the last step, where each call's credit and advantage can
//! be compared within the group. Only what is shown is read, because the database of a long run
//! is large.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};
use serde::{Deserialize, Serialize};

use crate::error::ReportError;

/// One model call as shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleCall {
    pub role: String,
    /// The rendered prompt; stored for evaluations only.
    pub prompt: Option<String>,
    pub prompt_tokens: usize,
    pub text: String,
    pub response_tokens: usize,
    pub finish: String,
    pub credit: Option<f64>,
    pub advantage: Option<f64>,
}

/// One rollout as shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    pub step: i64,
    pub phase: String,
    pub id: i64,
    pub task_id: String,
    pub question: String,
    pub gold: String,
    pub answer: Option<String>,
    pub reward: Option<f64>,
    /// Why there is no reward.
    pub missing: Option<String>,
    pub calls: Vec<SampleCall>,
    /// Index of the latest call, kind, detail.
    pub signals: Vec<(i64, String, String)>,
}

/// Change of one task's reward during training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Rose,
    Fell,
    StayedHigh,
    StayedLow,
}

/// Number of tasks of each kind that are shown, in this order.
const SHOWN: [(Change, usize); 4] =
    [(Change::Rose, 2), (Change::StayedLow, 1), (Change::Fell, 1), (Change::StayedHigh, 1)];

impl Change {
    /// The threshold between high and low is half of the usual reward range.
    fn of(before: f64, after: f64) -> Self {
        if after > before {
            Self::Rose
        } else if after < before {
            Self::Fell
        } else if after >= 0.5 {
            Self::StayedHigh
        } else {
            Self::StayedLow
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Self::Rose => "reward rose",
            Self::Fell => "reward fell",
            Self::StayedHigh => "stayed at 0.5 or above",
            Self::StayedLow => "stayed below 0.5",
        }
    }
}

/// One task before and after training; the same rollout twice if there was only one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    pub change: Change,
    pub before: Transcript,
    pub after: Transcript,
}

/// The rollouts of a report.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Samples {
    /// `sampled`, or `greedy` if there is no sampled evaluation.
    pub phase: String,
    pub before_step: i64,
    pub after_step: i64,
    /// Number of tasks of each kind among those with a reward at both steps.
    pub counts: Vec<(Change, usize)>,
    pub pairs: Vec<Pair>,
    /// One group of the first and one of the last training step.
    pub groups: Vec<Vec<Transcript>>,
}

/// Reads the rollouts of a report; `None` if the run kept none.
pub fn read(path: &Path) -> Result<Option<Samples>, ReportError> {
    if !path.is_file() {
        return Ok(None);
    }
    open(path)
        .and_then(|database| samples(&database))
        .map_err(|source| ReportError::Rollouts { path: path.to_owned(), source })
}

/// Opens the database for reading. Without a write-ahead log there is no writer, and it is opened
/// as immutable: SQLite would otherwise create files next to it, which fails on a read-only disk
/// and which a reader should not do.
pub(crate) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    match path.to_str() {
        Some(text) if !Path::new(&log).exists() => {
            let text = text.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            let address = format!("file:{text}?immutable=1");
            Connection::open_with_flags(address, flags | OpenFlags::SQLITE_OPEN_URI)
        }
        _ => Connection::open_with_flags(path, flags),
    }
}

fn samples(database: &Connection) -> rusqlite::Result<Option<Samples>> {
    let mut found = Samples::default();
    for phase in ["sampled", "greedy"] {
        if let Some((first, last)) = ends(database, phase)? {
            found.phase = phase.to_owned();
            (found.before_step, found.after_step) = (first, last);
            pairs(database, &mut found)?;
            break;
        }
    }
    if let Some((first, last)) = ends(database, "train")? {
        let steps = if first == last { vec![first] } else { vec![first, last] };
        for step in steps {
            found.groups.push(group(database, step)?);
        }
    }
    Ok((!found.pairs.is_empty() || !found.groups.is_empty()).then_some(found))
}

/// First and last step of a phase.
fn ends(database: &Connection, phase: &str) -> rusqlite::Result<Option<(i64, i64)>> {
    database.query_row(
        "SELECT min(step), max(step) FROM rollouts WHERE phase = ?1",
        [phase],
        |row| {
            let first: Option<i64> = row.get(0)?;
            let last: Option<i64> = row.get(1)?;
            Ok(first.zip(last))
        },
    )
}

fn pairs(database: &Connection, found: &mut Samples) -> rusqlite::Result<()> {
    let before = first_of_each_task(database, found.before_step, &found.phase)?;
    let after = first_of_each_task(database, found.after_step, &found.phase)?;
    let earlier: HashMap<&str, (i64, f64)> =
        before.iter().map(|(task, id, reward)| (task.as_str(), (*id, *reward))).collect();
    let mut kinds: HashMap<Change, Vec<(i64, i64)>> = HashMap::new();
    for (task, after_id, after_reward) in &after {
        if let Some((before_id, before_reward)) = earlier.get(task.as_str()) {
            let change = Change::of(*before_reward, *after_reward);
            kinds.entry(change).or_default().push((*before_id, *after_id));
        }
    }
    for (change, shown) in SHOWN {
        let members = kinds.remove(&change).unwrap_or_default();
        found.counts.push((change, members.len()));
        for (before_id, after_id) in members.into_iter().take(shown) {
            found.pairs.push(Pair {
                change,
                before: transcript(database, found.before_step, &found.phase, before_id)?,
                after: transcript(database, found.after_step, &found.phase, after_id)?,
            });
        }
    }
    Ok(())
}

/// Task, rollout id and reward of each task's first rewarded rollout, by rollout id.
fn first_of_each_task(
    database: &Connection,
    step: i64,
    phase: &str,
) -> rusqlite::Result<Vec<(String, i64, f64)>> {
    let mut statement = database.prepare(
        "SELECT task_id, id, reward FROM rollouts
         WHERE step = ?1 AND phase = ?2 AND reward IS NOT NULL ORDER BY id",
    )?;
    let rows = statement
        .query_map(params![step, phase], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut seen = std::collections::HashSet::new();
    let mut first = Vec::new();
    for row in rows {
        let row: (String, i64, f64) = row?;
        if seen.insert(row.0.clone()) {
            first.push(row);
        }
    }
    Ok(first)
}

/// The first group of a step whose rewards differ, because only such a group has non-zero
/// advantages; the first group if there is none.
fn group(database: &Connection, step: i64) -> rusqlite::Result<Vec<Transcript>> {
    let grp: i64 = database.query_row(
        "SELECT grp FROM rollouts WHERE step = ?1 AND phase = 'train' GROUP BY grp
         ORDER BY ifnull(max(reward) > min(reward), 0) DESC, grp LIMIT 1",
        [step],
        |row| row.get(0),
    )?;
    let mut statement = database.prepare(
        "SELECT id FROM rollouts WHERE step = ?1 AND phase = 'train' AND grp = ?2 ORDER BY id",
    )?;
    let ids: Vec<i64> = statement
        .query_map(params![step, grp], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    ids.into_iter().map(|id| transcript(database, step, "train", id)).collect()
}

fn transcript(
    database: &Connection,
    step: i64,
    phase: &str,
    id: i64,
) -> rusqlite::Result<Transcript> {
    let mut found = database.query_row(
        "SELECT task_id, question, gold, answer, reward, missing FROM rollouts
         WHERE step = ?1 AND phase = ?2 AND id = ?3",
        params![step, phase, id],
        |row| {
            Ok(Transcript {
                step,
                phase: phase.to_owned(),
                id,
                task_id: row.get(0)?,
                question: row.get(1)?,
                gold: row.get(2)?,
                answer: row.get(3)?,
                reward: row.get(4)?,
                missing: row.get(5)?,
                calls: Vec::new(),
                signals: Vec::new(),
            })
        },
    )?;
    // Four bytes per token id.
    let mut calls = database.prepare(
        "SELECT role, prompt_text, length(prompt_ids) / 4, text, length(response_ids) / 4,
                finish, credit, advantage
         FROM calls WHERE step = ?1 AND phase = ?2 AND rollout = ?3 ORDER BY idx",
    )?;
    let call = |row: &rusqlite::Row| {
        Ok(SampleCall {
            role: row.get(0)?,
            prompt: row.get(1)?,
            prompt_tokens: row.get::<_, Option<i64>>(2)?.unwrap_or(0) as usize,
            text: row.get(3)?,
            response_tokens: row.get::<_, Option<i64>>(4)?.unwrap_or(0) as usize,
            finish: row.get(5)?,
            credit: row.get(6)?,
            advantage: row.get(7)?,
        })
    };
    found.calls =
        calls.query_map(params![step, phase, id], call)?.collect::<rusqlite::Result<_>>()?;
    let mut signals = database.prepare(
        "SELECT call, kind, detail FROM signals
         WHERE step = ?1 AND phase = ?2 AND rollout = ?3 ORDER BY call",
    )?;
    found.signals = signals
        .query_map(params![step, phase, id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(found)
}
