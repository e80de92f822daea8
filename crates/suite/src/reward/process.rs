//! One process of a program that gives rewards: what it is sent, what it says, how it ends.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest line that a program may print, in bytes.
const LONGEST_LINE: u64 = 64 * 1024;

/// Bytes of the error output that are kept: the last ones.
const KEPT: usize = 4 * 1024;

/// How long the error output of a program that ended is waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Starts a program in a process group of its own.
pub(super) fn spawn(command: &[String]) -> io::Result<Child> {
    let (name, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(name);
    command.args(arguments).env("PYTHONUNBUFFERED", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0);
    // SAFETY: between fork and exec one system call that is safe there, on numbers.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.spawn()
}

/// Why a process gave no reward.
pub(super) enum Fault {
    /// It had ended, in good order, with an earlier answer: a new one is to be asked. A new one
    /// has no earlier answer, so this comes once at most.
    Over,
    What(String),
}

/// A running program. Dropped, it is killed with all that it started.
pub(super) struct Process {
    child: Child,
    /// Lines for its standard input: writing may block for as long as it does not read.
    lines: Sender<String>,
    /// Lines of its standard output, until it closes it.
    output: Receiver<io::Result<Vec<u8>>>,
    errors: Arc<Mutex<VecDeque<u8>>>,
    /// Hears when the error output is at its end.
    errors_end: Receiver<()>,
    /// Whether it gave a reward before.
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
    pub fn ask(&mut self, line: &str, deadline: Duration) -> Result<f64, Fault> {
        let fault = |what: String| Err(Fault::What(what));
        let until = Instant::now() + deadline;
        // A line that nobody asked for belongs to no rollout.
        if let Ok(Ok(line)) = self.output.try_recv() {
            return fault(format!("printed {} without having been asked", shown(&line)));
        }
        // An input that is closed is seen as an output that is.
        let _ = self.lines.send(line.to_owned());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = match self.output.recv_timeout(left) {
                Ok(Ok(line)) => line,
                Ok(Err(error)) => return fault(format!("cannot be read: {error}")),
                Err(RecvTimeoutError::Timeout) => {
                    return fault(format!("gave no reward within {} s", deadline.as_secs_f64()));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return match self.status() {
                        Some(status) if status.success() && self.answered => Err(Fault::Over),
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
                None => fault(format!("printed {}, no number", shown(&line))),
            };
        }
    }

    /// How a program that closed its output ended; none where it goes on.
    fn status(&mut self) -> Option<ExitStatus> {
        let until = Instant::now() + LAST_WORDS;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(1)),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }

    /// Kills it; returns the last line of its error output.
    pub fn end(mut self) -> String {
        self.kill();
        let _ = self.errors_end.recv_timeout(LAST_WORDS);
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = errors.iter().copied().collect();
        drop(errors);
        let text = String::from_utf8_lossy(&bytes);
        let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        last.unwrap_or_default().chars().take(400).collect()
    }

    fn kill(&mut self) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // SAFETY: a system call on numbers. The child is its group's leader and is reaped
            // only below or by `try_wait`, after which members of the group keep its number.
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

/// Passes lines on until the output ends; a line without end is an error.
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

/// The reward of a line: a number, or an object with the field `reward`.
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

/// A line for a message.
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
