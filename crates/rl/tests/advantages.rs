//! What advantages must keep to, whatever the batch.

use leyden_rl::Rows;
use leyden_rl::advantage::{
    AdvantageConfig, AdvantageError, Advantages, Batch, Compat, GaeConfig, GroupOver, GrpoConfig,
    OpoConfig, PassKConfig, ReinforcePlusPlusBaselineConfig, ReinforcePlusPlusConfig, RlooConfig,
};
use leyden_rl::credit::{CreditConfig, Episode};
use proptest::collection::vec;
use proptest::prelude::*;

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance
}

/// Rewards as they occur: often equal, sometimes fractions.
fn reward() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(1.0), Just(0.1), -3.0..3.0]
}

/// Per row: score, group, rollout, length. Rollouts stay within their group.
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
    let batch =
        Batch { values: Some(&values), ..Batch::of_outcomes(&rows, &scores, &groups, &rollouts) };
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

/// All estimators whose result has nothing to do with the order of the rows.
fn estimators() -> Vec<AdvantageConfig> {
    let mut all = [over(GroupOver::Rows), over(GroupOver::Rollouts)].concat();
    all.push(AdvantageConfig::ReinforcePlusPlus(ReinforcePlusPlusConfig::default()));
    all.push(AdvantageConfig::Gae(GaeConfig::default()));
    all
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

    /// One call per rollout: rows and rollouts are the same thing.
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

    #[test]
    fn the_same_advantage_reaches_every_token_of_a_row(batch in batches()) {
        for config in estimators() {
            if matches!(config, AdvantageConfig::Gae(_)) {
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

/// From episodes to advantages as the trainer does it.
#[test]
fn credit_feeds_the_advantage() {
    let episodes = [Episode::of_calls(0, 1.0, 2), Episode::of_calls(0, 0.0, 1)];
    let calls = CreditConfig::default().assign(&episodes).unwrap();
    let rows = Rows::dense(&[3, 1, 2]);
    let batch = Batch::of_outcomes(&rows, &calls.returns, &calls.groups, &calls.episodes);
    let config = AdvantageConfig::Grpo(GrpoConfig {
        divide_by_std: false,
        group_over: GroupOver::Rollouts,
        ..GrpoConfig::default()
    });
    let advantages = config.advantages(&batch).unwrap();
    assert_eq!(advantages.per_row, [0.5, 0.5, -0.5]);
    assert_eq!(advantages.per_token, [0.5, 0.5, 0.5, 0.5, -0.5, -0.5]);
}

/// What every estimator does with nothing, and with a reward that is none.
#[test]
fn empty_batches_and_broken_rewards() {
    let compat = Some(Compat::Verl);
    let rows = Rows::dense(&[2, 2]);
    let values = [0.0; 4];
    let broken = Batch {
        values: Some(&values),
        ..Batch::of_outcomes(&rows, &[0.0, f64::NAN], &[0, 0], &[0, 1])
    };
    let pass_k = AdvantageConfig::PassK(PassKConfig { compat, ..PassKConfig::default() });
    for config in estimators().iter().chain([&pass_k]) {
        let error = config.advantages(&broken).unwrap_err();
        assert!(matches!(error, AdvantageError::Score { row: 1, .. }), "{config:?}: {error}");
    }
    let none = Rows::dense(&[]);
    let empty = Batch::of_outcomes(&none, &[], &[], &[]);
    for config in &over(GroupOver::Rows)[..4] {
        assert_eq!(config.advantages(&empty).unwrap(), Advantages::default());
    }
    let whitened = AdvantageConfig::ReinforcePlusPlus(ReinforcePlusPlusConfig::default());
    let error = whitened.advantages(&empty).unwrap_err();
    assert_eq!(error, AdvantageError::TooFewTokens { tokens: 0 });
}
