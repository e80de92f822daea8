//! Blocks calls while weights are updated.
//!
//! v1 answers 429 immediately and leaves retrying to the client; a stock client gives up after two
//! retries, so an update longer than ten seconds kills its agent. Here a call waits, and gets 429
//! only after a deadline.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Admits or blocks model calls. Clones share one gate.
#[derive(Debug, Clone, Default)]
pub struct UpdateGate {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    closed: Option<Closed>,
    /// The server is shutting down: calls no longer wait.
    ending: bool,
    inflight: usize,
    waiting: usize,
}

/// Why calls are blocked, as given to `/proxy/pause`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub retry_after_seconds: u64,
    pub reason: Option<String>,
}

/// A snapshot of the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateState {
    pub closed: Option<Closed>,
    /// Admitted calls that are not answered yet.
    pub inflight: usize,
    /// Calls waiting for the gate to open.
    pub waiting: usize,
}

/// Why a call was not admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    Paused(Closed),
    Ending,
}

impl UpdateGate {
    /// Blocks new calls. Those in flight continue; [`Self::drained`] waits for them.
    pub fn close(&self, closed: Closed) {
        self.state().closed = Some(closed);
    }

    /// Admits calls again.
    pub fn open(&self) {
        self.state().closed = None;
        self.shared.changed.notify_waiters();
    }

    pub fn now(&self) -> GateState {
        let state = self.state();
        GateState { closed: state.closed.clone(), inflight: state.inflight, waiting: state.waiting }
    }

    /// Returns once no call is in flight.
    pub async fn drained(&self) {
        loop {
            let changed = self.shared.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // Subscribe before checking, so that no notification is missed.
            changed.as_mut().enable();
            if self.state().inflight == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Rejects waiting and new calls: the server is shutting down.
    pub(super) fn end(&self) {
        self.state().ending = true;
        self.shared.changed.notify_waiters();
    }

    /// Passes the gate, waiting for at most `deadline`.
    pub(super) async fn enter(&self, deadline: Duration) -> Result<Passed, NotAdmitted> {
        if let Some(passed) = self.try_enter()? {
            return Ok(passed);
        }
        let _waiting = Waiting::new(self);
        let until = Instant::now() + deadline;
        loop {
            let changed = self.shared.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if let Some(passed) = self.try_enter()? {
                return Ok(passed);
            }
            if tokio::time::timeout_at(until, changed).await.is_err() {
                let closed = self.state().closed.clone();
                match closed {
                    Some(closed) => return Err(NotAdmitted::Paused(closed)),
                    // It opened just before the timeout.
                    None => continue,
                }
            }
        }
    }

    fn try_enter(&self) -> Result<Option<Passed>, NotAdmitted> {
        let mut state = self.state();
        if state.ending {
            return Err(NotAdmitted::Ending);
        }
        if state.closed.is_some() {
            return Ok(None);
        }
        state.inflight += 1;
        Ok(Some(Passed { gate: self.clone() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call in flight, until it is dropped.
#[derive(Debug)]
pub(super) struct Passed {
    gate: UpdateGate,
}

impl Drop for Passed {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.inflight -= 1;
        if state.inflight == 0 {
            drop(state);
            self.gate.shared.changed.notify_waiters();
        }
    }
}

struct Waiting<'a>(&'a UpdateGate);

impl<'a> Waiting<'a> {
    fn new(gate: &'a UpdateGate) -> Self {
        gate.state().waiting += 1;
        Self(gate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}
