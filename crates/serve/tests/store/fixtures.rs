//! Helpers to create rollouts and events.

use leyden_serve::store::{
    Limits, NewCall, NewEvent, NewRollout, RolloutState, StatusPatch, Store, StoredAnswer,
    default_config,
};
use serde_json::{Map, json};

pub fn temporary() -> Store {
    Store::temporary(Limits::default()).expect("a temporary folder")
}

pub fn new(id: &str) -> NewRollout {
    NewRollout {
        id: Some(id.into()),
        input: json!({"data_id": format!("task of {id}")}),
        is_train: true,
        config: default_config(),
        metadata: Map::new(),
        claimable: true,
        hosted: false,
    }
}

pub async fn create(store: &Store, id: &str) {
    store.create(vec![new(id)]).await.expect("a store");
}

pub fn event(id: &str, attempt: &str, data: &str) -> NewEvent {
    NewEvent {
        rollout_id: id.into(),
        attempt_id: attempt.into(),
        event_type: "note".into(),
        data: data.into(),
        key: None,
        call: None,
    }
}

pub fn call(id: &str, attempt: &str, ids: Vec<u32>) -> NewEvent {
    let answer = StoredAnswer {
        content: "text".into(),
        tool_calls: String::new(),
        malformed_call: None,
        finish: "stop".into(),
        stop_text: Some("###".into()),
        prompt_ids: vec![1, u32::MAX],
        logprobs: ids.iter().map(|id| -(*id as f32) / 7.0).collect(),
        response_ids: ids,
        cached_tokens: 1,
        policy_version: u64::MAX >> 1,
        constrained: true,
    };
    let call = NewCall {
        endpoint: "chat/completions",
        role: Some("solver".into()),
        body: [7; 16],
        answers: vec![answer],
    };
    let data = r#"{"http_status":200,"response":{}}"#.into();
    let event_type = "model_request".into();
    NewEvent { event_type, data, call: Some(call), ..event(id, attempt, "") }
}

pub fn to(state: RolloutState) -> StatusPatch {
    StatusPatch { state: Some(state), ..StatusPatch::default() }
}

/// Moves all times in a closed store into the future, as if the system's clock had been set back
/// since.
pub fn set_clock_back(file: &std::path::Path, seconds: f64) {
    let db = rusqlite::Connection::open(file).expect("a file");
    db.execute_batch(&format!(
        "UPDATE rollouts SET created_at = created_at + {seconds},
             updated_at = updated_at + {seconds}, lease_until = lease_until + {seconds};
         UPDATE events SET timestamp = timestamp + {seconds};"
    ))
    .expect("a store");
}
