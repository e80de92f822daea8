//! Checks of verl's golden values, and errors of malformed files.

use std::path::PathBuf;

use leyden_core::{golden_file, shared_material};
use leyden_rl::golden::{GoldenError, check};
use serde_json::{Value, json};

fn cases() -> Value {
    let text = std::fs::read_to_string(golden_file("rl.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn check_value(value: &Value) -> Result<leyden_core::GoldenReport, GoldenError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("golden.json");
    std::fs::write(&path, value.to_string()).unwrap();
    check(&path)
}

#[test]
fn all_numbers_of_verl_are_reproduced() {
    let report = check(&golden_file("rl.json")).unwrap();
    assert!(report.holds(), "\n{report}");
    // Ten estimators, seven losses, four estimators of KL, three aggregations, the value loss.
    assert_eq!(report.families.len(), 25, "\n{report}");
    assert!(report.families.iter().all(|family| family.cases >= 3), "\n{report}");
}

/// Another release of verl, with one loss and one aggregation more.
#[test]
fn the_numbers_of_another_release_are_reproduced() {
    let Some(path) = shared_material("fixtures/rl/verl.json") else { return };
    let report = check(&path).unwrap();
    assert!(report.holds(), "\n{report}");
    // Ten estimators, eight losses, four estimators of KL, four aggregations, the value loss.
    assert_eq!(report.families.len(), 27, "\n{report}");
    assert!(report.families.iter().all(|family| family.cases >= 6), "\n{report}");
}

/// Each of these changes must be detected.
#[test]
fn a_wrong_number_anywhere_is_a_disagreement() {
    let original = cases();
    for pointer in [
        "/cases/1/advantages/grpo/0/0",
        "/cases/2/advantages/gae_gamma0.99_lambda0.95/1/1",
        "/cases/1/returns/reinforce_plus_plus_gamma0.95/1/1",
        "/cases/0/advantages/opo/0/5",
        "/cases/3/policy_loss/vanilla~1token-mean/loss",
        "/cases/3/policy_loss/geo_mean~1token-mean/grad_logp_new/0/0",
        "/cases/4/policy_loss/vanilla~1token-mean/metrics/actor~1pg_clipfrac_lower",
        "/cases/0/kl/low_var_kl/3/5",
        "/cases/0/agg/seq-mean-token-mean",
        "/cases/5/value_loss/clipfrac",
    ] {
        let mut changed = original.clone();
        let number = changed.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}"));
        *number = json!(number.as_f64().unwrap() + 1e-7);
        let report = check_value(&changed).unwrap();
        let disagreements: usize = report.families.iter().map(|f| f.disagreements).sum();
        assert_eq!(disagreements, 1, "{pointer}\n{report}");
    }
}

#[test]
fn rejected_cases_must_match_in_both_directions() {
    let original = cases();
    let mut refused = original.clone();
    refused["cases"][0]["advantages"]["grpo"] = json!({ "error": "ValueError: no" });
    assert!(!check_value(&refused).unwrap().holds());
    let mut allowed = original;
    let zeros = json!(vec![vec![0.0; 5]; 1]);
    allowed["cases"][5]["advantages"]["grpo_passk"] = zeros.clone();
    allowed["cases"][5]["returns"]["grpo_passk"] = zeros;
    let report = check_value(&allowed).unwrap();
    assert!(!report.holds());
    let first = report.families.iter().find_map(|family| family.first.clone()).unwrap();
    assert!(first.contains("seed 205") && first.contains("one sample"), "{first}");
}

#[test]
fn a_file_without_cases_does_not_hold() {
    assert!(!check_value(&json!({ "cases": [] })).unwrap().holds());
}

#[test]
fn errors_of_malformed_files_name_file_and_key() {
    let missing = check(&PathBuf::from("/nowhere/verl.json")).unwrap_err().to_string();
    assert!(missing.starts_with("/nowhere/verl.json cannot be read"), "{missing}");
    let nothing = check_value(&json!([])).unwrap_err().to_string();
    assert!(nothing.ends_with("golden.json: the file is not an object"), "{nothing}");
    let original = cases();
    let broken = |pointer: &str, value: Value| {
        let mut changed = original.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        check_value(&changed).unwrap_err().to_string()
    };
    for (pointer, value, sentence) in [
        ("/cases/0/mask/1", json!([1, 1]), "cases[0].mask[1] has 2 elements instead of 6"),
        ("/cases/0/mask/1/0", json!(0.5), "cases[0].mask has numbers other than 0 and 1"),
        ("/cases/2/values/0/3", json!("x"), "cases[2].values[0][3] is not a number"),
        ("/cases/1/rows", json!(-1), "cases[1].rows is not a whole number"),
        ("/cases/1/kl", json!({ "k9": [] }), "cases[1].kl.k9 is not a known estimator"),
        ("/cases/1/advantages", json!({ "grop": [] }), "cases[1].advantages.grop is not a known"),
        ("/cases/1/policy_loss", json!({ "vanilla": {} }), "vanilla is not a known aggregation"),
        ("/cases/1/returns", json!({}), "cases[1].returns.grpo is missing"),
    ] {
        let error = broken(pointer, value);
        assert!(error.contains("golden.json: ") && error.contains(sentence), "{error}");
    }
}
