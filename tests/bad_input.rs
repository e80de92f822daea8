//! Invalid input: one clear message naming the cause, a non-zero exit status where the command
//! cannot continue, and never a panic.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{assert_contains, checkout, leyden, lines, quickstart, refused, succeeds};
use tempfile::TempDir;

/// A path that does not exist, to which a refused run must not write.
fn unused_folder() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("run");
    (parent, folder)
}

/// The error message of the quickstart with `changes`, before it writes anything.
fn refusal(changes: &[&str]) -> String {
    let (_parent, folder) = unused_folder();
    let sentence = refused(&mut quickstart(&folder, changes));
    assert!(!folder.exists(), "a refused run left {}", folder.display());
    sentence
}

/// A copy of the tiny model, corrupted by `change`.
fn corrupted_model(change: impl FnOnce(&Path)) -> (TempDir, String) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("corrupted");
    succeeds(leyden(&["model", "import", "tiny"]).arg(&folder));
    change(&folder);
    let source = format!("model.source={}", folder.display());
    (parent, source)
}

#[test]
fn unknown_keys_and_impossible_values() {
    for (change, words) in [
        ("train.stepz=1", &["train.stepz=1", "unknown field `stepz`"][..]),
        ("rollout.samples=0", &["rollout.samples", "at least 1"]),
        ("train.steps", &["--set train.steps", "key=value"]),
        ("algorithm.loss.name=pppo", &["pppo", "ppo"]),
        ("agent.name=nobody", &["agent.name", "nobody", "calc"]),
        ("agent.prompt=none", &["agent.prompt", "none", "compact"]),
        ("data.train=['no/such.jsonl']", &["no/such.jsonl"]),
        ("data.train_exclude=['kind']", &["data.train_exclude", "kind", "name=value"]),
        ("data.train_exclude=['kind=sum']", &["data.train_exclude", "mini-calc", "generated"]),
        ("model.control_tokens=both", &["model.control_tokens", "both", "template"]),
        ("agent.process_reward=nan", &["agent.process_reward", "nan", "not a number"]),
        ("eval.strata=['kind']", &["eval.strata", "kind", "operations"]),
        ("train.init_from=no/such@3", &["train.init_from", "no/such", "run folder"]),
        ("model.source=no/such.gguf", &["no/such.gguf", "does not exist"]),
    ] {
        assert_contains(&refusal(&[change]), words);
    }
}

#[test]
fn an_invalid_or_missing_experiment_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.toml");
    let text = fs::read_to_string(checkout().join("benchmarks/experiments/mini/calc.toml"));
    let text = text.unwrap();
    let line = |key: &str| {
        let at = text.lines().position(|line| line.starts_with(key)).unwrap();
        format!("line {}", at + 1)
    };
    for (from, to, words) in [
        ("steps = ", "stepz = ", &["my.toml", &line("steps"), "stepz"][..]),
        ("steps = ", "steps ", &["my.toml", &line("steps")]),
        ("\"tiny\"", "7", &["my.toml", &line("source"), "string"]),
    ] {
        assert!(text.contains(from));
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        assert_contains(&refused(leyden(&["run"]).arg(&path)), words);
    }
    fs::remove_file(&path).unwrap();
    assert_contains(&refused(leyden(&["run"]).arg(&path)), &["my.toml", "No such file"]);
}

