//! How a trainer in this process has rollouts done by agents outside of it.
//!
//! The trainer registers a rollout together with the [`Backend`] that answers its calls, hands
//! the returned addresses to an agent (as environment variables, or through a remote worker's
//! claim), and listens to what the agent reports. Requests find their backend by the rollout's
//! id in their URL, so an agent needs no word about training.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use leyden_serve::backend::Backend;
//! # use leyden_serve::gateway::{Ended, Happening, RolloutError, RolloutSpec, Rollouts};
//! # async fn one(rollouts: Rollouts, backend: Arc<dyn Backend>) -> Result<(), RolloutError> {
//! let spec = RolloutSpec { input: serde_json::json!({"question": "1 + 1"}), ..Default::default() };
//! let mut rollout = rollouts.register(spec, backend).await?;
//! // … start the agent with rollout.addresses() in its environment …
//! while let Some(happening) = rollout.next().await {
//!     if let Happening::Reward(_) = happening {
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

/// What a trainer says of a rollout when it registers it.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutSpec {
    /// Unique for ever; `None` lets the store draw one, which is what a trainer wants that may
    /// be killed and do a step again.
    pub id: Option<String>,
    /// The task, in whatever form the agent expects: `input` in v1's API and in claims.
    pub input: Value,
    /// Which mode the addresses name: `train` or `val`.
    pub is_train: bool,
    /// For readers of the store: step, group, task id.
    pub metadata: Map<String, Value>,
    /// `true` queues the rollout until a remote worker claims it; `false` runs it at once, by
    /// an agent that the trainer starts.
    pub remote: bool,
    /// What a remote worker is told; the trainer keeps the deadline itself.
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

/// Where an agent reaches the gateway on behalf of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// OpenAI's base URL (`…/openai/v1`): OPENAI_BASE_URL, AGL_OPENAI_BASE_URL.
    pub openai: String,
    /// Anthropic's base URL (`…/anthropic`, to which its client adds `/v1/messages`).
    pub anthropic: String,
    /// Where events are posted: AGL_EVENT_URL.
    pub events: String,
    /// The key to send; not empty even where the server needs none, because clients refuse an
    /// empty one: OPENAI_API_KEY, ANTHROPIC_API_KEY, AGL_KEY.
    pub key: String,
}

/// What happened in a rollout outside the model, in order, each durable before it is told.
/// Only the attempt that counts is heard.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// A remote worker took it.
    Claimed { worker: String },
    /// The worker's lease ran out. The rollout is queued again, and what comes next belongs to
    /// a new attempt: forget what the old one said.
    Requeued { worker: String },
    /// The agent's answer, for the suite's scorer. The last one counts.
    Answer(String),
    /// The agent's own reward, finite. The last one counts.
    Reward(f64),
    /// Something a credit rule may use (`tool_error`, `empty_result`, a name of the agent's
    /// own).
    Signal { kind: String, detail: String },
    /// An event of another type, kept for readers.
    Other { event_type: String, data: Value },
    /// A worker or controller declared it over. [`Registered::finish`] is still to be called.
    Ended(Ended),
}

/// How a rollout ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Succeeded,
    /// Why, as one sentence.
    Failed(String),
}

/// Why a rollout could not be registered or ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RolloutError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the gateway has no address yet: rollouts are registered after it listens")]
    NoAddress,
    #[error("rollout {0} exists already; ids of registered rollouts are used once")]
    Taken(String),
    #[error("{0}")]
    InvalidId(String),
}

/// The rollouts of this process's trainer. Clones share them.
#[derive(Clone)]
pub struct Rollouts {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    key: Option<String>,
    /// `http://host:port`, known once the gateway listens.
    url: OnceLock<String>,
    hosted: RwLock<HashMap<String, Arc<Hosted>>>,
}

/// What the gateway knows of a registered rollout.
pub(super) struct Hosted {
    pub(super) backend: Arc<dyn Backend>,
    /// The attempt that counts.
    attempt: Mutex<String>,
    happenings: UnboundedSender<Happening>,
}

