//! Critics for the rules that need one: that of the checkpoint, or one fitted to fresh rollouts of the
//! policy.

use leyden_core::SeedTree;

use super::rules::Rule;
use super::steps::{batch, sample_shown};
use crate::config::Experiment;
use crate::critic::Critic;
use crate::error::TrainError;
use crate::sample::Sampled;
use crate::trainer::Trainer;

/// The critics of rules that need one.
pub(super) struct Fitting {
    /// Whether the trainer's critic was trained.
    has_critic: bool,
    /// Samples to which a fresh critic is fitted, one after another.
    pub samples: Vec<Sampled>,
    seed: SeedTree,
}

impl Fitting {
    /// Samples what fresh critics are fitted to, if there is a rule that needs one.
    pub fn sample(
        trainer: &mut Trainer<'_>,
        rules: &[Rule],
        steps: u64,
        has_critic: bool,
        seed: SeedTree,
    ) -> Result<Self, TrainError> {
        let mut fitting = Self { has_critic, samples: Vec::new(), seed };
        let run = trainer.experiment;
        if rules.iter().any(|rule| rule.needs_critic() && !fitting.is_trained(rule, run)) {
            for step in 0..steps {
                let what = format!("critic {}/{steps}", step + 1);
                let own = seed.child("step").index(step);
                fitting.samples.push(sample_shown(trainer, &what, own)?);
            }
        }
        Ok(fitting)
    }

    /// Whether the run's critic was trained for the states that the rule values.
    pub fn is_trained(&self, rule: &Rule, run: &Experiment) -> bool {
        self.has_critic && (rule.values_calls_only() || !Rule::of_run(run).values_calls_only())
    }

    /// A critic fitted to the targets of `rule`.
    pub fn fit<'a>(&self, trainer: &Trainer<'a>, rule: &Rule) -> Result<Critic<'a>, TrainError> {
        let (run, policy) = (trainer.experiment, &trainer.policy);
        let mut critic = Critic::new(run, policy, self.seed)?;
        for sampled in &self.samples {
            let mut batch = batch(run, sampled, &rule.algorithm.credit);
            let values = critic.values(policy, &batch)?;
            batch.set_values(&values);
            batch.assign(&rule.algorithm, None, 0)?;
            critic.fit(policy, &batch, &values, 0)?;
        }
        Ok(critic)
    }
}
