//! A server killed at any time loses nothing that it acknowledged.
//!
//! A child process serves a scripted model; many agents in this process call it, report to it, and
//! retry with the same idempotency keys whenever the connection breaks. The child is killed and
//! restarted until all agents are done. Then the file must contain every acknowledged call and
//! event exactly once.
//!
//! `LEYDEN_CRASH_ROUNDS` and `LEYDEN_CRASH_ROLLOUTS` set the number of rounds and of rollouts.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leyden_core::SeedTree;
use leyden_serve::backend::stub::{Reply, Scripted};
use leyden_serve::gateway::{Gateway, GatewayConfig};
use leyden_serve::store::{FILE, Filter, Limits, Reading, Store};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

const FOLDER: &str = "LEYDEN_CRASH_FOLDER";
/// Calls per agent, each followed by an event.
const CALLS: usize = 3;

/// The child process: serves a folder until it is killed. Does nothing in an ordinary test run.
#[test]
fn server() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(Path::new(&folder), Limits::default()).expect("a store");
        let count = AtomicUsize::new(0);
        let model = Scripted::new("stub", move |_| {
            Reply::text(format!("answer {}", count.fetch_add(1, Ordering::Relaxed)))
        });
        let config = GatewayConfig { port: 0, ..GatewayConfig::default() };
        let gateway = Gateway::new(config, store, Some(Arc::new(model))).await.expect("a gateway");
        let listener = gateway.bind().await.expect("a port");
        println!("listening on {}", listener.local_addr().expect("an address"));
        gateway.serve(listener, std::future::pending()).await;
    });
}

