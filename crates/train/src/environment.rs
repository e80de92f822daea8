//! The caller-provided parts of a run: agent, tasks, scorer, observer.

use std::sync::Arc;

use leyden_core::record::{Flight, Record};
use leyden_core::{Agent, Scorer, Task};

use crate::data::{DemonstrationSource, TaskSource};

/// The environment in which a policy is trained.
pub struct Environment {
    pub agent: Arc<dyn Agent>,
    pub scorer: Arc<dyn Scorer>,
    pub train: Box<dyn TaskSource>,
    /// Held-out tasks, in the order of every evaluation.
    pub test: Vec<Task>,
    /// Demonstrations for supervised training, if any.
    pub demonstrations: Option<Box<dyn DemonstrationSource>>,
    /// Names and hashes of model, template and data, for `provenance.json`.
    pub provenance: serde_json::Map<String, serde_json::Value>,
}

/// Receives the records of a run, for example to write TensorBoard events or serve a live page.
pub trait Observer {
    /// A line was written to `metrics.jsonl`.
    fn record(&mut self, record: &Record);

    /// The run resumes: these lines were kept, all later ones are regenerated.
    fn resumed(&mut self, kept: &[Record]) {
        let _ = kept;
    }

    /// Whether [`Observer::flight`] should be called, which costs some copying.
    fn wants_progress(&self) -> bool {
        false
    }

    /// Progress of the rollouts of a step or an evaluation, a few times a second.
    fn flight(&mut self, flight: &Flight) {
        let _ = flight;
    }
}

/// Discards all records.
impl Observer for () {
    fn record(&mut self, _: &Record) {}
}
