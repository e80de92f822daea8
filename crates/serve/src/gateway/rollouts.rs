//! The interface by which a trainer in this process runs rollouts with external agents.
//!
//! The trainer registers a rollout with the [`Backend`] that answers its calls, passes the
//! returned addresses to an agent (as environment variables, or through a remote worker's claim),
//! and receives the agent's reports. Requests are routed to their backend by the rollout id in
//! their URL, so an agent needs no knowledge of training.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use leyden_serve::backend::Backend;
//! # use leyden_serve::gateway::{Ended, RolloutEvent, RolloutError, RolloutSpec, Rollouts};
//! # async fn one(rollouts: Rollouts, backend: Arc<dyn Backend>) -> Result<(), RolloutError> {
//! let spec = RolloutSpec { input: serde_json::json!({"question": "1 + 1"}), ..Default::default() };
//! let mut rollout = rollouts.register(spec, backend).await?;
//! // … start the agent with rollout.addresses() in its environment …
//! while let Some(happening) = rollout.next().await {
//!     if let RolloutEvent::Reward(_) = happening {
//!         break;
//!     }
//! }
//! rollout.finish(Ended::Succeeded).await
//! # }
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use serde_json::{Map, Value};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::reports::{self, Report};
use crate::backend::Backend;
use crate::store::{
    DEFAULT_ATTEMPT, NewRollout, RolloutState, StatusPatch, Store, StoreError, default_config,
};

/// The description of a rollout to register.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutSpec {
    /// Never reused; `None` lets the store generate one, as a trainer needs that may be killed and
    /// repeat a step.
    pub id: Option<String>,
    /// The task, in the format the agent expects: `input` in v1's API and in claims.
    pub input: Value,
    /// The mode in the addresses: `train` or `val`.
    pub is_train: bool,
    /// Metadata for readers of the store: step, group, task id.
    pub metadata: Map<String, Value>,
    /// `true` queues the rollout until a remote worker claims it; `false` marks it running at
    /// once, with an agent that the trainer starts.
    pub remote: bool,
    /// The timeout sent to remote workers; the trainer enforces its own deadline.
    pub timeout_seconds: u64,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            id: None,
            input: Value::Null,
            is_train: true,
            metadata: Map::new(),
            remote: false,
            timeout_seconds: 3600,
        }
    }
}

/// The gateway's addresses for the agent of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// OpenAI's base URL (`…/openai/v1`): OPENAI_BASE_URL, AGL_OPENAI_BASE_URL.
    pub openai: String,
    /// Anthropic's base URL (`…/anthropic`, to which its client adds `/v1/messages`).
    pub anthropic: String,
    /// The URL for posting events: AGL_EVENT_URL.
    pub events: String,
    /// The key to send; not empty even if the server needs none, because clients reject an empty
    /// one: OPENAI_API_KEY, ANTHROPIC_API_KEY, AGL_KEY.
    pub key: String,
}

/// An event of a rollout outside the model, in order; each is durable before it is reported. Only
/// events of the current attempt are reported.
#[derive(Debug, Clone, PartialEq)]
pub enum RolloutEvent {
    /// A remote worker claimed it.
    Claimed { worker: String },
    /// The worker's lease expired. The rollout is requeued and later events belong to a new
    /// attempt: discard what the old one reported.
    Requeued { worker: String },
    /// The agent's answer, for the suite's scorer. The last one counts.
    Answer(String),
    /// The agent's own reward, finite. The last one counts.
    Reward(f64),
    /// A finite reward of one call besides the outcome's: of the call with this number, from 0, or of
    /// the latest one.
    ProcessReward { call: Option<usize>, value: f64 },
    /// A signal for credit rules (`tool_error`, `empty_result`, or an agent-defined name).
    Signal { kind: String, detail: String },
    /// An event of another type, stored unchecked.
    Other { event_type: String, data: Value },
    /// A worker or controller ended it. [`Registered::finish`] must still be called.
    Ended(Ended),
}

/// How a rollout ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Succeeded,
    /// The reason, as one sentence.
    Failed(String),
}

/// Why a rollout could not be registered or ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RolloutError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the gateway has no address yet: register rollouts after it listens")]
    NoAddress,
    #[error("rollout {0} already exists; ids of registered rollouts cannot be reused")]
    Taken(String),
    #[error("{0}")]
    InvalidId(String),
}

