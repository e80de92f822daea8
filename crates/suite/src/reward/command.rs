//! A reward by a program of the user's own: one JSON line in, one reward out.
//!
//! Processes of the program are kept and take turns, since starting one costs more than most
//! rewards. Each request is bounded in time. A program that crashes, hangs or prints no number
//! costs that rollout its reward, with what the program wrote on its error output, and is started
//! again for the next: whose turn it would be after a mistake is not known.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use leyden_core::{Score, ScoreError, Scorer, Task};
use serde_json::{Map, Value, json};

/// Longest line that a program may print, in bytes.
const LONGEST_LINE: u64 = 64 * 1024;

/// Bytes of the error output that are kept: the last ones.
const KEPT: usize = 4 * 1024;

/// How long the error output of a program that ended is waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A program, and what limits hold for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Program and arguments.
    pub command: Vec<String>,
    /// For one reward.
    pub deadline: Duration,
    /// Most processes at once.
    pub processes: usize,
}

/// Rewards by a program.
pub struct CommandScorer {
    program: Program,
    pool: Mutex<Pool>,
    /// A process has become free.
    free: Condvar,
    /// Starts processes, on a thread that lives as long as they do: the signal at their parent's
    /// death is that of the thread which started them.
    starter: Mutex<Sender<SyncSender<io::Result<Child>>>>,
}

struct Pool {
    idle: Vec<Process>,
    /// Idle or at work.
    running: usize,
}

impl CommandScorer {
    /// Starts a first process, so that a program that is not there is told at once.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(program: Program) -> Result<Self> {
        let (starter, requests) = channel::<SyncSender<io::Result<Child>>>();
        let command = program.command.clone();
        thread::Builder::new().name("leyden-rewards".to_owned()).spawn(move || {
            for request in requests {
                let _ = request.send(spawn(&command));
            }
        })?;
        let scorer = Self {
            program,
            pool: Mutex::new(Pool { idle: Vec::new(), running: 0 }),
            free: Condvar::new(),
            starter: Mutex::new(starter),
        };
        let first = scorer.process().map_err(|what| anyhow!("reward.command: {what}"))?;
        let mut pool = scorer.pool();
        pool.idle.push(first);
        pool.running = 1;
        drop(pool);
        Ok(scorer)
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new process.
    fn process(&self) -> Result<Process, String> {
        let (answer, started) = sync_channel(1);
        let starter = self.starter.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = starter.send(answer);
        drop(starter);
        let name = self.program.command.join(" ");
        let child = asked.ok().and_then(|()| started.recv().ok());
        let child = child.unwrap_or_else(|| Err(io::Error::other("its starter has ended")));
        let process = child.and_then(Process::of);
        process.map_err(|error| format!("{name} cannot be started: {error}"))
    }

