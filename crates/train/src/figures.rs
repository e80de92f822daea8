//! The metrics of a step, for `metrics.jsonl`.

use std::collections::BTreeMap;

use leyden_core::record::{RECORD_SCHEMA, StepRecord};
use leyden_core::{FinishReason, Rollout};

use crate::batch::Batch;
use crate::config::{Experiment, TrainConfig};
use crate::critic::CriticFigures;
use crate::numbers::{deviation, histogram, mean};
use crate::rounds::signal_counts;
use crate::sample::Sampled;
use crate::update::Update;

/// How old the samples of a step are that trains version `current`, and how many of its groups are
/// `replayed`; nothing if samples are never of earlier weights.
pub(crate) fn of_origins(
    train: &TrainConfig,
    batch: &Batch,
    current: u64,
    replayed: usize,
) -> BTreeMap<String, f64> {
    let mut figures = BTreeMap::new();
    if train.is_off_policy() {
        let (mean, largest) = batch.staleness(current);
        figures.insert("staleness_mean".to_owned(), mean);
        figures.insert("staleness_max".to_owned(), largest as f64);
    }
    if train.replay.is_on() {
        figures.insert("groups_replayed".to_owned(), replayed as f64);
    }
    figures
}

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

/// The metrics of fitting the critic; `is_warmup`: whether the policy was not updated.
pub(crate) fn of_critic(
    experiment: &Experiment,
    figures: &CriticFigures,
    is_warmup: bool,
) -> BTreeMap<String, f64> {
    let CriticFigures { loss, explained_variance, grad_norm } = *figures;
    let mut extra = BTreeMap::from([
        ("critic_loss".to_owned(), loss),
        ("critic_explained_variance".to_owned(), explained_variance),
    ]);
    if experiment.has_own_trunk() || experiment.critic_warmup() > 0 {
        extra.insert("critic_grad_norm".to_owned(), grad_norm);
    }
    if is_warmup {
        extra.insert("critic_warmup".to_owned(), 1.0);
    }
    extra
}
