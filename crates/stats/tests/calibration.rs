//! How often the tests of a difference claim one that is not there, and one that is, by
//! simulation. Draws come from the seed tree, so the shares are the same in every run; they are
//! accurate to 0.5 percentage points (three standard errors of a share of 5 % in 20,000).

use std::f64::consts::TAU;

use leyden_core::SeedTree;
use leyden_stats::{MeanDifference, holm, paired_t, seeds_needed, welch_t};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

const REPETITIONS: u64 = 20_000;

/// Numbers of seeds on both sides.
const EQUAL: [usize; 6] = [3, 4, 5, 8, 12, 20];
const UNEQUAL: [(usize, usize); 8] =
    [(3, 4), (3, 5), (3, 8), (3, 20), (4, 8), (5, 20), (8, 20), (20, 3)];

type Generator = ChaCha8Rng;

fn normal(rng: &mut Generator, mean: f64, std: f64) -> f64 {
    // Box and Muller; 1 − u is never 0.
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    mean + std * (-2.0 * (1.0 - u).ln()).sqrt() * (TAU * v).cos()
}

/// The share of right answers among 64 tasks, each right with probability `level`: a binomial
/// number by inversion.
fn discrete(rng: &mut Generator, level: f64) -> f64 {
    let mut left: f64 = rng.random();
    let mut probability = (1.0 - level).powi(64);
    let mut right = 0;
    while left >= probability && right < 64 {
        left -= probability;
        probability *= f64::from(64 - right) / f64::from(right + 1) * level / (1.0 - level);
        right += 1;
    }
    f64::from(right) / 64.0
}

/// The final reward of one run, by shape.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    Normal,
    /// Beta(8, 1): most runs near 1, with a tail below.
    Skewed,
    /// Beta(½, ½): most runs near 0 or near 1.
    TwoEnds,
    /// 64 tasks, half of them right.
    Discrete,
    /// 64 tasks, few of them right: many runs are equal.
    DiscreteNearZero,
    /// Near 0.6, or near 0 with probability 0.2, for the run has collapsed.
    Collapse,
    /// Likewise, with exactly equal rewards of collapsed runs.
    DiscreteCollapse,
}

impl Shape {
    const ALL: [Self; 7] = [
        Self::Normal,
        Self::Skewed,
        Self::TwoEnds,
        Self::Discrete,
        Self::DiscreteNearZero,
        Self::Collapse,
        Self::DiscreteCollapse,
    ];

    fn draw(self, rng: &mut Generator) -> f64 {
        let collapses = |rng: &mut Generator| rng.random::<f64>() < 0.2;
        match self {
            Self::Normal => normal(rng, 0.6, 0.03),
            Self::Skewed => rng.random::<f64>().powf(1.0 / 8.0),
            Self::TwoEnds => (TAU / 4.0 * rng.random::<f64>()).sin().powi(2),
            Self::Discrete => discrete(rng, 0.5),
            Self::DiscreteNearZero => discrete(rng, 0.03),
            Self::Collapse if collapses(rng) => normal(rng, 0.0, 0.01).abs(),
            Self::Collapse => normal(rng, 0.6, 0.03),
            Self::DiscreteCollapse if collapses(rng) => 0.0,
            Self::DiscreteCollapse => discrete(rng, 0.6),
        }
    }

    fn runs(self, rng: &mut Generator, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.draw(rng)).collect()
    }
}

/// The share of repetitions in which `claims` is true.
fn share(name: &str, claims: impl Fn(&mut Generator) -> bool + Sync) -> f64 {
    let seeds = SeedTree::new(1).child("calibration").child(name);
    let claimed = (0..REPETITIONS).into_par_iter().filter(|k| claims(&mut seeds.index(*k).rng()));
    claimed.count() as f64 / REPETITIONS as f64
}

/// A group that cannot be tested makes no claim.
fn is_claimed<E>(difference: &Result<MeanDifference, E>) -> bool {
    difference.as_ref().is_ok_and(|difference| difference.p_value() < 0.05)
}

fn paired_claims(shape: Shape, n: usize) -> f64 {
    share(&format!("paired {shape:?} {n}"), |rng| {
        is_claimed(&paired_t(&shape.runs(rng, n), &shape.runs(rng, n)))
    })
}

fn unpaired_claims(shape: Shape, n: usize, m: usize) -> f64 {
    share(&format!("unpaired {shape:?} {n} {m}"), |rng| {
        is_claimed(&welch_t(&shape.runs(rng, n), &shape.runs(rng, m)))
    })
}

#[test]
fn paired_runs_of_equal_means_are_rarely_called_different() {
    for shape in Shape::ALL {
        for n in EQUAL {
            let claimed = paired_claims(shape, n);
            assert!(claimed <= 0.06, "{shape:?}, {n} pairs: {claimed}");
            // The test is exact for normal rewards.
            assert!(shape != Shape::Normal || claimed >= 0.04, "{n} pairs: {claimed}");
        }
    }
}

