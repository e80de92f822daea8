//! User-defined tasks and rewards without Rust code: files of questions and answers, rewards by
//! name and by a program, databases without a `tables.json`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{assert_contains, leyden, lines, refused, succeeds};
use tempfile::TempDir;

/// A folder with an experiment of two steps on its own tasks; `more` is appended to the file.
fn experiment(agent: &str, tasks: &str, more: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("train.jsonl"), tasks).unwrap();
    fs::write(at("test.jsonl"), tasks.replace("What", "Now, what")).unwrap();
    fs::write(at("system.txt"), "Answer with a number.\n").unwrap();
    let text = format!(
        "name = 'own'\n[model]\nsource = 'tiny'\nthreads = 1\n[agent]\nname = '{agent}'\n\
         prompt = 'compact'\nmax_turns = 2\n[data]\ntrain = [{:?}]\ntest = [{:?}]\n\
         [rollout]\ntasks = 2\nsamples = 4\nmax_tokens = 12\n\
         [train]\nsteps = 2\npatience_without_variance = 0\n\
         [eval]\nmax_tokens = 12\nmodes = ['greedy']\n{more}",
        at("train.jsonl"),
        at("test.jsonl")
    );
    let path = at("own.toml");
    fs::write(&path, text).unwrap();
    (folder, path)
}

const SUMS: &str = "{\"id\": 1, \"question\": \"What is 2 + 3?\", \"answer\": 5, \"kind\": \"sum\"}\n\
    {\"id\": \"b\", \"question\": \"What is 2 - 3?\", \"answer\": \"-1\", \"kind\": \"difference\"}\n";

fn run(path: &Path, changes: &[&str]) -> Command {
    let mut command = leyden(&["run"]);
    command.arg(path).arg("--folder").arg(path.with_file_name("run"));
    for change in changes {
        command.args(["--set", change]);
    }
    command
}

fn metrics(path: &Path) -> String {
    fs::read_to_string(path.with_file_name("run").join("metrics.jsonl")).unwrap()
}

#[test]
fn a_chat_is_trained_on_questions_and_answers() {
    let reward = "[reward]\nname = 'number'\n";
    let (folder, path) = experiment("chat", SUMS, reward);
    let system = format!("agent.chat.system={:?}", folder.path().join("system.txt"));
    succeeds(&mut run(&path, &[&system]));
    let metrics = metrics(&path);
    let steps = lines(&metrics, "step");
    assert_eq!(steps.len(), 2);
    assert!(steps.iter().all(|step| step["rollouts_without_reward"] == 0), "{steps:?}");
    let evaluation = &lines(&metrics, "eval")[0];
    assert_eq!(evaluation["rewards"][0][0], "1");
    assert_eq!(evaluation["by_label"]["kind"].as_object().unwrap().len(), 2);
    let provenance = fs::read_to_string(folder.path().join("run/provenance.json")).unwrap();
    assert_contains(&provenance, &["system.txt", "\"reward\": \"number\""]);
}

#[test]
fn any_agent_works_on_own_tasks() {
    let (_folder, path) = experiment("calc", SUMS, "[reward]\nname = 'contains'\n");
    succeeds(&mut run(&path, &[]));
    assert_eq!(lines(&metrics(&path), "step").len(), 2);
    // Its own reward works too: `answer` takes the place of Calc-X's `result`.
    let (_folder, path) = experiment("calc", SUMS, "");
    succeeds(&mut run(&path, &["train.steps=1"]));
}

#[test]
fn training_tasks_are_left_out_by_a_label() {
    let (folder, path) = experiment("calc", SUMS, "[reward]\nname = 'contains'\n");
    let exclude = "data.train_exclude=['kind=difference']";
    let (_, stderr) = succeeds(&mut run(&path, &[exclude, "train.steps=1"]));
    assert_contains(&stderr, &["train.jsonl", "1 task left out"]);
    let provenance = fs::read_to_string(folder.path().join("run/provenance.json")).unwrap();
    let provenance: serde_json::Value = serde_json::from_str(&provenance).unwrap();
    assert_eq!(provenance["data"]["train"][0]["excluded"], 1, "{provenance}");
    // Held-out tasks stay.
    assert_eq!(lines(&metrics(&path), "eval")[0]["rewards"].as_array().unwrap().len(), 2);
    let all = "data.train_exclude=['kind=difference', 'kind=sum']";
    fs::remove_dir_all(folder.path().join("run")).unwrap();
    let error = refused(&mut run(&path, &[all]));
    assert_contains(&error, &["train.jsonl", "data.train_exclude", "no task"]);
}

