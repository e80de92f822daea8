//! A variant's final rewards compared with those of the baseline.

use leyden_stats::{
    DifferenceError, FEWEST_RUNS, MeanDifference, holm, mean, paired_t, seeds_needed, welch_t,
};

use super::summary::Measured;

/// The difference for which the number of seeds is given.
pub(super) const DIFFERENCE_OF_INTEREST: f64 = 0.02;

/// The probability with which that number of seeds shows it.
pub(super) const POWER: f64 = 0.8;

/// Which runs are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Design {
    /// Runs of equal seed, by Student's paired t test.
    Paired {
        /// The seeds that both sides have, ascending.
        seeds: Vec<u64>,
        /// The seeds of either side that the other has not, ascending.
        unpaired: Vec<u64>,
    },
    /// All runs as independent ones, by Welch's t test.
    Independent { runs: usize, baseline: usize },
}

/// A comparison with the baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    pub design: Design,
    /// Difference of the mean final rewards, also where no test is possible.
    pub mean: f64,
    pub test: Result<MeanDifference, DifferenceError>,
    /// The p value by Holm's correction over all comparisons of the sweep; `None` without a test.
    pub adjusted_p: Option<f64>,
    /// Seeds for which a difference of 0.02 would be shown with probability 0.8, at the measured
    /// spread.
    pub seeds_needed: Option<u64>,
}

impl Comparison {
    /// Compares final rewards by seed: over the pairs of equal seed if there are enough, else as
    /// independent runs. `None` if a side has no run.
    pub(super) fn of(own: &[(u64, f64)], base: &[(u64, f64)]) -> Option<Self> {
        let counterpart = |of: &[(u64, f64)], seed: u64| {
            of.iter().find(|(other, _)| *other == seed).map(|(_, reward)| *reward)
        };
        let mut pairs: Vec<(u64, f64, f64)> = own
            .iter()
            .filter_map(|&(seed, reward)| Some((seed, counterpart(base, seed)?, reward)))
            .collect();
        pairs.sort_by_key(|pair| pair.0);
        let (design, before, after): (Design, Vec<f64>, Vec<f64>) = if pairs.len() >= FEWEST_RUNS {
            let seeds: Vec<u64> = pairs.iter().map(|pair| pair.0).collect();
            let both = own.iter().chain(base).map(|(seed, _)| *seed);
            let mut unpaired: Vec<u64> = both.filter(|seed| !seeds.contains(seed)).collect();
            unpaired.sort_unstable();
            let (before, after) = pairs.iter().map(|pair| (pair.1, pair.2)).unzip();
            (Design::Paired { seeds, unpaired }, before, after)
        } else {
            let rewards = |of: &[(u64, f64)]| of.iter().map(|(_, reward)| *reward).collect();
            let design = Design::Independent { runs: own.len(), baseline: base.len() };
            (design, rewards(base), rewards(own))
        };
        let paired = matches!(design, Design::Paired { .. });
        let test = if paired { paired_t(&before, &after) } else { welch_t(&before, &after) };
        let needed =
            |test: &MeanDifference| seeds_needed(test.std, paired, DIFFERENCE_OF_INTEREST, POWER);
        Some(Self {
            design,
            mean: mean(&after)? - mean(&before)?,
            seeds_needed: test.as_ref().ok().and_then(needed),
            test,
            adjusted_p: None,
        })
    }

    /// The mean difference with its 95 % interval.
    pub fn difference(&self) -> Measured {
        let interval = self.test.as_ref().ok().map(MeanDifference::interval);
        Measured { value: self.mean, interval: interval.map(|i| (i.low, i.high)) }
    }

    /// The p value of this comparison alone.
    pub fn p_value(&self) -> Option<f64> {
        self.test.as_ref().ok().map(MeanDifference::p_value)
    }

