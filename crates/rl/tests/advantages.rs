//! Property tests of advantages over arbitrary batches.

use leyden_rl::Rows;
use leyden_rl::advantage::grpo::GrpoConfig;
use leyden_rl::advantage::opo::OpoConfig;
use leyden_rl::advantage::pass_k::PassKConfig;
use leyden_rl::advantage::reinforce_plus_plus_baseline::ReinforcePlusPlusBaselineConfig;
use leyden_rl::advantage::rloo::RlooConfig;
use leyden_rl::advantage::{AdvantageConfig, AdvantageInputs, Advantages, Compat, GroupOver};
use leyden_rl::credit::{CreditConfig, Trajectory, TrajectoryCall};
use leyden_rl::error::AdvantageError;
use leyden_rl::needs::Need;
use proptest::collection::vec;
use proptest::prelude::*;

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance
}

/// Realistic rewards: often equal, sometimes fractional.
fn reward() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(1.0), Just(0.1), -3.0..3.0]
}

/// Per row: score, group, rollout, length. A rollout belongs to one group.
fn batches() -> impl Strategy<Value = Vec<(f64, usize, usize, usize)>> {
    let row = (reward(), 0usize..3, 0usize..4, 1usize..5);
    vec(row.prop_map(|(score, group, k, length)| (score, group, group * 10 + k, length)), 2..14)
}

fn run(config: &AdvantageConfig, batch: &[(f64, usize, usize, usize)]) -> Advantages {
    let scores: Vec<f64> = batch.iter().map(|row| row.0).collect();
    let groups: Vec<usize> = batch.iter().map(|row| row.1).collect();
    let rollouts: Vec<usize> = batch.iter().map(|row| row.2).collect();
    let lengths: Vec<usize> = batch.iter().map(|row| row.3).collect();
    let rows = Rows::dense(&lengths);
    let values = vec![0.3; rows.tokens()];
    let batch = AdvantageInputs {
        values: Some(&values),
        ..AdvantageInputs::of_outcomes(&rows, &scores, &groups, &rollouts)
    };
    config.advantages(&batch).unwrap()
}

fn over(group_over: GroupOver) -> [AdvantageConfig; 5] {
    let compat = None;
    [
        AdvantageConfig::Grpo(GrpoConfig { group_over, ..GrpoConfig::default() }),
        AdvantageConfig::Grpo(GrpoConfig {
            group_over,
            divide_by_std: false,
            ..GrpoConfig::default()
        }),
        AdvantageConfig::Rloo(RlooConfig { group_over, compat }),
        AdvantageConfig::Opo(OpoConfig { group_over, compat }),
        AdvantageConfig::ReinforcePlusPlusBaseline(ReinforcePlusPlusBaselineConfig {
            group_over,
            compat,
        }),
    ]
}

/// All estimators; those that compare, both over rows and over rollouts.
fn estimators() -> Vec<AdvantageConfig> {
    [&AdvantageConfig::all()[..], &over(GroupOver::Rows), &over(GroupOver::Rollouts)].concat()
}

