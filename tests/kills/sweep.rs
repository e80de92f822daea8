//! A sweep with three workers: all its processes are killed, or the sweep alone, or one run.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use leyden_core::SeedTree;

use super::{Moment, Results, kills, seed};
use crate::common::{checkout, leyden, output_text, succeeds};

const KILLS_OF_A_SWEEP: u64 = 8;

/// Four cells of three steps.
const SWEEP: &str = "seeds = [1, 2]\nbaseline = 'paper'\n[[variant]]\nname = 'paper'\n\
    [[variant]]\nname = 'discounted'\nset = { algorithm.credit = { name = 'discounted' } }\n\
    [set]\ntrain.steps = 3\nrollout.tasks = 4\nrollout.samples = 8\nrollout.max_tokens = 24\n\
    eval.every = 3\neval.tasks = 8\neval.max_tokens = 24\ncheckpoint.every = 1\n";

const CELLS: [&str; 4] = ["paper-seed1", "discounted-seed1", "paper-seed2", "discounted-seed2"];

/// The command, always the same one: failed cells run again, as a killed run is a failed cell.
fn sweep(file: &Path, folder: &Path) -> Command {
    let mut command = leyden(&["sweep", "--workers", "3", "--retry"]);
    command.arg(file).arg("--folder").arg(folder).process_group(0);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn cells(folder: &Path) -> [Results; 4] {
    CELLS.map(|cell| Results::of(&folder.join("cells").join(cell)))
}

/// Sends SIGKILL to a process, or to a group if `id` is negative.
fn kill(id: i32) {
    // SAFETY: processes that this test started; one that ended meanwhile is no error.
    unsafe { libc::kill(id, libc::SIGKILL) };
}

/// The ids of a process's children.
fn children(parent: u32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // After the name in brackets: state, parent.
        let rest = stat.rsplit(')').next().unwrap_or_default();
        rest.split_whitespace().nth(1) == Some(&parent.to_string())
    })
    .collect()
}

/// Kills all processes, the sweep alone, or one run. Then waits until none works in the folder.
fn strike(child: Child, seed: SeedTree, folder: &Path) -> &'static str {
    let id = i32::try_from(child.id()).unwrap();
    let draw = seed.child("who").uniform();
    let runs = children(child.id());
    let what = if draw < 0.25 {
        kill(id);
        "sweep"
    } else if let (true, Some(run)) = (draw < 0.5, runs.first()) {
        kill(*run);
        "run"
    } else {
        kill(-id);
        "all"
    };
    child.wait_with_output().unwrap();
    // A run that outlives its sweep keeps the lock of its cell.
    for entry in fs::read_dir(folder.join("status")).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|ending| ending == "lock") {
            File::open(entry.path()).unwrap().lock().unwrap();
        }
    }
    what
}

#[test]
fn a_sweep_killed_at_random_moments_ends_as_without_kills() {
    let (wanted, seed) = (kills(3), seed("sweep"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("killed.toml");
    let base = checkout().join("benchmarks/experiments/mini/calc.toml");
    fs::write(&file, format!("base = {base:?}\n{SWEEP}")).unwrap();
    let alone = dir.path().join("alone");
    let started = Instant::now();
    succeeds(&mut sweep(&file, &alone));
    let (whole, expected) = (started.elapsed(), cells(&alone));
    let (mut killed, mut starts, mut finished) = (0, 0, 0);
    let mut what = Vec::new();
    while killed < wanted {
        let folder = dir.path().join(format!("killed-{finished}"));
        let until = wanted.min(killed + KILLS_OF_A_SWEEP);
        while killed < until {
            let seed = seed.index(starts);
            starts += 1;
            let mut child = sweep(&file, &folder).spawn().unwrap();
            let moment = Moment::random(seed, &folder, whole);
            if moment.wait(&mut child).is_some() {
                let (stdout, stderr) = output_text(&child.wait_with_output().unwrap());
                assert!(stdout.contains("4 of 4 cells finished"), "{stdout}{stderr}");
                break;
            }
            what.push(strike(child, seed, &folder));
            killed += 1;
        }
        let (stdout, _) = succeeds(&mut sweep(&file, &folder));
        assert!(stdout.contains("4 of 4 cells finished"), "{stdout}");
        for (cell, expected) in cells(&folder).iter().zip(&expected) {
            cell.assert_same(expected);
        }
        finished += 1;
    }
    let count = |name| what.iter().filter(|what| **what == name).count();
    println!(
        "{killed} kills ({} of all processes, {} of the sweep alone, {} of one run) in {starts} \
         starts of {finished} sweeps: all cells are those of an uninterrupted sweep, byte for byte",
        count("all"),
        count("sweep"),
        count("run")
    );
}
