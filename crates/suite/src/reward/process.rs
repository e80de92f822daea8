//! One process of a reward program: requests, responses, termination.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Maximum length of an output line in bytes.
const LONGEST_LINE: u64 = 64 * 1024;

/// Number of bytes kept of the error output: the last ones.
const KEPT: usize = 4 * 1024;

/// How long to wait for the exit status and the error output at the end of a process.
const DRAIN: Duration = Duration::from_millis(500);

/// Starts a program in its own process group.
pub(super) fn spawn(command: &[String]) -> io::Result<Child> {
    let (name, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(name);
    command.args(arguments).env("PYTHONUNBUFFERED", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0);
    // SAFETY: between fork and exec it makes only one async-signal-safe system call on integers.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.spawn()
}

/// Why a process returned no reward.
pub(super) enum Fault {
    /// It exited successfully after an earlier reward: retry with a new process. This happens at
    /// most once per request, because a new process has no earlier reward.
    Exited,
    /// It failed, with the reason.
    Failed(String),
}

/// A running program. Dropping it kills the program and its process group.
pub(super) struct Process {
    child: Child,
    /// Lines for its standard input, written on another thread because writing may block.
    lines: Sender<String>,
    /// Lines of its standard output, until it is closed.
    output: Receiver<io::Result<Vec<u8>>>,
    errors: Arc<Mutex<VecDeque<u8>>>,
    /// Receives a message at the end of the error output.
    errors_end: Receiver<()>,
    /// Whether it has returned a reward before.
    answered: bool,
}

impl Process {
    pub fn of(mut child: Child) -> io::Result<Self> {
        let missing = || io::Error::other("it has no pipes");
        let input = child.stdin.take().ok_or_else(missing)?;
        let output = child.stdout.take().ok_or_else(missing)?;
        let errors = child.stderr.take().ok_or_else(missing)?;
        let (lines, to_write) = channel();
        let (read, lines_read) = channel();
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let (ended, errors_end) = channel();
        let tail = Arc::clone(&kept);
        thread::Builder::new().spawn(move || write_lines(input, &to_write))?;
        thread::Builder::new().spawn(move || read_lines(output, &read))?;
        thread::Builder::new().spawn(move || {
            keep_tail(errors, &tail);
            let _ = ended.send(());
        })?;
        Ok(Self { child, lines, output: lines_read, errors: kept, errors_end, answered: false })
    }

    /// Sends a line and waits for a reward.
    pub fn request(&mut self, line: &str, deadline: Duration) -> Result<f64, Fault> {
        let fault = |what: String| Err(Fault::Failed(what));
        let until = Instant::now() + deadline;
        // A line without a request belongs to no rollout.
        if let Ok(Ok(line)) = self.output.try_recv() {
            return fault(format!("printed {} without a request", shown(&line)));
        }
        // If its input is closed, the closed output reveals it below.
        let _ = self.lines.send(line.to_owned());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = match self.output.recv_timeout(left) {
                Ok(Ok(line)) => line,
                Ok(Err(error)) => return fault(format!("cannot be read: {error}")),
                Err(RecvTimeoutError::Timeout) => {
                    return fault(format!(
                        "returned no reward within {} s",
                        deadline.as_secs_f64()
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return match self.status() {
                        Some(status) if status.success() && self.answered => Err(Fault::Exited),
                        Some(status) => fault(format!("ended with {status}")),
                        None => fault("closed its output".to_owned()),
                    };
                }
            };
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return match number(&line) {
                Some(reward) => {
                    self.answered = true;
                    Ok(reward)
                }
                None => fault(format!("printed {}, which is not a number", shown(&line))),
            };
        }
    }

    /// Exit status of a program that closed its output; `None` if it is still running.
    fn status(&mut self) -> Option<ExitStatus> {
        let until = Instant::now() + DRAIN;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(1)),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }

    /// Kills the process; returns the last line of its error output.
    pub fn end(mut self) -> String {
        self.kill();
        let _ = self.errors_end.recv_timeout(DRAIN);
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = errors.iter().copied().collect();
        drop(errors);
        let text = String::from_utf8_lossy(&bytes);
        let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        last.unwrap_or_default().chars().take(400).collect()
    }

    fn kill(&mut self) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // SAFETY: a system call on integers. The child is its group's leader and is reaped
            // only below or by `try_wait`, after which members of the group prevent its reuse.
            unsafe { libc::killpg(group, libc::SIGKILL) };
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn write_lines(mut input: ChildStdin, lines: &Receiver<String>) {
    for line in lines {
        if input.write_all(line.as_bytes()).and_then(|()| input.flush()).is_err() {
            return;
        }
    }
}

/// Forwards lines until the output ends; an overlong line is an error.
fn read_lines(output: impl Read, lines: &Sender<io::Result<Vec<u8>>>) {
    let mut output = BufReader::new(output);
    loop {
        let mut line = Vec::new();
        let read = output.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
        let line = match read {
            Ok(0) => return,
            Ok(_) if line.len() as u64 == LONGEST_LINE && line.last() != Some(&b'\n') => {
                let _ = lines.send(Err(io::Error::other("its line is too long")));
                return;
            }
            Ok(_) => Ok(line),
            Err(error) => Err(error),
        };
        let failed = line.is_err();
        if lines.send(line).is_err() || failed {
            return;
        }
    }
}

fn keep_tail(mut stream: impl Read, kept: &Mutex<VecDeque<u8>>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(&buffer[..count]);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }
}

/// Parses the reward of a line: a number, or an object with the field `reward`.
fn number(line: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(line).ok()?.trim();
    let number = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(object)) => object.get("reward")?.as_f64(),
        Ok(Value::Number(number)) => number.as_f64(),
        Ok(Value::Bool(holds)) => Some(f64::from(u8::from(holds))),
        // Such as `1.` or `.5`.
        _ => text.parse().ok(),
    };
    number.filter(|number| number.is_finite())
}

/// A line, shortened for an error message.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let short: String = text.trim().chars().take(80).collect();
    format!("`{short}`")
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn rewards_are_numbers_or_objects_with_one() {
        for (line, expected) in [
            ("0.5\n", Some(0.5)),
            (" 1 ", Some(1.0)),
            (".5", Some(0.5)),
            ("true", Some(1.0)),
            ("{\"reward\": -2, \"note\": \"x\"}", Some(-2.0)),
            ("{\"note\": 1}", None),
            ("NaN", None),
            ("inf", None),
            ("1e999", None),
            ("one", None),
            ("\"1\"", None),
        ] {
            assert_eq!(number(line.as_bytes()), expected, "{line}");
        }
    }
}
