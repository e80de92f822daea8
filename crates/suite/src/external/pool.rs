//! Processes of this machine that each claim one rollout after the other.
//!
//! A process that ends is started again, because an agent's crash must not cost the others
//! their machine; one that never lives long is a broken set-up, and everybody who waits for it
//! is told.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::process::{Program, Running};

/// A process that ends sooner counts as one that could not work.
const SHORT: Duration = Duration::from_secs(20);

/// So many short lives in a row, and the pool is broken.
const SHORT_LIVES: usize = 3;

/// Why no rollout will ever be claimed; `None` as long as all is well.
pub(super) type Broken = watch::Receiver<Option<String>>;

/// Starts `count` processes of `program` on `runtime`; they run until it is shut down.
pub(super) fn start(runtime: &Handle, program: &Program, count: usize) -> Broken {
    let (tell, broken) = watch::channel(None);
    for number in 0..count {
        let mut program = program.clone();
        program.environment.push(("LEYDEN_WORKER".to_owned(), format!("pool-{number}")));
        let (runtime, tell) = (runtime.clone(), tell.clone());
        let keep = keep(runtime.clone(), program, tell);
        runtime.spawn(keep);
    }
    broken
}

/// Keeps one process running.
async fn keep(runtime: Handle, program: Program, tell: watch::Sender<Option<String>>) {
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
        if short >= SHORT_LIVES {
            let what = format!("the pool of agents does not start: {why}");
            tell.send_replace(Some(what));
            return;
        }
        eprintln!("agents: {why}; it is started again");
    }
}
