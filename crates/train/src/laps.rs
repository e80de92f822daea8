//! Durations of the parts of a step.

use std::time::Instant;

use leyden_core::record::Timing;

/// A clock that records consecutive parts of a step.
pub(crate) struct Laps<'t> {
    pub timing: &'t mut Timing,
    started: Instant,
}

impl<'t> Laps<'t> {
    pub fn start(timing: &'t mut Timing) -> Self {
        Self { timing, started: Instant::now() }
    }

    /// Records the duration of `part`, which ends now; the next part starts.
    pub fn end(&mut self, part: &str) {
        self.timing.seconds.insert(part.to_owned(), self.started.elapsed().as_secs_f64());
        self.started = Instant::now();
    }
}
