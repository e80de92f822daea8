//! Recall of supporting passages.

use std::collections::HashSet;

/// Recall at `k`: the share of `relevant` among the first `k` of `found`, in [0, 1]; both are
/// passage ids, and repeated ones count once. `None` if nothing is relevant.
pub fn recall_at(k: usize, found: &[impl AsRef<str>], relevant: &[impl AsRef<str>]) -> Option<f64> {
    let relevant: HashSet<&str> = relevant.iter().map(AsRef::as_ref).collect();
    if relevant.is_empty() {
        return None;
    }
    let found: HashSet<&str> = found.iter().take(k).map(AsRef::as_ref).collect();
    Some(relevant.intersection(&found).count() as f64 / relevant.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::recall_at;

    #[test]
    fn recall_counts_relevant_ids_among_the_first() {
        let found = ["a", "x", "b", "a", "c"];
        assert_eq!(recall_at(1, &found, &["a", "b"]), Some(0.5));
        assert_eq!(recall_at(3, &found, &["a", "b"]), Some(1.0));
        assert_eq!(recall_at(10, &found, &["a", "b", "d", "d"]), Some(2.0 / 3.0));
        assert_eq!(recall_at(0, &found, &["a"]), Some(0.0));
        assert_eq!(recall_at(3, &found, &[""; 0]), None);
    }
}
