//! Folders that cannot be used: on a full disk, read-only, or in use by another process. The error
//! names the folder, and what was acknowledged stays.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use leyden_core::SeedTree;
use serde_json::{Value, json};

use crate::common::{
    LEYDEN, assert_contains, checkout, leyden, output_text, quickstart, refused, request, succeeds,
};

/// Kills the process group when the test ends.
struct Group(Child);

impl Group {
    fn start(command: &mut Command) -> Self {
        Self(command.process_group(0).spawn().unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let id = i32::try_from(self.0.id()).unwrap();
        // SAFETY: a group of processes that this test started.
        unsafe { libc::kill(-id, libc::SIGKILL) };
        let _ = self.0.wait();
    }
}

/// Waits until the file exists.
fn wait_for(path: &Path, group: &mut Group) {
    while !path.exists() {
        assert!(group.0.try_wait().unwrap().is_none(), "the process ended too early");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// `command` in a mount namespace in which `folder` is read-only; `None`, with a message, where
/// such namespaces are not available.
fn read_only(folder: &Path, command: &Command) -> Option<Command> {
    const MOUNT: &str = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" || exit 99
        exec \"$@\"";
    let around = || {
        let mut around = Command::new("unshare");
        around.args(["--mount", "--map-root-user", "sh", "-c", MOUNT]).arg(folder);
        around.current_dir(checkout());
        around
    };
    match around().arg("true").output() {
        Ok(output) if output.status.success() => {}
        other => {
            eprintln!("skipped: cannot mount a folder read-only: {other:?}");
            return None;
        }
    }
    let mut around = around();
    around.arg(command.get_program()).args(command.get_args()).env_remove("LEYDEN_KEY");
    Some(around)
}

fn sweep(folder: &Path, file: &Path) -> Command {
    let mut command = leyden(&["sweep"]);
    command.arg(file).arg("--folder").arg(folder);
    command
}

/// A sweep of one run, of this many steps.
fn sweep_file(folder: &Path, steps: u64) -> std::path::PathBuf {
    let base = checkout().join("benchmarks/experiments/mini/calc.toml");
    let path = folder.join("one.toml");
    fs::write(&path, format!("base = {base:?}\n[set]\ntrain.steps = {steps}\n")).unwrap();
    path
}

fn serve(store: &Path) -> Command {
    let mut command =
        leyden(&["serve", "--model", "tiny", "--threads", "1", "--port", "0", "--store"]);
    command.arg(store).env_remove("LEYDEN_KEY");
    command
}

#[test]
fn a_read_only_folder_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let (finished, begun) = (disk.join("finished"), disk.join("begun"));
    let short = ["train.steps=1", "eval.tasks=2"];
    for folder in [&finished, &begun] {
        succeeds(&mut quickstart(folder, &short));
    }
    fs::remove_file(begun.join("finished")).unwrap();
    let file = sweep_file(dir.path(), 1);
    let new = disk.join("new");
    for (folder, command) in [
        (&new, quickstart(&new, &short)),
        (&begun, quickstart(&begun, &short)),
        (&new, sweep(&new, &file)),
        (&new, serve(&new)),
    ] {
        let Some(mut command) = read_only(&disk, &command) else { return };
        let sentence = refused(&mut command);
        assert_contains(&sentence, &[folder.to_str().unwrap(), "Read-only file system"]);
    }
    // Nothing needs to be written for a finished run.
    let Some(mut again) = read_only(&disk, &quickstart(&finished, &short)) else { return };
    let (stdout, _) = succeeds(&mut again);
    assert_contains(&stdout, &["finished already"]);
}

#[test]
fn a_second_process_in_a_folder_is_refused_with_the_first_one_s_id() {
    let dir = tempfile::tempdir().unwrap();
    let silenced = |mut command: Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Group::start(&mut command)
    };
    let folder = dir.path().join("run");
    let steps = ["train.steps=100000"];
    let mut first = silenced(quickstart(&folder, &steps));
    wait_for(&folder.join("rollouts.sqlite"), &mut first);
    let sentence = refused(&mut quickstart(&folder, &steps));
    let holder = format!("process {} on ", first.0.id());
    assert_contains(&sentence, &[folder.to_str().unwrap(), "another run", &holder]);
    drop(first);

    let (folder, file) = (dir.path().join("sweep"), sweep_file(dir.path(), 100_000));
    let mut first = silenced(sweep(&folder, &file));
    let cell = folder.join("cells/base-seed1");
    wait_for(&cell.join("rollouts.sqlite"), &mut first);
    let (stdout, _) = output_text(&sweep(&folder, &file).output().unwrap());
    let holder = format!("running elsewhere: base-seed1: process {} on ", first.0.id());
    assert_contains(&stdout, &[&holder, "1 running elsewhere"]);
    // A run in the cell's folder, past the sweep.
    let mut run = leyden(&["run", "--seed", "1", "--set", "name='one-base'", "--folder"]);
    run.arg(&cell).args(["--set", "train.steps=100000"]).arg(folder.join("base.toml"));
    assert_contains(&refused(&mut run), &[cell.to_str().unwrap(), "another run", "process "]);
    drop(first);

    let folder = dir.path().join("store");
    let mut first = silenced(serve(&folder));
    wait_for(&folder.join("rollouts.sqlite"), &mut first);
    let holder = format!("process {} on ", first.0.id());
    let sentence = refused(&mut serve(&folder));
    assert_contains(&sentence, &[folder.to_str().unwrap(), "another server", &holder]);
}

/// Serves a store on a small disk; enlarges the disk at a line of input; at another one kills the
/// server and starts it again.
const SMALL_DISK: &str = r#"
mount -t tmpfs -o size=6m none "$DISK" || exit 99
"$@" & server=$!
read line
mount -o remount,size=200m "$DISK" || exit 99
echo enlarged
read line
kill -9 $server
wait $server
exec "$@"
"#;

/// The server of [`SMALL_DISK`].
struct OnSmallDisk {
    group: Group,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl OnSmallDisk {
    fn start(disk: &Path) -> Self {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--map-root-user", "sh", "-c", SMALL_DISK, "sh", LEYDEN])
            .args(serve(&disk.join("store")).get_args())
            .env("DISK", disk)
            .env_remove("LEYDEN_KEY")
            .current_dir(checkout())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut group = Group::start(&mut command);
        let lines = BufReader::new(group.0.stdout.take().unwrap()).lines();
        Self { group, lines }
    }

    /// The next line of output that contains `word`; `None` at its end.
    fn line(&mut self, word: &str) -> Option<String> {
        self.lines.by_ref().map_while(Result::ok).find(|line| line.contains(word))
    }

    /// The address that the server prints once it listens; `None` if it cannot start.
    fn address(&mut self) -> Option<String> {
        let line = self.line("http://")?;
        let url = line.split_whitespace().find_map(|word| word.strip_prefix("http://"))?;
        Some(url.trim_end_matches("/v1").to_owned())
    }

    fn next_phase(&mut self) {
        self.group.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

/// Posts event `number`, of 200 kB that cannot be compressed.
fn post_event(address: &str, number: u64) -> (u16, String) {
    let words = (0..12_500).map(|word| SeedTree::new(number).index(word).seed());
    let text: String = words.map(|word| format!("{word:016x}")).collect();
    let body = json!({"event_type": "note", "data": {"number": number, "text": text}}).to_string();
    let key = format!("Idempotency-Key: {number}");
    request(address, "POST", "/api/rollouts/r/attempt/0/events", &key, &body).unwrap()
}

fn stored_events(address: &str) -> Vec<u64> {
    let (status, body) = request(address, "GET", "/api/rollouts/r/events", "X: 1", "").unwrap();
    assert_eq!(status, 200, "{body}");
    let events: Vec<Value> = serde_json::from_str(&body).unwrap();
    events.iter().map(|event| event["data"]["number"].as_u64().unwrap()).collect()
}

#[test]
fn a_server_on_a_full_disk_refuses_events_and_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mut server = OnSmallDisk::start(&disk);
    let Some(address) = server.address() else {
        assert_eq!(server.group.0.wait().unwrap().code(), Some(99));
        return eprintln!("skipped: cannot mount a private file system");
    };
    let body = json!([{"rollout_id": "r", "input": {}}]).to_string();
    request(&address, "POST", "/api/rollouts", "X: 1", &body).unwrap();
    let (mut acknowledged, mut failed) = (BTreeSet::new(), BTreeSet::new());
    for number in 0..60 {
        let (status, body) = post_event(&address, number);
        if status < 300 {
            acknowledged.insert(number);
        } else {
            assert_contains(&body, &["the disk is full", "send it again"]);
            failed.insert(number);
        }
    }
    assert!(acknowledged.len() > 5 && failed.len() > 5, "{acknowledged:?} {failed:?}");
    assert_eq!(stored_events(&address), Vec::from_iter(acknowledged.iter().copied()));

    server.next_phase();
    server.line("enlarged").unwrap();
    for number in failed {
        let (status, body) = post_event(&address, number);
        assert!(status < 300, "{status}: {body}");
        acknowledged.insert(number);
    }
    server.next_phase();
    let mut stored = stored_events(&server.address().unwrap());
    stored.sort_unstable();
    assert_eq!(stored, Vec::from_iter(acknowledged));
}
