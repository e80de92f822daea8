//! Reads the rollouts of a server's store as exported rollouts.
//!
//! A server has no steps and no groups: a rollout's phase is `train` or `val`, as set at its
//! creation, and rollouts of equal `data_id` share their `uid`. Reward, answer and signals are
//! those that the agent reported in the final attempt.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Result, bail};
use leyden_report::export::{Call, ExportError, Filter, Line, Rollout, Signal};
use leyden_serve::store::{CallRow, FILE, Reading, StoredEvent, StoredRollout};
use serde_json::Value;

/// Offset and value of SQLite's application id in the header of a server's store.
const APPLICATION: (usize, [u8; 4]) = (68, *b"LeyS");

/// An opened store.
pub struct ServerStore {
    store: Reading,
}

impl ServerStore {
    /// Opens the store in `folder`; `None` if it is not a server's store.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        let (from, number) = APPLICATION;
        match std::fs::File::open(&path).and_then(|file| read_at(&file, from)) {
            Ok(found) if found == number => Ok(Some(Self { store: Reading::open(&path)? })),
            _ => Ok(None),
        }
    }

    pub fn count(&self, filter: &Filter) -> Result<u64> {
        let unbounded = Filter { offset: 0, limit: None, ..filter.clone() };
        Ok(self.matching(&unbounded)?.len() as u64)
    }

    pub fn list(&self, filter: &Filter) -> Result<Vec<Line>> {
        let line = |(rollout, reward): (StoredRollout, Option<f64>)| -> Result<Line> {
            let counts = self.store.event_counts(&rollout.id)?;
            let attempt = rollout.status.attempt();
            let count = |kind: &str| {
                counts.iter().find(|(a, k, _)| a == attempt && k == kind).map_or(0, |(.., n)| *n)
            };
            let answer = match count("answer") {
                0 => None,
                _ => reported(&self.store.events(&rollout.id, false)?, "answer"),
            };
            Ok(Line {
                task_id: data_id(&rollout),
                group: data_id(&rollout),
                reward,
                missing: missing(&rollout, reward),
                answer,
                calls: count("model_request"),
                signals: count("signal"),
                id: rollout.id,
            })
        };
        self.matching(filter)?.into_iter().map(line).collect()
    }

    pub fn rollout(&self, id: &str) -> Result<Option<Rollout>> {
        let Some(stored) = self.store.rollout(id)? else { return Ok(None) };
        let reward = self.store.reward(id)?;
        Ok(Some(self.read(stored, reward)?))
    }

    pub fn each(
        &self,
        filter: &Filter,
        take: &mut dyn FnMut(Rollout) -> Result<(), ExportError>,
    ) -> Result<()> {
        for (stored, reward) in self.matching(filter)? {
            take(self.read(stored, reward)?)?;
        }
        Ok(())
    }

    /// The rollouts that match `filter`, with their rewards.
    fn matching(&self, filter: &Filter) -> Result<Vec<(StoredRollout, Option<f64>)>> {
        if filter.step.is_some() {
            bail!("--step: a server's store has no steps");
        }
        let is_train = match filter.phase.as_deref() {
            None => None,
            Some("train") => Some(true),
            Some("val") => Some(false),
            Some(other) => {
                bail!("--phase: a server's store has the phases train and val, not `{other}`")
            }
        };
        let wanted = leyden_serve::store::Filter { is_train, ..Default::default() };
        let mut found = Vec::new();
        for rollout in self.store.rollouts(&wanted)? {
            let reward = self.store.reward(&rollout.id)?;
            if filter.admits(reward) {
                found.push((rollout, reward));
            }
        }
        let limit = filter.limit.unwrap_or(u64::MAX) as usize;
        Ok(found.into_iter().skip(filter.offset as usize).take(limit).collect())
    }

    fn read(&self, stored: StoredRollout, reward: Option<f64>) -> Result<Rollout> {
        let events = self.store.events(&stored.id, false)?;
        let calls = self.store.calls(&stored.id)?;
        let requests: HashMap<i64, Value> = events
            .iter()
            .filter(|event| event.event_type == "model_request")
            .filter_map(|event| Some((event.seq, data(event)?.get("request")?.clone())))
            .collect();
        let question = match stored.input.get("question") {
            Some(Value::String(question)) => question.clone(),
            _ => stored.input.to_string(),
        };
        let gold = stored.input.get("gold").and_then(Value::as_str).map(str::to_owned);
        Ok(Rollout {
            step: None,
            phase: if stored.is_train { "train" } else { "val" }.to_owned(),
            group: data_id(&stored),
            task_id: data_id(&stored),
            agent: Some("external".to_owned()),
            question,
            gold,
            answer: reported(&events, "answer"),
            reward,
            missing: missing(&stored, reward),
            signals: signals(&events, &calls),
            calls: calls.into_iter().map(|call| of_call(call, &requests)).collect(),
            id: stored.id,
        })
    }
}