impl Hosted {
    pub(super) fn attempt(&self) -> String {
        self.attempt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells the trainer, unless `attempt` counts no longer.
    pub(super) fn tell(&self, attempt: &str, happening: Happening) {
        let current = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == attempt {
            // A trainer that listens no longer has ended the rollout.
            let _ = self.happenings.send(happening);
        }
    }

    /// Makes `attempt` the one that counts.
    fn replace(&self, attempt: &str) {
        attempt.clone_into(&mut self.attempt.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Makes `attempt` the one that counts and tells the trainer why.
    pub(super) fn begin(&self, attempt: &str, happening: Happening) {
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

    /// Fixes the URL under which agents reach the gateway; the first call counts.
    pub(super) fn set_url(&self, url: String) {
        let _ = self.shared.url.set(url);
    }

    /// Creates a rollout whose calls `backend` answers. Durable when it returns.
    ///
    /// # Errors
    /// Where the gateway does not listen yet, the id is taken or not allowed, or the store
    /// fails.
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
        // Known before it is stored: a worker may claim it the moment that it is.
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
            // Not ours to fail.
            registered.over = true;
            registered.forget();
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

    /// Tells the trainer of an event that is durable now.
    pub(super) fn report(&self, id: &str, attempt: &str, report: Report) {
        if let Some(hosted) = self.find(id) {
            hosted.tell(attempt, reports::happening(report));
        }
    }

    /// Tells the trainer that a worker or controller ended a rollout.
    pub(super) fn ended(&self, id: &str, patch: StatusPatch) {
        let Some(hosted) = self.find(id) else { return };
        let ended = match patch.state {
            Some(RolloutState::Succeeded) => Ended::Succeeded,
            _ => Ended::Failed(
                patch.error_message.flatten().unwrap_or_else(|| "no reason was given".into()),
            ),
        };
        hosted.tell(&hosted.attempt(), Happening::Ended(ended));
    }

    /// How many rollouts are registered and not over.
    pub fn count(&self) -> usize {
        self.shared.hosted.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The addresses of an attempt of any rollout.
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

/// A rollout in the hands of an agent. Dropped without [`finish`](Self::finish), it fails.
pub struct Registered {
    rollouts: Rollouts,
    id: String,
    is_train: bool,
    remote: bool,
    hosted: Arc<Hosted>,
    receiver: UnboundedReceiver<Happening>,
    over: bool,
}

impl Registered {
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where the agent of the current attempt reaches the gateway.
    pub fn addresses(&self) -> Addresses {
        // Registered only once there is an URL.
        self.rollouts.addresses(&self.id, &self.hosted.attempt(), self.is_train).unwrap_or_else(
            || Addresses {
                openai: String::new(),
                anthropic: String::new(),
                events: String::new(),
                key: String::new(),
            },
        )
    }

    /// The next thing that happens. Cancel-safe: may be one branch of a `select!`.
    pub async fn next(&mut self) -> Option<Happening> {
        self.receiver.recv().await
    }

    /// What has happened by now, without waiting.
    pub fn try_next(&mut self) -> Option<Happening> {
        self.receiver.try_recv().ok()
    }

    /// Begins another attempt with new [`addresses`](Self::addresses), as after an agent that
    /// died; a remote rollout is queued for the next worker. What the old attempt still sends
    /// is kept and ignored, its calls are refused, and what it reported before is forgotten.
    ///
    /// # Errors
    /// Where the store fails or the rollout is over.
    pub async fn retry(&mut self) -> Result<(), RolloutError> {
        let attempt = self.rollouts.shared.store.next_attempt(&self.id, self.remote).await?;
        self.hosted.replace(&attempt);
        while self.receiver.try_recv().is_ok() {}
        Ok(())
    }

    /// Ends the rollout: later calls are refused with 410, later events are kept and ignored.
    ///
    /// # Errors
    /// Where the store fails. That a worker or controller ended it before is no error.
    pub async fn finish(mut self, ended: Ended) -> Result<(), RolloutError> {
        self.over = true;
        self.forget();
        match self.rollouts.shared.store.patch(&self.id, patch(ended)).await {
            Ok(_) | Err(StoreError::Transition { .. } | StoreError::UnknownRollout(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn forget(&self) {
        let mut all = self.rollouts.shared.hosted.write().unwrap_or_else(PoisonError::into_inner);
        if all.get(&self.id).is_some_and(|hosted| Arc::ptr_eq(hosted, &self.hosted)) {
            all.remove(&self.id);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if !self.over {
            self.forget();
            let why = Ended::Failed("the trainer gave it up".into());
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
