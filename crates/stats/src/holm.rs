//! Correction of p values for several comparisons.

/// Holm's adjusted p values (Holm 1979, *A Simple Sequentially Rejective Multiple Test
/// Procedure*), in the order of `p`: the k-th smallest of m is multiplied by m − k + 1, and none is
/// below that of a smaller one. Claiming those below 0.05 makes a false claim anywhere in at most
/// 5 % of the families, whatever the dependence between the comparisons. Values are clipped to at
/// most 1; a NaN counts as 1.
///
/// ```
/// assert_eq!(leyden_stats::holm(&[0.5, 0.25, 0.0625]), [0.5, 0.5, 0.1875]);
/// ```
pub fn holm(p: &[f64]) -> Vec<f64> {
    let value = |index: usize| if p[index].is_nan() { 1.0 } else { p[index] };
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| value(a).total_cmp(&value(b)));
    let mut adjusted = vec![1.0; p.len()];
    let mut largest = 0.0f64;
    for (rank, &index) in order.iter().enumerate() {
        largest = largest.max((p.len() - rank) as f64 * value(index)).min(1.0);
        adjusted[index] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjusted_values_are_those_of_r() {
        // p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") of R: 0.03, 0.06, 0.06, 0.02.
        let found = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (ours, expected) in found.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((ours - expected).abs() < 1e-15, "{found:?}");
        }
        assert_eq!(holm(&[0.03125]), [0.03125]);
        assert_eq!(holm(&[0.5, f64::NAN, 0.75]), [1.0, 1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }
}