    /// A note if not all runs are paired by seed.
    pub(super) fn note(&self, variant: &str) -> Option<String> {
        let list = |seeds: &[u64]| seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        match &self.design {
            Design::Paired { unpaired, .. } if unpaired.is_empty() => None,
            Design::Paired { seeds, unpaired } => Some(format!(
                "{variant} is compared with the baseline over the seeds that both have, {}; \
                 without a counterpart: {}.",
                list(seeds),
                list(unpaired)
            )),
            Design::Independent { .. } if self.test.is_ok() => Some(format!(
                "{variant} and the baseline have fewer than {FEWEST_RUNS} seeds in common: their \
                 runs are compared as independent ones."
            )),
            Design::Independent { .. } => None,
        }
    }
}

/// Fills in the p values by Holm's correction. A comparison without spread counts with p = 1,
/// because it could have become a claim; one with too few seeds could not and does not count.
pub(super) fn adjust(comparisons: &mut [&mut Comparison]) {
    let p: Vec<f64> = comparisons
        .iter()
        .filter_map(|comparison| match comparison.test {
            Err(DifferenceError::NoSpread { .. }) => Some(1.0),
            _ => comparison.p_value(),
        })
        .collect();
    let mut adjusted = holm(&p).into_iter();
    for comparison in comparisons {
        comparison.adjusted_p = match comparison.test {
            Err(DifferenceError::NoSpread { .. }) => adjusted.next().and(None),
            _ => comparison.p_value().and_then(|_| adjusted.next()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_seed(rewards: &[f64]) -> Vec<(u64, f64)> {
        rewards.iter().enumerate().map(|(k, reward)| (k as u64 + 1, *reward)).collect()
    }

    #[test]
    fn runs_are_paired_by_seed_whatever_their_order() {
        let base = by_seed(&[0.50, 0.60, 0.40, 0.55]);
        let mut own = by_seed(&[0.56, 0.67, 0.45, 0.59]);
        own.reverse();
        own.push((9, 0.0));
        let found = Comparison::of(&own, &base).unwrap();
        let design = Design::Paired { seeds: vec![1, 2, 3, 4], unpaired: vec![9] };
        assert_eq!(found.design, design);
        assert!((found.mean - 0.055).abs() < 1e-12 && found.p_value().unwrap() < 0.05);
        assert!(found.difference().interval.unwrap().0 > 0.0);
        let note = found.note("own").unwrap();
        assert!(note.contains("1, 2, 3, 4; without a counterpart: 9"), "{note}");
    }

    #[test]
    fn runs_of_other_seeds_are_independent() {
        let base = by_seed(&[0.50, 0.60, 0.40]);
        let own = [(3, 0.55), (4, 0.65), (5, 0.45), (6, 0.50)];
        let found = Comparison::of(&own, &base).unwrap();
        assert_eq!(found.design, Design::Independent { runs: 4, baseline: 3 });
        assert_eq!(found.test.as_ref().unwrap().mean, found.mean);
        assert!(found.note("own").unwrap().contains("as independent ones"));
        let few = Comparison::of(&own[..2], &base).unwrap();
        assert_eq!(few.test, Err(DifferenceError::TooFew { found: 2 }));
        assert!((few.mean - 0.1).abs() < 1e-12 && few.note("own").is_none());
        assert!(Comparison::of(&[], &base).is_none());
    }

    #[test]
    fn the_correction_counts_the_comparisons_that_could_become_claims() {
        let base = by_seed(&[0.50, 0.60, 0.40, 0.55]);
        let mut clear = Comparison::of(&by_seed(&[0.56, 0.67, 0.45, 0.59]), &base).unwrap();
        let mut same = Comparison::of(&base, &base).unwrap();
        let mut unclear = Comparison::of(&by_seed(&[0.56, 0.54, 0.45, 0.50]), &base).unwrap();
        let mut few = Comparison::of(&by_seed(&[0.9]), &base).unwrap();
        adjust(&mut [&mut same, &mut clear, &mut few, &mut unclear]);
        let p = clear.p_value().unwrap();
        assert!((clear.adjusted_p.unwrap() - 3.0 * p).abs() < 1e-15);
        let expected = (2.0 * unclear.p_value().unwrap()).min(1.0);
        assert!((unclear.adjusted_p.unwrap() - expected).abs() < 1e-15);
        assert_eq!((same.adjusted_p, few.adjusted_p), (None, None));
    }
}
