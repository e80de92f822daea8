//! The results of a run, for comparison.

use std::fs;
use std::path::Path;

use leyden_core::record::{Record, StepRecord};
use rusqlite::Connection;

/// The records of the training steps.
pub fn steps(root: &Path) -> Vec<StepRecord> {
    let records = metrics(root);
    let records = records.lines().map(|line| serde_json::from_str(line).unwrap());
    records.filter_map(|r| if let Record::Step(step) = r { Some(*step) } else { None }).collect()
}

pub fn metrics(root: &Path) -> String {
    fs::read_to_string(root.join("metrics.jsonl")).unwrap()
}

/// The outputs that must not depend on interruptions: metrics, every call, the final weights.
#[derive(PartialEq)]
pub struct Outcome {
    pub metrics: String,
    pub calls: Vec<String>,
    pub weights: Vec<u8>,
}

impl Outcome {
    pub fn of(root: &Path) -> Self {
        let store = Connection::open(root.join("rollouts.sqlite")).unwrap();
        let mut calls = Vec::new();
        for (table, order) in [
            ("rollouts", "step, phase, id"),
            ("calls", "step, phase, rollout, idx"),
            ("signals", "step, phase, rollout, call"),
        ] {
            let mut statement =
                store.prepare(&format!("SELECT * FROM {table} ORDER BY {order}")).unwrap();
            let columns = statement.column_count();
            let rows = statement
                .query_map([], |row| {
                    let values: Vec<rusqlite::types::Value> =
                        (0..columns).map(|c| row.get(c)).collect::<Result<_, _>>()?;
                    Ok(format!("{table} {values:?}"))
                })
                .unwrap();
            calls.extend(rows.map(Result::unwrap));
        }
        Self {
            metrics: metrics(root),
            calls,
            weights: fs::read(root.join("final/model.safetensors")).unwrap(),
        }
    }

    pub fn assert_same(&self, other: &Self, when: &str) {
        assert_eq!(self.metrics, other.metrics, "{when}");
        assert_eq!(self.calls, other.calls, "{when}");
        assert!(self.weights == other.weights, "other weights {when}");
    }
}