#[test]
fn a_failing_reward_program_loses_rewards_but_not_the_run() {
    // The program fails on some rewards and succeeds on others.
    let script = "n=0\nwhile read line; do\n  n=$((n+1))\n  case $n in\n    2) echo no such key >&2; \
                  exit 3;;\n    *) echo 0.$n;;\n  esac\ndone\n";
    let (folder, path) = experiment("chat", SUMS, "");
    let score = folder.path().join("score.sh");
    fs::write(&score, script).unwrap();
    let command = format!("reward.command=['/bin/sh', {:?}]", score.to_str().unwrap());
    let changes = [command.as_str(), "reward.processes=1"];
    succeeds(&mut run(&path, &changes));
    let steps = lines(&metrics(&path), "step");
    let without: u64 =
        steps.iter().map(|step| step["rollouts_without_reward"].as_u64().unwrap()).sum();
    let of_all: u64 = steps.iter().map(|step| step["rollouts"].as_u64().unwrap()).sum();
    assert!(0 < without && without < of_all, "{steps:?}");
    let listed = leyden(&["rollouts", "ls"]).arg(folder.path().join("run")).output().unwrap();
    assert!(listed.status.success());
    let store = rusqlite::Connection::open(folder.path().join("run/rollouts.sqlite")).unwrap();
    let why: String = store
        .query_row("SELECT missing FROM rollouts WHERE missing IS NOT NULL", [], |row| row.get(0))
        .unwrap();
    assert_contains(&why, &["reward.command", "score.sh ended with exit status: 3", "no such key"]);
}

#[test]
fn invalid_rewards() {
    let (_folder, path) = experiment("chat", SUMS, "");
    for (changes, words) in [
        (&["reward.name=best"][..], &["reward.name", "`best`", "exact, number, choice"][..]),
        (&["reward.command=['no/such/program']"], &["reward.command", "no/such/program"]),
        (&["reward.command=['x']", "reward.name=f1"], &["reward.command", "exclude"]),
        (&["reward.command=['x']", "reward.deadline=0"], &["reward.deadline"]),
        (&["agent.chat.system=no/such.txt"], &["agent.chat.system", "no/such.txt"]),
        (&["agent.chat.sytem=x"], &["agent.chat"]),
    ] {
        assert_contains(&refused(&mut run(&path, changes)), words);
    }
}

#[test]
fn a_missing_field_names_file_line_and_field() {
    let row = "{\"id\": 1, \"question\": \"What is it?\"}\n";
    let (_folder, path) = experiment("chat", &format!("\n{SUMS}{row}"), "");
    let (_, stderr) = succeeds(&mut run(&path, &["train.steps=1"]));
    assert_contains(&stderr, &["train.jsonl, line 4 (id 1): the field answer is missing"]);
    fs::write(path.with_file_name("train.jsonl"), row).unwrap();
    assert_contains(&refused(&mut run(&path, &["name=again"])), &["the file has no valid rows"]);
}

#[test]
fn a_database_and_a_query_are_enough() {
    let tasks = "{\"id\": 1, \"question\": \"What do we sell?\", \"database\": \"shop.sqlite\", \
                 \"query\": \"SELECT name FROM item\"}\n\
                 {\"id\": 2, \"question\": \"What costs most?\", \"database\": \"none.sqlite\", \
                 \"query\": \"SELECT 1\"}\n\
                 {\"id\": 3, \"question\": \"What then?\", \"database\": \"shop.sqlite\"}\n";
    let (folder, path) = experiment("sql", tasks, "");
    let shop = rusqlite::Connection::open(folder.path().join("shop.sqlite")).unwrap();
    shop.execute_batch(
        "CREATE TABLE item (name TEXT, price INT); INSERT INTO item VALUES ('tea', 3);",
    )
    .unwrap();
    drop(shop);
    let (_, stderr) = succeeds(&mut run(&path, &[]));
    assert_contains(
        &stderr,
        &[
            "train.jsonl, line 2 (id 2)",
            "none.sqlite",
            "train.jsonl, line 3 (id 3): the field query is missing",
        ],
    );
    let steps = lines(&metrics(&path), "step");
    assert!(steps.iter().all(|step| step["rollouts_without_reward"] == 0), "{steps:?}");
    let (text, _) = succeeds(leyden(&["data", "info"]).arg(path.with_file_name("train.jsonl")));
    assert_contains(
        &text,
        &["1 task", "databases: 1 in use", "reference queries that run: 1 of 1"],
    );
}
