//! What a run needs to be given: the agent, its tasks, its scorer.

use std::sync::Arc;

use leyden_core::record::{Flight, Record};
use leyden_core::{Agent, Scorer, Task};

use crate::data::{DemonstrationSource, TaskSource};

/// The world a policy is trained in.
pub struct Environment {
    pub agent: Arc<dyn Agent>,
    pub scorer: Arc<dyn Scorer>,
    pub train: Box<dyn TaskSource>,
    /// Held-out tasks, in the order of every evaluation.
    pub test: Vec<Task>,
    /// What supervised training imitates; absent where nobody demonstrates.
    pub demonstrations: Option<Box<dyn DemonstrationSource>>,
    /// Names and hashes of model, template and data, for `provenance.json`.
    pub provenance: serde_json::Map<String, serde_json::Value>,
}

/// Someone who watches a run: a writer of TensorBoard events, a live page.
pub trait Observer {
    /// A line was written to `metrics.jsonl`.
    fn record(&mut self, record: &Record);

    /// The run resumes: these lines were kept, everything after them is made again.
    fn resumed(&mut self, kept: &[Record]) {
        let _ = kept;
    }

    /// Whether [`Observer::flight`] is to be called, which costs some copying.
    fn wants_flight(&self) -> bool {
        false
    }

    /// Where the rollouts of a step or an evaluation stand, a few times a second.
    fn flight(&mut self, flight: &Flight) {
        let _ = flight;
    }
}

/// Discards all records.
impl Observer for () {
    fn record(&mut self, _: &Record) {}
}
