//! Detects retried requests.
//!
//! A client that lost its connection sends the request again. Generating again would add a call to
//! the rollout that its agent never saw. Two marks distinguish a retry from an agent that asks the
//! same question twice (as best-of-n does): an `Idempotency-Key`, or the retry count that OpenAI's
//! and Anthropic's clients send, together with the same rollout, attempt and body. A retry waits
//! for the first request if that is in flight, and gets the recorded answer. With a retry count
//! alone, only answers that no client received are reused: those whose connection broke, or that
//! were recorded shortly before the server was killed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::error::Refusal;
use crate::call::Endpoint;
use crate::store::{RecordedCall, Repeated, Store};

/// Maximum number of undelivered answers remembered.
const MAX_UNDELIVERED: usize = 4096;
/// Seconds after which no client retries; their own timeout is 600 s.
const RETRY_WINDOW: f64 = 900.0;

/// The key by which two requests of one attempt are considered equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Mark {
    Key(Vec<u8>),
    Body([u8; 16]),
}

/// A request's identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    rollout_id: String,
    attempt_id: String,
    mark: Mark,
}

/// The retry-related parts of a call's headers and body.
#[derive(Debug, Clone)]
pub(super) struct RetryInfo {
    pub(super) rollout_id: String,
    pub(super) attempt_id: String,
    /// Digest of endpoint and body.
    pub(super) body: [u8; 16],
    /// Digest of the `Idempotency-Key`, under which its event is stored.
    pub(super) key: Option<Vec<u8>>,
    /// Whether the client marks this request as a retry.
    is_retry: bool,
}

impl RetryInfo {
    pub(super) fn read(
        rollout_id: &str,
        attempt_id: &str,
        endpoint: Endpoint,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Self {
        let mut digest = Sha256::new();
        digest.update(endpoint.path());
        digest.update([0]);
        digest.update(body);
        let digest = digest.finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        let key = headers.get("idempotency-key").map(|key| event_key(attempt_id, key.as_bytes()));
        let count = headers.get("x-stainless-retry-count").and_then(|count| count.to_str().ok());
        Self {
            rollout_id: rollout_id.to_owned(),
            attempt_id: attempt_id.to_owned(),
            body: half,
            key,
            is_retry: count.is_some_and(|count| count.parse::<u32>().is_ok_and(|count| count > 0)),
        }
    }

    fn identity(&self) -> Identity {
        let mark = match &self.key {
            Some(key) => Mark::Key(key.clone()),
            None => Mark::Body(self.body),
        };
        Identity { rollout_id: self.rollout_id.clone(), attempt_id: self.attempt_id.clone(), mark }
    }
}

/// The key of an event that was sent with an `Idempotency-Key`.
pub(super) fn event_key(attempt_id: &str, key: &[u8]) -> Vec<u8> {
    let mut digest = Sha256::new();
    digest.update(attempt_id);
    digest.update([0]);
    digest.update(key);
    digest.finalize()[..16].to_vec()
}

/// Requests in flight and undelivered answers.
pub(super) struct Retries {
    state: Mutex<State>,
    /// Start time of this process, by the store's clock; answers recorded earlier may be
    /// undelivered.
    began: f64,
}

#[derive(Default)]
struct State {
    in_flight: HashMap<Identity, Vec<watch::Receiver<()>>>,
    undelivered: VecDeque<(Identity, i64)>,
    /// Events of earlier processes that were already replayed.
    taken: HashSet<i64>,
}

/// A request in flight, shared by the recorder and the response's body; once both drop it, it is
/// known whether the answer was recorded and whether it was received.
pub(super) struct InFlight {
    retries: Arc<Retries>,
    identity: Identity,
    state: Mutex<Outcome>,
    done: watch::Sender<()>,
}

#[derive(Default)]
struct Outcome {
    event: Option<i64>,
    delivered: bool,
}

impl InFlight {
    /// Sets the event under which the call is recorded.
    pub(super) fn recorded(&self, event: i64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).event = Some(event);
    }

