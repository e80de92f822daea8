//! Holds calls back while weights are updated.
//!
//! v1 answers 429 at once and leaves the waiting to the client; a stock client gives up after
//! two tries, so an update of more than ten seconds kills its agent. Here a call waits, and
//! gets 429 only past a deadline.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Opens and closes the way to the model. Clones are the same gate.
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
    /// The server is going down: nobody waits any more.
    ending: bool,
    inflight: usize,
    waiting: usize,
}

/// Why calls wait, as `/proxy/pause` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub retry_after_seconds: u64,
    pub reason: Option<String>,
}

/// How the gate stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateState {
    pub closed: Option<Closed>,
    /// Calls that passed and are not answered yet.
    pub inflight: usize,
    /// Calls that wait before it.
    pub waiting: usize,
}

/// Why a call did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Turned {
    Paused(Closed),
    Ending,
}

impl UpdateGate {
    /// Holds back calls that come from now on. Those in flight go on; [`Self::drained`] waits
    /// for them.
    pub fn close(&self, closed: Closed) {
        self.state().closed = Some(closed);
    }

    /// Lets everything through.
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
            // From here on no change is missed, also between the look and the wait.
            changed.as_mut().enable();
            if self.state().inflight == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Turns away whoever waits and whoever comes: the server is going down.
    pub(super) fn end(&self) {
        self.state().ending = true;
        self.shared.changed.notify_waiters();
    }

    /// Passes the gate, waiting for at most `deadline`.
    pub(super) async fn enter(&self, deadline: Duration) -> Result<Passed, Turned> {
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
                    Some(closed) => return Err(Turned::Paused(closed)),
                    // It opened in the last moment.
                    None => continue,
                }
            }
        }
    }

    fn try_enter(&self) -> Result<Option<Passed>, Turned> {
        let mut state = self.state();
        if state.ending {
            return Err(Turned::Ending);
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
