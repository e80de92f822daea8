//! Faulty external agents, with Python's standard library only: a failed rollout has no reward and
//! a reason; the other rollouts and the run continue.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::{assert_contains, checkout, lines, refused, succeeds};
use crate::external::support::{Place, Rollout, list, process_rewards, python, rollouts, run};

const SHORT: [&str; 9] = [
    "train.steps=2",
    "train.warmup=0",
    "rollout.tasks=2",
    "rollout.samples=4",
    "eval.every=2",
    "eval.tasks=2",
    "eval.modes=['greedy']",
    "agent.external.workers='local'",
    "agent.external.processes=4",
];

/// A short run in which every second process is faulty, and its results.
struct Faulty {
    rollouts: BTreeMap<Place, Rollout>,
    steps: Vec<serde_json::Value>,
    /// Call and value of every process reward.
    process_rewards: Vec<(i64, f64)>,
    /// Number of processes started.
    processes: usize,
    /// Ids of the hanging processes.
    hanging: Vec<u32>,
}

impl Faulty {
    /// `None` without Python.
    fn run(kind: &str, changes: &[&str]) -> Option<Self> {
        let python = python(kind)?;
        let folder = tempfile::tempdir().unwrap();
        let (counts, own) = (folder.path().join("counts"), folder.path().join("run"));
        fs::create_dir(&counts).unwrap();
        let script = checkout().join("tests/external/faults.py");
        let words = [&python, &script, &counts].map(|path| path.to_str().unwrap());
        let command = [words[0], words[1], words[2], kind];
        let command = format!("agent.external.command={}", list(&command));
        let changes: Vec<&str> =
            SHORT.iter().chain(changes).copied().chain([command.as_str()]).collect();
        succeeds(&mut run("external/calc", &own, &changes));
        let metrics = fs::read_to_string(own.join("metrics.jsonl")).unwrap();
        let names = fs::read_dir(&counts).unwrap().flatten();
        let names: Vec<String> =
            names.map(|entry| entry.file_name().into_string().unwrap()).collect();
        let hanging = names.iter().filter_map(|name| name.strip_prefix("hangs-")?.parse().ok());
        Some(Self {
            rollouts: rollouts(&own),
            steps: lines(&metrics, "step"),
            process_rewards: process_rewards(&own),
            processes: names.iter().filter(|name| name.starts_with("process-")).count(),
            hanging: hanging.collect(),
        })
    }

    fn missing(&self) -> Vec<&str> {
        self.rollouts.values().filter_map(|rollout| rollout.missing.as_deref()).collect()
    }

    /// Panics unless exactly every second rollout has no reward, with these words in the reason.
    fn half_is_missing(&self, words: &[&str]) {
        assert_eq!(self.processes, self.rollouts.len());
        let missing = self.missing();
        assert_eq!(missing.len(), self.processes.div_ceil(2), "{missing:?}");
        for sentence in missing {
            assert_contains(sentence, words);
        }
        self.others_are_complete();
        let without = |step: &serde_json::Value| step["rollouts_without_reward"].as_u64().unwrap();
        assert!(self.steps.iter().map(without).sum::<u64>() > 0);
    }

    fn others_are_complete(&self) {
        assert_eq!(self.steps.len(), 2, "not all steps completed");
        for rollout in self.rollouts.values().filter(|rollout| rollout.missing.is_none()) {
            assert!(rollout.reward.is_some());
            for call in &rollout.calls {
                assert_eq!(call.response_ids.len(), call.logprobs.len());
            }
        }
    }
}

#[test]
fn a_crashing_agent_affects_only_its_own_rollout() {
    let Some(run) = Faulty::run("crashes", &[]) else { return };
    run.half_is_missing(&["exit code 1", "RuntimeError: the tool of this agent broke"]);
    // Its calls are still recorded.
    let crashed = run.rollouts.values().filter(|rollout| rollout.missing.is_some());
    assert!(crashed.into_iter().all(|rollout| rollout.calls.len() == 1));
}

