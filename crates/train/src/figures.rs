//! The metrics of a step, for `metrics.jsonl`.

use std::collections::BTreeMap;

use leyden_core::record::{RECORD_SCHEMA, StepRecord};
use leyden_core::{FinishReason, Rollout};

use crate::batch::Batch;
use crate::numbers::{deviation, histogram, mean};
use crate::rounds::signal_counts;
use crate::sample::Sampled;
use crate::update::Update;

/// The record of a reinforcement learning step.
pub(crate) fn of_step(step: u64, sampled: &Sampled, batch: &Batch, update: &Update) -> StepRecord {
    let Sampled { tasks, rollouts, prompts, left_out, .. } = sampled;
    let rewards: Vec<f64> = rollouts.iter().filter_map(|r| r.outcome.reward()).collect();
    let calls: usize = rollouts.iter().map(|r| r.calls.len()).sum();
    let cut = rollouts
        .iter()
        .flat_map(|r| &r.calls)
        .filter(|call| call.finish == FinishReason::Length)
        .count();
    let responses: usize = rollouts.iter().map(Rollout::response_tokens).sum();
    let per_call = |count: usize| count as f64 / calls.max(1) as f64;
    let mut extra = BTreeMap::new();
    extra.insert("prompts_extended".to_owned(), prompts.extended as f64);
    extra.insert("prompts_rewritten".to_owned(), prompts.rewritten as f64);
    extra.insert("sampler_chi2".to_owned(), update.mismatch.chi2_token());
    extra.insert("sampler_chi2_sequence".to_owned(), update.mismatch.chi2_sequence());
    extra.insert("sampler_perplexity_ratio".to_owned(), update.mismatch.perplexity_ratio());
    extra.insert("sampler_effective_share".to_owned(), update.mismatch.effective_share());
    if update.correction.tokens > 0 {
        extra.insert("correction_beyond".to_owned(), update.correction.beyond_share());
        extra.insert("correction_rejected".to_owned(), update.correction.rejected_share());
    }
    if update.skipped > 0 {
        extra.insert("skipped_updates".to_owned(), update.skipped as f64);
    }
    for (name, count) in [
        ("calls_over_max_prompt_tokens", batch.left_out.long_prompts),
        ("calls_truncated_masked", batch.left_out.truncated),
        ("calls_constrained", batch.left_out.constrained),
    ] {
        if count > 0 {
            extra.insert(name.to_owned(), count as f64);
        }
    }
    if rollouts.iter().any(|rollout| !rollout.process_rewards.is_empty()) {
        let given = |r: &Rollout| r.process_rewards.iter().map(|reward| reward.value).sum();
        let sums: Vec<f64> = rollouts.iter().map(given).collect();
        extra.insert("process_reward_mean".to_owned(), mean(&sums));
    }
    if !left_out.is_empty() {
        extra.insert("groups_left_out".to_owned(), left_out.len() as f64);
    }
    StepRecord {
        schema: RECORD_SCHEMA,
        step,
        tasks: tasks.len(),
        rollouts: rollouts.len(),
        rollouts_without_reward: rollouts.len() - rewards.len(),
        reward_mean: mean(&rewards),
        reward_std: deviation(&rewards),
        reward_histogram: histogram(&rewards),
        groups_without_variance: batch.counters.zero_variance,
        groups_of_one: batch.counters.singletons,
        calls,
        calls_per_rollout: calls as f64 / rollouts.len().max(1) as f64,
        response_length: per_call(responses),
        truncated: per_call(cut),
        row_tokens: batch.row_tokens(),
        packed_tokens: update.packed_tokens,
        action_tokens: batch.shape.tokens(),
        loss: update.loss,
        entropy: update.entropy_sum / update.entropy_tokens.max(1) as f64,
        grad_norm: update.grad_norm,
        learning_rate: update.learning_rate,
        clip_fraction: update.statistics.clip_fraction(),
        sampler_kl: update.mismatch.k3(),
        sampler_gap: update.mismatch.max_gap,
        sampler_outside: update.mismatch.outside_share(),
        signals: signal_counts(rollouts),
        by_role: update.parts.roles(update.first_updates),
        by_turn: update.parts.turns(update.first_updates),
        level: None,
        extra,
    }
}