    /// A process of the pool, or a new one; waits where all are at work.
    fn take(&self) -> Result<Process, String> {
        let mut pool = self.pool();
        loop {
            if let Some(idle) = pool.idle.pop() {
                return Ok(idle);
            }
            if pool.running < self.program.processes {
                pool.running += 1;
                drop(pool);
                return self.process().inspect_err(|_| self.lose());
            }
            pool = self.free.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, process: Process) {
        self.pool().idle.push(process);
        self.free.notify_one();
    }

    /// One process fewer.
    fn lose(&self) {
        self.pool().running -= 1;
        self.free.notify_one();
    }

    fn reward(&self, line: &str) -> Result<f64, String> {
        loop {
            let mut process = self.take()?;
            match process.ask(line, self.program.deadline) {
                Ok(reward) => {
                    self.give_back(process);
                    return Ok(reward);
                }
                Err(Fault::Over) => {
                    drop(process);
                    self.lose();
                }
                Err(Fault::What(what)) => {
                    let said = process.end();
                    self.lose();
                    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
                    return Err(format!("{} {what}{said}", self.program.command.join(" ")));
                }
            }
        }
    }
}

impl Scorer for CommandScorer {
    fn score(&self, task: &Task, answer: Option<&str>) -> Result<Score, ScoreError> {
        match self.reward(&request(task, answer)) {
            Ok(reward) => Ok(Score { reward, ..Score::default() }),
            Err(what) => {
                Err(ScoreError { task: task.id.clone(), what: format!("reward.command: {what}") })
            }
        }
    }
}

/// The line that a program is sent: the task's own fields, and above them `id`, `question`,
/// `gold`, `labels` and the `answer` of the agent, null where it gave none.
fn request(task: &Task, answer: Option<&str>) -> String {
    let labels: Map<String, Value> =
        task.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut line = json!({
        "id": task.id,
        "question": task.question,
        "gold": task.gold,
        "answer": answer,
        "labels": labels,
    });
    if let Some(object) = line.as_object_mut() {
        for (name, value) in &task.fields {
            object.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    format!("{line}\n")
}

fn spawn(command: &[String]) -> io::Result<Child> {
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
enum Fault {
    /// It had ended, in good order, with an earlier answer: a new one is to be asked. A new one
    /// has no earlier answer, so this comes once at most.
    Over,
    What(String),
}

/// A running program. Dropped, it is killed with all that it started.
struct Process {
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
    fn of(mut child: Child) -> io::Result<Self> {
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
    fn ask(&mut self, line: &str, deadline: Duration) -> Result<f64, Fault> {
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
    fn end(mut self) -> String {
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
    use super::*;

    fn scorer(script: &str, seconds: f64, processes: usize) -> CommandScorer {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let deadline = Duration::from_secs_f64(seconds);
        CommandScorer::start(Program { command, deadline, processes }).unwrap()
    }

    fn task(id: &str) -> Task {
        Task {
            id: id.to_owned(),
            question: "q".to_owned(),
            gold: "g".to_owned(),
            labels: vec![("kind".to_owned(), "k".to_owned())],
            fields: Map::new(),
        }
    }

    fn sentence(scorer: &CommandScorer, answer: &str) -> String {
        scorer.score(&task("t"), Some(answer)).unwrap_err().to_string()
    }

    #[test]
    fn a_program_is_kept_and_asked_line_by_line() {
        // Its second answer tells that it is the process of the first.
        let counting = "n=0; while read line; do n=$((n+1)); echo $n; done";
        let scorer = scorer(counting, 60.0, 1);
        let reward = || scorer.score(&task("t"), Some("a")).unwrap().reward;
        assert_eq!((reward(), reward()), (1.0, 2.0));
    }

    #[test]
    fn a_program_that_ends_after_each_answer_is_started_anew() {
        let scorer = scorer("read line; echo 1", 60.0, 1);
        for _ in 0..3 {
            assert_eq!(scorer.score(&task("t"), Some("a")).unwrap().reward, 1.0);
        }
    }

    #[test]
    fn the_line_holds_the_task_and_the_answer() {
        let mut task = task("a \"b\"\n");
        task.fields.insert("difficulty".to_owned(), json!(3));
        task.fields.insert("answer".to_owned(), json!("never this one"));
        let line = request(&task, None);
        assert_eq!(line.matches('\n').count(), 1);
        let sent: Value = serde_json::from_str(&line).unwrap();
        let expected = json!({
            "id": "a \"b\"\n", "question": "q", "gold": "g", "answer": null,
            "labels": { "kind": "k" }, "difficulty": 3,
        });
        assert_eq!(sent, expected);
    }

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

    #[test]
    fn a_crash_costs_one_reward_with_what_was_said_and_no_more() {
        let script = "while read line; do case $line in *crash*) echo no such key >&2; exit 3;; \
                      *) echo 1;; esac; done";
        let scorer = scorer(script, 60.0, 1);
        let error = sentence(&scorer, "crash");
        assert!(error.contains("ended with exit status: 3: no such key"), "{error}");
        assert!(error.starts_with("task t cannot be scored: reward.command: /bin/sh"), "{error}");
        assert_eq!(scorer.score(&task("t"), Some("fine")).unwrap().reward, 1.0);
    }

    #[test]
    fn a_program_that_hangs_is_given_up_and_started_again() {
        let script = "while read line; do case $line in *hang*) echo on my way >&2; sleep 1000;; \
                      *) echo 1;; esac; done";
        let scorer = scorer(script, 0.2, 1);
        let error = sentence(&scorer, "hang");
        assert!(error.contains("gave no reward within 0.2 s: on my way"), "{error}");
        let patient = CommandScorer {
            program: Program { deadline: Duration::from_secs(60), ..scorer.program.clone() },
            ..scorer
        };
        assert_eq!(patient.score(&task("t"), Some("fine")).unwrap().reward, 1.0);
    }

    #[test]
    fn what_is_no_number_is_shown() {
        let scorer = scorer("while read line; do echo; echo well done; done", 60.0, 1);
        assert!(sentence(&scorer, "x").contains("printed `well done`, no number"));
        let endless = self::scorer("read line; yes | tr -d '\\n'", 60.0, 1);
        assert!(sentence(&endless, "x").contains("its line is too long"));
    }

    #[test]
    fn many_ask_at_once() {
        let scorer = scorer("while read line; do echo 1; done", 60.0, 3);
        thread::scope(|scope| {
            let asked: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        (0..5).all(|_| scorer.score(&task("t"), Some("x")).unwrap().reward == 1.0)
                    })
                })
                .collect();
            assert!(asked.into_iter().all(|thread| thread.join().unwrap()));
        });
        assert!(scorer.pool().running <= 3);
    }

    #[test]
    fn a_program_that_is_not_there_is_told_at_the_start() {
        let program = Program {
            command: vec!["/no/such/program".to_owned()],
            deadline: Duration::from_secs(1),
            processes: 1,
        };
        let error = CommandScorer::start(program).err().unwrap().to_string();
        assert!(error.starts_with("reward.command: /no/such/program cannot be started"), "{error}");
    }
}
