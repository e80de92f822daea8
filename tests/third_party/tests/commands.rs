//! The complete command line with a third-party benchmark.

use std::path::Path;
use std::process::{Command, Output};

const EXPERIMENT: &str = "name = 'vowels'\n[model]\nsource = 'tiny'\n\
    [agent]\nname = 'vowels'\ngreeting = 'please write'\n\
    [data]\ntrain = ['mini-vowels']\ntest = ['mini-vowels']\n\
    [rollout]\ntasks = 2\nsamples = 4\nmax_tokens = 8\n\
    [train]\nsteps = 2\nlearning_rate = 0.001\n\
    [eval]\ntasks = 4\nmax_tokens = 8\n";

fn command(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leyden-third-party"));
    command.args(arguments).current_dir(folder).output().unwrap()
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

#[test]
fn two_steps_are_trained_and_the_model_is_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("vowels.toml"), EXPERIMENT).unwrap();
    let run = command(folder.path(), &["run", "vowels.toml"]);
    assert!(run.status.success(), "{}", text(&run));
    let made = folder.path().join("runs/vowels");
    let metrics = std::fs::read_to_string(made.join("metrics.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<_> = lines.iter().filter(|line| line["kind"] == "step").collect();
    assert_eq!(steps.len(), 2);
    assert!(steps.iter().all(|step| step["rollouts_without_reward"] == 0), "{steps:?}");
    assert!(steps.iter().any(|step| step["reward_std"].as_f64() > Some(0.0)), "{steps:?}");
    let config = std::fs::read_to_string(made.join("config.toml")).unwrap();
    assert!(config.contains("greeting = \"please write\"\n"), "{config}");

    // The greeting is that of training, or that of the option.
    let data = ["--data", "mini-vowels", "--limit", "2", "--max-tokens", "4"];
    let eval = ["eval", "--agent", "vowels", "--model", "runs/vowels/final", "--out"];
    for (out, more) in [("a", &[][..]), ("b", &["--greeting", "do write"])] {
        let evaluated = command(folder.path(), &[&eval[..], &[out], &data, more].concat());
        assert!(evaluated.status.success(), "{}", text(&evaluated));
        let config = std::fs::read_to_string(folder.path().join(out).join("config.toml")).unwrap();
        let greeting = if more.is_empty() { "please write" } else { "do write" };
        assert!(config.contains(&format!("greeting = \"{greeting}\"")), "{config}");
    }
}

#[test]
fn help_and_errors_include_the_benchmark() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("vowels.toml"), EXPERIMENT).unwrap();
    // Help is wrapped to the width of a terminal.
    let help = text(&command(folder.path(), &["run", "--help"]));
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["agent.greeting", "vowels (many vowels)", "mini-vowels", "share of vowels"] {
        assert!(help.contains(part), "{part} is not in\n{help}");
    }
    for (change, part) in [
        ("agent.name=nobody", "there are calc, sql, rag, external, chat and vowels"),
        ("agent.greeting=7", "agent.greeting"),
        ("agent.greeting=''", "agent.greeting: must not be empty"),
        ("agent.greetin=x", "unknown field `greetin`"),
        ("reward.name=best", "no reward `best`"),
    ] {
        let refused = command(folder.path(), &["run", "vowels.toml", "--set", change]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused).contains(part), "{}", text(&refused));
    }
}
