//! How long the parts of a step take.

use std::time::Instant;

use leyden_core::record::Timing;

/// A clock that notes the parts of a step one after the other.
pub(crate) struct Laps<'t> {
    pub timing: &'t mut Timing,
    started: Instant,
}

impl<'t> Laps<'t> {
    pub fn start(timing: &'t mut Timing) -> Self {
        Self { timing, started: Instant::now() }
    }

    /// Notes how long `part` took, which ends here; the next one begins.
    pub fn end(&mut self, part: &str) {
        self.timing.seconds.insert(part.to_owned(), self.started.elapsed().as_secs_f64());
        self.started = Instant::now();
    }
}
