//! Rollouts, calls and events in SQLite: what was acknowledged survives a power cut.
