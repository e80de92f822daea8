//! Reproducible splits, samples and shuffles of a dataset.
//!
//! All depend on a task's id and never on its position, so that added, removed or reordered rows
//! do not move other tasks between splits.

use leyden_core::{SeedTree, Task};

/// Keeps the tasks whose id hashes into `range`, a part of the unit interval.
///
/// Disjoint ranges with the same seed give disjoint splits: `0.0..0.9` and `0.9..1.0`.
pub fn split(tasks: Vec<Task>, seed: u64, range: std::ops::Range<f64>) -> Vec<Task> {
    let root = SeedTree::new(seed).child("split");
    tasks.into_iter().filter(|task| range.contains(&root.child(&task.id).uniform())).collect()
}

/// Shuffles by seed and id: equal sets of tasks get equal orders.
pub fn shuffle(mut tasks: Vec<Task>, seed: u64) -> Vec<Task> {
    let root = SeedTree::new(seed).child("shuffle");
    tasks.sort_by_cached_key(|task| (root.child(&task.id).seed(), task.id.clone()));
    tasks
}

/// The first `count` tasks.
pub fn limit(mut tasks: Vec<Task>, count: usize) -> Vec<Task> {
    tasks.truncate(count);
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(count: usize) -> Vec<Task> {
        let task = |i: usize| Task {
            id: format!("row_{i}"),
            question: "q".into(),
            gold: "1".into(),
            labels: vec![],
            fields: Default::default(),
        };
        (0..count).map(task).collect()
    }

    fn ids(tasks: &[Task]) -> Vec<String> {
        tasks.iter().map(|task| task.id.clone()).collect()
    }

    #[test]
    fn splits_are_disjoint_complete_and_of_the_requested_size() {
        let train = split(tasks(10_000), 1, 0.0..0.9);
        let test = split(tasks(10_000), 1, 0.9..1.0);
        assert!((900..1100).contains(&test.len()), "{}", test.len());
        let mut all = ids(&[train, test.clone()].concat());
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 10_000);
        assert_ne!(ids(&split(tasks(10_000), 2, 0.9..1.0)), ids(&test));
    }

    #[test]
    fn a_split_depends_on_ids_and_not_on_positions() {
        let fewer: Vec<Task> = tasks(1000).into_iter().skip(500).collect();
        let kept = ids(&split(fewer, 1, 0.0..0.5));
        let all = ids(&split(tasks(1000), 1, 0.0..0.5));
        assert!(kept.iter().all(|id| all.contains(id)));
    }

    #[test]
    fn shuffles_repeat_and_differ_by_seed() {
        let reversed: Vec<Task> = tasks(100).into_iter().rev().collect();
        let once = ids(&shuffle(tasks(100), 7));
        assert_eq!(once, ids(&shuffle(reversed, 7)));
        assert_ne!(once, ids(&shuffle(tasks(100), 8)));
        assert_ne!(once, ids(&tasks(100)));
        assert_eq!(ids(&limit(shuffle(tasks(100), 7), 3)), once[..3]);
    }
}
