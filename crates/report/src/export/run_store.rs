//! Reads the rollouts of a run folder from its `rollouts.sqlite`.
//!
//! Read-only, and safe while the run is active. Rollouts are addressed by step, phase and id,
//! which is also their order in the file; only the requested ones are read.

use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::{Call, ExportError, Filter, Line, Rollout, Signal};
use crate::rollouts::open;

/// Step and phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub step: u64,
    pub phase: String,
}

/// An open store.
pub struct RunStore {
    database: Connection,
    path: PathBuf,
    setting: Setting,
    /// Whether calls have the column `constrained`; stores of earlier versions do not.
    has_constrained: bool,
}

/// The part of the run's configuration that concerns its rollouts.
#[derive(Debug, Default)]
struct Setting {
    agent: Option<String>,
    training_temperature: Option<f64>,
    sampled_temperature: Option<f64>,
}

impl RunStore {
    /// Opens the store of a run folder.
    ///
    /// # Errors
    /// If the folder or its store does not exist, or the file is not a database.
    pub fn open(folder: &Path) -> Result<Self, ExportError> {
        if !folder.is_dir() {
            return Err(ExportError::NoFolder(folder.to_owned()));
        }
        let path = folder.join("rollouts.sqlite");
        if !path.is_file() {
            return Err(ExportError::NoStore(folder.to_owned()));
        }
        let count = |database: &Connection, what: &str| {
            database
                .query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get::<_, i64>(0))
        };
        let inspect = |database: Connection| {
            let tables = count(&database, "sqlite_schema WHERE name IN ('rollouts', 'calls')")?;
            let columns =
                count(&database, "pragma_table_info('calls') WHERE name = 'constrained'")?;
            Ok((tables, columns > 0, database))
        };
        let opened = open(&path).and_then(inspect);
        let (tables, has_constrained, database) =
            opened.map_err(|e| ExportError::database(&path, e))?;
        if tables < 2 {
            return Err(ExportError::NotAStore(path));
        }
        let setting = Setting::read(&folder.join("config.toml"));
        Ok(Self { database, path, setting, has_constrained })
    }

    fn failed(&self, error: rusqlite::Error) -> ExportError {
        ExportError::database(&self.path, error)
    }

    /// Every combination of step and phase that has rollouts, in order.
    ///
    /// # Errors
    /// Failure to read the database.
    pub fn places(&self) -> Result<Vec<Place>, ExportError> {
        let find = || -> rusqlite::Result<Vec<Place>> {
            // One seek per place instead of reading every rollout.
            let mut next = self.database.prepare_cached(
                "SELECT step, phase FROM rollouts WHERE (step, phase) > (?1, ?2)
                 ORDER BY step, phase LIMIT 1",
            )?;
            let mut places = Vec::new();
            let mut last = (-1_i64, String::new());
            while let Some((step, phase)) = next
                .query_row(params![last.0, last.1], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?
            {
                last = (step, phase);
                places.push(Place { step: step.unsigned_abs(), phase: last.1.clone() });
            }
            Ok(places)
        };
        find().map_err(|e| self.failed(e))
    }

    /// Number of rollouts that match the filter, ignoring offset and limit.
    ///
    /// # Errors
    /// Failure to read the database.
    pub fn count(&self, filter: &Filter) -> Result<u64, ExportError> {
        let (condition, values) = condition(filter);
        let sql = format!("SELECT count(*) FROM rollouts WHERE {condition}");
        self.database
            .query_row(&sql, params_from_iter(values), |row| whole(row, 0))
            .map_err(|e| self.failed(e))
    }

    /// The rollouts that match the filter, by step, phase and id.
    ///
    /// # Errors
    /// Failure to read the database.
    pub fn list(&self, filter: &Filter) -> Result<Vec<Line>, ExportError> {
        let of = "step = r.step AND phase = r.phase AND rollout = r.id";
        let select = format!(
            "SELECT step, phase, id, task_id, grp, reward, missing, answer,
                 (SELECT count(*) FROM calls WHERE {of}),
                 (SELECT count(*) FROM signals WHERE {of})
             FROM rollouts r"
        );
        let line = |row: &Row| {
            let place = place(row)?;
            Ok(Line {
                id: address(&place, whole(row, 2)?),
                task_id: row.get(3)?,
                group: group(&place, whole(row, 4)?),
                reward: row.get(5)?,
                missing: row.get(6)?,
                answer: row.get(7)?,
                calls: whole(row, 8)?,
                signals: whole(row, 9)?,
            })
        };
        self.select(&select, filter, line)
    }

    /// One rollout; `None` if it does not exist or `id` is not a valid address.
    ///
    /// # Errors
    /// Failure to read the database.
    pub fn rollout(&self, id: &str) -> Result<Option<Rollout>, ExportError> {
        let Some((place, id)) = parse(id) else { return Ok(None) };
        self.read(&place, id)
    }

    /// Calls `take` with every rollout that matches the filter, in order.
    ///
    /// # Errors
    /// Failure to read the database, and errors of `take`.
    pub fn each(
        &self,
        filter: &Filter,
        take: &mut dyn FnMut(Rollout) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let key = |row: &Row| Ok((place(row)?, whole(row, 2)?));
        for (place, id) in self.select("SELECT step, phase, id FROM rollouts", filter, key)? {
            // An active run may have deleted it in the meantime.
            if let Some(rollout) = self.read(&place, id)? {
                take(rollout)?;
            }
        }
        Ok(())
    }

    fn select<T>(
        &self,
        select: &str,
        filter: &Filter,
        of: impl FnMut(&Row) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, ExportError> {
        let (condition, mut values) = condition(filter);
        let sql = format!("{select} WHERE {condition} ORDER BY step, phase, id LIMIT ? OFFSET ?");
        values.push(Value::Integer(filter.limit.map_or(-1, signed)));
        values.push(Value::Integer(signed(filter.offset)));
        let find = || {
            let mut statement = self.database.prepare_cached(&sql)?;
            statement.query_map(params_from_iter(values), of)?.collect::<rusqlite::Result<_>>()
        };
        find().map_err(|e| self.failed(e))
    }

    fn read(&self, place: &Place, id: u64) -> Result<Option<Rollout>, ExportError> {
        let mut found = match self.head(place, id).optional() {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        found.calls = self.calls(place, id)?;
        found.signals = self.signals(place, id).map_err(|e| self.failed(e))?;
        Ok(Some(found))
    }

    fn head(&self, place: &Place, id: u64) -> rusqlite::Result<Rollout> {
        let mut statement = self.database.prepare_cached(
            "SELECT task_id, grp, question, gold, answer, reward, missing FROM rollouts
             WHERE step = ?1 AND phase = ?2 AND id = ?3",
        )?;
        statement.query_row(params![signed(place.step), place.phase, signed(id)], |row| {
            Ok(Rollout {
                id: address(place, id),
                step: Some(place.step),
                phase: place.phase.clone(),
                group: group(place, whole(row, 1)?),
                task_id: row.get(0)?,
                agent: self.setting.agent.clone(),
                question: row.get(2)?,
                gold: row.get(3)?,
                answer: row.get(4)?,
                reward: row.get(5)?,
                missing: row.get(6)?,
                calls: Vec::new(),
                signals: Vec::new(),
            })
        })
    }

    fn calls(&self, place: &Place, id: u64) -> Result<Vec<Call>, ExportError> {
        let find = || {
            let constrained = if self.has_constrained { "constrained" } else { "0" };
            let mut statement = self.database.prepare_cached(&format!(
                "SELECT role, prompt_text, text, finish, policy_version, credit, advantage,
                     prompt_ids, response_ids, logprobs, {constrained}
                 FROM calls WHERE step = ?1 AND phase = ?2 AND rollout = ?3 ORDER BY idx"
            ))?;
            let call = |row: &Row| {
                let call = Call {
                    role: row.get(0)?,
                    prompt: row.get(1)?,
                    text: row.get(2)?,
                    finish: row.get(3)?,
                    policy_version: whole(row, 4)?,
                    credit: row.get(5)?,
                    advantage: row.get(6)?,
                    constrained: row.get::<_, Option<bool>>(10)?.unwrap_or_default(),
                    temperature: self.setting.temperature(&place.phase),
                    ..Call::default()
                };
                let blobs: [Vec<u8>; 3] = [row.get(7)?, row.get(8)?, row.get(9)?];
                Ok((call, blobs))
            };
            statement
                .query_map(params![signed(place.step), place.phase, signed(id)], call)?
                .collect::<rusqlite::Result<Vec<_>>>()
        };
        let found = find().map_err(|e| self.failed(e))?;
        let mut calls = Vec::with_capacity(found.len());
        for (number, (mut call, [prompt, response, logprobs])) in found.into_iter().enumerate() {
            let damaged = |what: String| ExportError::Row {
                path: self.path.clone(),
                id: address(place, id),
                call: number as u64,
                what,
            };
            let words = |bytes: &[u8], name: &str| match bytes.as_chunks::<4>() {
                (words, []) => Ok(words.to_vec()),
                _ => Err(damaged(format!("{name} ends in the middle of a number"))),
            };
            let ids = |words: Vec<[u8; 4]>| words.into_iter().map(u32::from_le_bytes).collect();
            call.prompt_ids = ids(words(&prompt, "prompt_ids")?);
            call.response_ids = ids(words(&response, "response_ids")?);
            call.logprobs =
                words(&logprobs, "logprobs")?.into_iter().map(f32::from_le_bytes).collect();
            if call.logprobs.len() != call.response_ids.len() {
                return Err(damaged(format!(
                    "it has {} response tokens and {} log-probabilities",
                    call.response_ids.len(),
                    call.logprobs.len()
                )));
            }
            calls.push(call);
        }
        Ok(calls)
    }

    fn signals(&self, place: &Place, id: u64) -> rusqlite::Result<Vec<Signal>> {
        let mut statement = self.database.prepare_cached(
            "SELECT call, kind, detail FROM signals
             WHERE step = ?1 AND phase = ?2 AND rollout = ?3 ORDER BY call, rowid",
        )?;
        let signal =
            |row: &Row| Ok(Signal { call: whole(row, 0)?, kind: row.get(1)?, detail: row.get(2)? });
        statement.query_map(params![signed(place.step), place.phase, signed(id)], signal)?.collect()
    }
}

impl Setting {
    /// Reads the file; defaults if it is missing or invalid, since rollouts can be read without.
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let Ok(config) = text.parse::<toml::Table>() else { return Self::default() };
        let value = |section: &str, key: &str| config.get(section)?.as_table()?.get(key);
        let real = |section: &str| match value(section, "temperature")? {
            toml::Value::Float(value) => Some(*value),
            toml::Value::Integer(value) => Some(*value as f64),
            _ => None,
        };
        Self {
            agent: value("agent", "name").and_then(toml::Value::as_str).map(str::to_owned),
            training_temperature: real("rollout"),
            sampled_temperature: real("eval"),
        }
    }

    fn temperature(&self, phase: &str) -> Option<f64> {
        match phase {
            "train" => self.training_temperature,
            "sampled" => self.sampled_temperature,
            "greedy" => Some(0.0),
            _ => None,
        }
    }
}

/// The filter in SQL.
fn condition(filter: &Filter) -> (String, Vec<Value>) {
    let mut parts = vec!["1".to_owned()];
    let mut values = Vec::new();
    let mut part = |sql: &str, value: Option<Value>| {
        if let Some(value) = value {
            parts.push(sql.to_owned());
            values.push(value);
        }
    };
    part("step = ?", filter.step.map(|step| Value::Integer(signed(step))));
    part("phase = ?", filter.phase.clone().map(Value::Text));
    part("reward >= ?", filter.at_least.map(Value::Real));
    part("reward <= ?", filter.at_most.map(Value::Real));
    match filter.missing {
        Some(true) => parts.push("reward IS NULL".to_owned()),
        Some(false) => parts.push("reward IS NOT NULL".to_owned()),
        None => {}
    }
    (parts.join(" AND "), values)
}

/// Reads an unsigned number; SQLite has only signed ones.
fn whole(row: &Row, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Step and phase from a row's first two columns.
fn place(row: &Row) -> rusqlite::Result<Place> {
    Ok(Place { step: whole(row, 0)?, phase: row.get(1)? })
}

/// `12/train/5`.
fn address(place: &Place, id: u64) -> String {
    format!("{}/{}/{id}", place.step, place.phase)
}

fn group(place: &Place, number: u64) -> String {
    address(place, number)
}

/// The parts of an address.
fn parse(id: &str) -> Option<(Place, u64)> {
    let (step, rest) = id.split_once('/')?;
    let (phase, id) = rest.rsplit_once('/')?;
    Some((Place { step: step.parse().ok()?, phase: phase.to_owned() }, id.parse().ok()?))
}
