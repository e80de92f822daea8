//! Recognises a request that was sent before.
//!
//! A client that lost its connection sends the request again. Generating again would give the
//! rollout a call that its agent never saw. Two marks tell a repetition from an agent that asks
//! the same question twice, as best-of-n does: an `Idempotency-Key`, or the retry count that
//! OpenAI's and Anthropic's clients send, together with the same rollout, attempt and body. A
//! repetition waits for the first request where that is in flight, and gets what was recorded.
//! By the retry count alone only an answer counts that no client received: one whose
//! connection broke, or that was recorded shortly before the server was killed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::error::Refusal;
use crate::call::Endpoint;
use crate::store::{RecordedCall, Repeated, Store, seconds};

/// Most answers remembered that nobody received.
const UNDELIVERED: usize = 4096;
/// Seconds after which no client tries again; their own deadline is 600 s.
const TOO_LATE: f64 = 900.0;

/// What makes two requests of one attempt the same.
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

/// What the headers and body of a call say of repetition.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) rollout_id: String,
    pub(super) attempt_id: String,
    /// Digest of endpoint and body.
    pub(super) body: [u8; 16],
    /// Digest of the `Idempotency-Key`, which its event is kept under.
    pub(super) key: Option<Vec<u8>>,
    /// Whether the client says that it asks again.
    is_retry: bool,
}

impl Asked {
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

/// Requests in flight and answers that nobody received.
pub(super) struct Retries {
    state: Mutex<State>,
    /// When this process began; what was recorded before may not have been received.
    began: f64,
}

#[derive(Default)]
struct State {
    in_flight: HashMap<Identity, Vec<watch::Receiver<()>>>,
    undelivered: VecDeque<(Identity, i64)>,
    /// Events of earlier processes that were given out again.
    taken: HashSet<i64>,
}

impl Default for Retries {
    fn default() -> Self {
        Self { state: Mutex::default(), began: seconds() }
    }
}

/// A request in flight. The recorder and the response's body share it; when both are done it
/// is known whether the answer was recorded and whether it was received.
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
    /// The call is recorded as this event.
    pub(super) fn recorded(&self, event: i64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).event = Some(event);
    }

    /// The whole response was handed to the connection.
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
            if state.undelivered.len() == UNDELIVERED {
                state.undelivered.pop_front();
            }
            state.undelivered.push_back((self.identity.clone(), event));
        }
    }
}

/// What becomes of a request.
pub(super) enum Begun {
    New(Arc<InFlight>),
    Repeated(Box<RecordedCall>),
}

impl Retries {
    /// Looks whether `asked` repeats an earlier request; waits for that one if it is in flight.
    pub(super) async fn begin(
        self: &Arc<Self>,
        asked: &Asked,
        store: &Store,
    ) -> Result<Begun, Refusal> {
        let identity = asked.identity();
        if asked.key.is_none() && !asked.is_retry {
            return Ok(Begun::New(self.enter(identity)));
        }
        let mine = loop {
            match self.enter_or_wait(&identity) {
                Ok(mine) => break mine,
                // Its end closes the channel.
                Err(mut first) => while first.changed().await.is_ok() {},
            }
        };
        match self.find(asked, &identity, store).await? {
            Some(call) => {
                // This request is nobody's original.
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

    /// Of several equal requests in flight, a retry may belong to any: only a single one is
    /// waited for.
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
        asked: &Asked,
        identity: &Identity,
        store: &Store,
    ) -> Result<Option<RecordedCall>, Refusal> {
        let repeated = match (&asked.key, self.take_undelivered(identity)) {
            (Some(key), _) => Repeated::Key(key.clone()),
            (None, Some(event)) => Repeated::Event(event),
            (None, None) => Repeated::Body(asked.body),
        };
        let by_body = matches!(repeated, Repeated::Body(_));
        let found = store.recorded(&asked.rollout_id, &asked.attempt_id, repeated).await?;
        let call = if by_body { self.take_earlier(found) } else { found.into_iter().next() };
        if let Some(call) = &call
            && call.body.is_some_and(|body| body != asked.body)
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

    /// The first call that an earlier process recorded shortly before its end, once.
    fn take_earlier(&self, found: Vec<RecordedCall>) -> Option<RecordedCall> {
        let mut state = self.state();
        found.into_iter().find(|call| {
            let recent = call.timestamp < self.began && call.timestamp > seconds() - TOO_LATE;
            recent && state.taken.insert(call.event)
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
