//! A step of reinforcement: rollouts of the step's tasks, their credit, one update.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use leyden_core::record::{StepRecord, Timing};
use leyden_core::{Draft, Outcome, Rollout, Sampling, Task};

use crate::TrainError;
use crate::batch::{Batch, Selection};
use crate::figures;
use crate::rounds::{Job, Played, PromptCounts, RoundOptions, Spent, Watch, run_rollouts};
use crate::store::Place;
use crate::trainer::{Trainer, lap};

/// What a step has to learn from.
#[derive(Default)]
pub(crate) struct Sampled {
    pub tasks: Vec<Task>,
    /// Their group is the position of their task.
    pub rollouts: Vec<Rollout>,
    /// The same with the rewards that training sees.
    pub seen: Vec<Rollout>,
    /// Answers that stood in the course of each rollout.
    pub drafts: Vec<Vec<Draft>>,
    pub prompts: PromptCounts,
    pub spent: Vec<Spent>,
    /// Groups that were sampled and are not trained on.
    pub left_out: HashSet<usize>,
}

impl Trainer<'_> {
    pub(crate) fn reinforcement_step(
        &mut self,
        step: u64,
        timing: &mut Timing,
        watch: &dyn Watch,
    ) -> Result<StepRecord, TrainError> {
        let experiment = self.experiment;
        let started = Instant::now();
        self.refresh_engine()?;
        lap(timing, "weights", started);

        let started = Instant::now();
        let sampled = self.sample(step, watch)?;
        lap(timing, "rollouts", started);
        timing.per_rollout = per_rollout(&sampled.spent);

        let started = Instant::now();
        let selection = Selection {
            roles: &experiment.train.roles,
            max_prompt_tokens: experiment.train.max_prompt_tokens,
            left_out: &sampled.left_out,
            layout: experiment.train.layout,
        };
        let mut batch = Batch::unassigned(&sampled.seen, &selection);
        let logp_ref = self.reference_logp(&batch)?;
        if logp_ref.is_some() {
            lap(timing, "reference", started);
        }
        let started = Instant::now();
        let values = self.values(&batch)?;
        let appraisal = self.appraise(&mut batch, &sampled, values.as_deref(), step)?;
        lap(timing, "appraisal", started);
        let started = Instant::now();
        self.assign(&mut batch, logp_ref.as_deref(), step)?;
        let taught = match values {
            Some(values) => Some(self.teach_critic(&batch, &values)?),
            None => None,
        };
        let update = self.update(&batch, logp_ref.as_deref(), step)?;
        lap(timing, "update", started);

        let started = Instant::now();
        let Sampled { tasks, rollouts, .. } = &sampled;
        let owners: Vec<&Task> = rollouts.iter().map(|r| &tasks[r.group]).collect();
        self.store.write(Place { step, phase: "train" }, rollouts, &owners, &batch.credit, None)?;
        lap(timing, "store", started);
        check_rewards(step, rollouts, experiment.rollout.at_least)?;

        let quiet =
            batch.counters.groups == batch.counters.zero_variance + batch.counters.singletons;
        self.quiet_steps = if quiet { self.quiet_steps + 1 } else { 0 };
        let mut record = figures::of_step(step, &sampled, &batch, &update);
        record.extra.extend(appraisal.into_iter().map(|(name, value)| (name.to_owned(), value)));
        if let Some(taught) = taught {
            record.extra.insert("critic_loss".to_owned(), taught.loss);
            record.extra.insert("critic_explained_variance".to_owned(), taught.explained_variance);
        }
        if !experiment.reward.is_true() {
            let seen: Vec<f64> = sampled.seen.iter().filter_map(|r| r.outcome.reward()).collect();
            record.extra.insert("reward_seen_mean".to_owned(), figures::mean(&seen));
        }
        if let Some(logp_ref) = &logp_ref {
            self.follow_reference(&batch, logp_ref, &mut record);
        }
        Ok(record)
    }

    /// `rollout.samples` rollouts of each of the next tasks. With dynamic sampling (DAPO, arXiv
    /// 2503.14476) tasks whose rollouts all earned the same give way to further ones, until
    /// there are `rollout.tasks` of which something can be learned or `rollout.refills` rounds
    /// are over.
    fn sample(&mut self, step: u64, watch: &dyn Watch) -> Result<Sampled, TrainError> {
        let config = &self.experiment.rollout;
        let noise = self.seed.child("step").index(step).child("reward");
        let seed = self.seed.child("step").index(step).child("rollout");
        let mut sampled = Sampled::default();
        for round in 0..=config.refills {
            let first = sampled.tasks.len();
            for _ in 0..config.tasks {
                let task = self.environment.train.task(self.order.at(self.position));
                sampled.tasks.push(task);
                self.position += 1;
            }
            let jobs = (first * config.samples..sampled.tasks.len() * config.samples)
                .map(|id| Job {
                    id,
                    group: id / config.samples,
                    task: &sampled.tasks[id / config.samples],
                    seed: seed.index(id as u64),
                    played: &[],
                })
                .collect();
            let played = self.play(jobs, step, watch)?;
            sampled
                .seen
                .extend(self.experiment.reward.training(&played.rollouts, noise).into_owned());
            sampled.rollouts.extend(played.rollouts);
            sampled.drafts.extend(played.drafts);
            sampled.prompts.add(played.prompts);
            sampled.spent.extend(played.spent);
            if config.refills > 0 {
                sampled.leave_out(config.tasks);
            }
            let kept = sampled.tasks.len() - sampled.left_out.len();
            if round == config.refills || kept >= config.tasks {
                break;
            }
        }
        Ok(sampled)
    }

    /// Runs jobs as a step of training runs them.
    pub(crate) fn play(
        &mut self,
        jobs: Vec<Job<'_>>,
        step: u64,
        watch: &dyn Watch,
    ) -> Result<Played, TrainError> {
        let config = &self.experiment.rollout;
        let sampling = Sampling {
            temperature: config.temperature,
            top_p: config.top_p,
            top_k: config.top_k,
            max_tokens: config.max_tokens,
        };
        let options = self.round_options(sampling, step, "train");
        Ok(run_rollouts(
            jobs,
            &*self.environment.agent,
            &*self.environment.scorer,
            &self.format,
            &mut self.engine,
            &options,
            watch,
        )?)
    }
}

