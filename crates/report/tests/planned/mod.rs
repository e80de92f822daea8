//! Synthetic sweep folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use leyden_core::record::Record;
use leyden_report::Options;
use leyden_report::sweep::{SweepRuns, write_sweep};
use leyden_sweep::Cell;
use serde_json::Value;

use crate::synthetic::Plan;

/// A sweep folder of variants by name and end reward, with seeds from 1 on; all finished.
pub struct Planned {
    pub variants: Vec<(&'static str, f64)>,
    pub seeds: u64,
    /// Lines for `sweep.toml`.
    pub settings: &'static str,
}

impl Planned {
    pub fn plan(&self, end: f64, seed: u64) -> Plan {
        Plan { name: "cell", seed, steps: 30, tasks: 40, end, ..Plan::default() }
    }

    pub fn cell(name: &str, seed: u64) -> Cell {
        Cell {
            id: format!("{name}-seed{seed}"),
            variant: name.to_owned(),
            seed,
            overrides: vec![format!("name=\"{name}\""), format!("x=\"{name}\"")],
            point: None,
        }
    }

    pub fn write(&self, dir: &Path) -> PathBuf {
        let root = dir.join("sweep");
        let mut lines = String::new();
        for seed in 1..=self.seeds {
            for (name, end) in &self.variants {
                let cell = Self::cell(name, seed);
                lines.push_str(&(serde_json::to_string(&cell).unwrap() + "\n"));
                let made = self.plan(*end, seed).write(&dir.join(name));
                let folder = root.join("cells").join(&cell.id);
                fs::create_dir_all(root.join("cells")).unwrap();
                fs::rename(made, &folder).unwrap();
                fs::write(folder.join("finished"), "").unwrap();
            }
        }
        fs::write(root.join("cells.jsonl"), lines).unwrap();
        fs::write(root.join("sweep.toml"), format!("base = 'x.toml'\n{}", self.settings)).unwrap();
        root
    }

    /// Sampled test reward by step.
    pub fn curve(&self, end: f64, seed: u64) -> Vec<(f64, f64)> {
        let records = self.plan(end, seed).records();
        let sampled = records.iter().filter_map(|record| match record {
            Record::Eval(eval) if eval.mode == "sampled" => Some(eval),
            _ => None,
        });
        sampled.map(|eval| (eval.step as f64, eval.reward_mean)).collect()
    }
}

pub fn two(seeds: u64) -> Planned {
    Planned { variants: vec![("good", 0.9), ("plain", 0.5)], seeds, settings: BASELINE }
}

const BASELINE: &str = "baseline = 'plain'\n[report]\nthreshold = 0.4\n";

pub fn page_only() -> Options {
    Options { files: false, ..Options::default() }
}

pub fn written(sweep: &SweepRuns, out: &Path, options: &Options) -> BTreeMap<String, String> {
    let written = write_sweep(sweep, out, options).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    written.files.iter().map(|path| (name(path), text(path))).collect()
}

/// Rewrites the lines of a cell's `metrics.jsonl`; a line that becomes `None` is removed.
pub fn rewrite(root: &Path, cell: &str, change: impl Fn(Value) -> Option<Value>) {
    let path = root.join("cells").join(cell).join("metrics.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let kept: String = lines.filter_map(change).map(|line| format!("{line}\n")).collect();
    fs::write(path, kept).unwrap();
}

/// Sets the mean reward of the last evaluations.
pub fn set_final(root: &Path, cell: &str, reward: f64) {
    rewrite(root, cell, |mut line| {
        if line["kind"] == "eval" && line["step"] == 30 {
            line["reward_mean"] = Value::from(reward);
        }
        Some(line)
    });
}

/// Ends a cell after `step`: without its later records, and failed unless `why` is empty.
pub fn end_after(root: &Path, cell: &str, step: u64, why: &str) {
    rewrite(root, cell, |line| (line["step"].as_u64().unwrap() <= step).then_some(line));
    if !why.is_empty() {
        fail(root, cell, why);
    }
}

/// Marks a cell as failed.
pub fn fail(root: &Path, cell: &str, why: &str) {
    let _ = fs::remove_file(root.join("cells").join(cell).join("finished"));
    fs::create_dir_all(root.join("status")).unwrap();
    fs::write(root.join("status").join(format!("{cell}.failed")), why).unwrap();
}
