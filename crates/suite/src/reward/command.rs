//! A reward computed by a user's program: one JSON line in, one reward out.
//!
//! Processes are pooled and reused, since starting one costs more than most rewards. Each request
//! has a deadline. If a process crashes, hangs or prints an invalid reward, that rollout has no
//! reward, with the process's error output as the reason, and the process is replaced: after an
//! error, its outputs can no longer be matched to requests.

use std::io;
use std::process::Child;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use leyden_core::{Score, ScoreError, Scorer, Task};
use serde_json::{Map, Value, json};

use super::process::{Fault, Process, spawn};

/// A reward program and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Time limit per reward.
    pub deadline: Duration,
    /// Maximum number of processes.
    pub processes: usize,
}

/// Scorer that calls a reward program.
pub struct CommandScorer {
    program: Program,
    pool: Mutex<Pool>,
    /// Notified when a process becomes free.
    free: Condvar,
    /// Starts processes on a thread that lives as long as they do: the parent-death signal is
    /// tied to the thread that started them.
    starter: Mutex<Sender<SyncSender<io::Result<Child>>>>,
}

struct Pool {
    idle: Vec<Process>,
    /// Number of idle and busy processes.
    running: usize,
}

impl CommandScorer {
    /// Starts a first process, so that a missing program is reported immediately.
    ///
    /// # Errors
    /// The program cannot be started.
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

    /// Starts a process.
    fn process(&self) -> Result<Process, String> {
        let (answer, started) = sync_channel(1);
        let starter = self.starter.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = starter.send(answer);
        drop(starter);
        let name = self.program.command.join(" ");
        let child = sent.ok().and_then(|()| started.recv().ok());
        let child = child.unwrap_or_else(|| Err(io::Error::other("its starter has ended")));
        let process = child.and_then(Process::of);
        process.map_err(|error| format!("{name} cannot be started: {error}"))
    }

    /// Takes an idle process or starts a new one; waits if the maximum number is busy.
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

    /// Records the loss of a process.
    fn lose(&self) {
        self.pool().running -= 1;
        self.free.notify_one();
    }

    fn reward(&self, line: &str) -> Result<f64, String> {
        loop {
            let mut process = self.take()?;
            match process.request(line, self.program.deadline) {
                Ok(reward) => {
                    self.give_back(process);
                    return Ok(reward);
                }
                Err(Fault::Exited) => {
                    drop(process);
                    self.lose();
                }
                Err(Fault::Failed(what)) => {
                    let stderr = process.end();
                    self.lose();
                    let stderr =
                        if stderr.is_empty() { String::new() } else { format!(": {stderr}") };
                    return Err(format!("{} {what}{stderr}", self.program.command.join(" ")));
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

/// The request line: the task's own fields, overridden by `id`, `question`, `gold`, `labels` and
/// the agent's `answer`, which is null if there is none.
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
    fn a_process_is_reused() {
        // The second reward shows that the same process computed both.
        let counting = "n=0; while read line; do n=$((n+1)); echo $n; done";
        let scorer = scorer(counting, 60.0, 1);
        let reward = || scorer.score(&task("t"), Some("a")).unwrap().reward;
        assert_eq!((reward(), reward()), (1.0, 2.0));
    }

    #[test]
    fn a_program_that_exits_after_each_reward_is_restarted() {
        let scorer = scorer("read line; echo 1", 60.0, 1);
        for _ in 0..3 {
            assert_eq!(scorer.score(&task("t"), Some("a")).unwrap().reward, 1.0);
        }
    }

    #[test]
    fn the_request_has_the_task_and_the_answer() {
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
    fn a_crash_loses_one_reward_and_reports_the_error_output() {
        let script = "while read line; do case $line in *crash*) echo no such key >&2; exit 3;; \
                      *) echo 1;; esac; done";
        let scorer = scorer(script, 60.0, 1);
        let error = sentence(&scorer, "crash");
        assert!(error.contains("ended with exit status: 3: no such key"), "{error}");
        assert!(error.starts_with("task t cannot be scored: reward.command: /bin/sh"), "{error}");
        assert_eq!(scorer.score(&task("t"), Some("fine")).unwrap().reward, 1.0);
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_restarted() {
        let script = "while read line; do case $line in *hang*) echo on my way >&2; sleep 1000;; \
                      *) echo 1;; esac; done";
        let scorer = scorer(script, 0.2, 1);
        let error = sentence(&scorer, "hang");
        assert!(error.contains("returned no reward within 0.2 s: on my way"), "{error}");
        let patient = CommandScorer {
            program: Program { deadline: Duration::from_secs(60), ..scorer.program.clone() },
            ..scorer
        };
        assert_eq!(patient.score(&task("t"), Some("fine")).unwrap().reward, 1.0);
    }

    #[test]
    fn an_invalid_reward_is_reported() {
        let scorer = scorer("while read line; do echo; echo well done; done", 60.0, 1);
        assert!(sentence(&scorer, "x").contains("printed `well done`, which is not a number"));
        let endless = self::scorer("read line; yes | tr -d '\\n'", 60.0, 1);
        assert!(sentence(&endless, "x").contains("its line is too long"));
    }

    #[test]
    fn concurrent_requests_share_the_pool() {
        let scorer = scorer("while read line; do echo 1; done", 60.0, 3);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        (0..5).all(|_| scorer.score(&task("t"), Some("x")).unwrap().reward == 1.0)
                    })
                })
                .collect();
            assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
        });
        assert!(scorer.pool().running <= 3);
    }

    #[test]
    fn a_missing_program_is_reported_at_the_start() {
        let program = Program {
            command: vec!["/no/such/program".to_owned()],
            deadline: Duration::from_secs(1),
            processes: 1,
        };
        let error = CommandScorer::start(program).err().unwrap().to_string();
        assert!(error.starts_with("reward.command: /no/such/program cannot be started"), "{error}");
    }
}
