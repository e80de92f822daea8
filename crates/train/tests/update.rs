//! The update: prefix merging, mini-batches, epochs, and selection of trained calls.

mod common;

use std::collections::HashSet;

use common::{largest, train};
use leyden_core::record::StepRecord;
use leyden_core::{Call, FinishReason, Outcome, Rollout};
use leyden_rl::config::AlgorithmConfig;
use leyden_train::batch::{Batch, LeftOut, Selection};
use leyden_train::config::{Layout, Truncated};
use tch::Tensor;

/// The first step with these `changes`: its record, the gradient, the weights, the number of
/// optimiser steps.
fn first_step(changes: &[&str]) -> (StepRecord, Tensor, Tensor, i64) {
    let mut trained = train(1, changes);
    (trained.records.remove(0), trained.gradient, trained.weights, trained.updates)
}

#[test]
fn merged_prefixes_change_the_work_and_not_the_gradient() {
    let (rows, by_row, _, _) = first_step(&["train.micro_batch_tokens=1"]);
    assert_eq!(rows.packed_tokens, rows.row_tokens, "one row a pack: nothing is shared");
    for budget in ["train.micro_batch_tokens=100", "train.micro_batch_tokens=10000"] {
        let (merged, gradient, _, _) = first_step(&[budget]);
        assert!(merged.packed_tokens < rows.packed_tokens, "{budget}");
        let error = largest(&(&gradient - &by_row)) / largest(&by_row);
        assert!(error < 1e-5, "{budget}: the gradient is {error} off");
        assert!((merged.loss - rows.loss).abs() < 1e-6, "{} and {}", merged.loss, rows.loss);
        assert!((merged.grad_norm / rows.grad_norm - 1.0).abs() < 1e-5);
        assert_eq!(merged.reward_histogram, rows.reward_histogram);
    }
}

#[test]
fn replicas_do_not_change_the_gradient() {
    let several = ["train.mini_batches=2", "train.epochs=2", "train.learning_rate=0.0"];
    for changes in [&[][..], &several, &["train.objective=supervised"]] {
        let (one, expected, _, updates) = first_step(changes);
        for count in [2, 3] {
            let replicas = [format!("train.replicas={count}"), format!("model.threads={count}")];
            let all = changes.iter().copied().chain(replicas.iter().map(String::as_str));
            let all: Vec<&str> = all.collect();
            let (record, gradient, _, steps) = first_step(&all);
            let error = largest(&(&gradient - &expected)) / largest(&expected);
            assert!(error < 1e-5, "{all:?}: the gradient is {error} off");
            assert_eq!((steps, record.action_tokens), (updates, one.action_tokens));
            assert!((record.loss - one.loss).abs() < 1e-6, "{} and {}", record.loss, one.loss);
            assert!((record.entropy - one.entropy).abs() < 1e-5);
            assert!(record.packed_tokens > one.packed_tokens, "common beginnings are done twice");
            assert!(gradient.equal(&first_step(&all).1), "not the same bytes every time");
        }
    }
}

#[test]
fn the_layout_of_a_batch_changes_the_work_and_not_the_gradient() {
    let (forest, expected, _, _) = first_step(&[]);
    let mut packed = vec![forest.packed_tokens];
    for layout in ["trajectories", "rows"] {
        let (other, gradient, _, _) = first_step(&[&format!("train.layout={layout}")]);
        let error = largest(&(&gradient - &expected)) / largest(&expected);
        assert!(error < 1e-5, "{layout}: the gradient is {error} off");
        assert!((other.loss - forest.loss).abs() < 1e-6);
        packed.push(other.packed_tokens);
    }
    assert!(packed.is_sorted() && packed[0] < packed[1] && packed[1] < packed[2], "{packed:?}");
    assert_eq!(packed[2], forest.row_tokens);
}

#[test]
fn groups_without_variance_get_only_a_forward_pass() {
    // Answers of one token: some pairs have the same number of letters.
    let steps = ["rollout.samples=2", "rollout.tasks=12", "rollout.max_tokens=1"];
    let (partial, gradient, ..) = first_step(&steps);
    assert!(
        (1..12).contains(&partial.groups_without_variance),
        "{}",
        partial.groups_without_variance
    );
    // With a negligible bonus every row is part of the backward pass.
    let all = [&steps[..], &["algorithm.entropy_coefficient=1e-30"]].concat();
    let (all, expected, ..) = first_step(&all);
    assert!(largest(&(&gradient - &expected)) < 1e-5 * largest(&expected));
    assert!((partial.entropy - all.entropy).abs() < 1e-6);
    assert!((partial.sampler_kl - all.sampler_kl).abs() < 1e-7);
    assert!((partial.loss - all.loss).abs() < 1e-6);
}

