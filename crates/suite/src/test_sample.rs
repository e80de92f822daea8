//! A stratified random sample of test tasks.
//!
//! Files of tasks are sorted: the first 256 of Spider's dev set are of 4 of its 20 databases. A
//! sample in proportion to the sizes of the strata (databases, numbers of hops, sources) represents
//! the file, with less variance than a plain random sample. It depends only on the ids, the labels
//! and `data.seed`, so that all runs of a comparison have the same.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use leyden_core::{SeedTree, Task};
use serde_json::{Value, json};

/// Draws `wanted` of `tasks`, in their order, and describes the sample; all of them if there are no
/// more.
///
/// `labels` name the strata; each task must have all of them. If empty, the strata are those of
/// `own`, of which a task may lack some.
///
/// # Errors
/// A task without one of `labels`.
pub fn stratified(
    tasks: Vec<Task>,
    wanted: usize,
    labels: &[String],
    own: &[&str],
    seed: u64,
) -> Result<(Vec<Task>, Option<Value>)> {
    for label in labels {
        if let Some(task) = tasks.iter().find(|task| task.label(label).is_none()) {
            let mut has: Vec<&str> = task.labels.iter().map(|(name, _)| name.as_str()).collect();
            has.dedup();
            let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
            bail!(
                "eval.strata: the test task {} has no label `{label}`; its labels: {has}",
                task.id
            );
        }
    }
    if tasks.len() <= wanted {
        return Ok((tasks, None));
    }
    let names: Vec<&str> = match labels {
        [] => own.to_vec(),
        labels => labels.iter().map(String::as_str).collect(),
    };
    let stratum = |task: &Task| -> String {
        let part = |name: &&str| task.label(name).map(|value| format!("{name} {value}"));
        names.iter().filter_map(part).collect::<Vec<_>>().join(", ")
    };
    let mut strata: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (place, task) in tasks.iter().enumerate() {
        strata.entry(stratum(task)).or_default().push(place);
    }
    let seed = SeedTree::new(seed).child("test sample");
    let sizes: Vec<usize> = strata.values().map(Vec::len).collect();
    let shares = apportion(wanted, &sizes, seed.child("remainders"));
    let draw = |place: usize| seed.child(&tasks[place].id).uniform();
    let mut taken: Vec<usize> = Vec::with_capacity(wanted);
    for (places, share) in strata.values_mut().zip(&shares) {
        places.sort_by(|a, b| draw(*a).total_cmp(&draw(*b)).then(a.cmp(b)));
        taken.extend(&places[..*share]);
    }
    taken.sort_unstable();
    let counts: BTreeMap<&String, usize> = strata.keys().zip(shares).collect();
    let described = json!({ "of": tasks.len(), "by": names, "strata": counts });
    let mut taken = taken.into_iter().peekable();
    let is_taken = |place: usize| taken.next_if_eq(&place).is_some();
    let flags: Vec<bool> = (0..tasks.len()).map(is_taken).collect();
    let sample = tasks.into_iter().zip(flags).filter(|(_, taken)| *taken).map(|(task, _)| task);
    Ok((sample.collect(), Some(described)))
}

/// Divides `wanted` in proportion to `sizes` by the largest remainders (Hamilton's method); of equal
/// remainders one is drawn. No share exceeds its size if `wanted` does not exceed their sum.
fn apportion(wanted: usize, sizes: &[usize], seed: SeedTree) -> Vec<usize> {
    let all: usize = sizes.iter().sum();
    let mut shares: Vec<usize> = sizes.iter().map(|size| wanted * size / all.max(1)).collect();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    let remainder = |stratum: usize| wanted * sizes[stratum] % all.max(1);
    let draw = |stratum: usize| seed.index(stratum as u64).uniform();
    order.sort_by(|&a, &b| remainder(b).cmp(&remainder(a)).then(draw(a).total_cmp(&draw(b))));
    let left = wanted - shares.iter().sum::<usize>();
    for stratum in order.into_iter().take(left) {
        shares[stratum] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tasks of databases, sorted by them: 60 of a, 30 of b, 10 of c.
    fn tasks() -> Vec<Task> {
        let database = |i: usize| {
            if i < 60 {
                "a"
            } else if i < 90 {
                "b"
            } else {
                "c"
            }
        };
        let task = |i: usize| Task {
            id: format!("t{i}"),
            question: String::new(),
            gold: String::new(),
            labels: vec![("database".to_owned(), database(i).to_owned())],
            fields: serde_json::Map::new(),
        };
        (0..100).map(task).collect()
    }

    fn ids(tasks: &[Task]) -> Vec<&str> {
        tasks.iter().map(|task| task.id.as_str()).collect()
    }

    #[test]
    fn the_sample_is_proportional_and_the_same_for_all_runs() {
        let draw = |wanted, seed| stratified(tasks(), wanted, &[], &["database"], seed).unwrap();
        let (sample, described) = draw(20, 0);
        let of = |name: &str| sample.iter().filter(|t| t.label("database") == Some(name)).count();
        assert_eq!((of("a"), of("b"), of("c")), (12, 6, 2));
        assert_eq!(described.unwrap()["strata"]["database b"], 6);
        assert_eq!(ids(&sample), ids(&draw(20, 0).0));
        assert_ne!(ids(&sample), ids(&draw(20, 1).0));
        // In the order of the file, not its beginning.
        let places: Vec<usize> = ids(&sample).iter().map(|id| id[1..].parse().unwrap()).collect();
        assert!(places.is_sorted() && places[11] > 11);
        // A reordered file gives the same tasks.
        let reversed = tasks().into_iter().rev().collect();
        let (other, _) = stratified(reversed, 20, &[], &["database"], 0).unwrap();
        let (mut one, mut two) = (ids(&sample), ids(&other));
        one.sort_unstable();
        two.sort_unstable();
        assert_eq!(one, two);
    }

    #[test]
    fn every_size_has_exactly_as_many_as_wanted() {
        for wanted in 0..=100 {
            let (sample, _) = stratified(tasks(), wanted, &[], &["database"], 3).unwrap();
            assert_eq!(sample.len(), wanted);
        }
        // A label that no task has is one stratum.
        assert_eq!(stratified(tasks(), 7, &[], &["hops"], 3).unwrap().0.len(), 7);
        assert_eq!(stratified(tasks(), 200, &[], &[], 3).unwrap().0.len(), 100);
    }

    #[test]
    fn a_label_that_is_asked_for_must_be_there() {
        let error = stratified(tasks(), 20, &["hops".to_owned()], &[], 0).unwrap_err().to_string();
        for part in ["eval.strata", "t0", "`hops`", "database"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
