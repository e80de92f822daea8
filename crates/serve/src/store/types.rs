//! The store's data types.

use serde_json::{Map, Value};

/// The current attempt of a rollout that has no `last_attempt_id`.
pub const DEFAULT_ATTEMPT: &str = "0";

/// The state of a rollout. `Succeeded` and `Failed` are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RolloutState {
    Queuing,
    Running,
    Succeeded,
    Failed,
}

impl RolloutState {
    pub const ALL: [Self; 4] = [Self::Queuing, Self::Running, Self::Succeeded, Self::Failed];

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queuing => "queuing",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// The state with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }

    /// Whether a client may move a rollout from here to `next`.
    pub fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Queuing, Self::Running | Self::Failed)
                | (Self::Running, Self::Succeeded | Self::Failed)
        )
    }
}

/// A rollout to be created.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRollout {
    /// `None` lets the store generate one.
    pub id: Option<String>,
    /// The task, in the format the agent expects.
    pub input: Value,
    pub is_train: bool,
    /// v1's `RolloutConfig`, completed with its defaults.
    pub config: Map<String, Value>,
    pub metadata: Map<String, Value>,
    /// Whether [`Store::claim`](super::Store::claim) may lease it to a worker.
    pub claimable: bool,
    /// Whether a trainer in this process owns it. Such a rollout ends with the process.
    pub hosted: bool,
}

/// The defaults of v1's `RolloutConfig`.
pub fn default_config() -> Map<String, Value> {
    let mut config = Map::new();
    config.insert("timeout_seconds".into(), 3600.into());
    config.insert("local".into(), Value::Null);
    config.insert("k8s".into(), Value::Null);
    config
}

/// A stored rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRollout {
    pub id: String,
    pub input: Value,
    pub is_train: bool,
    pub config: Map<String, Value>,
    pub metadata: Map<String, Value>,
    pub status: RolloutStatus,
}

/// The mutable part of a rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutStatus {
    pub state: RolloutState,
    pub k8s_job_name: Option<String>,
    /// The current attempt; `None` means [`DEFAULT_ATTEMPT`].
    pub last_attempt_id: Option<String>,
    pub error_message: Option<String>,
    /// Number of changes, starting at 1.
    pub version: u64,
    /// Seconds since 1970.
    pub created_at: f64,
    pub updated_at: f64,
}

impl RolloutStatus {
    /// The current attempt.
    pub fn attempt(&self) -> &str {
        self.last_attempt_id.as_deref().unwrap_or(DEFAULT_ATTEMPT)
    }
}

/// A change of a rollout's status. The outer `Option` is whether a field changes, the inner one is
/// its new value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StatusPatch {
    pub state: Option<RolloutState>,
    pub k8s_job_name: Option<Option<String>>,
    pub last_attempt_id: Option<Option<String>>,
    pub error_message: Option<Option<String>>,
}

impl StatusPatch {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An event to be appended.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    pub rollout_id: String,
    pub attempt_id: String,
    /// `model_request`, `reward`, `answer`, `signal` or an agent-defined type.
    pub event_type: String,
    /// A JSON object as text.
    pub data: String,
    /// Idempotency key: events of one rollout with equal keys are stored once.
    pub key: Option<Vec<u8>>,
    /// The answers of a `model_request`, one per choice.
    pub call: Option<NewCall>,
}

/// The answers of a model call, stored with its event.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCall {
    /// `chat/completions`, `responses`, …
    pub endpoint: &'static str,
    pub role: Option<String>,
    /// Digest of endpoint and body, by which a retry finds the original call.
    pub body: [u8; 16],
    pub answers: Vec<StoredAnswer>,
}

/// One answer, without anything derivable from its ids.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredAnswer {
    pub content: String,
    /// A JSON array of `{id, name, arguments}`; empty string if there are none.
    pub tool_calls: String,
    pub malformed_call: Option<String>,
    /// `stop` or `length`.
    pub finish: String,
    /// The stop string that ended generation, if any.
    pub stop_text: Option<String>,
    pub prompt_ids: Vec<u32>,
    /// Including the end-of-turn token.
    pub response_ids: Vec<u32>,
    /// Natural log-probabilities, one per response token.
    pub logprobs: Vec<f32>,
    pub cached_tokens: u64,
    pub policy_version: u64,
    pub constrained: bool,
}

/// The result of appending an event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Appended {
    /// Position among all events of the store.
    pub seq: i64,
    /// Seconds since 1970.
    pub timestamp: f64,
    /// An event with this key already existed; nothing was added.
    pub duplicate: bool,
}

/// A stored event.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvent {
    pub seq: i64,
    pub event_type: String,
    pub attempt_id: String,
    /// Seconds since 1970.
    pub timestamp: f64,
    /// A JSON object as text.
    pub data: String,
}

/// A page of the completion log.
#[derive(Debug, Clone, PartialEq)]
pub struct TerminalPage {
    /// The entries of the page that were not deleted.
    pub items: Vec<TerminalItem>,
    /// The cursor of the next page; counts deleted rollouts too.
    pub next_after: u64,
    /// Length of the log.
    pub total: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminalItem {
    pub rollout_id: String,
    pub state: RolloutState,
    /// `input.data_id`, else `input.instance_id`, else empty.
    pub data_id: String,
    pub is_train: bool,
}

/// A rollout leased to a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    pub rollout: StoredRollout,
    pub attempt_id: String,
    /// Expiry of the lease without a heartbeat, in seconds since 1970.
    pub lease_until: f64,
}

/// A rollout requeued after its worker's lease expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requeued {
    pub rollout_id: String,
    /// The attempt that is no longer current.
    pub attempt_id: String,
    pub worker: String,
}

/// A registered model server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelServer {
    pub model: String,
    /// The API's root, including `/v1`.
    pub endpoint: String,
    pub version: i64,
}
