//! Rollouts with the policy's weights: of a training step, of an evaluation, of completions.
//!
//! The engine generates with weights of its own, which are the policy's as of the last
//! [`Sampler::begin`].

use std::sync::Arc;

use leyden_core::Sampling;
use leyden_lm::generate::Engine;
use leyden_lm::policy::Policy;
use leyden_text::ChatFormat;

use crate::config::Experiment;
use crate::environment::Environment;
use crate::error::TrainError;
use crate::rounds::{Job, RoundOptions, RoundOutput, Watch, run_rollouts};

/// Agent, scorer and engine of a run.
pub struct Sampler<'a> {
    pub experiment: &'a Experiment,
    pub environment: &'a Environment,
    pub format: Arc<ChatFormat>,
    engine: Engine,
    /// Whether the engine holds the policy's current weights.
    is_current: bool,
    step: u64,
    /// Number of updates behind the weights.
    version: u64,
}

impl<'a> Sampler<'a> {
    pub fn new(
        experiment: &'a Experiment,
        environment: &'a Environment,
        format: Arc<ChatFormat>,
        engine: Engine,
    ) -> Self {
        Self { experiment, environment, format, engine, is_current: false, step: 0, version: 0 }
    }

    /// Begins step `step`, or an evaluation after it: gives the engine the weights of `policy`,
    /// behind which are `version` updates, if it has others.
    ///
    /// # Errors
    /// The policy's.
    pub fn begin(&mut self, policy: &Policy, version: u64, step: u64) -> Result<(), TrainError> {
        (self.version, self.step) = (version, step);
        if !self.is_current {
            self.engine.set_weights(policy.inference_weights()?);
            self.is_current = true;
        }
        Ok(())
    }

    /// Notes that the policy's weights have changed.
    pub fn weights_changed(&mut self) {
        self.is_current = false;
    }

    /// Runs jobs as a step of training runs them.
    ///
    /// # Errors
    /// The engine's.
    pub fn train(
        &mut self,
        jobs: Vec<Job<'_>>,
        watch: &dyn Watch,
    ) -> Result<RoundOutput, TrainError> {
        let config = &self.experiment.rollout;
        let sampling = Sampling {
            temperature: config.temperature,
            top_p: config.top_p,
            top_k: config.top_k,
            max_tokens: config.max_tokens,
        };
        self.run(jobs, sampling, "train", watch)
    }

    /// Runs jobs; `phase` is `train` or the mode of an evaluation.
    ///
    /// # Errors
    /// The engine's.
    pub fn run(
        &mut self,
        jobs: Vec<Job<'_>>,
        sampling: Sampling,
        phase: &str,
        watch: &dyn Watch,
    ) -> Result<RoundOutput, TrainError> {
        let (config, agent) = (&self.experiment.rollout, &self.experiment.agent);
        let options = RoundOptions {
            step: self.step,
            phase: phase.to_owned(),
            schedule: config.schedule,
            deadlines: config.deadlines(),
            on_failure: agent.on_failure,
            retries: agent.retries,
            ..RoundOptions::new(sampling, self.version)
        };
        let Environment { agent, scorer, .. } = self.environment;
        let (engine, format) = (&mut self.engine, &self.format);
        Ok(run_rollouts(jobs, &**agent, &**scorer, format, engine, &options, watch)?)
    }
}
