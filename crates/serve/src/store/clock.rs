//! The time of a store: seconds since 1970 that never jump.
//!
//! The system's clock may be set while the server runs, or between two runs. Leases, retention and
//! the window for retries compare times, so a backward jump would keep the rollouts of a dead
//! worker leased, and a forward jump would take those of a live one. A store therefore reads the
//! system's clock once, on open, and then counts monotonically; and it begins no earlier than the
//! latest time in its file. Time in which the machine is suspended is not counted.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

/// Seconds by which a store begins after the latest time in its file, so that all times of an
/// earlier process are strictly earlier.
const LATER: f64 = 0.001;

/// A monotonic clock. Copies agree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// Seconds since 1970 at `since`.
    base: f64,
    since: Instant,
}

impl Clock {
    /// The clock of the store in `db`.
    ///
    /// # Errors
    /// Database errors.
    pub(super) fn of(db: &Connection) -> rusqlite::Result<Self> {
        // Events and their times have the same order.
        let latest: f64 = db.query_row(
            "SELECT max(coalesce((SELECT max(updated_at) FROM rollouts), 0),
                        coalesce((SELECT timestamp FROM events ORDER BY seq DESC LIMIT 1), 0))",
            [],
            |row| row.get(0),
        )?;
        let system = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        Ok(Self::starting(system, latest))
    }

    /// A clock that starts at `system`, or after `latest` if the system's clock was set back.
    fn starting(system: f64, latest: f64) -> Self {
        Self { base: system.max(latest + LATER), since: Instant::now() }
    }

    /// Seconds since 1970.
    pub(super) fn now(&self) -> f64 {
        self.base + self.since.elapsed().as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_behind_the_file() {
        let ahead = Clock::starting(1_000.0, 5_000.0);
        assert!(ahead.now() > 5_000.0);
        let first = ahead.now();
        assert!(ahead.now() >= first);
        let usual = Clock::starting(6_000.0, 5_000.0).now();
        assert!((6_000.0..7_000.0).contains(&usual));
    }
}
