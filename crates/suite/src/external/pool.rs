//! Local processes that claim rollouts one after another.
//!
//! A process that exits is restarted, so that a crash does not reduce the pool. If a process
//! repeatedly exits early, the set-up is broken and all waiting rollouts fail.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::process::{Program, Running};

/// A process that exits earlier than this counts as failed.
const SHORT: Duration = Duration::from_secs(20);

/// Consecutive early exits after which the pool is broken.
const MAX_EARLY_EXITS: usize = 3;

/// The reason why rollouts will not be claimed any more; `None` while the pool works.
pub(super) type Broken = watch::Receiver<Option<String>>;

/// Starts `count` processes of `program` on `runtime`; they run until it is shut down.
pub(super) fn start(runtime: &Handle, program: &Program, count: usize) -> Broken {
    let (report, broken) = watch::channel(None);
    for number in 0..count {
        let mut program = program.clone();
        program.environment.push(("LEYDEN_WORKER".to_owned(), format!("pool-{number}")));
        let (runtime, report) = (runtime.clone(), report.clone());
        let keep = keep(runtime.clone(), program, report);
        runtime.spawn(keep);
    }
    broken
}

/// Keeps one process running.
async fn keep(runtime: Handle, program: Program, report: watch::Sender<Option<String>>) {
    let name = program.command.join(" ");
    let mut short = 0;
    loop {
        let started = Instant::now();
        let ended = Running::start(&runtime, program.clone()).ended().await;
        short = if started.elapsed() < SHORT { short + 1 } else { 0 };
        let why = match ended {
            Ok(exit) => exit.sentence(&name),
            Err(what) => what,
        };
        if short >= MAX_EARLY_EXITS {
            let what = format!("the pool of agents does not start: {why}");
            report.send_replace(Some(what));
            return;
        }
        eprintln!("agents: {why}; restarting it");
    }
}
