//! The measures of the official evaluator: exact match and token F1 of answers, and F1 of
//! supporting paragraphs.
//!
//! Texts are compared after the normalisation of SQuAD (Rajpurkar et al. 2016). White space and
//! words are defined as in Python, the language of the original.

use std::collections::{BTreeSet, HashMap};

/// Punctuation that the original removes: ASCII only, so that `—` and `“` stay.
fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation()
}

/// White space as in `str.split`: Unicode's and the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Lower case, without ASCII punctuation and the words a, an, the; single spaces.
///
/// Punctuation is removed, not replaced: `Hewlett-Packard` becomes one word. An article is removed
/// if it is a whole run of letters and digits, with or without white space around it (`“the` loses
/// its article and keeps the quotation mark).
pub fn normalise(text: &str) -> String {
    let plain: String = text.to_lowercase().chars().filter(|&c| !is_punctuation(c)).collect();
    let mut kept = String::with_capacity(plain.len());
    let mut rest = plain.as_str();
    while let Some(first) = rest.chars().next() {
        let word = first.is_alphanumeric();
        let length = rest.find(|c: char| c.is_alphanumeric() != word).unwrap_or(rest.len());
        let (run, after) = rest.split_at(length);
        kept.push_str(if matches!(run, "a" | "an" | "the") { " " } else { run });
        rest = after;
    }
    let words: Vec<&str> = kept.split(is_space).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// Whether prediction and reference are equal after normalisation.
pub fn exact_match(prediction: &str, gold: &str) -> bool {
    normalise(prediction) == normalise(gold)
}

/// Token F1 in [0, 1]: F = 2PR / (P + R), where P and R are the shared tokens, counted with
/// multiplicity, over the tokens of the prediction and of the reference. If either has no token, it
/// is 1 if both have none, else 0.
pub fn token_f1(prediction: &str, gold: &str) -> f64 {
    let (prediction, gold) = (normalise(prediction), normalise(gold));
    let tokens = |text: &str| text.split(' ').filter(|token| !token.is_empty()).count();
    let (predicted, expected) = (tokens(&prediction), tokens(&gold));
    if predicted == 0 || expected == 0 {
        return f64::from(u8::from(predicted == expected));
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    for token in gold.split(' ') {
        *left.entry(token).or_default() += 1;
    }
    let mut shared = 0;
    for token in prediction.split(' ') {
        if let Some(count) = left.get_mut(token).filter(|count| **count > 0) {
            *count -= 1;
            shared += 1;
        }
    }
    harmonic(shared, predicted, expected)
}

/// F1 of `shared` items out of `predicted` and `expected`, both positive; 0 if none is shared.
fn harmonic(shared: usize, predicted: usize, expected: usize) -> f64 {
    if shared == 0 {
        return 0.0;
    }
    // Same order of operations as the original, so that results agree to the last bit.
    let precision = shared as f64 / predicted as f64;
    let recall = shared as f64 / expected as f64;
    2.0 * precision * recall / (precision + recall)
}

/// Exact match and F1, each in [0, 1].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Agreement {
    pub exact_match: f64,
    pub f1: f64,
}

/// The maxima of exact match and of token F1 over all references, independently; (0, 0) without
/// references.
pub fn answer_agreement<'a>(
    prediction: &str,
    golds: impl IntoIterator<Item = &'a str>,
) -> Agreement {
    let mut best = Agreement::default();
    for gold in golds {
        best.exact_match = best.exact_match.max(f64::from(exact_match(prediction, gold)));
        best.f1 = best.f1.max(token_f1(prediction, gold));
    }
    best
}

/// Exact match and F1 of two sets of paragraph indices; repeated indices count once, and two
/// empty sets agree.
pub fn support_agreement(predicted: &[i64], gold: &[i64]) -> Agreement {
    let predicted: BTreeSet<i64> = predicted.iter().copied().collect();
    let gold: BTreeSet<i64> = gold.iter().copied().collect();
    if predicted.is_empty() && gold.is_empty() {
        return Agreement { exact_match: 1.0, f1: 1.0 };
    }
    let shared = predicted.intersection(&gold).count();
    Agreement {
        exact_match: f64::from(predicted == gold),
        f1: harmonic(shared, predicted.len(), gold.len()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn normalisation_follows_the_original() {
        for (text, expected) in [
            ("The  Beatles!", "beatles"),
            ("An apple, a day", "apple day"),
            ("Hewlett-Packard", "hewlettpackard"),
            ("thesis of Athens", "thesis of athens"),
            // Punctuation is removed first, so these articles are no longer separate words.
            ("a.b the-n", "ab then"),
            ("“The” — naïve", "“ ” — naïve"),
            ("18th\u{a0}18th\u{1f}x", "18th 18th x"),
            ("ΟΔΟΣ", "οδο\u{3c2}"),
            ("the_a", "thea"),
            (" a an the ", ""),
        ] {
            assert_eq!(normalise(text), expected, "{text:?}");
        }
    }

    #[test]
    fn token_f1_counts_with_multiplicity() {
        assert_eq!(token_f1("18th 18th", "18th"), 2.0 / 3.0);
        assert_eq!(token_f1("new york city", "new york"), 0.8);
        assert_eq!(token_f1("paris", "london"), 0.0);
        assert_eq!(token_f1("the", "a"), 1.0);
        assert_eq!(token_f1("", "paris"), 0.0);
        assert_eq!(token_f1("paris", "the"), 0.0);
    }

    #[test]
    fn the_best_reference_counts_for_each_measure() {
        let golds = ["New York City", "NYC"];
        let agreement = answer_agreement("new york", golds);
        assert_eq!(agreement, Agreement { exact_match: 0.0, f1: 0.8 });
        assert_eq!(answer_agreement("the NYC.", golds).exact_match, 1.0);
        assert_eq!(answer_agreement("x", []), Agreement::default());
    }

    #[test]
    fn support_is_compared_as_sets() {
        assert_eq!(support_agreement(&[], &[]), Agreement { exact_match: 1.0, f1: 1.0 });
        assert_eq!(support_agreement(&[3, 1, 3], &[1, 3]).exact_match, 1.0);
        assert_eq!(support_agreement(&[1], &[]), Agreement::default());
        assert_eq!(support_agreement(&[1, 2, 3, 4], &[1, 9]).f1, 1.0 / 3.0);
    }

    proptest! {
        /// Any text agrees with itself, F1 is symmetric, and normalised text has no punctuation
        /// and no double spaces.
        #[test]
        fn measures_are_sane(a in "\\PC{0,30}|[ a-e.,'the]{0,20}", b in "[ a-e.,'the]{0,20}") {
            prop_assert_eq!(token_f1(&a, &a), 1.0);
            prop_assert!(exact_match(&a, &a));
            let f1 = token_f1(&a, &b);
            prop_assert!((0.0..=1.0).contains(&f1));
            prop_assert!((f1 - token_f1(&b, &a)).abs() < 1e-15);
            if exact_match(&a, &b) {
                prop_assert_eq!(f1, 1.0);
            }
            let text = normalise(&a);
            prop_assert!(!text.contains("  ") && text.trim() == text);
            prop_assert!(!text.contains(is_punctuation));
        }
    }
}
