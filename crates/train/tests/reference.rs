//! The KL penalty: its gradient, its placement, and its effect on a run.

mod common;

use common::{largest, train};
use leyden_core::record::StepRecord;
use tch::Tensor;

/// The records of the first `steps` steps with these `changes`, and the gradient of the last.
fn run(steps: u64, changes: &[&str]) -> (Vec<StepRecord>, Tensor) {
    let trained = train(steps, changes);
    (trained.records, trained.gradient)
}

fn distance(record: &StepRecord) -> f64 {
    record.extra["reference_kl"]
}

#[test]
fn at_the_first_step_the_policy_is_its_reference() {
    let (plain, gradient) = run(1, &[]);
    assert!(!plain[0].extra.contains_key("reference_kl"), "nothing is measured without a penalty");
    // The derivatives of k2 and k3 are 0 for equal policies, up to rounding.
    for estimator in ["k2", "k3"] {
        let kl = format!("algorithm.kl={{coefficient = 0.5, estimator = '{estimator}'}}");
        let (records, with) = run(1, &[&kl]);
        assert!(distance(&records[0]).abs() < 1e-6, "{estimator}: {}", distance(&records[0]));
        assert!(largest(&(&with - &gradient)) < 1e-4 * largest(&gradient), "{estimator}");
        assert_eq!(records[0].extra["kl_coefficient"], 0.5);
    }
    // That of k1 is 1 for every token.
    let (_, with) = run(1, &["algorithm.kl={coefficient = 0.5, estimator = 'k1'}"]);
    assert!(largest(&(&with - &gradient)) > 0.01 * largest(&gradient));
}

#[test]
fn a_penalty_keeps_the_policy_near_its_reference() {
    let fast = ["train.learning_rate=0.05", "rollout.samples=8"];
    let of = |kl: &str| {
        let changes = [&fast[..], &[kl]].concat();
        let (records, _) = run(6, &changes);
        distance(&records[5])
    };
    let free = of("algorithm.kl={coefficient = 1e-9}");
    let held = of("algorithm.kl={coefficient = 5.0}");
    assert!(free > 0.01, "without a penalty the policy diverges: {free}");
    assert!(held < 0.5 * free, "{held} with a penalty, {free} without");
}

#[test]
fn a_penalty_in_the_reward_is_part_of_the_advantages() {
    let penalty = "algorithm.kl={coefficient = 2.0, placement = 'reward', estimator = 'k1'}";
    let fast = ["train.learning_rate=0.05", "rollout.samples=8"];
    let (plain, without) = run(2, &[&fast[..], &["algorithm.kl={coefficient = 1e-12}"]].concat());
    let (taxed, with) = run(2, &[&fast[..], &[penalty]].concat());
    // The penalty is 0 at the first step; at the second the gradient differs.
    assert!((plain[0].loss - taxed[0].loss).abs() < 1e-5);
    assert_eq!(plain[1].reward_histogram, taxed[1].reward_histogram);
    assert!(largest(&(&with - &without)) > 1e-3 * largest(&without));
}

#[test]
fn an_adaptive_factor_grows_while_the_policy_is_too_far_away() {
    let kl = "algorithm.kl={coefficient = 0.1, adaptive = {target = 1e-6, horizon = 16}}";
    let (records, _) = run(4, &["train.learning_rate=0.05", kl]);
    let factors: Vec<f64> = records.iter().map(|r| r.extra["kl_coefficient"]).collect();
    assert_eq!(factors[0], 0.1);
    assert!(factors[3] > factors[2] && factors[2] > factors[1], "{factors:?}");
}
