//! The verdict on a variant compared with the baseline.
//!
//! A claim has two conditions. The interval of the probability of improvement must exclude one
//! half and that of the difference must exclude 0, on the same side. And there must be enough
//! seeds: the bootstrap interval of few runs is too narrow (for three runs that are all above
//! three others it has no width), so complete separation by chance, which by the exact test of
//! Mann and Whitney has probability `2 / C(n + m, n)`, must be rarer than one in twenty: four and
//! four seeds suffice, three and three do not.

use super::summary::Measured;

/// Kind of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictKind {
    Baseline,
    Better,
    Worse,
    /// The intervals allow either; this does not mean equality.
    Undecided,
    /// Too few seeds for any claim.
    TooFew,
    /// No finished run on one of the sides.
    Nothing,
}

/// A verdict with its sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub kind: VerdictKind,
    pub words: String,
}

/// Probability that `n` runs are completely separated from `m` others by chance, either way.
fn separation_by_chance(n: usize, m: usize) -> f64 {
    let ways: f64 = (1..=n).map(|k| (m + k) as f64 / k as f64).product();
    2.0 / ways
}

/// The verdict on a variant of `n` runs against a baseline of `m`: `improvement` is the
/// probability that a run of it ends above one of the baseline (without an interval if the runs
/// are completely separated), `difference` the difference of their interquartile means.
pub fn verdict(n: usize, m: usize, improvement: Measured, difference: Measured) -> Verdict {
    let chance = separation_by_chance(n, m);
    let signed = |value: f64| format!("{value:+.3}");
    if chance > 0.05 {
        let seeds = if n == m {
            format!("{n} seed{} each", if n == 1 { "" } else { "s" })
        } else {
            format!("{n} and {m} seeds")
        };
        let chance = if chance >= 1.0 {
            "nothing can be told from chance".to_owned()
        } else {
            format!("even complete separation comes by chance in {:.0} %", 100.0 * chance)
        };
        return Verdict {
            kind: VerdictKind::TooFew,
            words: format!(
                "no verdict: with {seeds} {chance}; so far {}",
                signed(difference.value)
            ),
        };
    }
    let range = |measured: Measured, words: &dyn Fn(f64) -> String| {
        let (low, high) = measured.interval.unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
        format!("{} [{}, {}]", words(measured.value), words(low), words(high))
    };
    let separated = match (improvement.interval, improvement.value) {
        (None, 0.0) => Some("every run of it ends below every one of the baseline"),
        (None, 1.0) => Some("every run of it ends above every one of the baseline"),
        _ => None,
    };
    let probability = separated.map_or_else(
        || {
            let probability = range(improvement, &|value| format!("{value:.2}"));
            format!("a run of it ends above one of the baseline with probability {probability}")
        },
        str::to_owned,
    );
    let evidence = format!("{probability}; difference {}", range(difference, &signed));
    let above = |measured: Measured, level: f64| measured.interval.is_some_and(|i| i.0 > level);
    let below = |measured: Measured, level: f64| measured.interval.is_some_and(|i| i.1 < level);
    let more_often = above(improvement, 0.5) || (separated.is_some() && improvement.value > 0.5);
    let less_often = below(improvement, 0.5) || (separated.is_some() && improvement.value < 0.5);
    let (kind, word) = if more_often && above(difference, 0.0) {
        (VerdictKind::Better, "better than the baseline")
    } else if less_often && below(difference, 0.0) {
        (VerdictKind::Worse, "worse than the baseline")
    } else {
        (VerdictKind::Undecided, "no difference shown, which is not equality")
    };
    Verdict { kind, words: format!("{word}: {evidence}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(value: f64, low: f64, high: f64) -> Measured {
        Measured { value, interval: Some((low, high)) }
    }

    #[test]
    fn three_seeds_per_side_are_too_few_and_four_suffice() {
        // 2 / C(6, 3) and 2 / C(8, 4), by hand.
        assert!((separation_by_chance(3, 3) - 0.1).abs() < 1e-12);
        assert!((separation_by_chance(4, 4) - 2.0 / 70.0).abs() < 1e-12);
        assert!((separation_by_chance(1, 1) - 1.0).abs() < 1e-12);
        let certain = Measured { value: 1.0, interval: None };
        let large = measured(0.5, 0.4, 0.6);
        let few = verdict(3, 3, certain, large);
        assert_eq!(few.kind, VerdictKind::TooFew);
        assert!(few.words.contains("10 %") && few.words.contains("+0.500"), "{}", few.words);
        let enough = verdict(4, 4, certain, large);
        assert_eq!(enough.kind, VerdictKind::Better);
        assert!(enough.words.contains("above every one of the baseline;"), "{}", enough.words);
        let none = Measured { value: 0.0, interval: None };
        assert_eq!(verdict(4, 4, none, measured(-0.5, -0.6, -0.4)).kind, VerdictKind::Worse);
        assert_eq!(verdict(4, 4, none, large).kind, VerdictKind::Undecided);
        assert!(verdict(1, 1, certain, large).words.contains("nothing can be told from chance"));
    }

    #[test]
    fn both_intervals_must_agree() {
        let (better, worse) = (measured(0.9, 0.7, 1.0), measured(0.1, 0.0, 0.3));
        let unsure = measured(0.7, 0.5, 0.9);
        let (gain, loss) = (measured(0.1, 0.01, 0.2), measured(-0.1, -0.2, -0.01));
        let nothing = measured(0.0, -0.1, 0.1);
        let kind = |improvement, difference| verdict(5, 5, improvement, difference).kind;
        assert_eq!(kind(better, gain), VerdictKind::Better);
        assert_eq!(kind(worse, loss), VerdictKind::Worse);
        for (improvement, difference) in
            [(unsure, gain), (better, nothing), (worse, nothing), (better, loss), (unsure, nothing)]
        {
            assert_eq!(kind(improvement, difference), VerdictKind::Undecided);
        }
        let words = verdict(5, 5, unsure, nothing).words;
        assert!(words.contains("not equality") && words.contains("[-0.100, +0.100]"), "{words}");
    }
}