proptest! {
    #[test]
    fn the_order_of_the_rows_does_not_matter(
        (batch, order) in batches().prop_flat_map(|batch| {
            let order: Vec<usize> = (0..batch.len()).collect();
            (Just(batch), Just(order).prop_shuffle())
        })
    ) {
        let shuffled: Vec<_> = order.iter().map(|&row| batch[row]).collect();
        for config in estimators() {
            let (plain, moved) = (run(&config, &batch), run(&config, &shuffled));
            prop_assert_eq!(plain.counters, moved.counters);
            for (at, &row) in order.iter().enumerate() {
                prop_assert!(
                    close(moved.per_row[at], plain.per_row[row], 1e-6),
                    "{:?}: {} {}", config, moved.per_row[at], plain.per_row[row]
                );
            }
        }
    }

    #[test]
    fn the_advantages_of_a_group_add_up_to_zero(batch in batches()) {
        for config in &over(GroupOver::Rows)[..3] {
            let advantages = run(config, &batch);
            for group in 0..3 {
                let rows = (0..batch.len()).filter(|&row| batch[row].1 == group);
                let sum: f64 = rows.map(|row| advantages.per_row[row]).sum();
                prop_assert!(close(sum, 0.0, 1e-9), "{config:?}: {sum}");
            }
        }
    }

    #[test]
    fn groups_of_equal_scores_get_exactly_zero(batch in batches(), score in reward()) {
        let mut batch = batch;
        for row in &mut batch {
            row.0 = if row.1 == 0 { score } else { row.0 };
        }
        for config in [&over(GroupOver::Rows)[..4], &over(GroupOver::Rollouts)[..4]].concat() {
            let advantages = run(&config, &batch);
            for row in (0..batch.len()).filter(|&row| batch[row].1 == 0) {
                prop_assert_eq!(advantages.per_row[row], 0.0, "{:?}", config);
            }
        }
    }

    /// With one call per rollout, rows and rollouts are equivalent.
    #[test]
    fn rollouts_of_one_row_are_rows(batch in batches()) {
        let mut batch = batch;
        for (row, entry) in batch.iter_mut().enumerate() {
            entry.2 = row;
        }
        for (by_row, by_rollout) in over(GroupOver::Rows).iter().zip(&over(GroupOver::Rollouts)) {
            prop_assert_eq!(run(by_row, &batch), run(by_rollout, &batch));
        }
    }

    /// Without its epsilon GRPO is invariant to the scale of rewards.
    #[test]
    fn grpo_is_invariant_to_the_reward_scale(
        batch in batches(),
        scale in 0.1..10.0,
        shift in -2.0..2.0,
    ) {
        let exact = AdvantageConfig::Grpo(GrpoConfig { epsilon: 0.0, ..GrpoConfig::default() });
        // Skip groups whose spread is only rounding.
        let mut batch = batch;
        for row in &mut batch {
            row.0 = (row.0 * 8.0).round() / 8.0;
        }
        let other: Vec<_> =
            batch.iter().map(|row| (row.0 * scale + shift, row.1, row.2, row.3)).collect();
        let (plain, scaled) = (run(&exact, &batch), run(&exact, &other));
        for (a, b) in plain.per_row.iter().zip(&scaled.per_row) {
            prop_assert!(close(*a, *b, 1e-9), "{a} {b}");
        }
    }

    /// Values, token rewards and token credit outside the mask are ignored.
    #[test]
    fn nothing_outside_the_mask_is_read(
        masks in vec(vec(any::<bool>(), 1..6), 2..8),
        scores in vec(reward(), 8),
    ) {
        let lengths: Vec<usize> = masks.iter().map(Vec::len).collect();
        let rows = Rows::new(&lengths, masks.concat()).unwrap();
        let scores = &scores[..rows.len()];
        let (groups, rollouts) = (vec![0; rows.len()], (0..rows.len()).collect::<Vec<_>>());
        let with = |outside: f64| -> Vec<f64> {
            let value = |(t, &m): (usize, &bool)| if m { 0.1 * t as f64 } else { outside };
            rows.mask().iter().enumerate().map(value).collect()
        };
        for config in estimators() {
            let of = |tokens: &[f64]| {
                let plain = AdvantageInputs::of_outcomes(&rows, scores, &groups, &rollouts);
                let (values, token_rewards) = (Some(tokens), Some(tokens));
                config
                    .advantages(&AdvantageInputs { values, token_rewards, token_credit: Some(tokens), ..plain })
                    .unwrap()
            };
            let (clean, corrupted) = (of(&with(0.0)), of(&with(f64::NAN)));
            prop_assert_eq!(&clean, &corrupted, "{:?}", config);
            for t in (0..rows.tokens()).filter(|&t| !rows.mask()[t]) {
                prop_assert_eq!(clean.per_token[t], 0.0);
            }
        }
    }

    #[test]
    fn the_same_advantage_reaches_every_token_of_a_row(batch in batches()) {
        for config in estimators() {
            if config.needs().contains(&Need::Critic) {
                continue;
            }
            let advantages = run(&config, &batch);
            let mut tokens = advantages.per_token.iter();
            for (row, entry) in batch.iter().enumerate() {
                for _ in 0..entry.3 {
                    prop_assert!(close(*tokens.next().unwrap(), advantages.per_row[row], 1e-12));
                }
            }
        }
    }
}

