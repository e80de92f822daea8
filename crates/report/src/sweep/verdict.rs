//! The verdict on a variant compared with the baseline.
//!
//! A claim needs a p value below 0.05 after Holm's correction over all comparisons of the sweep.
//! A difference that is not shown is not equality, so its verdict says how large it may be.

use leyden_stats::{DifferenceError, MeanDifference};

use super::comparison::{Comparison, Design};
use super::words::p_words;

/// Claims need an adjusted p value below this.
const LEVEL: f64 = 0.05;

/// Kind of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictKind {
    Baseline,
    Better,
    Worse,
    /// The data allow either; this does not mean equality.
    Undecided,
    /// Every run ends exactly like that of the baseline.
    Identical,
    /// Too few seeds for any claim.
    TooFew,
    /// No cell has ended on one of the sides.
    Nothing,
}

/// A verdict with its sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub kind: VerdictKind,
    pub words: String,
    /// Whether cells of the sweep have not ended yet, so that the verdict may change.
    pub preliminary: bool,
}

impl Verdict {
    pub(super) fn new(kind: VerdictKind, words: impl Into<String>) -> Self {
        Self { kind, words: words.into(), preliminary: false }
    }

    /// The verdict of a sweep in which `open` of `cells` have not ended.
    #[must_use]
    pub(super) fn with_open_cells(self, open: usize, cells: usize) -> Self {
        if open == 0 || self.kind == VerdictKind::Baseline {
            return self;
        }
        let words = format!("preliminary, {open} of {cells} cells have not ended: {}", self.words);
        Self { words, preliminary: true, ..self }
    }
}

/// The verdict of a comparison.
pub(super) fn verdict(comparison: &Comparison) -> Verdict {
    let so_far = format!("so far {:+.3}", comparison.mean);
    match &comparison.test {
        Ok(test) => tested(comparison, test),
        Err(DifferenceError::NoSpread { mean: 0.0 }) => Verdict::new(
            VerdictKind::Identical,
            format!(
                "no difference: every final reward equals the baseline's ({})",
                runs(comparison)
            ),
        ),
        Err(DifferenceError::NoSpread { mean }) => Verdict::new(
            VerdictKind::Undecided,
            format!(
                "no claim: the difference is exactly {mean:+.3} throughout ({}), so its spread \
                 over seeds cannot be estimated",
                runs(comparison)
            ),
        ),
        Err(DifferenceError::TooFew { .. }) => Verdict::new(
            VerdictKind::TooFew,
            format!(
                "no verdict: too few seeds ({}, at least 3 are needed); {so_far}",
                runs(comparison)
            ),
        ),
        Err(error) => Verdict::new(VerdictKind::Nothing, format!("no verdict: {error}")),
    }
}

fn tested(comparison: &Comparison, test: &MeanDifference) -> Verdict {
    let adjusted = comparison.adjusted_p.unwrap_or(1.0);
    let interval = test.interval();
    let evidence = format!(
        "{:+.3} [{:+.3}, {:+.3}], {}, adjusted {}, {}",
        test.mean,
        interval.low,
        interval.high,
        p_words(test.p_value()),
        p_words(adjusted),
        runs(comparison)
    );
    if adjusted < LEVEL {
        return if test.mean > 0.0 {
            Verdict::new(VerdictKind::Better, format!("better than the baseline: {evidence}"))
        } else {
            Verdict::new(VerdictKind::Worse, format!("worse than the baseline: {evidence}"))
        };
    }
    let bounds = test.bounds();
    let limit = |word: &str, most: f64| {
        if most > 0.0 {
            format!("not {word} by more than {most:.3}")
        } else {
            format!("not {word}")
        }
    };
    Verdict::new(
        VerdictKind::Undecided,
        format!(
            "no difference shown: {} and {} (one-sided 95 % bounds); {evidence}",
            limit("worse", -bounds.low),
            limit("better", bounds.high)
        ),
    )
}

/// The runs that were compared.
fn runs(comparison: &Comparison) -> String {
    match &comparison.design {
        Design::Paired { seeds, .. } => format!("{} seeds, paired", seeds.len()),
        Design::Independent { runs, baseline } if runs == baseline => {
            format!("{runs} seed{} each", if *runs == 1 { "" } else { "s" })
        }
        Design::Independent { runs, baseline } => format!("{runs} and {baseline} seeds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(differences: &[f64], adjusted_p: Option<f64>) -> Verdict {
        let base: Vec<(u64, f64)> = (0..differences.len() as u64).map(|k| (k, 0.5)).collect();
        let own: Vec<(u64, f64)> =
            base.iter().zip(differences).map(|((k, base), d)| (*k, base + d)).collect();
        let comparison = Comparison::of(&own, &base).unwrap();
        verdict(&Comparison { adjusted_p, ..comparison })
    }

    #[test]
    fn a_claim_needs_the_adjusted_p_value() {
        let gains = [0.10, 0.12, 0.11, 0.13];
        let better = of(&gains, Some(0.03));
        assert_eq!(better.kind, VerdictKind::Better);
        assert!(better.words.contains("+0.115 [+0.094, +0.136], p < 0.001"), "{}", better.words);
        assert!(better.words.contains("adjusted p = 0.030, 4 seeds, paired"), "{}", better.words);
        assert_eq!(of(&gains.map(|d| -d), Some(0.03)).kind, VerdictKind::Worse);
        // The p value of the comparison alone is far below 0.05.
        let corrected = of(&gains, Some(0.06));
        assert_eq!(corrected.kind, VerdictKind::Undecided);
        assert!(corrected.words.contains("not worse and not better by more than 0.1"));
    }

    #[test]
    fn a_difference_not_shown_is_bounded() {
        // Mean 0.01, standard deviation 0.02, t.ppf(0.95, 2) = 2.919986: 0.01 ± 0.033717.
        let found = of(&[-0.01, 0.01, 0.03], Some(0.4));
        assert_eq!(found.kind, VerdictKind::Undecided);
        let words = "not worse by more than 0.024 and not better by more than 0.044 (one-sided";
        assert!(found.words.contains(words), "{}", found.words);
    }

    #[test]
    fn without_spread_there_is_no_claim() {
        let constant = of(&[0.25, 0.25, 0.25], None);
        assert_eq!(constant.kind, VerdictKind::Undecided);
        assert!(constant.words.contains("exactly +0.250"), "{}", constant.words);
        assert_eq!(of(&[0.0, 0.0, 0.0], None).kind, VerdictKind::Identical);
        let few = of(&[0.25, 0.5], None);
        assert_eq!(few.kind, VerdictKind::TooFew);
        assert!(few.words.contains("2 seeds each") && few.words.contains("+0.375"));
        assert!(of(&[0.25], None).words.contains("1 seed each"));
    }

    #[test]
    fn a_verdict_before_the_end_is_preliminary() {
        let found = of(&[0.10, 0.12, 0.11], Some(0.01)).with_open_cells(2, 8);
        assert!(found.preliminary && found.kind == VerdictKind::Better);
        assert!(found.words.starts_with("preliminary, 2 of 8 cells have not ended: better"));
        assert!(!of(&[0.1, 0.2, 0.3], None).with_open_cells(0, 8).preliminary);
        let base = Verdict::new(VerdictKind::Baseline, "the baseline").with_open_cells(2, 8);
        assert_eq!(base.words, "the baseline");
    }
}
