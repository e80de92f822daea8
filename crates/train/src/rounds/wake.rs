//! Wakers for rollouts whose agents wait for a model, a tool or a process.
//!
//! Every rollout has a [`Wake`], which any thread may set; all of them notify one [`Notifier`], on
//! which the polling loop waits when no rollout is awake.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

/// Notified when any rollout can proceed.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    notified: Mutex<bool>,
    changed: Condvar,
}

impl Notifier {
    pub fn notify(&self) {
        *self.notified.lock().unwrap_or_else(|e| e.into_inner()) = true;
        self.changed.notify_all();
    }

    /// Waits for a notification since the last wait, or until `until`.
    pub fn wait(&self, until: Option<Instant>) {
        let mut notified = self.notified.lock().unwrap_or_else(|e| e.into_inner());
        while !*notified {
            notified = match until {
                None => self.changed.wait(notified).unwrap_or_else(|e| e.into_inner()),
                Some(until) => {
                    let Some(left) = until.checked_duration_since(Instant::now()) else { break };
                    let waited = self.changed.wait_timeout(notified, left);
                    waited.unwrap_or_else(|e| e.into_inner()).0
                }
            };
        }
        *notified = false;
    }
}

/// Whether one rollout can proceed.
#[derive(Debug)]
pub(super) struct Wake {
    awake: Arc<AtomicBool>,
    notifier: Arc<Notifier>,
}

impl Wake {
    /// Initially awake.
    pub fn new(notifier: Arc<Notifier>) -> Self {
        Self { awake: Arc::new(AtomicBool::new(true)), notifier }
    }

    /// The flag, for reading without holding a reference to the waker: references are counted to
    /// detect rollouts that can never be woken.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.awake)
    }

    /// Clears the flag; returns whether it was set.
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
        self.notifier.notify();
    }
}