/// The registered rollouts of this process's trainer. Clones share them.
#[derive(Clone)]
pub struct Rollouts {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    key: Option<String>,
    /// `http://host:port`, set once the gateway listens.
    url: OnceLock<String>,
    hosted: RwLock<HashMap<String, Arc<Hosted>>>,
}

/// The gateway's state of a registered rollout.
pub(super) struct Hosted {
    pub(super) backend: Arc<dyn Backend>,
    /// The current attempt.
    attempt: Mutex<String>,
    happenings: UnboundedSender<RolloutEvent>,
}

impl Hosted {
    pub(super) fn attempt(&self) -> String {
        self.attempt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notifies the trainer, unless `attempt` is no longer current.
    pub(super) fn notify(&self, attempt: &str, happening: RolloutEvent) {
        let current = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == attempt {
            // A closed receiver means that the trainer has ended the rollout.
            let _ = self.happenings.send(happening);
        }
    }

    /// Makes `attempt` the current one.
    fn replace(&self, attempt: &str) {
        attempt.clone_into(&mut self.attempt.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Makes `attempt` the current one and notifies the trainer why.
    pub(super) fn begin(&self, attempt: &str, happening: RolloutEvent) {
        let mut current = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
        attempt.clone_into(&mut current);
        let _ = self.happenings.send(happening);
    }
}

impl Rollouts {
    pub(super) fn new(store: Store, key: Option<String>) -> Self {
        let shared =
            Shared { store, key, url: OnceLock::new(), hosted: RwLock::new(HashMap::new()) };
        Self { shared: Arc::new(shared) }
    }

    /// Sets the URL by which agents reach the gateway; only the first call takes effect.
    pub(super) fn set_url(&self, url: String) {
        let _ = self.shared.url.set(url);
    }

    /// Creates a rollout whose calls `backend` answers. Durable on return.
    ///
    /// # Errors
    /// If the gateway does not listen yet, the id is in use or invalid, or the store fails.
    pub async fn register(
        &self,
        spec: RolloutSpec,
        backend: Arc<dyn Backend>,
    ) -> Result<Registered, RolloutError> {
        if self.shared.url.get().is_none() {
            return Err(RolloutError::NoAddress);
        }
        let id = match spec.id {
            Some(id) => {
                super::ids::check("rollout_id", &id).map_err(RolloutError::InvalidId)?;
                id
            }
            None => super::ids::random(),
        };
        let (happenings, receiver) = unbounded_channel();
        let attempt = Mutex::new(DEFAULT_ATTEMPT.to_owned());
        let hosted = Arc::new(Hosted { backend, attempt, happenings });
        // Register before storing: a worker may claim it as soon as it is stored.
        {
            let mut all = self.shared.hosted.write().unwrap_or_else(PoisonError::into_inner);
            if all.contains_key(&id) {
                return Err(RolloutError::Taken(id));
            }
            all.insert(id.clone(), hosted.clone());
        }
        let mut registered = Registered {
            rollouts: self.clone(),
            id: id.clone(),
            is_train: spec.is_train,
            remote: spec.remote,
            hosted,
            receiver,
            over: false,
        };
        let mut config = default_config();
        config.insert("timeout_seconds".into(), spec.timeout_seconds.into());
        let new = NewRollout {
            id: Some(id.clone()),
            input: spec.input,
            is_train: spec.is_train,
            config,
            metadata: spec.metadata,
            claimable: spec.remote,
            hosted: true,
        };
        let created = self.shared.store.create(vec![new]).await?;
        if created.iter().any(|(_, existed)| *existed) {
            // It belongs to another owner, so it must not be marked as failed.
            registered.over = true;
            registered.unregister();
            return Err(RolloutError::Taken(id));
        }
        if !spec.remote {
            let running =
                StatusPatch { state: Some(RolloutState::Running), ..StatusPatch::default() };
            self.shared.store.patch(&id, running).await?;
        }
        Ok(registered)
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Hosted>> {
        self.shared.hosted.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Notifies the trainer of a durable event.
    pub(super) fn report(&self, id: &str, attempt: &str, report: Report) {
        if let Some(hosted) = self.find(id) {
            hosted.notify(attempt, reports::happening(report));
        }
    }

    /// Notifies the trainer that a worker or controller ended a rollout.
    pub(super) fn ended(&self, id: &str, patch: StatusPatch) {
        let Some(hosted) = self.find(id) else { return };
        let ended = match patch.state {
            Some(RolloutState::Succeeded) => Ended::Succeeded,
            _ => Ended::Failed(
                patch.error_message.flatten().unwrap_or_else(|| "no reason was given".into()),
            ),
        };
        hosted.notify(&hosted.attempt(), RolloutEvent::Ended(ended));
    }

    /// Number of registered rollouts that are not finished.
    pub fn count(&self) -> usize {
        self.shared.hosted.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The addresses for an attempt of any rollout.
    pub(super) fn addresses(&self, id: &str, attempt: &str, is_train: bool) -> Option<Addresses> {
        let url = self.shared.url.get()?;
        let mode = if is_train { "train" } else { "val" };
        let proxy = format!("{url}/proxy/rollout/{id}/attempt/{attempt}/mode/{mode}");
        Some(Addresses {
            openai: format!("{proxy}/openai/v1"),
            anthropic: format!("{proxy}/anthropic"),
            events: format!("{url}/api/rollouts/{id}/attempt/{attempt}/events"),
            key: self.shared.key.clone().unwrap_or_else(|| "none".to_owned()),
        })
    }
}

/// A running rollout. If dropped without [`finish`](Self::finish), it fails.
pub struct Registered {
    rollouts: Rollouts,
    id: String,
    is_train: bool,
    remote: bool,
    hosted: Arc<Hosted>,
    receiver: UnboundedReceiver<RolloutEvent>,
    over: bool,
}

impl Registered {
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The gateway's addresses for the agent of the current attempt.
    pub fn addresses(&self) -> Addresses {
        // Rollouts are registered only once there is a URL.
        self.rollouts.addresses(&self.id, &self.hosted.attempt(), self.is_train).unwrap_or_else(
            || Addresses {
                openai: String::new(),
                anthropic: String::new(),
                events: String::new(),
                key: String::new(),
            },
        )
    }

    /// The next event. Cancel-safe: may be a branch of a `select!`.
    pub async fn next(&mut self) -> Option<RolloutEvent> {
        self.receiver.recv().await
    }

    /// The next event that is already available, without waiting.
    pub fn try_next(&mut self) -> Option<RolloutEvent> {
        self.receiver.try_recv().ok()
    }

    /// Begins another attempt with new [`addresses`](Self::addresses), for example after the agent
    /// died; a remote rollout is queued for the next worker. Later events of the old attempt are
    /// stored and ignored, its calls are refused, and its pending reports are discarded.
    ///
    /// # Errors
    /// If the store fails or the rollout is finished.
    pub async fn retry(&mut self) -> Result<(), RolloutError> {
        let attempt = self.rollouts.shared.store.next_attempt(&self.id, self.remote).await?;
        self.hosted.replace(&attempt);
        while self.receiver.try_recv().is_ok() {}
        Ok(())
    }

    /// Ends the rollout: later calls are refused with 410, later events are stored and ignored.
    ///
    /// # Errors
    /// If the store fails. It is no error if a worker or controller ended it before.
    pub async fn finish(mut self, ended: Ended) -> Result<(), RolloutError> {
        self.over = true;
        self.unregister();
        match self.rollouts.shared.store.patch(&self.id, patch(ended)).await {
            Ok(_) | Err(StoreError::Transition { .. } | StoreError::UnknownRollout(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn unregister(&self) {
        let mut all = self.rollouts.shared.hosted.write().unwrap_or_else(PoisonError::into_inner);
        if all.get(&self.id).is_some_and(|hosted| Arc::ptr_eq(hosted, &self.hosted)) {
            all.remove(&self.id);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if !self.over {
            self.unregister();
            let why = Ended::Failed("the trainer dropped the rollout".into());
            self.rollouts.shared.store.patch_later(&self.id, patch(why));
        }
    }
}

fn patch(ended: Ended) -> StatusPatch {
    match ended {
        Ended::Succeeded => {
            StatusPatch { state: Some(RolloutState::Succeeded), ..StatusPatch::default() }
        }
        Ended::Failed(why) => StatusPatch {
            state: Some(RolloutState::Failed),
            error_message: Some(Some(why)),
            ..StatusPatch::default()
        },
    }
}
