//! The paper's experiments: they resolve, fit on one H100, and run, here for two steps with a tiny
//! model of the same architecture on generated datasets.

use std::fs;
use std::path::Path;

use crate::common::{Trained, assert_contains, leyden, lines, succeeds};

/// Bytes of an H100's 80 GiB available beside CUDA and its libraries.
const H100: f64 = 84e9;

const EXPERIMENTS: [(&str, &str); 3] =
    [("calcx", "mini-calc"), ("spider", "mini-spider"), ("musique", "mini-musique")];

fn file(name: &str) -> String {
    format!("benchmarks/experiments/paper/{name}.toml")
}

#[test]
fn each_fits_on_an_h100() {
    for (name, _) in EXPERIMENTS {
        let (plans, _) = succeeds(&mut leyden(&["doctor", "--json", "--config", &file(name)]));
        let plans: serde_json::Value = serde_json::from_str(&plans).unwrap();
        let total = plans["plans"][0]["total"].as_f64().unwrap();
        assert!(total > 60e9 && total < H100, "{name}: {total}");
    }
}

/// The embedded model with a context long enough for the full prompts.
fn tiny_with_long_context(folder: &Path) -> String {
    let out = folder.join("tiny");
    succeeds(leyden(&["model", "import", "tiny"]).arg(&out));
    let path = out.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = 4096.into();
    fs::write(&path, config.to_string()).unwrap();
    format!("model.source={}", out.display())
}

#[test]
fn two_steps_of_each_with_a_tiny_model() {
    let folder = tempfile::tempdir().unwrap();
    let source = tiny_with_long_context(folder.path());
    for (name, world) in EXPERIMENTS {
        let run = folder.path().join(name);
        let (train, test) = (format!("data.train=['{world}']"), format!("data.test=['{world}']"));
        let mut command = leyden(&["run", &file(name), "--folder"]);
        command.arg(&run);
        for change in [
            // Another model, machine and data; the method is the paper's.
            source.as_str(),
            "model.device=cpu",
            "model.dtype=f32",
            "model.threads=1",
            &train,
            &test,
            "retrieval.method=bm25",
            "retrieval.corpus=",
            "retrieval.index=",
            "train.steps=2",
            "rollout.tasks=2",
            "rollout.max_tokens=16",
            "eval.every=0",
            "eval.tasks=2",
            "eval.max_tokens=16",
        ] {
            command.args(["--set", change]);
        }
        let (stdout, _) = succeeds(&mut command);
        assert_contains(&stdout, &["finished: "]);
        let steps = lines(&Trained::of(&run).metrics, "step");
        assert_eq!(steps.len(), 2, "{name}");
        assert!(steps.iter().all(|step| step["rollouts"] == 8), "{name}: {steps:?}");
        assert!(steps.iter().all(|step| step["rollouts_without_reward"] == 0), "{name}");
    }
}
