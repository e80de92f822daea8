//! A run of a native agent.

use std::process::Stdio;
use std::time::Instant;

use super::{Moment, Results, kills, seed};
use crate::common::{quickstart, succeeds};

/// Kills of one run folder; then the run finishes and another one begins.
const KILLS_OF_A_RUN: u64 = 8;

#[test]
fn a_run_killed_at_random_moments_ends_as_without_kills() {
    let (wanted, seed) = (kills(4), seed("run"));
    let runs = tempfile::tempdir().unwrap();
    // A checkpoint after each step, so that a run advances although it is killed often.
    let changes = ["checkpoint.every=1"];
    let alone = runs.path().join("alone");
    let started = Instant::now();
    succeeds(&mut quickstart(&alone, &changes));
    let (whole, expected) = (started.elapsed(), Results::of(&alone));
    let (mut killed, mut starts, mut finished) = (0, 0, 0);
    while killed < wanted {
        let folder = runs.path().join(format!("killed-{finished}"));
        let again = || quickstart(&folder, &changes);
        let until = wanted.min(killed + KILLS_OF_A_RUN);
        while killed < until {
            let moment = Moment::random(seed.index(starts), &folder, whole);
            starts += 1;
            let mut child = again().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            if let Some(status) = moment.wait(&mut child) {
                let output = child.wait_with_output().unwrap();
                assert!(status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
        }
        succeeds(&mut again());
        Results::of(&folder).assert_same(&expected);
        finished += 1;
    }
    println!(
        "{killed} kills in {starts} starts of {finished} runs: metrics, weights and recorded calls \
         are those of an uninterrupted run, byte for byte"
    );
}
