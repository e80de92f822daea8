//! Observers of running rollouts.

use leyden_core::record::Flight;

/// Receives the progress of rollouts.
pub trait Watch {
    /// Called with the number of rollouts that have ended.
    fn ended(&self, count: usize) {
        let _ = count;
    }

    /// Whether [`Watch::flight`] should be called, which costs some copying.
    fn wants_progress(&self) -> bool {
        false
    }

    /// Progress of the rollouts, after every round or a few times a second.
    fn flight(&self, flight: Flight) {
        let _ = flight;
    }
}

/// Discards all reports.
impl Watch for () {}

/// Calls a function with the number of rollouts that have ended.
pub struct Ended<F>(pub F);

impl<F: Fn(usize)> Watch for Ended<F> {
    fn ended(&self, count: usize) {
        (self.0)(count);
    }
}
