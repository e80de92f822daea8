//! Provenance of several runs in one file: shared fields, and those of each run.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A run's name and its provenance.
type Run<'a> = (String, &'a Map<String, Value>);

/// One file per revision, by name: the fields of `provenance.json` that all its runs share, and
/// under `runs` the remaining fields of each run.
///
/// Runs without provenance are omitted.
pub(super) fn files(runs: &[Run]) -> BTreeMap<String, String> {
    let mut revisions: Vec<(String, Vec<&Run>)> = Vec::new();
    for run in runs.iter().filter(|(_, provenance)| !provenance.is_empty()) {
        let revision = revision(run.1);
        match revisions.iter_mut().find(|(known, _)| *known == revision) {
            Some((_, members)) => members.push(run),
            None => revisions.push((revision, vec![run])),
        }
    }
    let single = revisions.len() == 1;
    let file = |(revision, members): (String, Vec<&Run>)| {
        let name = match single {
            true => "provenance.json".to_owned(),
            false => format!("provenance-{revision}.json"),
        };
        let all: Vec<&Map<String, Value>> =
            members.iter().map(|(_, provenance)| *provenance).collect();
        let mut shared = shared(&all);
        let differences: Map<String, Value> = members
            .iter()
            .map(|(name, provenance)| (name.clone(), Value::Object(without(provenance, &shared))))
            .collect();
        shared.insert("runs".to_owned(), Value::Object(differences));
        let text = serde_json::to_string_pretty(&Value::Object(shared)).unwrap_or_default();
        (name, text + "\n")
    };
    revisions.into_iter().map(file).collect()
}

/// A revision as part of a file name: eight digits, and eight of the hash of uncommitted changes.
fn revision(provenance: &Map<String, Value>) -> String {
    let digits = |key: &str| {
        let text = provenance.get(key).and_then(Value::as_str)?;
        let plain: String = text.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        (!plain.is_empty()).then_some(plain)
    };
    let revision = digits("git_revision").or_else(|| digits("leyden"));
    let revision = revision.unwrap_or_else(|| "unknown".to_owned());
    match digits("git_diff_sha256") {
        Some(changes) => format!("{revision}-{changes}"),
        None => revision,
    }
}

/// The fields with equal values in all maps; objects are compared recursively.
fn shared(all: &[&Map<String, Value>]) -> Map<String, Value> {
    let Some((first, others)) = all.split_first() else { return Map::new() };
    let mut found = Map::new();
    for (key, value) in *first {
        let values: Vec<&Value> = others.iter().filter_map(|other| other.get(key)).collect();
        if values.len() < others.len() {
            continue;
        }
        if values.iter().all(|other| *other == value) {
            found.insert(key.clone(), value.clone());
            continue;
        }
        let objects: Option<Vec<&Map<String, Value>>> =
            std::iter::once(value).chain(values).map(Value::as_object).collect();
        let inner = objects.map(|objects| shared(&objects)).unwrap_or_default();
        if !inner.is_empty() {
            found.insert(key.clone(), Value::Object(inner));
        }
    }
    found
}

/// The fields that are not in `shared`.
fn without(fields: &Map<String, Value>, shared: &Map<String, Value>) -> Map<String, Value> {
    let mut left = Map::new();
    for (key, value) in fields {
        match (shared.get(key), value) {
            (Some(common), value) if common == value => {}
            (Some(Value::Object(common)), Value::Object(object)) => {
                left.insert(key.clone(), Value::Object(without(object, common)));
            }
            _ => {
                left.insert(key.clone(), value.clone());
            }
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn shared_and_remaining_fields_together_are_complete() {
        let run = |seed: u64, cores: u64| {
            object(json!({
                "git_revision": "0123456789", "seed": seed, "data": {"seed": seed, "file": "x"},
                "cores": cores,
            }))
        };
        let (a, b) = (run(1, 2), run(2, 2));
        let files = files(&[("a".to_owned(), &a), ("b".to_owned(), &b)]);
        let file: Value = serde_json::from_str(&files["provenance.json"]).unwrap();
        let expected = json!({
            "git_revision": "0123456789", "data": {"file": "x"}, "cores": 2,
            "runs": {"a": {"seed": 1, "data": {"seed": 1}}, "b": {"seed": 2, "data": {"seed": 2}}},
        });
        assert_eq!(file, expected);
    }

    #[test]
    fn each_revision_has_a_file() {
        let run = |revision: &str, changes: Value| {
            object(json!({"git_revision": revision, "git_diff_sha256": changes, "seed": 1}))
        };
        let runs = [
            run("aaaaaaaaaaaa", Value::Null),
            run("bbbbbbbbbbbb", Value::Null),
            run("bbbbbbbbbbbb", json!("cccccccccccc")),
        ];
        let named: Vec<(String, &Map<String, Value>)> =
            runs.iter().enumerate().map(|(i, run)| (i.to_string(), run)).collect();
        let names: Vec<String> = files(&named).into_keys().collect();
        let expected = [
            "provenance-aaaaaaaa.json",
            "provenance-bbbbbbbb-cccccccc.json",
            "provenance-bbbbbbbb.json",
        ];
        assert_eq!(names, expected);
        assert!(files(&[("x".to_owned(), &Map::new())]).is_empty());
    }
}
