//! Metrics of a learning curve: area under the curve and steps to a threshold.

/// Area under a curve of `(step, value)` by the trapezoid rule, divided by the range of steps: the
/// mean level, in units of the value. A policy that learns the same sooner has a larger area. For a
/// single point, its value. `None` for no points, steps that are not ascending, or non-finite
/// numbers.
///
/// ```
/// // From 0 to 1 in 10 steps, then 10 steps at 1.
/// let curve = [(0.0, 0.0), (10.0, 1.0), (20.0, 1.0)];
/// assert_eq!(leyden_stats::area_under_curve(&curve), Some(0.75));
/// ```
pub fn area_under_curve(points: &[(f64, f64)]) -> Option<f64> {
    let (first, last) = (points.first()?, points.last()?);
    if points.iter().any(|(step, value)| !step.is_finite() || !value.is_finite()) {
        return None;
    }
    if points.len() == 1 {
        return Some(first.1);
    }
    let mut area = 0.0;
    for pair in points.windows(2) {
        let width = pair[1].0 - pair[0].0;
        if width <= 0.0 {
            return None;
        }
        area += width * (pair[0].1 + pair[1].1) / 2.0;
    }
    Some(area / (last.0 - first.0))
}

/// The first measured step at which a curve of `(step, value)` is at or above `threshold`, without
/// interpolation; `None` if it never is. A single lucky evaluation counts, so smooth noisy curves
/// first.
///
/// ```
/// let curve = [(0.0, 0.1), (50.0, 0.5), (100.0, 0.8)];
/// assert_eq!(leyden_stats::steps_to_threshold(&curve, 0.5), Some(50.0));
/// assert_eq!(leyden_stats::steps_to_threshold(&curve, 0.9), None);
/// ```
pub fn steps_to_threshold(points: &[(f64, f64)], threshold: f64) -> Option<f64> {
    points.iter().find(|(_, value)| *value >= threshold).map(|(step, _)| *step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_the_mean_level() {
        // A ramp over 10 steps, then 30 steps at 1.
        let ramp = [(0.0, 0.0), (10.0, 1.0), (40.0, 1.0)];
        assert_eq!(area_under_curve(&ramp), Some((5.0 + 30.0) / 40.0));
        assert_eq!(area_under_curve(&[(7.0, 0.25)]), Some(0.25));
        assert_eq!(area_under_curve(&[]), None);
        assert_eq!(area_under_curve(&[(1.0, 0.0), (1.0, 1.0)]), None);
        assert_eq!(area_under_curve(&[(0.0, 0.0), (1.0, f64::NAN)]), None);
    }

    #[test]
    fn the_threshold_is_reached_at_a_measured_step() {
        let curve = [(0.0, 0.1), (50.0, 0.5), (100.0, 0.4), (150.0, 0.8)];
        assert_eq!(steps_to_threshold(&curve, 0.5), Some(50.0));
        assert_eq!(steps_to_threshold(&curve, 0.51), Some(150.0));
        assert_eq!(steps_to_threshold(&curve, 0.9), None);
    }
}
