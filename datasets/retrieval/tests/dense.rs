//! Search by embeddings: exact search compared with a sort, approximate with exact search.

use std::sync::Arc;

use leyden_core::{Passage, SeedTree};
use leyden_retrieval::{
    ApproximateIndex, Bm25, Dense, Embeddings, EmbeddingsError, Encoder, Hybrid, RetrievalError,
    Retriever, VectorIndex,
};
use proptest::prelude::*;

/// Vectors with components in [-1, 1).
fn vectors(count: usize, dimensions: usize, seed: u64) -> Vec<Vec<f32>> {
    let root = SeedTree::new(seed);
    let component = |row: usize, at: usize| {
        let draw = root.index(row as u64).index(at as u64).uniform();
        (2.0 * draw - 1.0) as f32
    };
    (0..count).map(|row| (0..dimensions).map(|at| component(row, at)).collect()).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

proptest! {
    #[test]
    fn exact_search_is_a_sort_by_cosine(
        seed in 0u64..1000, count in 1usize..200, dimensions in 1usize..40, k in 0usize..20,
    ) {
        let rows = vectors(count, dimensions, seed);
        let query = vectors(1, dimensions, seed + 5000).remove(0);
        let found = Embeddings::new(&rows).unwrap().nearest(&query, k).unwrap();
        let mut expected: Vec<f64> = rows.iter().map(|row| cosine(row, &query)).collect();
        for (number, score) in &found {
            prop_assert!((f64::from(*score) - expected[*number]).abs() < 1e-5);
        }
        expected.sort_by(|a, b| b.total_cmp(a));
        prop_assert_eq!(found.len(), k.min(count));
        for ((_, score), expected) in found.iter().zip(expected) {
            prop_assert!((f64::from(*score) - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn length_does_not_matter_and_ties_are_ordered_by_number() {
    let rows = [[0.0, 2.0], [3.0, 0.0], [0.5, 0.0], [0.0, 0.0], [-1.0, 0.0], [3e37, 0.0]];
    let embeddings = Embeddings::new(rows).unwrap();
    let found = embeddings.nearest(&[7.0, 0.0], 6).unwrap();
    assert_eq!(found, [(1, 1.0), (2, 1.0), (5, 1.0), (0, 0.0), (3, 0.0), (4, -1.0)]);
    assert_eq!(embeddings.nearest(&[7.0, 0.0], 2).unwrap(), found[..2]);
}

/// More rows than one block of the search, all equal except one.
#[test]
fn ties_are_ordered_across_blocks() {
    let mut rows = vec![[1.0f32, 0.0]; 10_000];
    rows[9_000] = [1.0, 1.0];
    let found = Embeddings::new(&rows).unwrap().nearest(&[1.0, 0.0], 5).unwrap();
    let numbers: Vec<usize> = found.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
}

#[test]
fn vectors_that_cannot_be_compared_are_rejected() {
    let none: [[f32; 2]; 0] = [];
    assert_eq!(Embeddings::new(none), Err(EmbeddingsError::Empty));
    assert_eq!(Embeddings::new([[]; 3]), Err(EmbeddingsError::Empty));
    let error = Embeddings::new([vec![1.0], vec![1.0, 2.0]]).unwrap_err();
    assert_eq!(error.to_string(), "the embedding 1 has 2 components where 1 are expected");
    for bad in [f32::NAN, f32::INFINITY] {
        let error = Embeddings::new([[1.0], [bad]]).unwrap_err();
        assert_eq!(error, EmbeddingsError::NotFinite(1));
    }
    let embeddings = Embeddings::new([[1.0, 0.0]]).unwrap();
    let approximate = ApproximateIndex::new(&embeddings, 16, 64).unwrap();
    for index in [&embeddings as &dyn VectorIndex, &approximate] {
        assert!(index.nearest(&[1.0], 1).is_err());
        assert!(index.nearest(&[f32::NAN, 0.0], 1).is_err());
        assert_eq!(index.nearest(&[1.0, 0.0], 0).unwrap(), []);
        assert_eq!(index.nearest(&[1.0, 0.0], 9).unwrap(), [(0, 1.0)]);
    }
}

#[test]
fn approximate_search_finds_nearly_all_and_the_same_every_time() {
    let embeddings = Embeddings::new(vectors(3000, 32, 1)).unwrap();
    let build = || ApproximateIndex::new(&embeddings, 16, 128).unwrap();
    let (first, second) = (build(), build());
    let (mut shared, k) = (0, 10);
    let queries = vectors(100, 32, 2);
    for query in &queries {
        let exact = embeddings.nearest(query, k).unwrap();
        let found = first.nearest(query, k).unwrap();
        assert_eq!(found, second.nearest(query, k).unwrap());
        for (number, score) in found {
            if let Some((_, cosine)) = exact.iter().find(|(n, _)| *n == number) {
                assert!((cosine - score).abs() < 1e-5);
                shared += 1;
            }
        }
    }
    let recall = f64::from(shared) / (k * queries.len()) as f64;
    assert!(recall > 0.97, "recall {recall}");
}

/// Counts letters, which suffices to distinguish the test texts.
struct Letters;

impl Encoder for Letters {
    fn encode(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, RetrievalError> {
        let vector = |text: &String| {
            let mut counts = vec![0.0; 26];
            for byte in text.bytes().filter(u8::is_ascii_lowercase) {
                counts[usize::from(byte - b'a')] += 1.0;
            }
            counts
        };
        Ok(texts.iter().map(vector).collect())
    }
}

fn corpus() -> Vec<Passage> {
    let texts = ["aaab", "bbba", "zebra stripes", "cccc"];
    let passage = |(n, text): (usize, &&str)| Passage {
        id: format!("p{n}"),
        title: String::new(),
        text: (*text).to_owned(),
    };
    texts.iter().enumerate().map(passage).collect()
}

fn dense() -> Dense {
    let passages = corpus();
    let texts: Vec<String> = passages.iter().map(|p| p.text.clone()).collect();
    let embeddings = Embeddings::new(Letters.encode(&texts).unwrap()).unwrap();
    Dense::new(Arc::new(Letters), Box::new(embeddings), Arc::new(passages))
}

#[test]
fn passages_are_found_by_their_vectors() {
    let hits = dense().retrieve("ab bb", 2).unwrap();
    let ids: Vec<&str> = hits.iter().map(|hit| hit.passage.id.as_str()).collect();
    assert_eq!(ids, ["p1", "p0"]);
    assert!((hits[0].score - 1.0).abs() < 1e-6);
    let hits = dense().with_query_prefix("cccc").retrieve("a", 1).unwrap();
    assert_eq!(hits[0].passage.id, "p3");
}

#[test]
fn words_and_vectors_are_fused() {
    let words: Arc<dyn Retriever> = Arc::new(Bm25::in_memory(corpus()).unwrap());
    let hybrid = Hybrid::new(vec![words, Arc::new(dense())], 10);
    let hits = hybrid.retrieve("zebra", 3).unwrap();
    assert_eq!(hits[0].passage.id, "p2");
    assert_eq!(hits[0].score, 2.0 / 61.0);
}
