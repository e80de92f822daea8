//! Agents' reporting events: `answer`, `reward`, `process_reward`, `signal`.
//!
//! Body of a POST to the event address: `{"event_type": "answer", "data": {"value": "42"}}`,
//! `{"event_type": "reward", "data": {"value": 1.0}}` (defined by v1), `{"event_type":
//! "process_reward", "data": {"value": 0.5, "call": 2}}` (without `call`: the latest one),
//! `{"event_type": "signal", "data": {"kind": "tool_error", "detail": "no such table"}}`. Other types
//! are stored unchecked.
//! v1 validates none of them; for a rollout of a trainer in this process a mistake would silently
//! lose its reward, so it is rejected.

use serde_json::Value;

use super::rollouts::RolloutEvent;

/// A validated event of an agent.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Report {
    Answer(String),
    Reward(f64),
    ProcessReward { call: Option<usize>, value: f64 },
    Signal { kind: String, detail: String },
    Other { event_type: String, data: Value },
}

/// Validates an event for a trainer.
///
/// # Errors
/// An error naming the field.
pub(super) fn read(event_type: &str, data: &Value) -> Result<Report, String> {
    match event_type {
        "answer" => answer(data),
        "reward" => reward(data),
        "process_reward" => process_reward(data),
        "signal" => signal(data),
        _ => Ok(Report::Other { event_type: event_type.to_owned(), data: data.clone() }),
    }
}

fn answer(data: &Value) -> Result<Report, String> {
    match data.get("value") {
        None => Err("data.value of an answer is missing".into()),
        Some(Value::String(text)) => Ok(Report::Answer(text.clone())),
        Some(other) => Ok(Report::Answer(other.to_string())),
    }
}

fn reward(data: &Value) -> Result<Report, String> {
    finite(data, "a reward").map(Report::Reward)
}

fn process_reward(data: &Value) -> Result<Report, String> {
    let value = finite(data, "a process reward")?;
    let call = match data.get("call") {
        None | Some(Value::Null) => None,
        Some(call) => {
            let number = call.as_u64().and_then(|call| usize::try_from(call).ok());
            Some(number.ok_or_else(|| {
                format!("data.call of a process reward must be a call's number from 0, not {call}")
            })?)
        }
    };
    Ok(Report::ProcessReward { call, value })
}

fn finite(data: &Value, what: &str) -> Result<f64, String> {
    let value = data.get("value").unwrap_or(&Value::Null);
    // `as_f64` is `None` for booleans and strings: neither is a reward.
    let number = value.as_f64().filter(|value| value.is_finite());
    number.ok_or_else(|| format!("data.value of {what} must be a finite number, not {value}"))
}

fn signal(data: &Value) -> Result<Report, String> {
    let kind = data.get("kind").and_then(Value::as_str).unwrap_or_default();
    if kind.is_empty() {
        return Err("data.kind of a signal must be a non-empty string".into());
    }
    let detail = match data.get("detail") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    Ok(Report::Signal { kind: kind.to_owned(), detail })
}

/// Converts a report to the trainer's event type.
pub(super) fn happening(report: Report) -> RolloutEvent {
    match report {
        Report::Answer(text) => RolloutEvent::Answer(text),
        Report::Reward(value) => RolloutEvent::Reward(value),
        Report::ProcessReward { call, value } => RolloutEvent::ProcessReward { call, value },
        Report::Signal { kind, detail } => RolloutEvent::Signal { kind, detail },
        Report::Other { event_type, data } => RolloutEvent::Other { event_type, data },
    }
}
