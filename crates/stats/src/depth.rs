//! Evaluations with several samples per item: pass@k, majority@k, and the two sources of error.
//!
//! The mean over one sample per item mixes two kinds of chance: which items are in the test set, and
//! which response was drawn for each. With several samples the second is measured and shrinks;
//! the first does not.

use std::collections::BTreeMap;

use crate::numbers::{mean, sample_std};

/// The probability that at least one of `k` samples drawn without replacement from `n`, of which
/// `correct` are correct, is correct: the unbiased estimate `1 − C(n − c, k) / C(n, k)` of Chen et
/// al., arXiv 2107.03374. `None` if `k` is 0 or above `n`, or more are correct than there are.
///
/// ```
/// // One of four is correct: a pair has it in half of the cases.
/// assert_eq!(leyden_stats::pass_at(2, 4, 1), Some(0.5));
/// ```
pub fn pass_at(k: usize, n: usize, correct: usize) -> Option<f64> {
    if k == 0 || k > n || correct > n {
        return None;
    }
    // ∏ (n − c − i) / (n − i) over the k draws; 0 as soon as the wrong ones are used up.
    let none = (0..k).map(|i| (n - correct).saturating_sub(i) as f64 / (n - i) as f64);
    Some(1.0 - none.product::<f64>())
}

/// The expected reward of the most frequent vote: `votes` has the vote and the reward of each
/// sample, `None` for a sample without an answer, which does not vote. Of votes that are equally
/// frequent one is drawn at random. Without any vote, the mean reward. `None` without samples.
///
/// ```
/// let votes = [(Some("7"), 0.0), (Some("42"), 1.0), (Some("42"), 1.0), (None, 0.0)];
/// assert_eq!(leyden_stats::majority(&votes), Some(1.0));
/// ```
pub fn majority<V: Ord>(votes: &[(Option<V>, f64)]) -> Option<f64> {
    let mut by_vote: BTreeMap<&V, Vec<f64>> = BTreeMap::new();
    for (vote, reward) in votes {
        if let Some(vote) = vote {
            by_vote.entry(vote).or_default().push(*reward);
        }
    }
    let Some(most) = by_vote.values().map(Vec::len).max() else {
        return mean(&votes.iter().map(|(_, reward)| *reward).collect::<Vec<_>>());
    };
    let first = by_vote.values().filter(|rewards| rewards.len() == most);
    mean(&first.filter_map(|rewards| mean(rewards)).collect::<Vec<_>>())
}

/// Standard errors of the mean over items of the mean over samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Errors {
    /// Of other items and other samples.
    pub total: f64,
    /// Of other samples of the same items.
    pub sampling: f64,
    /// Of other items, each with infinitely many samples.
    pub items: f64,
}

/// The errors of `items`, each with the rewards of its samples; `None` unless there are two items
/// and one of them has two samples.
///
/// With the sample variance s²ᵢ of item i and its k samples, sampling has the variance
/// `Σ s²ᵢ / kᵢ / n²`; the variance of the item means over n has both kinds (one-way analysis of
/// variance with random effects).
///
/// ```
/// // Items that always or never succeed: all error is that of the items.
/// let errors = leyden_stats::errors(&[vec![1.0, 1.0], vec![0.0, 0.0]]).unwrap();
/// assert_eq!((errors.sampling, errors.items), (0.0, 0.5));
/// ```
pub fn errors(items: &[Vec<f64>]) -> Option<Errors> {
    let means: Vec<f64> = items.iter().filter_map(|samples| mean(samples)).collect();
    let n = means.len() as f64;
    let total = sample_std(&means)? / n.sqrt();
    let of_item = |samples: &Vec<f64>| Some(sample_std(samples)?.powi(2) / samples.len() as f64);
    let own: Vec<f64> = items.iter().filter_map(of_item).collect();
    // Items with one sample are taken to vary as the others do.
    let sampling = (mean(&own)? / n).sqrt();
    let items = (total.powi(2) - sampling.powi(2)).max(0.0).sqrt();
    Some(Errors { total, sampling, items })
}

#[cfg(test)]
mod tests {
    use leyden_core::SeedTree;
    use proptest::prelude::*;

    use super::*;

    /// All subsets of k of n samples, the first `correct` of which are correct.
    fn by_counting(k: usize, n: usize, correct: usize) -> f64 {
        let subsets: Vec<u32> = (0..1u32 << n).filter(|s| s.count_ones() as usize == k).collect();
        let with = subsets.iter().filter(|s| **s & ((1 << correct) - 1) != 0).count();
        with as f64 / subsets.len() as f64
    }

    proptest! {
        #[test]
        fn pass_at_k_is_the_share_of_subsets(n in 1usize..9, k in 1usize..9, correct in 0usize..9) {
            let (k, correct) = (k.min(n), correct.min(n));
            let ours = pass_at(k, n, correct).unwrap();
            prop_assert!((ours - by_counting(k, n, correct)).abs() < 1e-12);
        }
    }

    #[test]
    fn impossible_counts_have_no_estimate() {
        assert_eq!(pass_at(0, 4, 1), None);
        assert_eq!(pass_at(5, 4, 1), None);
        assert_eq!(pass_at(1, 4, 5), None);
        assert_eq!(pass_at(1, 4, 1), Some(0.25));
        assert_eq!(pass_at(4, 4, 1), Some(1.0));
    }

    #[test]
    fn equal_votes_share_and_missing_answers_do_not_vote() {
        assert_eq!(majority(&[(Some("a"), 1.0), (Some("b"), 0.0)]), Some(0.5));
        assert_eq!(majority(&[(None, 0.0), (None, 0.0), (Some("a"), 1.0)]), Some(1.0));
        assert_eq!(majority::<&str>(&[(None, 0.25), (None, 0.75)]), Some(0.5));
        assert_eq!(majority::<&str>(&[]), None);
    }

    /// Against simulation: items with success probabilities 0, ½ and 1, four samples each.
    #[test]
    fn errors_are_those_of_repeated_evaluations() {
        let draw =
            |seed: SeedTree, probability: f64| f64::from(u8::from(seed.uniform() < probability));
        let evaluation = |seed: SeedTree| -> Vec<Vec<f64>> {
            let item = |i: u64| {
                let p = [0.0, 0.5, 1.0][(seed.child("item").index(i).uniform() * 3.0) as usize];
                (0..4).map(|k| draw(seed.index(i).index(k), p)).collect()
            };
            (0..60).map(item).collect()
        };
        let all: Vec<Vec<Vec<f64>>> = (0..2000).map(|n| evaluation(SeedTree::new(n))).collect();
        let means: Vec<f64> = all.iter().map(|items| mean(&items.concat()).unwrap()).collect();
        let average = |of: fn(&Errors) -> f64| {
            mean(&all.iter().map(|items| of(&errors(items).unwrap())).collect::<Vec<_>>()).unwrap()
        };
        let spread = sample_std(&means).unwrap();
        assert!((average(|e| e.total) / spread - 1.0).abs() < 0.05);
        // A third of the items has the variance ¼ · ¼ of a mean of four.
        let expected = (1.0_f64 / 3.0 * 0.25 / 4.0 / 60.0).sqrt();
        assert!((average(|e| e.sampling) / expected - 1.0).abs() < 0.05);
        assert_eq!(errors(&[vec![1.0], vec![0.0]]), None);
        assert_eq!(errors(&[vec![1.0, 0.0]]), None);
    }
}