#[test]
fn activation_checkpointing_changes_the_memory_and_not_the_gradient() {
    let (_, kept, _, _) = first_step(&[]);
    let (_, recomputed, _, _) = first_step(&["train.activation_checkpointing=true"]);
    assert!(largest(&(&recomputed - &kept)) < 1e-6 * largest(&kept));
}

#[test]
fn each_mini_batch_of_each_epoch_is_an_update() {
    let (one, _, start, updates) = first_step(&["train.learning_rate=0.0"]);
    assert_eq!((updates, one.clip_fraction), (1, 0.0));
    let changes = ["train.mini_batches=2", "train.epochs=3", "train.learning_rate=0.05"];
    let (several, _, end, updates) = first_step(&changes);
    assert_eq!(updates, 6);
    assert!(several.clip_fraction > 0.0, "the policy has moved far beyond the clip range");
    assert!(several.sampler_gap < 1e-4, "measured before the first update");
    assert!(largest(&(&end - &start)) > 0.05, "six steps of Adam");
    // Metrics of the rollouts are not counted again in later epochs.
    let (epoch, ..) = first_step(&["train.mini_batches=2"]);
    assert_eq!(several.packed_tokens, epoch.packed_tokens);
    assert!(epoch.packed_tokens >= one.packed_tokens, "mini-batches share no prefixes");
    assert!((several.entropy - one.entropy).abs() < 0.1 * one.entropy);
}

#[test]
fn a_role_that_is_not_trained_has_no_action_tokens() {
    let (all, ..) = first_step(&[]);
    let (second, ..) = first_step(&["train.roles=['second']"]);
    assert_eq!((all.calls, second.calls), (12, 12));
    assert!(second.action_tokens > 0 && second.action_tokens < all.action_tokens);
}

fn call(role: &str, prompt: usize, response: usize) -> Call {
    Call {
        agent_role: role.to_owned(),
        prompt_ids: vec![1; prompt],
        response_ids: vec![2; response],
        logprobs: vec![-1.0; response],
        text: String::new(),
        finish: FinishReason::Stop,
        policy_version: 0,
        constrained: false,
    }
}

fn rollout(id: usize, group: usize, outcome: Outcome, calls: Vec<Call>) -> Rollout {
    let task_id = format!("task-{group}");
    Rollout {
        id,
        task_id,
        group,
        calls,
        signals: Vec::new(),
        process_rewards: Vec::new(),
        answer: None,
        outcome,
    }
}

/// Two groups; one rollout of the first has no reward.
fn rollouts() -> Vec<Rollout> {
    let two = || vec![call("first", 3, 2), call("second", 9, 4)];
    vec![
        rollout(0, 0, Outcome::Reward(1.0), two()),
        rollout(1, 0, Outcome::Missing("no".to_owned()), two()),
        rollout(2, 0, Outcome::Reward(0.0), two()),
        rollout(3, 1, Outcome::Reward(1.0), vec![call("first", 3, 0), call("first", 4, 1)]),
        rollout(4, 1, Outcome::Reward(0.0), two()),
    ]
}

fn batch(roles: &[&str], max_prompt_tokens: usize) -> Batch {
    batch_with(&AlgorithmConfig::default(), roles, max_prompt_tokens)
}

fn batch_with(algorithm: &AlgorithmConfig, roles: &[&str], max_prompt_tokens: usize) -> Batch {
    batch_of(&rollouts(), algorithm, roles, max_prompt_tokens, Truncated::Train)
}

fn batch_of(
    rollouts: &[Rollout],
    algorithm: &AlgorithmConfig,
    roles: &[&str],
    max_prompt_tokens: usize,
    truncated: Truncated,
) -> Batch {
    let roles: Vec<String> = roles.iter().map(|&role| role.to_owned()).collect();
    let left_out = HashSet::new();
    let selection = Selection {
        roles: &roles,
        max_prompt_tokens,
        credit: &algorithm.credit,
        truncated,
        left_out: &left_out,
        layout: Layout::Forest,
    };
    let mut batch = Batch::unassigned(rollouts, &selection);
    batch.assign(algorithm, None, 1).unwrap();
    batch
}

