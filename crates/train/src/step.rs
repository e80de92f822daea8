//! One step of training: sample → batch → reference and critic → credit → update → record.
//!
//! The components depend on each other only through their inputs: [`sample`](crate::sample),
//! [`Batch`], [`Reference`](crate::reference::Reference), [`Critic`](crate::critic::Critic),
//! [`credit_inputs`](crate::credit_inputs), [`Updater`](crate::update::Updater). This file calls
//! them in order.

use leyden_core::record::{StepRecord, Timing};
use leyden_lm::memory::resident_memory;

use crate::batch::{Batch, Selection};
use crate::config::Objective;
use crate::error::TrainError;
use crate::laps::Laps;
use crate::numbers::mean;
use crate::rounds::Watch;
use crate::sample::sample;
use crate::store::Place;
use crate::store::read::GroupKey;
use crate::trainer::Trainer;
use crate::update::ReferenceTerm;
use crate::{credit_inputs, figures, supervised};

impl Trainer<'_> {
    /// Runs step `step` (from 1) and returns its record and its durations.
    ///
    /// # Errors
    /// Errors of the engine, the estimator or the store; a loss that is not finite.
    pub fn step(
        &mut self,
        step: u64,
        watch: &dyn Watch,
    ) -> Result<(StepRecord, Timing), TrainError> {
        let mut timing = Timing { step, phase: "step".to_owned(), ..Timing::default() };
        let record = match self.experiment.train.objective {
            Objective::Reinforcement => self.reinforcement_step(step, &mut timing, watch),
            Objective::Supervised => self.supervised_step(step, &mut timing),
        };
        let record = record.map_err(|error| error.at(step))?;
        if !(record.loss.is_finite() && record.grad_norm.is_finite()) {
            return Err(TrainError::Step {
                step,
                what: format!(
                    "loss {} or gradient norm {} is not finite; lower train.learning_rate, \
                     or use another dtype; the latest checkpoint is valid",
                    record.loss, record.grad_norm
                ),
            });
        }
        self.version = step;
        self.sampler.weights_changed();
        timing.resident_bytes = resident_memory();
        Ok((record, timing))
    }

    fn reinforcement_step(
        &mut self,
        step: u64,
        timing: &mut Timing,
        watch: &dyn Watch,
    ) -> Result<StepRecord, TrainError> {
        let experiment = self.experiment;
        let seed = self.step_seed(step);
        let mut laps = Laps::start(timing);

        // Sample: rollouts of the next tasks with the current policy, or an earlier one.
        let replayed = self.replayed(step)?;
        let origins: Vec<GroupKey> = replayed.iter().map(|group| group.key).collect();
        if experiment.train.replay.is_on() {
            laps.end("replay");
        }
        let (version, earlier) = self.earlier.sampling(self.version);
        self.sampler.begin(&self.policy, earlier, version, step)?;
        laps.end("weights");
        self.tasks.begin(step);
        let fresh = experiment.rollout.tasks - replayed.len();
        let mut sampled = sample(&mut self.sampler, &mut self.tasks, fresh, seed, watch)?;
        sampled.replay(replayed);
        laps.end("rollouts");
        laps.timing.per_rollout = sampled.time_per_rollout();

        // Batch: each trained call is a row.
        let selection = Selection {
            roles: &experiment.train.roles,
            max_prompt_tokens: experiment.train.max_prompt_tokens,
            credit: &experiment.algorithm.credit,
            truncated: experiment.train.truncated,
            left_out: &sampled.left_out,
            layout: experiment.train.layout,
        };
        let mut batch = Batch::unassigned(&sampled.seen, &selection);

        // Reference and critic, if the algorithm has them: log-probabilities under the reference
        // model, and state values.
        let reference = self.reference.as_ref();
        let logp_ref = reference.map(|r| r.logp(&self.policy, &batch)).transpose()?;
        if logp_ref.is_some() {
            laps.end("reference");
        }
        let critic = self.critic.as_ref();
        let values = critic.map(|critic| critic.values(&self.policy, &batch)).transpose()?;

        // Credit: the return and the advantage of each call.
        if let Some(values) = &values {
            batch.set_values(values);
        }
        let inputs = credit_inputs::add(&mut batch, &sampled, &mut self.sampler, seed)?;
        laps.end("credit_inputs");
        let penalties = match (reference, &logp_ref) {
            (Some(reference), Some(logp_ref)) => reference.penalties(&batch, logp_ref),
            _ => None,
        };
        batch.assign(&experiment.algorithm, penalties.as_deref(), step)?;

        // Update: first the critic, whose values and targets belong to the current policy, then the
        // policy, except during the critic's warm-up.
        let fitted = match (&mut self.critic, &values) {
            (Some(critic), Some(values)) => Some(critic.fit(&self.policy, &batch, values, step)?),
            _ => None,
        };
        let term = match (reference, &logp_ref) {
            (Some(reference), Some(logp)) => {
                Some(ReferenceTerm { logp, coefficient: reference.controller.coefficient })
            }
            _ => None,
        };
        self.earlier.keep(self.version, &self.policy)?;
        let is_warmup = step <= experiment.critic_warmup();
        let update = if is_warmup {
            self.updater.measure(&mut self.policy, &batch)?
        } else {
            self.updater.update(&mut self.policy, &batch, term, step)?
        };
        laps.end("update");

        // Record: every call with its credit, and the metrics.
        let place = Place { step, phase: "train" };
        self.store.write(place, &sampled.rollouts, &sampled.owners(), &batch.credit, None)?;
        self.store.write_replayed(step, sampled.tasks.len(), &origins)?;
        laps.end("store");
        sampled.check_rewards(step, experiment.rollout.at_least)?;
        let counters = &batch.counters;
        let varied = counters.groups > counters.zero_variance + counters.singletons;
        self.steps_without_variance = if varied { 0 } else { self.steps_without_variance + 1 };
        let mut record = figures::of_step(step, &sampled, &batch, &update);
        record.extra.extend(inputs.into_iter().map(|(name, value)| (name.to_owned(), value)));
        if let Some(progress) = self.tasks.end(sampled.rewards_by_level()) {
            record.extra.insert("levels_open".to_owned(), progress.open as f64);
            let success = progress.success.map(|success| ("level_success".to_owned(), success));
            record.extra.extend(success);
            record.level = Some(progress.level);
        }
        if let Some(fitted) = fitted {
            record.extra.extend(figures::of_critic(experiment, &fitted, is_warmup));
        }
        record.extra.extend(figures::of_origins(
            &experiment.train,
            &batch,
            self.version,
            origins.len(),
        ));
        if !experiment.reward.is_true() {
            let fresh = &sampled.seen[..sampled.rollouts.len()];
            let seen: Vec<f64> = fresh.iter().filter_map(|r| r.outcome.reward()).collect();
            record.extra.insert("reward_seen_mean".to_owned(), mean(&seen));
        }
        if let (Some(reference), Some(logp_ref)) = (&mut self.reference, &logp_ref) {
            // Its factor follows updates of the policy, which a warm-up has none of.
            let rollouts = if is_warmup { 0 } else { sampled.seen.len() };
            let (kl, coefficient) = reference.follow(&batch, logp_ref, rollouts);
            record.extra.insert("reference_kl".to_owned(), kl);
            record.extra.insert("kl_coefficient".to_owned(), coefficient);
        }
        Ok(record)
    }

    fn supervised_step(
        &mut self,
        step: u64,
        timing: &mut Timing,
    ) -> Result<StepRecord, TrainError> {
        let source = self.environment.demonstrations.as_deref().ok_or_else(|| {
            TrainError::Invalid("there are no demonstrations to train on".to_owned())
        })?;
        let mut laps = Laps::start(timing);
        let (batch, longest) =
            (self.experiment.train.batch, self.experiment.data.demonstration_tokens);
        let format = &self.sampler.format;
        let rows = supervised::collect(source, &mut self.visits, batch, longest, format)?;
        laps.end("data");
        let record = supervised::imitate(&mut self.policy, &mut self.updater, &rows, step)?;
        laps.end("update");
        Ok(record)
    }
}
