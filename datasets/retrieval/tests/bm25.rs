//! BM25 compared with its formula, and with arbitrary queries.

use std::sync::LazyLock;

use leyden_core::Passage;
use leyden_retrieval::{Bm25, Hit, IndexError, PassageStore, Retriever};
use proptest::prelude::*;

fn passage(number: usize, title: &str, text: &str) -> Passage {
    Passage { id: format!("p{number}"), title: title.to_owned(), text: text.to_owned() }
}

fn numbers(hits: &[Hit]) -> Vec<usize> {
    hits.iter().map(|hit| hit.number).collect()
}

#[test]
fn words_are_found_in_titles_and_texts_in_any_form() {
    let corpus = [
        passage(0, "Marie Curie", "She discovered polonium and radium in Paris."),
        passage(1, "Ada Lovelace", "Author of the first published program."),
        passage(2, "Paris", "The capital of France."),
    ];
    let index = Bm25::in_memory(corpus.clone()).unwrap();
    let first = |query: &str| index.retrieve(query, 4).unwrap().first().map(|hit| hit.number);
    assert_eq!(first("curie"), Some(0));
    assert_eq!(first("DISCOVERING"), Some(0));
    assert_eq!(first("who published programs?"), Some(1));
    assert_eq!(first("paris"), Some(2));
    assert_eq!(first("London"), None);
    // Queries of stop words only and empty queries find nothing.
    assert_eq!(first("the of and"), None);
    assert_eq!(first(""), None);
    let hits = index.retrieve("Paris", 4).unwrap();
    assert_eq!(hits[0].passage, corpus[2]);
    assert_eq!(numbers(&hits), [2, 0]);
    assert_eq!(index.retrieve("Paris", 1).unwrap().len(), 1);
    assert_eq!(index.retrieve("Paris", 0).unwrap(), []);
    assert_eq!(index.retrieve("Paris", usize::MAX).unwrap().len(), 2);
    assert_eq!(index.passage(1).unwrap(), corpus[1]);
    assert!(index.passage(3).is_err());
}

#[test]
fn ties_are_in_the_order_of_the_corpus() {
    let same = (0..50).map(|number| passage(number, "T", "two equal words"));
    let index = Bm25::in_memory(same).unwrap();
    for k in [1, 4, 49, 50] {
        let hits = index.retrieve("equal words", k).unwrap();
        assert_eq!(numbers(&hits), (0..k).collect::<Vec<_>>());
    }
}

#[test]
fn an_empty_corpus_is_rejected() {
    let error = Bm25::in_memory([]).map(|_| ()).unwrap_err();
    assert!(matches!(error, IndexError::EmptyCorpus));
    assert_eq!(error.to_string(), "there are no passages to index");
}

static SMALL: LazyLock<Bm25> = LazyLock::new(|| {
    let texts = ["title: \"x\" AND (y)", "alpha beta", "名前 東京", "a^2 + b~3", "NOT or and"];
    let corpus = (0..40).map(|n| passage(n, "body", texts[n % texts.len()]));
    Bm25::in_memory(corpus).unwrap()
});

/// Arbitrary text, and syntax of query languages.
fn hostile() -> impl Strategy<Value = String> {
    let operators = prop::sample::select(vec![
        "AND",
        "OR",
        "NOT",
        "+",
        "-",
        "\"",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "*",
        "?",
        "~2",
        "^3",
        "body:",
        "id:p1",
        "number:[0 TO 9]",
        "\\",
        "/",
        "\0",
        "alpha",
        "x",
        "東京",
        "&&",
        "||",
        "IN",
        "_exists_:",
        ":",
        "\u{feff}",
        "\u{202e}",
        "'",
        "`",
    ]);
    prop_oneof![
        any::<String>(),
        prop::collection::vec(operators, 0..20).prop_map(|parts| parts.join(" ")),
        "(alpha|beta|\"|\\(|:){0,60}",
    ]
}

proptest! {
    #[test]
    fn no_query_fails(query in hostile(), k in 0usize..60) {
        let hits = SMALL.retrieve(&query, k).unwrap();
        prop_assert!(hits.len() <= k.min(40));
        prop_assert!(hits.iter().all(|hit| hit.score.is_finite() && hit.score > 0.0));
        let ordered = hits.is_sorted_by(|a, b| {
            a.score > b.score || (a.score == b.score && a.number < b.number)
        });
        prop_assert!(ordered, "{:?}", hits);
        prop_assert_eq!(&hits, &SMALL.retrieve(&query, k).unwrap());
        let mut words: Vec<&str> = query.split_whitespace().collect();
        words.reverse();
        prop_assert_eq!(hits, SMALL.retrieve(&words.join(" "), k).unwrap());
    }
}

proptest! {
    // Fewer cases, because each builds an index with threads.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Scores match the formula, and no better passage is missing.
    #[test]
    fn scores_match_the_formula(
        texts in prop::collection::vec(prop::collection::vec(0u8..8, 1..30), 1..40),
        query in prop::collection::vec(0u8..9, 1..6),
        k in 1usize..10,
    ) {
        let word = |word: &u8| format!("w{word}");
        let join = |words: &[u8]| words.iter().map(word).collect::<Vec<_>>().join(" ");
        let corpus = texts.iter().enumerate().map(|(n, words)| passage(n, "", &join(words)));
        let index = Bm25::in_memory(corpus).unwrap();
        let hits = index.retrieve(&join(&query), k).unwrap();
        let expected = formula(&texts, &query);
        let mut best: Vec<f64> = expected.iter().copied().filter(|score| *score > 0.0).collect();
        best.sort_by(|a, b| b.total_cmp(a));
        best.truncate(k);
        prop_assert_eq!(hits.len(), best.len());
        for (hit, best) in hits.iter().zip(best) {
            let tolerance = 1e-5 * best.max(1.0);
            prop_assert!((hit.score - best).abs() < tolerance, "{} for {best}", hit.score);
            prop_assert!((hit.score - expected[hit.number]).abs() < tolerance);
        }
    }
}

/// BM25 of every text by the formula. The index stores lengths of up to 39 words exactly.
fn formula(texts: &[Vec<u8>], query: &[u8]) -> Vec<f64> {
    let (k1, b) = (1.2, 0.75);
    let count = texts.len() as f64;
    let average = texts.iter().map(Vec::len).sum::<usize>() as f64 / count;
    let score = |text: &Vec<u8>| {
        let of_term = |term: &u8| {
            let holding = texts.iter().filter(|text| text.contains(term)).count() as f64;
            let idf = (1.0 + (count - holding + 0.5) / (holding + 0.5)).ln();
            let tf = text.iter().filter(|word| *word == term).count() as f64;
            let norm = k1 * (1.0 - b + b * text.len() as f64 / average);
            idf * tf * (k1 + 1.0) / (tf + norm)
        };
        query.iter().map(of_term).sum()
    };
    texts.iter().map(score).collect()
}

#[test]
fn concurrent_queries_are_supported() {
    let expected = SMALL.retrieve("alpha 東京", 7).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(SMALL.retrieve("alpha 東京", 7).unwrap(), expected);
                }
            });
        }
    });
}
