//! Rollouts with the policy's weights: for training steps, evaluations and completions.
//!
//! The engine has its own weights, which are the policy's as of the last [`Sampler::begin`], or
//! earlier ones.

use std::sync::Arc;

use leyden_core::Sampling;
use leyden_lm::generate::Engine;
use leyden_lm::policy::Policy;
use leyden_text::ChatFormat;
use tch::Tensor;

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
    /// The version of the engine's weights; `None` if they may be outdated.
    loaded: Option<u64>,
    step: u64,
    /// Number of updates of the weights.
    version: u64,
}

impl<'a> Sampler<'a> {
    pub fn new(
        experiment: &'a Experiment,
        environment: &'a Environment,
        format: Arc<ChatFormat>,
        engine: Engine,
    ) -> Self {
        Self { experiment, environment, format, engine, loaded: None, step: 0, version: 0 }
    }

    /// Starts step `step`, or an evaluation after it: updates the engine's weights to those that
    /// `policy` had after `version` updates, unless it has them. `earlier` are the values of the
    /// trained parameters at that time; without them the version is the current one.
    ///
    /// # Errors
    /// Errors of the policy.
    pub fn begin(
        &mut self,
        policy: &Policy,
        earlier: Option<&Tensor>,
        version: u64,
        step: u64,
    ) -> Result<(), TrainError> {
        (self.version, self.step) = (version, step);
        if self.loaded != Some(version) {
            self.engine.set_weights(match earlier {
                Some(values) => policy.inference_weights_of(values)?,
                None => policy.inference_weights()?,
            });
            self.loaded = Some(version);
        }
        Ok(())
    }

    /// Marks the engine's weights as outdated, since they may share storage with the policy's.
    pub fn weights_changed(&mut self) {
        self.loaded = None;
    }

    /// Runs jobs with the sampling of a training step.
    ///
    /// # Errors
    /// Errors of the engine.
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
    /// Errors of the engine.
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
