//! Every credit rule with every estimator on batches with little or nothing in them: no rows, rows
//! without tokens, all tokens masked, one token, groups of one, equal rewards.

use leyden_rl::Rows;
use leyden_rl::advantage::AdvantageConfig;
use leyden_rl::assign::Assigned;
use leyden_rl::config::AlgorithmConfig;
use leyden_rl::credit::{CreditConfig, Trajectory, TrajectoryCall};
use leyden_rl::loss::LossConfig;
use proptest::collection::vec;
use proptest::prelude::*;

/// Every valid pair of rules, with a loss that rescales advantages and with the default loss.
fn algorithms() -> Vec<AlgorithmConfig> {
    let mut all = Vec::new();
    for loss in LossConfig::all() {
        if loss != LossConfig::default() && loss.advantage_factor(2, 1) == 1.0 {
            continue;
        }
        for advantage in AdvantageConfig::all() {
            for credit in CreditConfig::all() {
                let (advantage, loss) = (advantage.clone(), loss.clone());
                all.push(AlgorithmConfig { credit, advantage, loss, ..AlgorithmConfig::default() });
            }
        }
    }
    all.retain(|config| config.validate().is_ok());
    assert!(all.len() > 100, "{} pairs", all.len());
    all
}

/// A call of `tokens` tokens with all inputs that a rule may need.
fn call(tokens: usize, trained: bool, state: usize, value: f64) -> TrajectoryCall {
    TrajectoryCall {
        agent_role: ["write", "rewrite"][state % 2].to_owned(),
        tokens,
        trained,
        value: Some(value),
        token_values: Some(vec![value; tokens]),
        anchor: Some(state.to_string()),
        reward_without: Some(0.5),
        ..TrajectoryCall::default()
    }
}

/// The trained calls as rows; `is_active` gives the mask by flat position.
fn rows_of(
    config: &AlgorithmConfig,
    trajectories: &[Trajectory],
    is_active: impl Fn(usize) -> bool,
) -> Rows {
    let credit = config.credit.assign(trajectories).unwrap();
    let places = credit.trajectories.iter().zip(&credit.calls);
    let lengths: Vec<usize> =
        places.map(|(&index, &call)| trajectories[index].calls[call].tokens).collect();
    Rows::new(&lengths, (0..lengths.iter().sum()).map(is_active).collect()).unwrap()
}

/// The advantages, which must exist, be finite and be 0 outside the mask.
fn assign(config: &AlgorithmConfig, trajectories: &[Trajectory], rows: &Rows) -> Assigned {
    let assigned = config.assign(trajectories, rows, None).unwrap_or_else(|error| {
        panic!("{} with {}: {error}", config.credit.name(), config.advantage.name())
    });
    let advantages = &assigned.advantages;
    assert_eq!(advantages.per_row.len(), rows.len());
    assert_eq!(advantages.per_token.len(), rows.tokens());
    assert!(advantages.per_row.iter().all(|a| a.is_finite()), "{config:?}: {advantages:?}");
    for (t, &a) in advantages.per_token.iter().enumerate() {
        assert!(a.is_finite() && (rows.mask()[t] || a == 0.0), "{config:?}: {a} at {t}");
    }
    assigned
}

fn reward() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(1.0), Just(0.1)]
}

/// Up to three trajectories of up to three calls of up to two tokens.
fn trajectories() -> impl Strategy<Value = Vec<Trajectory>> {
    let call = (0usize..3, any::<bool>(), 0usize..2, -1.0..1.0)
        .prop_map(|(tokens, trained, state, value)| call(tokens, trained, state, value));
    let trajectory = (0usize..2, reward(), vec(call, 0..4));
    vec(trajectory.prop_map(|(group, reward, calls)| Trajectory { group, reward, calls }), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn small_batches_have_finite_advantages(
        trajectories in trajectories(),
        mask in vec(any::<bool>(), 18),
    ) {
        for config in algorithms() {
            let rows = rows_of(&config, &trajectories, |t| mask[t % mask.len()]);
            assign(&config, &trajectories, &rows);
        }
    }

    #[test]
    fn fully_masked_batches_have_no_advantage(trajectories in trajectories()) {
        for config in algorithms() {
            let rows = rows_of(&config, &trajectories, |_| false);
            let advantages = assign(&config, &trajectories, &rows).advantages;
            prop_assert!(advantages.per_token.iter().all(|&a| a == 0.0), "{config:?}");
        }
    }
}

#[test]
fn empty_batches_have_no_advantages() {
    let untrained = Trajectory { group: 0, reward: 1.0, calls: vec![call(2, false, 0, 0.5)] };
    let without_calls = Trajectory::of_calls(0, 1.0, 0);
    for config in algorithms() {
        for trajectories in [&[][..], &[untrained.clone(), without_calls.clone()]] {
            let assigned = assign(&config, trajectories, &Rows::dense(&[]));
            assert!(assigned.advantages.per_token.is_empty());
            assert_eq!(assigned.advantages.counters.groups, 0, "{config:?}");
        }
    }
}

/// A single token has no variance and a single rollout no comparison.
#[test]
fn one_token_is_not_compared_with_itself() {
    let trajectories = [Trajectory { group: 0, reward: 1.0, calls: vec![call(1, true, 0, 0.5)] }];
    for config in algorithms() {
        let advantages = assign(&config, &trajectories, &Rows::dense(&[1])).advantages;
        // Without an estimator the credit is the advantage.
        if config.advantage.name() != "none" {
            assert_eq!(advantages.per_token, [0.0], "{config:?}");
        }
    }
}

/// Equal rewards give exactly 0 and are counted as groups without variance, so that a run can tell
/// that there is nothing to learn.
#[test]
fn equal_rewards_have_no_variance() {
    let one = |group| Trajectory { group, reward: 0.1, calls: vec![call(3, true, 0, 0.0)] };
    let trajectories = [one(0), one(0), one(1), one(1)];
    for config in algorithms() {
        let learns_values = config.needs_critic() || config.credit.is_advantage();
        if learns_values || config.advantage.name() == "none" {
            continue;
        }
        let rows = Rows::dense(&[3; 4]);
        let advantages = assign(&config, &trajectories, &rows).advantages;
        assert_eq!(advantages.per_token, [0.0; 12], "{config:?}");
        assert_eq!(advantages.counters.zero_variance, 2, "{config:?}");
    }
}
