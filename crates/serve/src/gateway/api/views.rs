//! Store rows in v1's JSON format.

use serde_json::{Map, Value, json};

use crate::store::{StoredEvent, StoredRollout};

/// v1's `Rollout`.
pub(in crate::gateway) fn rollout(rollout: &StoredRollout) -> Value {
    let status = &rollout.status;
    let mut metadata = Map::new();
    // v1's two fixed fields, then all others.
    metadata.insert("batch_idx".into(), Value::Null);
    metadata.insert("sample_idx_in_batch".into(), Value::Null);
    metadata.extend(rollout.metadata.clone());
    json!({
        "rollout_id": rollout.id,
        "input": rollout.input,
        "is_train": rollout.is_train,
        "config": rollout.config,
        "metadata": metadata,
        "status": {
            "state": status.state.name(),
            "k8s_job_name": status.k8s_job_name,
            "last_attempt_id": status.last_attempt_id,
            "error_message": status.error_message,
            "version": status.version,
            "created_at": status.created_at,
            "updated_at": status.updated_at,
        },
    })
}

/// v1's `Event` as JSON text; `data` is already JSON.
pub(super) fn event(
    event_type: &str,
    rollout_id: &str,
    attempt_id: &str,
    timestamp: f64,
    data: &str,
) -> String {
    format!(
        r#"{{"event_type":{},"rollout_id":{},"attempt_id":{},"timestamp":{timestamp:?},"data":{data}}}"#,
        json!(event_type),
        json!(rollout_id),
        json!(attempt_id),
    )
}

/// A list of events as JSON text.
pub(super) fn events(rollout_id: &str, events: &[StoredEvent]) -> String {
    let mut text = String::from("[");
    for (position, stored) in events.iter().enumerate() {
        if position > 0 {
            text.push(',');
        }
        let StoredEvent { event_type, attempt_id, timestamp, data, .. } = stored;
        text.push_str(&event(event_type, rollout_id, attempt_id, *timestamp, data));
    }
    text.push(']');
    text
}