#[test]
fn a_crashing_agent_can_be_retried_or_scored_zero() {
    let Some(run) = Faulty::run("crashes", &["agent.on_failure='retry'", "agent.retries=9"]) else {
        return;
    };
    assert_eq!(run.missing(), [""; 0]);
    assert!(run.processes > run.rollouts.len());
    let Some(run) = Faulty::run("crashes", &["agent.on_failure='zero'"]) else { return };
    assert_eq!(run.missing(), [""; 0]);
    assert!(run.rollouts.values().all(|rollout| rollout.reward.is_some()));
}

#[test]
fn a_hanging_agent_is_killed_with_its_children() {
    // Long enough for the others on a busy machine; paid once in each of three phases.
    let changes = [
        "train.steps=1",
        "eval.every=1",
        "eval.tasks=1",
        "agent.external.processes=8",
        "rollout.rollout_deadline=8",
    ];
    let Some(run) = Faulty::run("forks_and_hangs", &changes) else { return };
    let missing = run.missing();
    assert!(missing.len() >= run.processes.div_ceil(2), "{missing:?}");
    for sentence in missing {
        assert_contains(sentence, &["took longer than 8s"]);
    }
    assert_eq!(run.steps.len(), 1);
    assert!(run.hanging.len() >= run.processes);
    for id in run.hanging {
        let line = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        assert!(!line.contains("forks_and_hangs"), "process {id} is still running");
    }
}

#[test]
fn an_answer_is_scored_without_calls_or_with_a_call_in_flight() {
    let Some(run) = Faulty::run("never_calls", &[]) else { return };
    assert_eq!(run.missing(), [""; 0]);
    let silent = run.rollouts.values().filter(|rollout| rollout.calls.is_empty());
    assert_eq!(silent.count(), run.processes.div_ceil(2));
    run.others_are_complete();

    let Some(run) = Faulty::run("answers_early", &[]) else { return };
    assert_eq!(run.missing(), [""; 0]);
    let early = run.rollouts.values();
    let early = early.filter(|rollout| rollout.answer.as_deref() == Some("### ANSWER: 42 ###"));
    assert!(early.count() >= run.processes.div_ceil(2));
    run.others_are_complete();
}

#[test]
fn excessive_output_and_invalid_requests_are_harmless() {
    for kind in ["shouts", "sends_nonsense"] {
        let Some(run) = Faulty::run(kind, &[]) else { return };
        assert_eq!(run.missing(), [""; 0], "{kind}");
        run.others_are_complete();
        assert!(run.rollouts.values().all(|rollout| !rollout.calls.is_empty()), "{kind}");
    }
}

/// A process reward belongs to the latest call; one for a call that does not exist is named.
#[test]
fn process_rewards_of_an_agent_are_recorded() {
    let Some(run) = Faulty::run("rewards_a_call", &[]) else { return };
    assert_eq!(run.missing(), [""; 0]);
    let found = &run.process_rewards;
    assert!(!found.is_empty() && found.iter().all(|row| *row == (0, 0.25)), "{found:?}");
    let Some(run) = Faulty::run("rewards_a_later_call", &[]) else { return };
    let missing = run.missing();
    assert!(!missing.is_empty());
    assert!(
        missing.iter().all(|why| why.contains("process reward for call 7 after")),
        "{missing:?}"
    );
}

/// Kills the process when the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An agent with the standard library only, for `worker.py`.
const PLAIN: &str = "
import asyncio, json, urllib.request

def chat(base_url, key, question):
    system = 'Use the calculator. End with ### ANSWER: x ###'
    messages = [{'role': 'system', 'content': system}, {'role': 'user', 'content': question}]
    headers = {'Content-Type': 'application/json', 'Authorization': 'Bearer ' + key}
    body = json.dumps({'model': 'any', 'messages': messages}).encode()
    request = urllib.request.Request(base_url + '/chat/completions', body, headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)['choices'][0]['message']['content']

