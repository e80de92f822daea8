//! SIGKILL at random moments, again and again: a run, a sweep and a server are resumed by the same
//! command until they finish, and end with what they have without a kill.
//!
//! `LEYDEN_KILLS` sets the number of kills of each, `LEYDEN_KILLS_SEED` the seed of their moments.
//! The kernel's answer to a lack of memory is the same signal.

mod native;
mod server;
mod sweep;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use leyden_core::SeedTree;
use rusqlite::Connection;
use rusqlite::types::Value;

use crate::common::Trained;

/// Number of kills of one test.
fn kills(default: u64) -> u64 {
    number("LEYDEN_KILLS").unwrap_or(default)
}

/// The seed of a test's moments.
fn seed(test: &str) -> SeedTree {
    SeedTree::new(number("LEYDEN_KILLS_SEED").unwrap_or(0)).child(test)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: `{text}` is not a number")))
}

/// When a process is killed; the fault itself, so it is a delay as well as an event.
#[derive(Debug)]
enum Moment {
    After(Duration),
    /// When something below the folder has changed this often (a file or folder came, went or has
    /// another size), at the latest after the time that the process needs in all.
    Changes(PathBuf, u64, Duration),
}

impl Moment {
    /// A random moment of a process that works below `folder` and needs `whole` from start to end.
    fn random(seed: SeedTree, folder: &Path, whole: Duration) -> Self {
        let part = seed.child("part").uniform();
        if seed.child("kind").uniform() < 0.5 {
            Self::After(whole.mul_f64(part))
        } else {
            Self::Changes(folder.to_owned(), 1 + (part * 40.0) as u64, whole)
        }
    }

    /// Waits for the moment or the end of the process; returns its status if it ended.
    fn wait(&self, child: &mut Child) -> Option<ExitStatus> {
        const PAUSE: Duration = Duration::from_millis(1);
        let started = Instant::now();
        let mut changes = 0;
        let mut before = match self {
            Self::After(_) => BTreeMap::new(),
            Self::Changes(folder, ..) => sizes(folder),
        };
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return Some(status);
            }
            match self {
                Self::After(delay) | Self::Changes(_, _, delay) if started.elapsed() >= *delay => {
                    return None;
                }
                Self::Changes(_, most, _) if changes >= *most => return None,
                Self::After(_) => {}
                Self::Changes(folder, ..) => {
                    let now = sizes(folder);
                    changes += u64::from(now != before);
                    before = now;
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// The sizes of all files below a folder.
fn sizes(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    // Files come and go while the folder is read.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                found.extend(sizes(&path));
                found.insert(path, 0);
            }
            Ok(metadata) => drop(found.insert(path, metadata.len())),
            Err(_) => {}
        }
    }
    found
}

/// What a finished run leaves: metrics, weights and every recorded call.
struct Results {
    trained: Trained,
    rows: Vec<String>,
}

impl Results {
    fn of(folder: &Path) -> Self {
        let store = Connection::open(folder.join("rollouts.sqlite")).unwrap();
        let mut rows = Vec::new();
        for (table, order) in [
            ("rollouts", "step, phase, id"),
            ("calls", "step, phase, rollout, idx"),
            ("signals", "step, phase, rollout, call, kind, detail"),
        ] {
            let select = format!("SELECT * FROM {table} ORDER BY {order}");
            let mut statement = store.prepare(&select).unwrap();
            let columns = statement.column_count();
            let mut found = statement.query([]).unwrap();
            while let Some(row) = found.next().unwrap() {
                let values: Vec<Value> = (0..columns).map(|n| row.get(n).unwrap()).collect();
                rows.push(format!("{table} {values:?}"));
            }
        }
        assert!(rows.len() > 100, "{} rows", rows.len());
        Self { trained: Trained::of(folder), rows }
    }

    fn assert_same(&self, other: &Self) {
        self.trained.assert_same(&other.trained);
        assert!(self.rows == other.rows, "the recorded calls differ");
    }
}
