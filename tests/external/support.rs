//! Helpers for tests of external agents: short runs, their recorded rollouts, and Python with the
//! packages of the paper's agents.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;

use crate::common::{checkout, leyden};

/// `leyden run` of an experiment of `benchmarks/experiments`, with `changes`.
pub fn run(experiment: &str, folder: &Path, changes: &[&str]) -> Command {
    let mut command = leyden(&["run"]);
    command.arg(format!("benchmarks/experiments/{experiment}.toml")).arg("--folder").arg(folder);
    for change in changes {
        command.args(["--set", change]);
    }
    command
}

/// One rollout of a run, as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    pub answer: Option<String>,
    pub reward: Option<f64>,
    pub missing: Option<String>,
    pub calls: Vec<Call>,
}

/// One call of its agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub role: String,
    pub prompt_ids: Vec<u32>,
    pub response_ids: Vec<u32>,
    pub logprobs: Vec<f32>,
    pub text: String,
    pub policy_version: i64,
    pub credit: Option<f64>,
}

/// A rollout's key: step, phase, position.
pub type Place = (i64, String, i64);

/// Call and value of every process reward of the run in `folder`.
pub fn process_rewards(folder: &Path) -> Vec<(i64, f64)> {
    let store = Connection::open(folder.join("rollouts.sqlite")).unwrap();
    let mut statement = store.prepare("SELECT call, value FROM process_rewards").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// All rollouts of the run in `folder`.
pub fn rollouts(folder: &Path) -> BTreeMap<Place, Rollout> {
    let store = Connection::open(folder.join("rollouts.sqlite")).unwrap();
    let mut found = BTreeMap::new();
    let select = "SELECT step, phase, id, answer, reward, missing FROM rollouts";
    let mut statement = store.prepare(select).unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let place: Place = (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap());
        let rollout = Rollout {
            answer: row.get(3).unwrap(),
            reward: row.get(4).unwrap(),
            missing: row.get(5).unwrap(),
            calls: Vec::new(),
        };
        found.insert(place, rollout);
    }
    let select = "SELECT step, phase, rollout, role, prompt_ids, response_ids, logprobs, text, \
                  policy_version, credit FROM calls ORDER BY step, phase, rollout, idx";
    let mut statement = store.prepare(select).unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let place: Place = (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap());
        let bytes = |column: usize| row.get::<_, Vec<u8>>(column).unwrap();
        let call = Call {
            role: row.get(3).unwrap(),
            prompt_ids: words(&bytes(4), u32::from_le_bytes),
            response_ids: words(&bytes(5), u32::from_le_bytes),
            logprobs: words(&bytes(6), f32::from_le_bytes),
            text: row.get(7).unwrap(),
            policy_version: row.get(8).unwrap(),
            credit: row.get(9).unwrap(),
        };
        found.get_mut(&place).expect("a call belongs to a rollout").calls.push(call);
    }
    found
}

fn words<T>(bytes: &[u8], of: impl Fn([u8; 4]) -> T) -> Vec<T> {
    bytes.chunks_exact(4).map(|word| of(word.try_into().unwrap())).collect()
}

/// A Python interpreter for scripts that need the standard library only; `None`, with a message,
/// if there is none.
pub fn python(test: &str) -> Option<PathBuf> {
    let found = Command::new("python3")
        .args(["-c", "import sys; assert sys.version_info >= (3, 9); print(sys.executable)"])
        .output();
    match found {
        Ok(output) if output.status.success() => {
            Some(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
        }
        _ => {
            eprintln!("{test} skipped: there is no python3 of version 3.9 or newer");
            None
        }
    }
}

/// A Python interpreter with the packages of `agents/external/requirements.txt`: the checkout's
/// environment, or one created under `target` on first use. `None`, with a message, if PyPI is
/// unreachable.
pub fn python_with_packages(test: &str) -> Option<PathBuf> {
    let requirements = checkout().join("agents/external/requirements.txt");
    for folder in [checkout().join(".venv-external"), checkout().join("target/venv-external")] {
        let python = folder.join("bin/python");
        if has_packages(&python) {
            return Some(python);
        }
    }
    let folder = checkout().join("target/venv-external");
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    // Tests run in separate processes: one installs, the others wait.
    let lock = File::create(folder.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let python = folder.join("bin/python");
    if has_packages(&python) {
        return Some(python);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&folder);
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--retries", "1", "-r"]).arg(&requirements);
    for command in [&mut make, &mut install] {
        match command.output() {
            Ok(output) if output.status.success() => {}
            failed => {
                let why = failed.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
                eprintln!("{test} skipped: the packages cannot be installed: {why:?}");
                return None;
            }
        }
    }
    Some(python)
}

fn has_packages(python: &Path) -> bool {
    let check = "import langgraph.graph, langchain_openai, agents, autogen_ext.models.openai";
    let output = Command::new(python).args(["-c", check]).output();
    output.is_ok_and(|output| output.status.success())
}

/// A TOML value for `--set`: a list of strings.
pub fn list(items: &[&str]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", quoted.join(", "))
}

/// The processes whose command line contains `text`, except this one.
pub fn processes_with(text: &str) -> Vec<u32> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let matches = |id: &u32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    };
    ids.filter(|id| *id != own).filter(matches).collect()
}
