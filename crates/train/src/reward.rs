//! Perturbation of the training reward.
//!
//! Rewards of real tasks are noisy and biased. To study how much of that a method tolerates, the
//! true reward of each rollout is measured, recorded and evaluated as usual, and only credit
//! assignment sees a perturbed one.

use std::borrow::Cow;

use leyden_core::{Outcome, Rollout, SeedTree, Signal, SignalKind};

use crate::config::RewardConfig;

/// Signals of a malformed rollout.
const MALFORMED: [SignalKind; 4] = [
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

    /// The training reward of a rollout with the true reward `reward`; `seed` is specific to the
    /// rollout. A flip turns r into 1 − r.
    fn seen(&self, rollout: &Rollout, reward: f64, seed: SeedTree) -> f64 {
        let mut seen = reward;
        if self.format_only {
            let well_formed =
                rollout.answer.is_some() && !MALFORMED.iter().any(|kind| rollout.has_signal(kind));
            seen = f64::from(u8::from(well_formed));
        }
        if self.flip > 0.0 && seed.uniform() < self.flip {
            seen = 1.0 - seen;
        }
        seen + self.per_call * rollout.calls.len() as f64
            + self.per_token * rollout.response_tokens() as f64
    }

    /// The training reward of `rollout` had it ended before call `calls` with `answer`, which has
    /// the true reward `reward`. It is perturbed like that of the whole rollout, by the same draw,
    /// so that the difference of both is due to the calls from there on. `seed` is the step's.
    pub fn of_beginning(
        &self,
        rollout: &Rollout,
        calls: usize,
        answer: Option<&str>,
        reward: f64,
        seed: SeedTree,
    ) -> f64 {
        if self.is_true() {
            return reward;
        }
        let before = |signal: &&Signal| signal.call < calls;
        let beginning = Rollout {
            calls: rollout.calls[..calls].to_vec(),
            signals: rollout.signals.iter().filter(before).cloned().collect(),
            answer: answer.map(str::to_owned),
            ..rollout.clone()
        };
        self.seen(&beginning, reward, seed.index(rollout.id as u64))
    }

    /// The rollouts of a step with their training rewards. `seed` is the step's.
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
    use leyden_core::{Call, FinishReason};

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
            process_rewards: Vec::new(),
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
    fn flips_have_the_configured_rate_and_are_deterministic() {
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
    fn biases_are_added_and_missing_rewards_stay_missing() {
        let rollouts = [rollout(0, Some(1.0), &[3, 4]), rollout(1, None, &[9])];
        let config = RewardConfig { per_call: 0.5, per_token: 0.01, ..RewardConfig::default() };
        assert_eq!(rewards(&config, &rollouts), [Some(1.0 + 1.0 + 0.07), None]);
    }

    #[test]
    fn the_beginning_of_a_rollout_is_perturbed_like_the_whole() {
        let whole = rollout(3, Some(1.0), &[3, 4]);
        let seed = SeedTree::new(1);
        let shaped = RewardConfig { per_call: 0.5, per_token: 0.25, ..RewardConfig::default() };
        let whole_seen = rewards(&shaped, std::slice::from_ref(&whole));
        assert_eq!(whole_seen, [Some(1.0 + 2.0 * 0.5 + 7.0 * 0.25)]);
        let first = shaped.of_beginning(&whole, 1, Some("b"), 0.5, seed);
        assert_eq!(first, 0.5 + 0.5 + 3.0 * 0.25);
        assert_eq!(shaped.of_beginning(&whole, 0, None, 0.0, seed), 0.0);
        let none = RewardConfig::default();
        assert_eq!(none.of_beginning(&whole, 1, Some("b"), 0.5, seed), 0.5);
        // Either both are flipped or neither.
        let noisy = RewardConfig { flip: 0.5, ..RewardConfig::default() };
        let mut flips = 0;
        for id in 0..20 {
            let whole = rollout(id, Some(1.0), &[3, 4]);
            let flipped = rewards(&noisy, std::slice::from_ref(&whole)) == [Some(0.0)];
            let expected = if flipped { 0.75 } else { 0.25 };
            assert_eq!(noisy.of_beginning(&whole, 1, Some("b"), 0.25, seed), expected);
            flips += usize::from(flipped);
        }
        assert!((1..20).contains(&flips), "{flips}");
    }

    #[test]
    fn format_only_ignores_the_true_reward() {
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