/// Trajectories with all inputs that a credit rule may need.
fn trajectories() -> impl Strategy<Value = Vec<Trajectory>> {
    let call = (0usize..3, -1.0..1.0, any::<bool>(), 0usize..4).prop_map(
        |(state, value, trained, tokens)| TrajectoryCall {
            agent_role: if state == 0 { "write" } else { "rewrite" }.to_owned(),
            tokens,
            signals: vec![leyden_core::SignalKind::ToolError; state],
            trained,
            step_reward: value / 2.0,
            value: Some(value),
            token_values: Some(vec![value; tokens]),
            anchor: Some(state.to_string()),
            reward_without: Some(0.5),
        },
    );
    let trajectory = (0usize..3, reward(), vec(call, 0..5));
    vec(trajectory.prop_map(|(group, reward, calls)| Trajectory { group, reward, calls }), 1..8)
}

proptest! {
    /// The credit of a trajectory does not depend on its position among the others.
    #[test]
    fn the_order_of_the_trajectories_does_not_matter(
        (trajectories, order) in trajectories().prop_flat_map(|trajectories| {
            let order: Vec<usize> = (0..trajectories.len()).collect();
            (Just(trajectories), Just(order).prop_shuffle())
        })
    ) {
        for rule in CreditConfig::all() {
            let name = rule.name();
            let plain = rule.assign(&trajectories).unwrap();
            let moved: Vec<Trajectory> = order.iter().map(|&at| trajectories[at].clone()).collect();
            let moved = rule.assign(&moved).unwrap();
            prop_assert_eq!(plain.returns.len(), moved.returns.len());
            for (row, &at) in moved.trajectories.iter().enumerate() {
                let same = (0..plain.returns.len())
                    .find(|&k| (plain.trajectories[k], plain.calls[k]) == (order[at], moved.calls[row]))
                    .unwrap();
                let (a, b) = (plain.returns[same], moved.returns[row]);
                prop_assert!(close(a, b, 1e-6), "{name}: {a} {b}");
            }
        }
    }
}

/// From trajectories to advantages, as in the trainer.
#[test]
fn credit_feeds_the_advantage() {
    let trajectories = [Trajectory::of_calls(0, 1.0, 2), Trajectory::of_calls(0, 0.0, 1)];
    let calls = CreditConfig::default().assign(&trajectories).unwrap();
    let rows = Rows::dense(&[3, 1, 2]);
    let batch =
        AdvantageInputs::of_outcomes(&rows, &calls.returns, &calls.groups, &calls.trajectories);
    let config = AdvantageConfig::Grpo(GrpoConfig {
        divide_by_std: false,
        group_over: GroupOver::Rollouts,
        ..GrpoConfig::default()
    });
    let advantages = config.advantages(&batch).unwrap();
    assert_eq!(advantages.per_row, [0.5, 0.5, -0.5]);
    assert_eq!(advantages.per_token, [0.5, 0.5, 0.5, 0.5, -0.5, -0.5]);
}

#[test]
fn a_non_finite_reward_is_rejected_by_every_estimator() {
    let compat = Some(Compat::Verl);
    let rows = Rows::dense(&[2, 2]);
    let values = [0.0; 4];
    let broken = AdvantageInputs {
        values: Some(&values),
        ..AdvantageInputs::of_outcomes(&rows, &[0.0, f64::NAN], &[0, 0], &[0, 1])
    };
    let pass_k = AdvantageConfig::PassK(PassKConfig { compat, ..PassKConfig::default() });
    for config in estimators().iter().chain([&pass_k]) {
        let error = config.advantages(&broken).unwrap_err();
        assert!(matches!(error, AdvantageError::Score { row: 1, .. }), "{config:?}: {error}");
    }
}