/// What is left out is counted by its reason, once.
#[test]
fn calls_that_are_left_out_are_counted() {
    let mut rollouts = rollouts();
    rollouts[0].calls[1].finish = FinishReason::Length;
    rollouts[2].calls[0].finish = FinishReason::Length;
    rollouts[4].calls[0].constrained = true;
    let algorithm = AlgorithmConfig::default();
    let of = |longest, truncated| batch_of(&rollouts, &algorithm, &[], longest, truncated);
    let trained = of(100, Truncated::Train);
    assert_eq!(trained.left_out, LeftOut { constrained: 1, ..LeftOut::default() });
    assert_eq!(trained.rows.len(), 6);
    let masked = of(100, Truncated::Mask);
    assert_eq!(masked.left_out, LeftOut { constrained: 1, truncated: 2, long_prompts: 0 });
    assert_eq!(masked.rows.len(), 4);
    let short = of(3, Truncated::Mask);
    assert_eq!(short.left_out, LeftOut { constrained: 1, truncated: 1, long_prompts: 4 });
    assert_eq!(short.rows.len(), 1);
}

#[test]
fn a_row_is_a_selected_call_of_a_rollout_with_a_reward() {
    for (roles, longest, rows, tokens) in [
        // The empty response is not a row.
        (&[][..], 100, 7, 2 + 4 + 2 + 4 + 1 + 2 + 4),
        (&["second"], 100, 3, 12),
        (&[], 3, 3, 6),
        (&["unknown"], 100, 0, 0),
    ] {
        let batch = batch(roles, longest);
        assert_eq!((batch.rows.len(), batch.shape.tokens()), (rows, tokens), "{roles:?}");
        assert_eq!(batch.advantages.len(), tokens);
        assert_eq!(batch.logp_sampler, vec![-1.0; tokens]);
    }
}

#[test]
fn credit_is_assigned_to_its_calls() {
    let batch = batch(&["second"], 100);
    let credit: Vec<Vec<Option<f64>>> =
        batch.credit.iter().map(|calls| calls.iter().map(|c| c.credit).collect()).collect();
    assert_eq!(
        credit,
        [
            vec![None, Some(1.0)],
            vec![None; 2],
            vec![None, Some(0.0)],
            vec![None; 2],
            vec![None, Some(0.0)]
        ]
    );
    let better = batch.credit[0][1].advantage.unwrap();
    let worse = batch.credit[2][1].advantage.unwrap();
    assert!(better > 0.0 && (better + worse).abs() < 1e-12, "{better} and {worse}");
    // The only row of its group has advantage 0.
    assert_eq!(batch.credit[4][1].advantage, Some(0.0));
    assert_eq!(batch.counters.singletons, 1);
}

#[test]
fn calls_that_the_credit_rule_leaves_out_are_not_rows() {
    let algorithm: AlgorithmConfig = toml::from_str("credit = { name = 'last_call' }").unwrap();
    let batch = batch_with(&algorithm, &[], 100);
    assert_eq!((batch.rows.len(), batch.shape.tokens()), (4, 4 + 4 + 1 + 4));
    let credit: Vec<Vec<Option<f64>>> =
        batch.credit.iter().map(|calls| calls.iter().map(|c| c.credit).collect()).collect();
    let earned = [Some(1.0), None, Some(0.0), Some(1.0), Some(0.0)];
    assert_eq!(credit, earned.map(|last| vec![None, last]));
}

#[test]
fn a_batch_without_rows_is_not_an_update() {
    let (.., start, _) = first_step(&["train.learning_rate=0.0"]);
    for advantage in ["grpo", "whiten", "gae", "reinforce_plus_plus"] {
        // No prompt is that short.
        let advantage = format!("algorithm.advantage={{name = '{advantage}'}}");
        let changes = ["train.max_prompt_tokens=0", "train.mini_batches=2", advantage.as_str()];
        let (record, _, weights, updates) = first_step(&changes);
        assert_eq!((updates, record.action_tokens, record.grad_norm), (0, 0, 0.0), "{advantage}");
        assert_eq!(record.extra["skipped_updates"], 2.0);
        assert!(weights.equal(&start), "{advantage}");
    }
    assert!(!first_step(&[]).0.extra.contains_key("skipped_updates"));
}

#[test]
fn mini_batches_keep_a_task_together() {
    let batch = batch(&[], 100);
    assert_eq!(batch.mini_batches(2), [vec![0, 1, 2, 3], vec![4, 5, 6]]);
    assert_eq!(batch.mini_batches(1), [(0..7).collect::<Vec<_>>()]);
    assert_eq!(batch.mini_batches(9).len(), 2, "no more parts than tasks");
}
