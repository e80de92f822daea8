//! A rule is one file and one registry row: no other code in the workspace names it.
//!
//! Checked are the type name of a rule's configuration, and the rule's name in string literals
//! unless it is an everyday word. Comments and tests are exempt.

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use leyden_rl::advantage::AdvantageConfig;
use leyden_rl::credit::CreditConfig;
use leyden_rl::loss::LossConfig;

/// A rule of a registry.
struct Rule {
    name: &'static str,
    /// `Grpo` in `Grpo(GrpoConfig { … })`.
    variant: String,
    /// `GrpoConfig` in the same.
    configuration: String,
}

impl Rule {
    fn of(name: &'static str, rule: &impl Debug) -> Self {
        let text = format!("{rule:?}");
        let (variant, rest) = text.split_once('(').unwrap();
        let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap();
        Self { name, variant: variant.to_owned(), configuration: rest[..end].to_owned() }
    }

    /// Whether code uses one of its distinctive names.
    fn is_named_in(&self, code: &str) -> bool {
        let texts: Vec<&str> =
            code.lines().flat_map(|line| line.split('"').skip(1).step_by(2)).collect();
        let distinctive = self.name.contains('_');
        count(code, &self.configuration) > 0
            || (distinctive && count(&texts.join(" "), self.name) > 0)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The source files of all crates, without their tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for folder in ["crates", "agents", "datasets", "benchmarks"] {
        collect(&root().join(folder), &mut found);
    }
    assert!(found.len() > 200, "too few source files found: {}", found.len());
    found
}

fn collect(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["tests", "target"].contains(&name.as_str()) && !name.starts_with('.') {
                collect(&path, found);
            }
        } else if name.ends_with(".rs") && !name.ends_with("_tests.rs") {
            let code = code_of(&fs::read_to_string(&path).unwrap());
            found.push((path, code));
        }
    }
}

/// A source file without its tests and comments.
fn code_of(source: &str) -> String {
    let code = source.split("#[cfg(test)]").next().unwrap();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| line.split(" // ").next().unwrap())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Number of occurrences of a whole word.
fn count(code: &str, word: &str) -> usize {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|part| *part == word).count()
}

/// Checks the rules of a registry against the whole workspace.
fn check(kind: &str, rules: &[Rule], sources: &[(PathBuf, String)]) {
    let folder = root().join("crates/rl/src").join(kind);
    let registry = folder.join("mod.rs");
    let rows = &sources.iter().find(|(path, _)| *path == registry).unwrap().1;
    for rule in rules {
        // `Variant(module::Configuration)` occurs only in the rule's row.
        let place = format!("{}(", rule.variant);
        let row = rows.split(&place).nth(1).unwrap();
        let module = row.split("::").next().unwrap();
        assert_eq!(rows.matches(&place).count(), 1, "{}: one row", rule.name);
        assert_eq!(count(rows, &rule.configuration), 1, "{}: one row", rule.name);
        assert_eq!(rows.matches(&format!("mod {module};")).count(), 1, "{}", rule.name);
        let own = folder.join(module).with_extension("rs");
        assert!(own.is_file(), "{} has no separate file: {}", rule.name, own.display());
        let elsewhere: Vec<&PathBuf> = sources
            .iter()
            .filter(|(path, code)| *path != own && *path != registry && rule.is_named_in(code))
            .map(|(path, _)| path)
            .collect();
        assert!(elsewhere.is_empty(), "{} is named in {elsewhere:?}, too", rule.name);
    }
}

#[test]
fn a_rule_is_named_in_its_file_and_its_row() {
    let sources = sources();
    let credit: Vec<Rule> = CreditConfig::all().iter().map(|r| Rule::of(r.name(), r)).collect();
    let advantage: Vec<Rule> =
        AdvantageConfig::all().iter().map(|r| Rule::of(r.name(), r)).collect();
    let loss: Vec<Rule> = LossConfig::all().iter().map(|r| Rule::of(r.name(), r)).collect();
    check("credit", &credit, &sources);
    check("advantage", &advantage, &sources);
    check("loss", &loss, &sources);
}

#[test]
fn the_first_row_is_the_default_and_the_reference_names_all() {
    assert_eq!(CreditConfig::default().name(), CreditConfig::NAMES[0]);
    assert_eq!(AdvantageConfig::default().name(), AdvantageConfig::NAMES[0]);
    assert_eq!(LossConfig::default().name(), LossConfig::NAMES[0]);
    for (names, text) in [
        (CreditConfig::NAMES, CreditConfig::REFERENCE),
        (AdvantageConfig::NAMES, AdvantageConfig::REFERENCE),
        (LossConfig::NAMES, LossConfig::REFERENCE),
    ] {
        assert!(text.starts_with(&format!("name = {}", names.join(", "))), "{text}");
    }
}