fn read_at(mut file: &std::fs::File, from: usize) -> std::io::Result<[u8; 4]> {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = [0; 4];
    file.seek(SeekFrom::Start(from as u64))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The id of the rollout's task; the rollout's own id if its input names none.
fn data_id(rollout: &StoredRollout) -> String {
    let named = |key: &str| match rollout.input.get(key)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    ["data_id", "instance_id", "id"]
        .into_iter()
        .find_map(named)
        .unwrap_or_else(|| rollout.id.clone())
}

fn missing(rollout: &StoredRollout, reward: Option<f64>) -> Option<String> {
    let why = || match &rollout.status.error_message {
        Some(message) => message.clone(),
        None => format!("{}, no reward was reported", rollout.status.state.name()),
    };
    reward.is_none().then(why)
}

/// The data of an event; `None` if it is not JSON.
fn data(event: &StoredEvent) -> Option<Value> {
    serde_json::from_str(&event.data).ok()
}

/// `value` of the latest event of a type, as text.
fn reported(events: &[StoredEvent], kind: &str) -> Option<String> {
    let event = events.iter().rev().find(|event| event.event_type == kind)?;
    match data(event)?.get("value")? {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        other => Some(other.to_string()),
    }
}

/// Signals, each attributed to the latest call before it.
fn signals(events: &[StoredEvent], calls: &[CallRow]) -> Vec<Signal> {
    let of = |event: &StoredEvent| {
        let data = data(event)?;
        let text = |key: &str| match data.get(key) {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => String::new(),
            Some(other) => other.to_string(),
        };
        let before = calls.iter().filter(|call| call.event < event.seq).count();
        Some(Signal {
            call: before.saturating_sub(1) as u64,
            kind: text("kind"),
            detail: text("detail"),
        })
    };
    events.iter().filter(|event| event.event_type == "signal").filter_map(of).collect()
}

fn of_call(row: CallRow, requests: &HashMap<i64, Value>) -> Call {
    let request = requests.get(&row.event);
    let answer = row.answer;
    let mut text = answer.content;
    if !answer.tool_calls.is_empty() {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&answer.tool_calls);
    }
    let prompt = request.and_then(|request| {
        let messages =
            ["messages", "input", "prompt"].into_iter().find_map(|key| request.get(key))?;
        Some(messages.as_str().map_or_else(|| messages.to_string(), str::to_owned))
    });
    Call {
        role: row.role.unwrap_or_default(),
        prompt_ids: answer.prompt_ids,
        response_ids: answer.response_ids,
        logprobs: answer.logprobs,
        prompt,
        text,
        finish: answer.finish,
        policy_version: answer.policy_version,
        constrained: answer.constrained,
        temperature: request.and_then(|request| request.get("temperature")?.as_f64()),
        credit: None,
        advantage: None,
    }
}