impl Trainer<'_> {
    /// How the rollouts of a step, or of an evaluation of some mode, are run.
    pub(crate) fn round_options(&self, sampling: Sampling, step: u64, phase: &str) -> RoundOptions {
        let (config, agent) = (&self.experiment.rollout, &self.experiment.agent);
        RoundOptions {
            step,
            phase: phase.to_owned(),
            schedule: config.schedule,
            deadlines: config.deadlines(),
            on_failure: agent.on_failure,
            retries: agent.retries,
            ..RoundOptions::new(sampling, self.version)
        }
    }
}

impl Sampled {
    /// Leaves out the groups whose rollouts all earned the same, and those beyond `wanted`.
    fn leave_out(&mut self, wanted: usize) {
        let mut lively = HashSet::new();
        let mut first: Vec<Option<f64>> = vec![None; self.tasks.len()];
        for rollout in &self.seen {
            let Some(reward) = rollout.outcome.reward() else { continue };
            match first[rollout.group] {
                None => first[rollout.group] = Some(reward),
                Some(known) if known != reward => {
                    lively.insert(rollout.group);
                }
                Some(_) => {}
            }
        }
        let kept: HashSet<usize> =
            (0..self.tasks.len()).filter(|group| lively.contains(group)).take(wanted).collect();
        self.left_out = (0..self.tasks.len()).filter(|group| !kept.contains(group)).collect();
    }
}

/// The timing of a mean rollout.
fn per_rollout(spent: &[Spent]) -> BTreeMap<String, f64> {
    let Spent { agent, model, queue } = Spent::mean(spent);
    [("agent", agent), ("model", model), ("queue", queue)]
        .into_iter()
        .map(|(part, seconds)| (part.to_owned(), seconds))
        .collect()
}

/// Refuses a step with fewer rewards than `least`, which is a broken setup and not a hard task.
fn check_rewards(step: u64, rollouts: &[Rollout], least: usize) -> Result<(), TrainError> {
    let rewarded = rollouts.iter().filter(|r| r.outcome.reward().is_some()).count();
    let reason = rollouts.iter().find_map(|rollout| match &rollout.outcome {
        Outcome::Reward(_) => None,
        Outcome::Missing(why) => Some((&rollout.task_id, why)),
    });
    let Some((task, why)) = reason.filter(|_| rewarded < least.max(1)) else { return Ok(()) };
    let count = match rewarded {
        0 => format!("none of the {} rollouts has a reward", rollouts.len()),
        some => format!(
            "only {some} of {} rollouts have a reward, and rollout.at_least is {least}",
            rollouts.len()
        ),
    };
    Err(TrainError::Step {
        step,
        what: format!(
            "{count}, so there is nothing to learn from; the first without, of task {task}, \
             says: {why}"
        ),
    })
}