async def agent(task, base_url, key):
    return await asyncio.to_thread(chat, base_url, key, task['question'])
";

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_vanished_worker_s_rollout_goes_to_another_worker() {
    let Some(python) = python("a worker that vanishes") else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("plain.py"), PLAIN).unwrap();
    let server = format!("http://127.0.0.1:{}", free_port());
    let port = format!("agent.external.port={}", server.rsplit(':').next().unwrap());
    let own = folder.path().join("run");
    let changes: Vec<&str> = SHORT
        .iter()
        .copied()
        .filter(|change| !change.starts_with("agent.external"))
        .chain([
            "agent.external.workers='remote'",
            "agent.external.command=[]",
            "agent.external.key='secret-of-the-test'",
            "agent.on_failure='retry'",
            &port,
        ])
        .collect();
    let mut training = run("external/calc", &own, &changes);
    let training = Killed(training.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());

    let start = |words: &[&str]| {
        let mut command = Command::new(&python);
        command.args(words).current_dir(folder.path()).env("AGL_KEY", "secret-of-the-test");
        command
    };
    let script = |name: &str| checkout().join(name).to_str().unwrap().to_owned();
    // Waits for the server, then for a rollout.
    let vanished =
        vanishes(&mut start(&[&script("tests/external/faults.py"), &server, "vanishes"]));
    let worker = script("agents/external/worker.py");
    let words = [&worker, "plain:agent", "--server", &server, "--name", "steady"];
    let steady = Killed(start(&words).spawn().unwrap());
    assert_success(training);
    drop(steady);

    let all = rollouts(&own);
    assert!(all.values().all(|rollout| rollout.missing.is_none() && rollout.reward.is_some()));
    assert!(all.values().all(|rollout| rollout.calls.len() == 1));
    assert!(!vanished.is_empty());
}

/// The id of the rollout that the vanishing worker claimed; retries until the server listens.
fn vanishes(command: &mut Command) -> String {
    for _ in 0..3000 {
        let output = command.output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !printed.is_empty() {
            return printed;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("no rollout could be claimed");
}

fn assert_success(mut run: Killed) {
    let mut errors = String::new();
    std::io::Read::read_to_string(&mut run.0.stderr.take().unwrap(), &mut errors).unwrap();
    let status = run.0.wait().unwrap();
    assert!(status.success(), "{status:?}\n{errors}");
}

#[test]
fn invalid_settings_are_refused_by_name() {
    let parent = tempfile::tempdir().unwrap();
    let own = parent.path().join("run");
    let refusal = |changes: &[&str]| {
        let all: Vec<&str> = SHORT.iter().chain(changes).copied().collect();
        let sentence = refused(&mut run("external/calc", &own, &all));
        assert!(!Path::new(&own).join("metrics.jsonl").exists());
        sentence
    };
    for (changes, words) in [
        (&["agent.external.benchmark='chess'"][..], &["agent.external.benchmark", "chess"][..]),
        (&["agent.external.command=[]"], &["agent.external.command", "program"]),
        (&["agent.external.roles.judge='x'"], &["agent.external.roles", "judge", "solve"]),
        (&["agent.external.workers='remote'"], &["agent.external.command", "remote"]),
        (&["agent.external.key='short'"], &["key", "8 characters"]),
    ] {
        assert_contains(&refusal(changes), words);
    }
}

#[test]
fn a_missing_program_ends_the_run_with_an_error() {
    let parent = tempfile::tempdir().unwrap();
    let own = parent.path().join("run");
    let changes = ["agent.external.workers='pool'", "agent.external.command=['no/such/agent']"];
    let all: Vec<&str> = SHORT.iter().chain(&changes).copied().collect();
    let sentence = refused(&mut run("external/calc", &own, &all));
    assert_contains(&sentence, &["no/such/agent"]);
}
