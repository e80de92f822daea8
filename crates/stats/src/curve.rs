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

/// The area under a curve that ended before the step `end`: its last value is held up to the step
/// `until` and is `after` from there to `end`, and the area is divided by the range from the first
/// point to `end`, so that curves of different length are compared over the same steps. `None` as
/// for [`area_under_curve`], and unless `last step ≤ until ≤ end`.
///
/// ```
/// // At 0.5 until step 10; the run failed at step 15, and what follows counts as 0.
/// let curve = [(0.0, 0.5), (10.0, 0.5)];
/// assert_eq!(leyden_stats::carried_area(&curve, 15.0, 0.0, 20.0), Some(0.375));
/// assert_eq!(leyden_stats::carried_area(&curve, 20.0, 0.0, 20.0), Some(0.5));
/// ```
pub fn carried_area(points: &[(f64, f64)], until: f64, after: f64, end: f64) -> Option<f64> {
    let measured = area_under_curve(points)?;
    let ((first, _), (last, level)) = (*points.first()?, *points.last()?);
    if !(last <= until && until <= end && after.is_finite()) {
        return None;
    }
    if end <= first {
        return Some(measured);
    }
    let sum = measured * (last - first) + level * (until - last) + after * (end - until);
    Some(sum / (end - first))
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
    fn an_ended_curve_is_carried_over_the_same_steps() {
        let ramp = [(0.0, 0.0), (10.0, 1.0)];
        // A ramp of 10 steps, 30 steps at 1: the same curve, measured or carried.
        let whole = area_under_curve(&[(0.0, 0.0), (10.0, 1.0), (40.0, 1.0)]);
        assert_eq!(carried_area(&ramp, 40.0, 0.0, 40.0), whole);
        // At 1 for 10 steps more, then at 0.
        assert_eq!(carried_area(&ramp, 20.0, 0.0, 40.0), Some((5.0 + 10.0) / 40.0));
        assert_eq!(carried_area(&ramp, 10.0, 0.0, 10.0), area_under_curve(&ramp));
        assert_eq!(carried_area(&[(0.0, 0.5)], 4.0, 0.0, 8.0), Some(0.25));
        assert_eq!(carried_area(&[(7.0, 0.5)], 7.0, 0.0, 7.0), Some(0.5));
        assert_eq!(carried_area(&ramp, 5.0, 0.0, 40.0), None);
        assert_eq!(carried_area(&ramp, 50.0, 0.0, 40.0), None);
        assert_eq!(carried_area(&[], 1.0, 0.0, 2.0), None);
        assert_eq!(carried_area(&ramp, f64::NAN, 0.0, 40.0), None);
    }

    #[test]
    fn the_threshold_is_reached_at_a_measured_step() {
        let curve = [(0.0, 0.1), (50.0, 0.5), (100.0, 0.4), (150.0, 0.8)];
        assert_eq!(steps_to_threshold(&curve, 0.5), Some(50.0));
        assert_eq!(steps_to_threshold(&curve, 0.51), Some(150.0));
        assert_eq!(steps_to_threshold(&curve, 0.9), None);
    }
}
