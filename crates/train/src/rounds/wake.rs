//! Who is awake: wakers for rollouts whose agents wait for a model, a tool, a process.
//!
//! Every rollout has a [`Wake`], which any thread may set; all of them ring one [`Bell`], at
//! which the loop that polls the rollouts waits when nobody is awake.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

/// Rung when any rollout can go on.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        *self.rung.lock().unwrap_or_else(|e| e.into_inner()) = true;
        self.changed.notify_all();
    }

    /// Waits until the bell was rung since the last wait, or until `until`.
    pub fn wait(&self, until: Option<Instant>) {
        let mut rung = self.rung.lock().unwrap_or_else(|e| e.into_inner());
        while !*rung {
            rung = match until {
                None => self.changed.wait(rung).unwrap_or_else(|e| e.into_inner()),
                Some(until) => {
                    let Some(left) = until.checked_duration_since(Instant::now()) else { break };
                    let waited = self.changed.wait_timeout(rung, left);
                    waited.unwrap_or_else(|e| e.into_inner()).0
                }
            };
        }
        *rung = false;
    }
}

/// Whether one rollout can go on.
#[derive(Debug)]
pub(super) struct Wake {
    awake: Arc<AtomicBool>,
    bell: Arc<Bell>,
}

impl Wake {
    /// Awake: a new rollout has everything to do.
    pub fn new(bell: Arc<Bell>) -> Self {
        Self { awake: Arc::new(AtomicBool::new(true)), bell }
    }

    /// Says whether it is awake, without being a waker: wakers are counted, to know of a
    /// rollout that nobody will ever wake.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.awake)
    }

    /// Whether it was awake; it no longer is.
    pub fn take(&self) -> bool {
        self.awake.swap(false, Ordering::AcqRel)
    }
}

impl std::task::Wake for Wake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.awake.store(true, Ordering::Release);
        self.bell.ring();
    }
}
