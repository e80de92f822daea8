//! Simulated calls with known advantages: whether the correction for noise is unbiased, and how
//! often the intervals contain the truth. Draws come from the seed tree.

use leyden_core::SeedTree;
use leyden_stats::credit::{Agreement, CreditedCall, StateValue, agreement};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

const REPETITIONS: u64 = 600;
const ROLLOUTS: usize = 4;
const CALLS: usize = 3;
/// Completions per state.
const COMPLETIONS: usize = 8;

/// A standard normal number (Box and Muller).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Calls of `tasks` tasks, and their true advantages. Values of states are a random walk from a
/// value that the rollouts of a task share; the last state is the reward. Each value is the mean of
/// completions. Credit is the advantage with noise, a part of it common to the task.
fn simulate(rng: &mut ChaCha8Rng, tasks: usize) -> Vec<(CreditedCall, f64)> {
    let mut calls = Vec::new();
    let estimate = |rng: &mut ChaCha8Rng, value: f64| {
        let returns: Vec<f64> = (0..COMPLETIONS).map(|_| value + 0.4 * normal(rng)).collect();
        StateValue::of(&returns).unwrap()
    };
    for task in 0..tasks {
        // Tasks differ in how much depends on a call.
        let size = [0.05, 0.15, 0.4][task % 3];
        let (start, common) = (normal(rng), 0.1 * normal(rng));
        let first = estimate(rng, start);
        for rollout in 0..ROLLOUTS {
            let (mut value, mut known) = (start, first);
            for position in 0..CALLS {
                let advantage = size * normal(rng);
                value += advantage;
                let last = position + 1 == CALLS;
                let next = (!last).then(|| estimate(rng, value));
                let earned = if last { value } else { 0.0 };
                let (truth, noise) = known.advantage(earned, next.as_ref());
                let credit = 3.0 * (advantage + common + 0.2 * normal(rng));
                let label = String::new();
                let call = CreditedCall { task, rollout, position, label, truth, noise, credit };
                calls.push((call, advantage));
                known = next.unwrap_or(known);
            }
        }
    }
    calls
}

fn measured(calls: &[(CreditedCall, f64)], resamples: usize, seed: u64) -> Agreement {
    let calls: Vec<CreditedCall> = calls.iter().map(|(call, _)| call.clone()).collect();
    agreement(&calls, resamples, SeedTree::new(seed)).unwrap().overall
}

/// The correlation with the true advantage over infinitely many tasks.
fn correlation() -> f64 {
    let advantage = (0.05f64.powi(2) + 0.15f64.powi(2) + 0.4f64.powi(2)) / 3.0;
    (advantage / (advantage + 0.1f64.powi(2) + 0.2f64.powi(2))).sqrt()
}

fn repeat<T: Send>(name: &str, work: impl Fn(&mut ChaCha8Rng, u64) -> T + Sync) -> Vec<T> {
    let seeds = SeedTree::new(1).child(name);
    (0..REPETITIONS).into_par_iter().map(|k| work(&mut seeds.index(k).rng(), k)).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn the_correction_finds_the_correlation_with_the_true_advantage() {
    let found = repeat("correction", |rng, k| measured(&simulate(rng, 60), 0, k));
    let raw = mean(found.iter().filter_map(|own| own.correlation));
    let corrected = mean(found.iter().filter_map(|own| own.corrected));
    assert!(raw < correlation() - 0.05, "{raw} of {}", correlation());
    assert!((corrected - correlation()).abs() < 0.012, "{corrected} of {}", correlation());
}

#[test]
fn the_variance_of_the_deviation_is_that_from_the_true_advantage() {
    let found = repeat("deviation", |rng, k| {
        let calls = simulate(rng, 60);
        let ours = measured(&calls, 0, k).deviation.unwrap();
        let differences: Vec<f64> = calls.iter().map(|(call, a)| call.credit - a).collect();
        let deviation = leyden_stats::sample_std(&differences).unwrap();
        let bias = mean(differences.iter().copied());
        (ours.variance - deviation * deviation, ours.bias - bias, deviation * deviation)
    });
    let true_variance = mean(found.iter().map(|own| own.2));
    let (variance, bias) = (mean(found.iter().map(|own| own.0)), mean(found.iter().map(|o| o.1)));
    assert!(variance.abs() < 0.01 * true_variance, "{variance} of {true_variance}");
    assert!(bias.abs() < 0.003, "{bias}");
}

#[test]
fn intervals_contain_the_correlation_as_often_as_they_claim() {
    for tasks in [12, 24, 48] {
        let found =
            repeat(&format!("coverage {tasks}"), |rng, k| measured(&simulate(rng, tasks), 200, k));
        let covered = |own: &&Agreement| {
            own.corrected_interval.is_some_and(|interval| interval.contains(correlation()))
        };
        let share = found.iter().filter(covered).count() as f64 / REPETITIONS as f64;
        assert!((0.91..=0.99).contains(&share), "{tasks} tasks: {share}");
    }
}