#[test]
fn seeds_in_common_do_not_matter_to_the_paired_test() {
    for n in EQUAL {
        let claimed = share(&format!("correlated {n}"), |rng| {
            let seeds: Vec<f64> = (0..n).map(|_| normal(rng, 0.6, 0.1)).collect();
            let mut side =
                || -> Vec<f64> { seeds.iter().map(|seed| normal(rng, *seed, 0.02)).collect() };
            let (before, after) = (side(), side());
            is_claimed(&paired_t(&before, &after))
        });
        assert!((0.04..=0.06).contains(&claimed), "{n} pairs: {claimed}");
    }
}

#[test]
fn independent_runs_of_equal_means_are_rarely_called_different() {
    for shape in Shape::ALL {
        for n in EQUAL {
            let claimed = unpaired_claims(shape, n, n);
            assert!(claimed <= 0.06, "{shape:?}, {n} and {n} runs: {claimed}");
            // With three or four runs on each side Welch's degrees of freedom are too low.
            let least = if n < 5 { 0.025 } else { 0.04 };
            assert!(shape != Shape::Normal || claimed >= least, "{n} and {n} runs: {claimed}");
        }
    }
}

/// Welch's standard error alone claims up to 26 % here.
#[test]
fn groups_of_unequal_size_are_rarely_called_different() {
    for shape in Shape::ALL {
        for (n, m) in UNEQUAL {
            let claimed = unpaired_claims(shape, n, m);
            assert!(claimed <= 0.06, "{shape:?}, {n} and {m} runs: {claimed}");
        }
    }
}

/// The least favourable rewards known: two neighbouring values, equally likely.
#[test]
fn rewards_of_two_values_stay_below_a_tenth() {
    let two = |rng: &mut Generator, n: usize| -> Vec<f64> {
        (0..n).map(|_| if rng.random::<bool>() { 38.0 / 64.0 } else { 39.0 / 64.0 }).collect()
    };
    for n in EQUAL {
        let paired = share(&format!("two values, paired {n}"), |rng| {
            is_claimed(&paired_t(&two(rng, n), &two(rng, n)))
        });
        let unpaired = share(&format!("two values {n}"), |rng| {
            is_claimed(&welch_t(&two(rng, n), &two(rng, n)))
        });
        assert!(paired <= 0.07 && unpaired <= 0.09, "{n} runs: {paired}, {unpaired}");
    }
}

/// Five variants equal to their baseline, at three numbers of seeds.
#[test]
fn holm_keeps_the_rate_of_a_family() {
    for n in [3, 5, 12] {
        let claims = |adjusted: bool| {
            share(&format!("family {n}"), |rng| {
                let base = Shape::Normal.runs(rng, n);
                let p: Vec<f64> = (0..5)
                    .map(|_| paired_t(&base, &Shape::Normal.runs(rng, n)).unwrap().p_value())
                    .collect();
                let p = if adjusted { holm(&p) } else { p };
                p.iter().any(|p| *p < 0.05)
            })
        };
        let (adjusted, single) = (claims(true), claims(false));
        assert!(adjusted <= 0.055, "{n} seeds: {adjusted}");
        assert!(single > 0.12, "{n} seeds: without correction {single}");
    }
}

#[test]
fn large_differences_are_claimed() {
    let claimed = |n: usize, difference: f64| {
        share(&format!("power {n} {difference}"), |rng| {
            // Differences of pairs have a standard deviation of 1.
            let before: Vec<f64> = (0..n).map(|_| normal(rng, 0.0, 0.5f64.sqrt())).collect();
            let after: Vec<f64> = (0..n).map(|_| normal(rng, difference, 0.5f64.sqrt())).collect();
            is_claimed(&paired_t(&before, &after))
        })
    };
    let power = claimed(5, 2.0);
    assert!(power > 0.8, "{power}");
    // A difference of two standard deviations of one run, √2 of those of the differences.
    let power = claimed(5, 2f64.sqrt());
    assert!(power > 0.55, "{power}");
    let n = seeds_needed(1.0, true, 1.0, 0.8).unwrap();
    let power = claimed(n as usize, 1.0);
    assert!((0.78..0.84).contains(&power), "{n} seeds: {power}");
}

#[test]
fn the_number_of_independent_seeds_needed_has_the_power() {
    let n = seeds_needed(0.03, false, 0.02, 0.8).unwrap() as usize;
    let power = share("power of independent runs", |rng| {
        let a: Vec<f64> = (0..n).map(|_| normal(rng, 0.60, 0.03)).collect();
        let b: Vec<f64> = (0..n).map(|_| normal(rng, 0.62, 0.03)).collect();
        is_claimed(&welch_t(&a, &b))
    });
    assert!((0.78..0.84).contains(&power), "{n} seeds: {power}");
}
