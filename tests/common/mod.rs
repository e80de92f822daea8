//! Helpers to run the `leyden` command, with experiments shortened to seconds.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const LEYDEN: &str = env!("CARGO_BIN_EXE_leyden");

/// Settings that shorten the quickstart to a few seconds: enough rollouts that some group has
/// differing rewards and the weights change.
pub const SHORT: [&str; 9] = [
    "train.steps=4",
    "rollout.tasks=4",
    "rollout.samples=8",
    "rollout.max_tokens=24",
    "eval.every=2",
    "eval.tasks=8",
    "eval.max_tokens=24",
    "checkpoint.every=2",
    "checkpoint.keep=2",
];

/// The root of the checkout.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// `leyden` with these arguments, in the checkout.
pub fn leyden(arguments: &[&str]) -> Command {
    let mut command = Command::new(LEYDEN);
    // A user may have it set; errors must not print a backtrace even then.
    command.args(arguments).current_dir(checkout()).env("RUST_BACKTRACE", "1");
    command
}

/// `leyden run` of the shortened quickstart in `folder`; `changes` come after [`SHORT`].
pub fn quickstart(folder: &Path, changes: &[&str]) -> Command {
    let mut command = leyden(&["run", "benchmarks/experiments/mini/calc.toml", "--folder"]);
    command.arg(folder);
    for change in SHORT.iter().chain(changes) {
        command.args(["--set", change]);
    }
    command
}

/// Runs a command that must succeed; returns stdout and stderr.
pub fn succeeds(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    let (stdout, stderr) = output_text(&output);
    assert!(output.status.success(), "{:?}\n{stdout}{stderr}", output.status);
    (stdout, stderr)
}

/// Runs a command that must fail; returns its error message, the last line of stderr.
pub fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (stdout, stderr) = output_text(&output);
    assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
    for word in ["panicked", "backtrace", "RUST_BACKTRACE"] {
        assert!(!stderr.contains(word), "{stderr}");
    }
    let own: Vec<&str> = stderr.lines().filter(|line| line.starts_with("leyden: ")).collect();
    assert_eq!(own.len(), 1, "{stderr}");
    assert_eq!(stderr.lines().last(), Some(own[0]), "output follows the error message: {stderr}");
    own[0].to_owned()
}

/// Panics unless `sentence` contains all `words`.
pub fn assert_contains(sentence: &str, words: &[&str]) {
    for word in words {
        assert!(sentence.contains(word), "`{word}` is not in: {sentence}");
    }
}

pub fn output_text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The outputs that must not depend on interruptions: the metrics and the trained weights.
#[derive(PartialEq)]
pub struct Trained {
    pub metrics: String,
    pub weights: Vec<u8>,
}

impl Trained {
    pub fn of(folder: &Path) -> Self {
        Self {
            metrics: fs::read_to_string(folder.join("metrics.jsonl")).unwrap(),
            weights: fs::read(folder.join("final/model.safetensors")).unwrap(),
        }
    }

    pub fn assert_same(&self, other: &Self) {
        assert_eq!(self.metrics, other.metrics);
        assert!(self.weights == other.weights, "the trained weights differ");
    }
}

/// The lines of `metrics.jsonl` of this kind, `step` or `eval`.
pub fn lines(metrics: &str, kind: &str) -> Vec<serde_json::Value> {
    metrics
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["kind"] == kind)
        .collect()
}

/// Status and body of an HTTP request with one further header; `None` if the connection breaks
/// before the response is complete.
pub fn request(
    address: &str,
    method: &str,
    path: &str,
    header: &str,
    body: &str,
) -> Option<(u16, String)> {
    let mut connection = TcpStream::connect(address).ok()?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{header}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    connection.write_all(request.as_bytes()).ok()?;
    let mut response = String::new();
    connection.read_to_string(&mut response).ok()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    let head = head.to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    (length.parse() == Ok(body.len())).then(|| (status, body.to_owned()))
}
