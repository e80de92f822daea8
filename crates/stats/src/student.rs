//! Student's t distribution and the interval of a mean of few values.

use statrs::distribution::{Continuous, ContinuousCDF, Normal, StudentsT};

use crate::interval::Interval;
use crate::numbers::{mean, sample_std};

/// The quantile of Student's t with `freedom` degrees of freedom, which need not be a whole
/// number; `None` unless 0 < `probability` < 1 and `freedom` is positive and finite.
///
/// ```
/// let bound = leyden_stats::student_quantile(0.975, 4.0).unwrap();
/// assert!((bound - 2.776_445_105).abs() < 1e-8);
/// ```
pub fn student_quantile(probability: f64, freedom: f64) -> Option<f64> {
    let inside = probability > 0.0 && probability < 1.0;
    (inside && freedom.is_finite()).then_some(())?;
    let student = StudentsT::new(0.0, 1.0, freedom).ok()?;
    // The inverse of statrs stops at an absolute error of its beta variable, which is coarse for
    // many degrees of freedom; there the normal quantile is close. Both are refined by Newton's
    // method, whose error is squared in each step.
    let mut quantile = if freedom < 100.0 {
        student.inverse_cdf(probability)
    } else {
        Normal::standard().inverse_cdf(probability)
    };
    for _ in 0..3 {
        quantile -= (student.cdf(quantile) - probability) / student.pdf(quantile);
    }
    Some(quantile)
}

/// Probability that |T| is at least `t`; `freedom` is positive.
pub(crate) fn two_sided(t: f64, freedom: f64) -> f64 {
    let tail = StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |student| student.sf(t.abs()));
    (2.0 * tail).min(1.0)
}

/// The 95 % interval of a mean, `mean ± t s/√n` with n − 1 degrees of freedom (Student 1908);
/// `None` for fewer than two values or non-finite ones. Unlike the percentile bootstrap it is not
/// too narrow for few values.
///
/// ```
/// let interval = leyden_stats::student_interval(&[0.80, 0.82, 0.84]).unwrap();
/// assert!((interval.high - 0.82 - 4.302_653 * 0.02 / 3f64.sqrt()).abs() < 1e-6);
/// ```
pub fn student_interval(values: &[f64]) -> Option<Interval> {
    let (mean, std) = (mean(values)?, sample_std(values)?);
    let n = values.len() as f64;
    let half = student_quantile(0.975, n - 1.0)? * std / n.sqrt();
    half.is_finite().then_some(Interval { low: mean - half, high: mean + half })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(ours: f64, expected: f64, tolerance: f64) {
        assert!((ours - expected).abs() < tolerance, "{ours} instead of {expected}");
    }

    #[test]
    fn quantiles_are_scipys() {
        // scipy.stats.t.ppf.
        for (probability, freedom, expected) in [
            (0.975, 1.0, 12.706_204_736_432_095),
            (0.975, 2.0, 4.302_652_729_911_275),
            (0.975, 4.0, 2.776_445_105_197_798_7),
            (0.975, 9.0, 2.262_157_162_740_991_5),
            (0.95, 4.0, 2.131_846_786_326_649),
            (0.8, 1.0, 1.376_381_920_471_173_5),
            (0.025, 4.0, -2.776_445_105_197_798_7),
        ] {
            let found = student_quantile(probability, freedom).unwrap();
            close(found, expected, 1e-9 * expected.abs());
        }
        // Beyond the table: z + (z³ + z)/4f, of which the next term is below 1e-8.
        for freedom in [1e4, 1e6] {
            let (z, found) = (crate::Z_95, student_quantile(0.975, freedom).unwrap());
            close(found, z + (z.powi(3) + z) / (4.0 * freedom), 5e-8);
        }
        // Both sides of the change of the first guess.
        let (below, above) = (student_quantile(0.975, 99.999), student_quantile(0.975, 100.001));
        close(below.unwrap(), above.unwrap(), 1e-6);
        close(above.unwrap(), 1.983_971_5, 1e-6);
        for (probability, freedom) in [(0.0, 3.0), (1.0, 3.0), (0.5, 0.0), (0.5, f64::NAN)] {
            assert_eq!(student_quantile(probability, freedom), None);
        }
    }

    #[test]
    fn tails_are_the_closed_forms() {
        // Of one, two and four degrees of freedom.
        for t in [0.0f64, 0.3, 2.0, 9.0] {
            close(two_sided(t, 1.0), 1.0 - 2.0 / std::f64::consts::PI * t.atan(), 1e-12);
            close(two_sided(-t, 2.0), 1.0 - t / (2.0 + t * t).sqrt(), 1e-12);
            let u = t / (1.0 + t * t / 4.0).sqrt();
            close(two_sided(t, 4.0), 1.0 - 0.75 * u * (1.0 - u * u / 12.0), 1e-12);
        }
    }

    #[test]
    fn an_interval_needs_two_finite_values() {
        assert_eq!(student_interval(&[0.5]), None);
        assert_eq!(student_interval(&[0.5, f64::NAN]), None);
        assert_eq!(student_interval(&[0.5; 4]), Some(Interval { low: 0.5, high: 0.5 }));
    }
}
