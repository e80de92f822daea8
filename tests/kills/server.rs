//! A server with agents that report to it and call its model, and send a request again whenever
//! the connection breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use leyden_serve::store::{FILE, Filter, Reading};
use serde_json::{Value, json};

use super::{Moment, kills, seed};
use crate::common::{leyden, request};

const AGENTS: usize = 6;
/// Events of a rollout, of which the first is a call of the model.
const EVENTS: usize = 12;

/// What the agents know.
#[derive(Default)]
struct Shared {
    /// The server's address, absent while it is down.
    address: Mutex<Option<String>>,
    changed: Condvar,
    /// The agents end after their current request.
    ends: AtomicBool,
    /// The test has failed.
    failed: AtomicBool,
    /// Requests sent again.
    repeated: AtomicUsize,
    /// Marks of acknowledged events, and the answers of acknowledged calls.
    events: Mutex<BTreeSet<String>>,
    calls: Mutex<BTreeMap<String, String>>,
}

impl Shared {
    fn set_address(&self, address: Option<String>) {
        *self.address.lock().unwrap() = address;
        self.changed.notify_all();
    }

    /// The server's address; waits until there is one.
    fn address(&self) -> String {
        let address = self.address.lock().unwrap();
        let address = self.changed.wait_while(address, |address| address.is_none()).unwrap();
        address.clone().unwrap()
    }

    /// Posts until there is a complete response; the constant key makes all tries one request.
    fn post(&self, path: &str, key: &str, body: &Value) -> Value {
        let (header, body) = (format!("Idempotency-Key: {key}"), body.to_string());
        loop {
            let address = self.address();
            assert!(!self.failed.load(Ordering::Relaxed), "the test has failed elsewhere");
            if let Some((status, body)) = request(&address, "POST", path, &header, &body) {
                assert!((200..300).contains(&status), "{path}: {status}: {body}");
                return serde_json::from_str(&body).unwrap();
            }
            self.repeated.fetch_add(1, Ordering::Relaxed);
            // The address is that of a killed server until it is replaced.
            let current = self.address.lock().unwrap();
            let same = |current: &mut Option<String>| current.as_ref() == Some(&address);
            let wait = Duration::from_millis(100);
            drop(self.changed.wait_timeout_while(current, wait, same).unwrap());
        }
    }

    fn agent(&self, number: usize) {
        for rollout in 0.. {
            let id = format!("agent{number}-{rollout}");
            let create = json!([{"input": {"question": "1 + 1"}, "rollout_id": id}]);
            self.post("/api/rollouts", "none", &create);
            for event in 0..EVENTS {
                if self.ends.load(Ordering::Relaxed) {
                    return;
                }
                let mark = format!("{id} {event}");
                if event == 0 {
                    self.call(&id, mark);
                    continue;
                }
                let path = format!("/api/rollouts/{id}/attempt/0/events");
                let body = json!({"event_type": "signal", "data": {"kind": "note", "mark": mark}});
                self.post(&path, &mark, &body);
                self.events.lock().unwrap().insert(mark);
            }
        }
    }

    fn call(&self, id: &str, mark: String) {
        let path = format!("/proxy/rollout/{id}/attempt/0/mode/train/openai/v1/chat/completions");
        let messages = json!([{"role": "user", "content": mark}]);
        let body = json!({"model": "auto", "messages": messages, "max_tokens": 4});
        let answer = self.post(&path, &mark, &body);
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
        self.calls.lock().unwrap().insert(mark, text);
    }
}

/// A server's process, killed on drop.
struct Server {
    process: Child,
    /// Kept open so that the server never writes to a closed pipe.
    stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(store: &Path) -> Self {
        let mut command = leyden(&["serve", "--model", "tiny", "--threads", "1", "--port", "0"]);
        command.arg("--store").arg(store).env_remove("LEYDEN_KEY");
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        Self { process, stdout }
    }

    /// The address that it prints once it listens.
    fn address(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let url = line.split_whitespace().find_map(|word| word.strip_prefix("http://"));
        url.unwrap_or_else(|| panic!("no URL in: {line}")).trim_end_matches("/v1").to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Ends the agents if the test fails, so that the failure is reported.
struct Reported<'a>(&'a Shared);

impl Drop for Reported<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::Relaxed);
            self.0.set_address(Some("127.0.0.1:1".to_owned()));
        }
    }
}

/// Kills servers on `store` one after another while agents work; the last one ends with them.
fn run(store: &Path, kills: u64, shared: &Shared) -> usize {
    let (seed, mut early) = (seed("server"), 0);
    std::thread::scope(|scope| {
        let _reported = Reported(shared);
        let agents: Vec<_> =
            (0..AGENTS).map(|number| scope.spawn(move || shared.agent(number))).collect();
        for kill in 0..kills {
            let seed = seed.index(kill);
            let mut server = Server::start(store);
            // Some while they start.
            if seed.child("early").uniform() < 0.2 {
                early += 1;
            } else {
                shared.set_address(Some(server.address()));
            }
            let moment = Moment::random(seed, store, Duration::from_millis(700));
            assert_eq!(moment.wait(&mut server.process), None, "the server ended by itself");
        }
        let mut server = Server::start(store);
        shared.set_address(Some(server.address()));
        shared.ends.store(true, Ordering::Relaxed);
        // Each has the response of its last request.
        for agent in agents {
            agent.join().unwrap();
        }
    });
    early
}

/// Compares the file with what was acknowledged.
fn check(store: &Path, shared: &Shared) {
    let reading = Reading::open(&store.join(FILE)).unwrap();
    let (mut events, mut calls) = (BTreeSet::new(), BTreeMap::new());
    for rollout in reading.rollouts(&Filter::default()).unwrap() {
        for event in reading.events(&rollout.id, true).unwrap() {
            let data: Value = serde_json::from_str(&event.data).unwrap();
            if event.event_type == "model_request" {
                let mark = data["request"]["messages"][0]["content"].as_str().unwrap().to_owned();
                let text = &data["response"]["choices"][0]["message"]["content"];
                let twice = calls.insert(mark, text.as_str().unwrap().to_owned());
                assert_eq!(twice, None, "a call is stored twice: {data}");
            } else {
                let mark = data["mark"].as_str().unwrap().to_owned();
                assert!(events.insert(mark), "an event is stored twice: {data}");
            }
        }
    }
    // In both directions: nothing lost, and nothing that no agent knows of.
    assert_eq!(events, *shared.events.lock().unwrap());
    assert_eq!(calls, *shared.calls.lock().unwrap());
}

#[test]
fn a_server_killed_at_random_moments_has_every_acknowledged_event_once() {
    let wanted = kills(3);
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let shared = Shared::default();
    let early = run(&store, wanted, &shared);
    check(&store, &shared);
    let (events, calls) = (shared.events.lock().unwrap().len(), shared.calls.lock().unwrap().len());
    assert!(events > AGENTS && calls > 0, "{events} events, {calls} calls");
    println!(
        "{wanted} kills ({early} at the start), {} requests sent again: {events} events and \
         {calls} calls acknowledged, each found once",
        shared.repeated.load(Ordering::Relaxed)
    );
}
