//! Fusion of the rankings of several retrievers.

use std::collections::HashMap;
use std::sync::Arc;

use crate::retriever::{Hit, RetrievalError, Retriever};

/// The constant of the original paper.
pub const RRF_CONSTANT: f64 = 60.0;

/// Reciprocal rank fusion: score(d) = Σ_r 1 / (c + rank_r(d)), over the rankings r that contain d,
/// ranks counted from 1 (Cormack, Clarke and Büttcher 2009, with c = 60).
///
/// Uses only ranks, so the scores of the retrievers need not be comparable. Returns (item, score),
/// best first, ties in the order of the items. A repeated item of a ranking counts at its first
/// position.
pub fn reciprocal_rank_fusion<T: Ord + Clone + std::hash::Hash>(
    rankings: &[Vec<T>],
    constant: f64,
) -> Vec<(T, f64)> {
    let mut scores: HashMap<&T, f64> = HashMap::new();
    for ranking in rankings {
        let mut seen = std::collections::HashSet::new();
        for (index, item) in ranking.iter().enumerate() {
            if seen.insert(item) {
                *scores.entry(item).or_default() += 1.0 / (constant + index as f64 + 1.0);
            }
        }
    }
    let mut fused: Vec<(T, f64)> = scores.into_iter().map(|(item, s)| (item.clone(), s)).collect();
    fused.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.cmp(b)));
    fused
}

/// Several retrievers over one corpus, fused by reciprocal rank.
pub struct Hybrid {
    retrievers: Vec<Arc<dyn Retriever>>,
    depth: usize,
}

impl Hybrid {
    /// Fuses the first `depth` passages of each of `retrievers`. They must have the same corpus in
    /// the same order, because passages are identified by number.
    pub fn new(retrievers: Vec<Arc<dyn Retriever>>, depth: usize) -> Self {
        Self { retrievers, depth }
    }
}

impl Retriever for Hybrid {
    fn retrieve(&self, query: &str, k: usize) -> Result<Vec<Hit>, RetrievalError> {
        let mut rankings = Vec::with_capacity(self.retrievers.len());
        let mut hits: HashMap<usize, Hit> = HashMap::new();
        for retriever in &self.retrievers {
            let found = retriever.retrieve(query, self.depth.max(k))?;
            rankings.push(found.iter().map(|hit| hit.number).collect());
            for hit in found {
                hits.entry(hit.number).or_insert(hit);
            }
        }
        let fused = reciprocal_rank_fusion(&rankings, RRF_CONSTANT);
        let hit = |(number, score)| hits.remove(&number).map(|hit| Hit { score, ..hit });
        Ok(fused.into_iter().take(k).filter_map(hit).collect())
    }
}

#[cfg(test)]
mod tests {
    use leyden_core::Passage;

    use super::*;

    #[test]
    fn fusion_as_worked_by_hand() {
        // c = 60: a = 1/61 + 1/63, b = 1/62 + 1/61, c = 1/63, d = 1/62.
        let fused = reciprocal_rank_fusion(&[vec!["a", "b", "c"], vec!["b", "d", "a"]], 60.0);
        let items: Vec<&str> = fused.iter().map(|(item, _)| *item).collect();
        assert_eq!(items, ["b", "a", "d", "c"]);
        let expected = [0.032_522_474_881, 0.032_266_458_496, 0.016_129_032_258, 0.015_873_015_873];
        for ((item, score), expected) in fused.iter().zip(expected) {
            assert!((score - expected).abs() < 1e-12, "{item}: {score}");
        }
    }

    #[test]
    fn ties_are_ordered_and_repetitions_count_once() {
        let fused = reciprocal_rank_fusion(&[vec![7, 3, 7], vec![3, 7]], 60.0);
        assert_eq!(fused[0].1, fused[1].1);
        assert_eq!((fused[0].0, fused[1].0), (3, 7));
        assert_eq!(reciprocal_rank_fusion::<u8>(&[], 60.0), []);
    }

    /// Returns the given numbers.
    struct Fixed(Vec<usize>);

    impl Retriever for Fixed {
        fn retrieve(&self, _: &str, k: usize) -> Result<Vec<Hit>, RetrievalError> {
            let hit = |&number: &usize| {
                let passage =
                    Passage { id: format!("p{number}"), title: String::new(), text: "x".into() };
                Hit { passage, number, score: 1.0 }
            };
            Ok(self.0.iter().take(k).map(hit).collect())
        }
    }

    #[test]
    fn a_passage_that_both_find_comes_first() {
        let retrievers: Vec<Arc<dyn Retriever>> =
            vec![Arc::new(Fixed(vec![1, 2, 3])), Arc::new(Fixed(vec![4, 3]))];
        let hybrid = Hybrid::new(retrievers, 10);
        let hits = hybrid.retrieve("q", 3).unwrap();
        let ids: Vec<&str> = hits.iter().map(|hit| hit.passage.id.as_str()).collect();
        assert_eq!(ids, ["p3", "p1", "p4"]);
        assert_eq!(hits[0].score, 1.0 / 63.0 + 1.0 / 62.0);
    }
}