/// Starts the child and returns its address.
fn start(folder: &Path) -> (Child, String) {
    // Refers to this binary even if a build replaces the file meanwhile.
    let mut child = Command::new("/proc/self/exe")
        .args(["crash::server", "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let address = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("listening on ").map(|(_, address)| address.to_owned()))
        .expect("the server starts");
    // Keep the pipe open: the child would die writing to a closed one.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    (child, address)
}

/// Acknowledged writes: call mark → answer text, event mark → type.
#[derive(Default)]
struct Acknowledged {
    calls: Mutex<HashMap<String, String>>,
    events: Mutex<HashMap<String, String>>,
}

struct Agents {
    client: reqwest::Client,
    address: watch::Receiver<String>,
    acknowledged: Acknowledged,
    done: AtomicUsize,
    /// Limits concurrent connections; all rollouts are in flight nevertheless.
    connections: Semaphore,
}

impl Agents {
    /// Posts until there is a response; the constant key makes retries one request.
    async fn post(&self, path: &str, key: &str, body: &Value) -> Value {
        loop {
            let address = self.address.borrow().clone();
            let permit = self.connections.acquire().await.expect("never closed");
            let sent = self
                .client
                .post(format!("http://{address}{path}"))
                .header("idempotency-key", key)
                .json(body)
                .send()
                .await;
            let answer = match sent {
                Ok(response) if response.status().is_success() => response.json().await.ok(),
                Ok(response) => panic!("{path}: {}", response.status()),
                Err(_) => None,
            };
            drop(permit);
            match answer {
                Some(answer) => return answer,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn run(&self, rollout: usize) {
        let id = format!("r{rollout}");
        let create = json!([{"input": rollout, "rollout_id": id}]);
        self.post("/api/rollouts", "none", &create).await;
        for call in 0..CALLS {
            let mark = format!("{id} call {call}");
            let path =
                format!("/proxy/rollout/{id}/attempt/0/mode/train/openai/v1/chat/completions");
            let body = json!({"model": "auto", "messages": [{"role": "user", "content": mark}]});
            let answer = self.post(&path, &mark, &body).await;
            let text = answer["choices"][0]["message"]["content"].as_str().expect("a text");
            self.acknowledged.calls.lock().expect("no panic").insert(mark, text.to_owned());
            let mark = format!("{id} event {call}");
            let path = format!("/api/rollouts/{id}/attempt/0/events");
            let event_type = if call + 1 == CALLS { "reward" } else { "signal" };
            let body = json!({"event_type": event_type, "data": {"value": 1, "mark": mark}});
            self.post(&path, &mark, &body).await;
            self.acknowledged.events.lock().expect("no panic").insert(mark, event_type.into());
        }
        self.done.fetch_add(1, Ordering::SeqCst);
    }
}

/// One round: runs all rollouts, killing the server at two random points of the work.
async fn round(rollouts: usize, seed: SeedTree) -> (usize, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut child, address) = start(folder.path());
    let (addresses, receiver) = watch::channel(address);
    let agents = Arc::new(Agents {
        client: reqwest::Client::builder().no_proxy().build().expect("a client"),
        address: receiver,
        acknowledged: Acknowledged::default(),
        done: AtomicUsize::new(0),
        connections: Semaphore::new(128),
    });
    let tasks: Vec<_> = (0..rollouts)
        .map(|rollout| {
            let agents = agents.clone();
            tokio::spawn(async move { agents.run(rollout).await })
        })
        .collect();
    let total = rollouts * CALLS * 2;
    // Two kills: one in each half of the work.
    for half in 0..2 {
        let part = 0.5 * (half as f64 + seed.index(half).uniform());
        let until = (part * total as f64) as usize;
        while acknowledged(&agents) < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        child.kill().expect("a process to kill");
        child.wait().expect("an end");
        let again = start(folder.path());
        child = again.0;
        addresses.send_replace(again.1);
    }
    for task in tasks {
        task.await.expect("the agent finishes");
    }
    child.kill().expect("a process to kill");
    child.wait().expect("an end");
    check(folder.path().join(FILE), &agents, rollouts)
}

fn acknowledged(agents: &Agents) -> usize {
    let calls = agents.acknowledged.calls.lock().expect("no panic").len();
    calls + agents.acknowledged.events.lock().expect("no panic").len()
}

/// Compares the file with the acknowledged writes. Returns the number of calls and events.
fn check(path: PathBuf, agents: &Agents, rollouts: usize) -> (usize, usize) {
    let reading = Reading::open(&path).expect("a file");
    let all = reading.rollouts(&Filter::default()).expect("rollouts");
    assert_eq!(all.len(), rollouts);
    let (mut calls, mut events) = (HashMap::new(), HashMap::new());
    for rollout in &all {
        for event in reading.events(&rollout.id, true).expect("events") {
            let data: Value = serde_json::from_str(&event.data).expect("JSON");
            let (marks, mark, value) = if event.event_type == "model_request" {
                let mark = &data["request"]["messages"][0]["content"];
                let text = &data["response"]["choices"][0]["message"]["content"];
                (&mut calls, mark.clone(), text.clone())
            } else {
                (&mut events, data["mark"].clone(), json!(event.event_type))
            };
            let mark = mark.as_str().expect("a mark").to_owned();
            let twice = marks.insert(mark.clone(), value.as_str().expect("a text").to_owned());
            assert_eq!(twice, None, "{mark} is stored twice");
        }
        assert_eq!(reading.calls(&rollout.id).expect("calls").len(), CALLS, "ids of every call");
    }
    // Equality in both directions: nothing lost, and nothing that no agent sent.
    assert_eq!(calls, *agents.acknowledged.calls.lock().expect("no panic"));
    assert_eq!(events, *agents.acknowledged.events.lock().expect("no panic"));
    (calls.len(), events.len())
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn acknowledged_writes_are_stored_exactly_once() {
    if std::env::var(FOLDER).is_ok() {
        return;
    }
    let rounds = number("LEYDEN_CRASH_ROUNDS", 2);
    let rollouts = number("LEYDEN_CRASH_ROLLOUTS", 200);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let seed = SeedTree::new(number("LEYDEN_CRASH_SEED", 0) as u64).child("crash");
    let (mut calls, mut events) = (0, 0);
    for number in 0..rounds {
        let found = runtime.block_on(round(rollouts, seed.index(number as u64)));
        calls += found.0;
        events += found.1;
    }
    println!(
        "{rounds} rounds of {rollouts} rollouts, each killed twice: {calls} calls and {events} \
         events acknowledged, all stored exactly once"
    );
}
