//! The reward that training sees, where it is not the one that is meant.
//!
//! Rewards of real tasks are noisy and beside the point. How much of that a method bears is
//! asked here: the true reward of each rollout is measured, recorded and evaluated as ever,
//! and only credit sees another one.

use std::borrow::Cow;

use leyden_core::{Outcome, Rollout, SeedTree, SignalKind};

use crate::config::RewardConfig;

/// Signals of a rollout that did not keep to the form.
const OUT_OF_FORM: [SignalKind; 4] = [
    SignalKind::MalformedCall,
    SignalKind::UnknownTool,
    SignalKind::TurnLimit,
    SignalKind::NoAnswer,
];

impl RewardConfig {
    /// Whether training sees the true reward.
    pub fn is_true(&self) -> bool {
        self.flip == 0.0 && self.per_call == 0.0 && self.per_token == 0.0 && !self.format_only
    }

    /// What training sees of a rollout with the true reward `reward`; `seed` is the rollout's
    /// own. A flip turns r into 1 − r.
    fn seen(&self, rollout: &Rollout, reward: f64, seed: SeedTree) -> f64 {
        let mut seen = reward;
        if self.format_only {
            let kept = rollout.answer.is_some()
                && !OUT_OF_FORM.iter().any(|kind| rollout.has_signal(kind));
            seen = f64::from(u8::from(kept));
        }
        if self.flip > 0.0 && seed.uniform() < self.flip {
            seen = 1.0 - seen;
        }
        seen + self.per_call * rollout.calls.len() as f64
            + self.per_token * rollout.response_tokens() as f64
    }

    /// The rollouts of a step with the rewards that training sees. `seed` is the step's.
    pub fn training<'a>(&self, rollouts: &'a [Rollout], seed: SeedTree) -> Cow<'a, [Rollout]> {
        if self.is_true() {
            return Cow::Borrowed(rollouts);
        }
        let seen = |rollout: &Rollout| match rollout.outcome.reward() {
            None => rollout.clone(),
            Some(reward) => {
                let seen = self.seen(rollout, reward, seed.index(rollout.id as u64));
                Rollout { outcome: Outcome::Reward(seen), ..rollout.clone() }
            }
        };
        Cow::Owned(rollouts.iter().map(seen).collect())
    }
}

#[cfg(test)]
mod tests {
    use leyden_core::{Call, FinishReason, Signal};

    use super::*;

    fn rollout(id: usize, reward: Option<f64>, tokens: &[usize]) -> Rollout {
        let call = |&tokens: &usize| Call {
            agent_role: "solve".to_owned(),
            prompt_ids: vec![1],
            response_ids: vec![2; tokens],
            logprobs: vec![0.0; tokens],
            text: String::new(),
            finish: FinishReason::Stop,
            policy_version: 0,
            constrained: false,
        };
        Rollout {
            id,
            task_id: "t".to_owned(),
            group: 0,
            calls: tokens.iter().map(call).collect(),
            signals: Vec::new(),
            answer: Some("a".to_owned()),
            outcome: reward.map_or(Outcome::Missing("no".to_owned()), Outcome::Reward),
        }
    }

    fn rewards(config: &RewardConfig, rollouts: &[Rollout]) -> Vec<Option<f64>> {
        let seen = config.training(rollouts, SeedTree::new(1));
        seen.iter().map(|rollout| rollout.outcome.reward()).collect()
    }

    #[test]
    fn without_settings_nothing_is_copied() {
        let rollouts = [rollout(0, Some(1.0), &[1])];
        let config = RewardConfig::default();
        assert!(matches!(config.training(&rollouts, SeedTree::new(1)), Cow::Borrowed(_)));
    }

    #[test]
    fn flips_come_as_often_as_asked_and_the_same_for_the_same_seed() {
        let rollouts: Vec<Rollout> =
            (0..2000).map(|id| rollout(id, Some(f64::from(id as u32 % 2)), &[1])).collect();
        let config = RewardConfig { flip: 0.2, ..RewardConfig::default() };
        let seen = rewards(&config, &rollouts);
        assert_eq!(seen, rewards(&config, &rollouts));
        let flipped = seen
            .iter()
            .zip(&rollouts)
            .filter(|(seen, rollout)| **seen != rollout.outcome.reward())
            .count();
        assert!((340..460).contains(&flipped), "{flipped} of 2000");
        let always = RewardConfig { flip: 1.0, ..RewardConfig::default() };
        assert_eq!(rewards(&always, &rollouts[..2]), [Some(1.0), Some(0.0)]);
    }

    #[test]
    fn biases_are_added_and_what_is_missing_stays_missing() {
        let rollouts = [rollout(0, Some(1.0), &[3, 4]), rollout(1, None, &[9])];
        let config = RewardConfig { per_call: 0.5, per_token: 0.01, ..RewardConfig::default() };
        assert_eq!(rewards(&config, &rollouts), [Some(1.0 + 1.0 + 0.07), None]);
    }

    #[test]
    fn the_form_alone_counts_where_only_it_is_asked_for() {
        let mut rollouts = [rollout(0, Some(0.0), &[1]), rollout(1, Some(1.0), &[1])];
        rollouts[1].signals.push(Signal {
            kind: SignalKind::TurnLimit,
            call: 0,
            detail: String::new(),
        });
        let config = RewardConfig { format_only: true, ..RewardConfig::default() };
        assert_eq!(rewards(&config, &rollouts), [Some(1.0), Some(0.0)]);
    }
}