#[test]
fn truncated_safetensors() {
    let (_folder, source) = corrupted_model(|folder| {
        let path = folder.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert_contains(&refusal(&[&source]), &["corrupted/model.safetensors", "cut short"]);
}

#[test]
fn truncated_gguf() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let source = format!("model.source={}", path.display());
    // Magic number, version 3, one tensor, two keys, and then end of file.
    let header = [&b"GGUF\x03\0\0\0"[..], &1u64.to_le_bytes(), &2u64.to_le_bytes()].concat();
    for bytes in [&header[..], &header[..13], &[]] {
        fs::write(&path, bytes).unwrap();
        assert_contains(&refusal(&[&source]), &["model.gguf", "cut short"]);
    }
    fs::write(&path, [b"GGML", &header[4..]].concat()).unwrap();
    assert_contains(&refusal(&[&source]), &["model.gguf", "GGUF"]);
}

#[test]
fn a_tokenizer_without_template() {
    let (_folder, source) = corrupted_model(|folder| {
        let path = folder.join("tokenizer_config.json");
        let mut config: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let _ = fs::remove_file(folder.join("chat_template.jinja"));
        assert!(config.as_object_mut().unwrap().remove("chat_template").is_some());
        fs::write(path, config.to_string()).unwrap();
    });
    assert_contains(&refusal(&[&source]), &["corrupted/tokenizer_config.json", "chat_template"]);
}

/// Malformed rows, and a question beyond the context, only affect themselves.
#[test]
fn malformed_rows_and_overlong_questions_are_skipped() {
    let (parent, folder) = unused_folder();
    let data = parent.path().join("rows.jsonl");
    let endless = "and ".repeat(2000);
    let rows = [
        r#"{"id":"a","question":"How much are 31 and 22?","chain":"","result":"53"}"#.to_owned(),
        r#"{"id":"b","question":"#.to_owned(),
        r#"{"id":"c","question":"How much are 2 and 2?","chain":""}"#.to_owned(),
        format!(r#"{{"id":"d","question":"How much are 1 {endless} 1?","result":"2"}}"#),
        r#"{"id":"e","question":"How much are 56 and 12?","chain":"","result":"68"}"#.to_owned(),
    ];
    fs::write(&data, rows.join("\n")).unwrap();
    let train = format!("data.train=['{}']", data.display());
    let changes = [train.as_str(), "rollout.tasks=3", "train.steps=1"];
    let (_, stderr) = succeeds(&mut quickstart(&folder, &changes));
    assert_contains(
        &stderr,
        &["rows.jsonl, line 2", "not JSON", "line 3 (id c)", "result is missing"],
    );
    assert_contains(&stderr, &["step 1: 8 of 24 rollouts have no reward"]);
    let metrics = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let step = &lines(&metrics, "step")[0];
    assert_eq!((&step["rollouts"], &step["rollouts_without_reward"]), (&24.into(), &8.into()));
}

#[test]
fn a_file_without_a_good_row() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("rows.jsonl");
    fs::write(&data, "{\"id\": \"a\"}\n").unwrap();
    let train = format!("data.train=['{}']", data.display());
    assert_contains(&refusal(&[&train]), &["rows.jsonl", "no valid rows"]);
}

#[test]
fn prompts_beyond_the_context() {
    let (_parent, folder) = unused_folder();
    let sentence = refused(&mut quickstart(&folder, &["model.context=16"]));
    assert_contains(
        &sentence,
        &["step 1", "none of the 32 rollouts", "of task mini-calc", "tokens", "16"],
    );
}

#[test]
fn another_experiment_in_a_run_s_folder() {
    let (_parent, folder) = unused_folder();
    let run = |rate: &str| quickstart(&folder, &["train.steps=1", rate]);
    succeeds(&mut run("train.learning_rate=0.001"));
    let sentence = refused(&mut run("train.learning_rate=0.5"));
    assert_contains(
        &sentence,
        &["another configuration", "learning_rate = 0.001", "learning_rate = 0.5"],
    );
}

#[test]
fn invalid_arguments_give_exit_code_2() {
    for arguments in [&["fly"][..], &["run"], &["run", "x.toml", "--sett", "a=b"], &["verify", "x"]]
    {
        let output = leyden(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn recall_without_supporting_passages() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("rows.jsonl");
    let recall = |rows: &[&str], more: &[&str]| {
        fs::write(&data, rows.join("\n")).unwrap();
        refused(leyden(&["data", "recall", "--data"]).arg(&data).args(more))
    };
    let bare = r#"{"id":"a","question":"q?","answer":"A"}"#;
    let unmarked = r#"{"id":"b","question":"q?","answer":"A","paragraphs":[{"title":"T","paragraph_text":"x"}]}"#;
    let good = r#"{"id":"c","question":"Who is Ada?","answer":"A","paragraphs":[{"title":"Ada","paragraph_text":"A mason.","is_supporting":true}]}"#;
    assert_contains(&recall(&["{}"], &[]), &["rows.jsonl", "no valid rows"]);
    assert_contains(
        &recall(&[bare, unmarked], &[]),
        &["none of 2 rows has a paragraph", "is_supporting"],
    );
    assert_contains(&recall(&[good], &["--encoder", "no/such"]), &["no/such", "is not a folder"]);
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    assert_contains(
        &recall(&[good], &["--encoder", empty]),
        &["empty/config.json", "No such file"],
    );
    let device = ["--encoder", empty, "--device", "abacus"];
    assert_contains(&recall(&[good], &device), &["unknown device `abacus`"]);
    fs::write(&data, good).unwrap();
    let (table, _) = succeeds(leyden(&["data", "recall", "--k", "1,1", "--data"]).arg(&data));
    assert_contains(&table, &["1 question", "1 passage", "all", "bm25", "recall@1", "1.000"]);
}

#[test]
fn missing_successes() {
    let folder = tempfile::tempdir().unwrap();
    let calc = "benchmarks/experiments/mini/calc.toml";
    let sft = |more: &[&str]| {
        let mut command = leyden(&["sft", calc, "--folder"]);
        refused(command.arg(folder.path().join("run")).args(more))
    };
    assert_contains(&sft(&["--from", "nowhere"]), &["nowhere/rollouts.sqlite", "data.successes"]);
    let reinforced = ["--from", "nowhere", "--set", "train.objective=reinforcement"];
    assert_contains(&sft(&reinforced), &["data.successes", "supervised"]);
}

#[test]
fn kernels_that_cannot_be_measured() {
    let kernels = |more: &[&str]| refused(leyden(&["kernels"]).args(more));
    assert_contains(&kernels(&["--only", "no such"]), &["--only", "embedding", "weight_push"]);
    assert_contains(&kernels(&["--device", "abacus"]), &["unknown device `abacus`"]);
    assert_contains(&kernels(&["--dtype", "f7"]), &["f7", "bf16"]);
    assert_contains(&kernels(&["--model", "no-such-model"]), &["no-such-model"]);
    assert_contains(&kernels(&["--tokens", "3"]), &["--tokens 3", "at least 32"]);
    // More activations than any current machine has memory for.
    let large = ["--model", "Llama-3.2-3B", "--tokens", "2000000000", "--only", "training_step"];
    assert_contains(&kernels(&large), &["free", "activations", "--tokens", "--only embedding"]);
}

#[test]
fn kernels_are_reported_as_table_json_and_page() {
    let folder = tempfile::tempdir().unwrap();
    let (json, page) = (folder.path().join("k.json"), folder.path().join("page"));
    let few = ["--model", "tiny", "--tokens", "64", "--repetitions", "1", "--least", "0"];
    let mut command =
        leyden(&["kernels", "--only", "swiglu", "--only", "decode", "--threads", "1"]);
    let (table, _) = succeeds(command.args(few).arg("--json").arg(&json).arg("--out").arg(&page));
    assert_contains(
        &table,
        &["this machine", "swiglu", "attention_decode", "decode_step", "GFLOP/s"],
    );
    let figures: serde_json::Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    let names: Vec<&str> = figures["kernels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|k| k["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["attention_decode", "swiglu", "decode_step"]);
    assert!(figures["roof"]["copy"].as_f64().unwrap() > 0.0);
    for name in ["index.html", "roofline.svg", "roofline.png", "kernels.md"] {
        assert!(page.join(name).is_file(), "{name}");
    }
}
