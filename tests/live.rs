//! `leyden run --live`: the page of a running run. The page itself is tested in `crates/serve`;
//! here it is tested that it shows the run and does not change it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::common::{Trained, assert_contains, quickstart, refused, succeeds};
use serde_json::Value;

const STEPS: &str = "train.steps=3";

/// A run that is killed when the test ends.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A run with a live page on a free port, and the page's address.
fn watched(folder: &Path) -> (Run, BufReader<impl Read>, String) {
    let mut command = quickstart(folder, &[STEPS]);
    command.args(["--live", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut run = Run(command.spawn().unwrap());
    let mut stderr = BufReader::new(run.0.stderr.take().unwrap());
    loop {
        let mut line = String::new();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "the run ended without a live page");
        if let Some(url) = line.trim().strip_prefix("live page: http://") {
            return (run, stderr, url.trim_end_matches("/live/").to_owned());
        }
    }
}

/// Requests a path below `/live/`; returns the lines of the body.
fn ask(address: &str, path: &str) -> impl Iterator<Item = String> + use<> {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /live/{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .unwrap();
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.skip_while(|line| !line.is_empty())
}

fn json(address: &str, path: &str) -> Value {
    let text = ask(address, path).last().unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_run_is_followed_to_its_end_and_not_changed() {
    let home = tempfile::tempdir().unwrap();
    let (alone, folder) = (home.path().join("alone"), home.path().join("watched"));
    let (mut run, mut stderr, address) = watched(&folder);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut event = String::new();
    let mut listing = None;
    let (mut in_flight, mut last) = (false, Value::Null);
    for line in ask(&address, "events") {
        if let Some(name) = line.strip_prefix("event: ") {
            event = name.to_owned();
            *counts.entry(event.clone()).or_default() += 1;
        } else if let Some(data) = line.strip_prefix("data: ") {
            let data: Value = serde_json::from_str(data).unwrap();
            let flight = if event == "snapshot" { &data["flight"] } else { &data };
            // A finished step can be read during the run.
            let before = event == "snapshot" && data["step"].as_u64() > Some(0);
            if listing.is_none() && (before || event == "step") {
                listing = Some(json(&address, "rollouts?phase=train&step=1"));
                let detail = json(&address, "rollouts/1/train/0");
                let call = &detail["calls"][0];
                assert!(call["prompt"].as_str().unwrap().contains("calculator"), "{detail}");
                assert!(call["advantage"].is_number() && call["text"].is_string(), "{detail}");
            }
            in_flight |= flight["rollouts"].as_u64().is_some_and(|count| count > 0);
            if event == "status" {
                last = data;
            }
        }
    }
    assert!(run.0.wait().unwrap().success());
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(last["state"], "finished", "{counts:?} {rest}");
    assert_eq!(counts["snapshot"], 1);
    assert!(in_flight, "{counts:?}");
    let listing = listing.unwrap();
    assert_eq!(listing["total"], 32);
    assert_eq!(listing["rows"].as_array().unwrap().len(), 32);

    succeeds(&mut quickstart(&alone, &[STEPS]));
    Trained::of(&folder).assert_same(&Trained::of(&alone));
}

#[test]
fn a_run_does_not_start_if_its_page_cannot_be_served() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("run");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refusal = refused(quickstart(&folder, &[]).args(["--live", &port]));
    assert_contains(&refusal, &["the live page cannot be served on 127.0.0.1:", &port]);
    let mut open = quickstart(&folder, &[]);
    open.args(["--live", "0.0.0.0:0"]).env_remove("LEYDEN_LIVE_KEY");
    assert_contains(&refused(&mut open), &["LEYDEN_LIVE_KEY", "0.0.0.0:0", "needs a key"]);
    assert!(!folder.join("metrics.jsonl").exists());
}