    /// Marks the response as written completely to the connection.
    pub(super) fn delivered(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).delivered = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let outcome = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let lost = if outcome.delivered { None } else { outcome.event };
        let mut state = self.retries.state();
        if let Some(same) = state.in_flight.get_mut(&self.identity) {
            let mine = self.done.subscribe();
            same.retain(|other| !other.same_channel(&mine));
            if same.is_empty() {
                state.in_flight.remove(&self.identity);
            }
        }
        if let Some(event) = lost {
            if state.undelivered.len() == MAX_UNDELIVERED {
                state.undelivered.pop_front();
            }
            state.undelivered.push_back((self.identity.clone(), event));
        }
    }
}

/// Whether a request is new or a retry.
pub(super) enum Begun {
    New(Arc<InFlight>),
    Repeated(Box<RecordedCall>),
}

impl Retries {
    /// For a process that starts now.
    pub(super) fn new(store: &Store) -> Self {
        Self { state: Mutex::default(), began: store.now() }
    }

    /// Checks whether `retry_info` repeats an earlier request; waits for that one if it is in flight.
    pub(super) async fn begin(
        self: &Arc<Self>,
        retry_info: &RetryInfo,
        store: &Store,
    ) -> Result<Begun, Refusal> {
        let identity = retry_info.identity();
        if retry_info.key.is_none() && !retry_info.is_retry {
            return Ok(Begun::New(self.enter(identity)));
        }
        let mine = loop {
            match self.enter_or_wait(&identity) {
                Ok(mine) => break mine,
                // Its completion closes the channel.
                Err(mut first) => while first.changed().await.is_ok() {},
            }
        };
        match self.find(retry_info, &identity, store).await? {
            Some(call) => {
                // A replayed request is never itself undelivered.
                mine.delivered();
                Ok(Begun::Repeated(Box::new(call)))
            }
            None => Ok(Begun::New(mine)),
        }
    }

    fn enter(self: &Arc<Self>, identity: Identity) -> Arc<InFlight> {
        let (done, receiver) = watch::channel(());
        self.state().in_flight.entry(identity.clone()).or_default().push(receiver);
        Arc::new(InFlight { retries: self.clone(), identity, state: Mutex::default(), done })
    }

    /// With several equal requests in flight, a retry may belong to any of them: it waits only if
    /// there is exactly one.
    fn enter_or_wait(
        self: &Arc<Self>,
        identity: &Identity,
    ) -> Result<Arc<InFlight>, watch::Receiver<()>> {
        let mut state = self.state();
        if let Some([first]) = state.in_flight.get(identity).map(Vec::as_slice) {
            return Err(first.clone());
        }
        let (done, receiver) = watch::channel(());
        state.in_flight.entry(identity.clone()).or_default().push(receiver);
        let (retries, identity) = (self.clone(), identity.clone());
        Ok(Arc::new(InFlight { retries, identity, state: Mutex::default(), done }))
    }

    async fn find(
        &self,
        retry_info: &RetryInfo,
        identity: &Identity,
        store: &Store,
    ) -> Result<Option<RecordedCall>, Refusal> {
        let repeated = match (&retry_info.key, self.take_undelivered(identity)) {
            (Some(key), _) => Repeated::Key(key.clone()),
            (None, Some(event)) => Repeated::Event(event),
            (None, None) => Repeated::Body(retry_info.body),
        };
        let by_body = matches!(repeated, Repeated::Body(_));
        let found =
            store.recorded(&retry_info.rollout_id, &retry_info.attempt_id, repeated).await?;
        let call =
            if by_body { self.take_earlier(found, store.now()) } else { found.into_iter().next() };
        if let Some(call) = &call
            && call.body.is_some_and(|body| body != retry_info.body)
        {
            let message = "this Idempotency-Key was used with another body in this attempt";
            return Err(Refusal::new(axum::http::StatusCode::CONFLICT, message));
        }
        Ok(call)
    }

    fn take_undelivered(&self, identity: &Identity) -> Option<i64> {
        let mut state = self.state();
        let at = state.undelivered.iter().position(|(other, _)| other == identity)?;
        state.undelivered.remove(at).map(|(_, event)| event)
    }

    /// The first call that an earlier process recorded shortly before its end; each is returned
    /// once.
    fn take_earlier(&self, found: Vec<RecordedCall>, now: f64) -> Option<RecordedCall> {
        let mut state = self.state();
        found.into_iter().find(|call| {
            let recent = call.timestamp < self.began && call.timestamp > now - RETRY_WINDOW;
            recent && state.taken.insert(call.event)
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
