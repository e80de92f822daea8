//! States of calls and their values, by completing rollouts from them.
//!
//! A state is the task and everything so far: the responses before the call, and its prompt.
//! Rollouts of a task therefore share their first state, and its completions.

use std::cell::RefCell;
use std::collections::HashMap;

use leyden_core::{Outcome, Rollout, SeedTree};
use leyden_stats::credit::StateValue;

use super::Counts;
use crate::credit_inputs::return_from;
use crate::error::TrainError;
use crate::progress::Progress;
use crate::rounds::{Ended, Job};
use crate::sample::Sampled;
use crate::sampler::Sampler;

/// Maximum number of completions that run together.
const ROUND: usize = 2048;

/// At most `limit` of `calls`, drawn at random, in their order; 0 is all.
pub(super) fn draw(calls: &[(usize, usize)], limit: usize, seed: SeedTree) -> Vec<(usize, usize)> {
    if limit == 0 || limit >= calls.len() {
        return calls.to_vec();
    }
    let mut order: Vec<usize> = (0..calls.len()).collect();
    order.sort_by(|&a, &b| {
        let draw = |call: usize| seed.index(call as u64).uniform();
        draw(a).total_cmp(&draw(b)).then(a.cmp(&b))
    });
    order.truncate(limit);
    order.sort_unstable();
    order.into_iter().map(|call| calls[call]).collect()
}

/// The states to be valued.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// A rollout and a call of it that was made in the state.
    pub origins: Vec<(usize, usize)>,
    /// For each call, the state in which it was made and that of the next call, if there is one.
    pub calls: Vec<(usize, Option<usize>)>,
}

/// What the completions found.
pub(super) struct Completed {
    /// By state; `None` with fewer than two completions that have a reward.
    pub values: Vec<Option<StateValue>>,
    /// Why the first completion without a reward has none.
    pub reason: Option<String>,
}

impl Plan {
    /// The states before and after `calls` (rollout and call).
    pub fn of(rollouts: &[Rollout], calls: &[(usize, usize)]) -> Self {
        let mut known: HashMap<(usize, Vec<&[u32]>), usize> = HashMap::new();
        let mut plan = Self::default();
        for &(rollout, call) in calls {
            let own = &rollouts[rollout];
            let mut number = |call: usize| {
                let responses = own.calls[..call].iter().map(|c| c.response_ids.as_slice());
                let seen = responses.chain([own.calls[call].prompt_ids.as_slice()]).collect();
                *known.entry((own.group, seen)).or_insert_with(|| {
                    plan.origins.push((rollout, call));
                    plan.origins.len() - 1
                })
            };
            let before = number(call);
            let after = (call + 1 < own.calls.len()).then(|| number(call + 1));
            plan.calls.push((before, after));
        }
        plan
    }

    /// Completes every state `completions` times. Each completion has its own seed, so the result
    /// does not depend on which of them run together.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn complete(
        &self,
        sampler: &mut Sampler<'_>,
        sampled: &Sampled,
        completions: usize,
        seed: SeedTree,
        counts: &mut Counts,
    ) -> Result<Completed, TrainError> {
        let (noise, seed) = (seed.child("reward"), seed.child("completions"));
        let total = self.origins.len() * completions;
        let bar = RefCell::new(Progress::new("completions", total as u64, 0));
        let mut returns: Vec<Vec<f64>> = vec![Vec::new(); self.origins.len()];
        let mut reason = None;
        for first in (0..total).step_by(ROUND) {
            let ids = first..(first + ROUND).min(total);
            let job = |id: usize| {
                let (state, completion) = (id / completions, id % completions);
                let (rollout, call) = self.origins[state];
                let origin = &sampled.rollouts[rollout];
                Job {
                    id,
                    group: origin.group,
                    task: &sampled.tasks[origin.group],
                    seed: seed.index(state as u64).index(completion as u64),
                    played: &origin.calls[..call],
                }
            };
            let show = Ended(|done: usize| {
                bar.borrow_mut().update((first + done) as u64, String::new);
            });
            let completed = sampler.train(ids.map(job).collect(), &show)?.rollouts;
            let completed = sampler.experiment.reward.training(&completed, noise);
            for rollout in completed.iter() {
                let state = rollout.id / completions;
                let (_, played) = self.origins[state];
                let own = rollout.calls.iter().skip(played);
                counts.completion_tokens += own.map(|call| call.response_ids.len()).sum::<usize>();
                match &rollout.outcome {
                    Outcome::Reward(_) => returns[state].extend(return_from(rollout, played)),
                    Outcome::Missing(why) => {
                        counts.completions_without_reward += 1;
                        reason.get_or_insert_with(|| format!("task {}: {why}", rollout.task_id));
                    }
                }
            }
        }
        bar.borrow().clear();
        counts.states = self.origins.len();
        counts.completions = total;
        let values = returns.iter().map(|returns| StateValue::of(returns)).collect();
        Ok(Completed { values, reason })
    }
}

#[cfg(test)]
mod tests {
    use leyden_core::{Call, FinishReason};

    use super::*;

    /// A rollout whose calls have these prompts and responses of one token.
    fn rollout(group: usize, calls: &[(u32, u32)]) -> Rollout {
        let call = |&(prompt, response): &(u32, u32)| Call {
            agent_role: String::new(),
            prompt_ids: vec![prompt],
            response_ids: vec![response],
            logprobs: vec![0.0],
            text: String::new(),
            finish: FinishReason::Stop,
            policy_version: 0,
            constrained: false,
        };
        Rollout {
            id: 0,
            task_id: String::new(),
            group,
            calls: calls.iter().map(call).collect(),
            signals: Vec::new(),
            process_rewards: Vec::new(),
            answer: None,
            outcome: Outcome::Reward(1.0),
        }
    }

    #[test]
    fn equal_beginnings_are_one_state() {
        let rollouts = [
            rollout(0, &[(1, 7), (2, 8)]),
            rollout(0, &[(1, 7), (2, 9), (3, 7)]),
            rollout(0, &[(1, 5), (2, 8)]),
            rollout(1, &[(1, 7)]),
        ];
        let calls = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (3, 0)];
        let plan = Plan::of(&rollouts, &calls);
        // The third rollout's second call has the prompt of the others after another response.
        assert_eq!(plan.origins, [(0, 0), (0, 1), (1, 2), (2, 1), (3, 0)]);
        let states = [(0, Some(1)), (1, None), (0, Some(1)), (1, Some(2)), (3, None), (4, None)];
        assert_eq!(plan.calls, states);
    }

    #[test]
    fn a_limit_draws_calls_and_keeps_their_order() {
        let calls: Vec<(usize, usize)> = (0..50).map(|n| (n / 2, n % 2)).collect();
        let seed = SeedTree::new(3);
        assert_eq!(draw(&calls, 0, seed), calls);
        assert_eq!(draw(&calls, 50, seed), calls);
        let some = draw(&calls, 20, seed);
        assert_eq!((some.len(), some.is_sorted()), (20, true));
        assert_eq!(draw(&calls, 20, seed), some);
        assert_ne!(draw(&calls, 20, SeedTree::new(4)), some);
    }
}
