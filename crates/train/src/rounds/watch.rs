//! Whoever watches rollouts while they run.

use leyden_core::record::Flight;

/// Whoever wants to know how far the rollouts are.
pub trait Watch {
    /// So many have ended.
    fn ended(&self, count: usize) {
        let _ = count;
    }

    /// Whether [`Watch::flight`] is to be called, which costs some copying.
    fn wants_flight(&self) -> bool {
        false
    }

    /// Where they stand, after every round or a few times a second.
    fn flight(&self, flight: Flight) {
        let _ = flight;
    }
}

/// Discards all reports.
impl Watch for () {}

/// Wants to know how many have ended.
pub struct Ended<F>(pub F);

impl<F: Fn(usize)> Watch for Ended<F> {
    fn ended(&self, count: usize) {
        (self.0)(count);
    }
}
