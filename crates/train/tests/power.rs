//! Power cuts and full disks under a run: it resumes, with the results of an uninterrupted run.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::outcome::Outcome;
use common::{environment, experiment, model};
use leyden_core::SeedTree;
use leyden_core::record::Record;
use leyden_power_cut::Disk;
use leyden_train::{Experiment, Finish, Observer, TrainError};
use tempfile::TempDir;

fn start(
    experiment: &Experiment,
    root: &Path,
    observer: &mut dyn Observer,
) -> Result<Finish, TrainError> {
    let environment = environment(&["twice", "once", "brief"]);
    leyden_train::run(experiment, &environment, model(), root, observer)
}

/// Copies the run folder at each of its lines, as a power cut could leave it.
struct Cuts<'a> {
    disk: &'a Disk,
    root: &'a Path,
    to: &'a Path,
    found: Vec<PathBuf>,
}

impl Observer for Cuts<'_> {
    fn record(&mut self, _: &Record) {
        // A power cut has many outcomes.
        for outcome in 0..3_u64 {
            let number = self.found.len() as u64;
            let to = self.to.join(number.to_string());
            // The other files are synced before a checkpoint counts, or are written anew.
            copy(self.root, &to);
            self.disk.cut(&to, SeedTree::new(outcome).index(number));
            self.found.push(to);
        }
    }
}

/// Copies all files but the database's.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else if !name.starts_with("rollouts.sqlite") {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

#[test]
fn the_rollouts_of_every_checkpoint_survive_a_power_cut() {
    let experiment = experiment(&["checkpoint.every=1"]);
    let (whole, cuts) = (tempfile::tempdir().unwrap(), TempDir::new().unwrap());
    let disk = Disk::watch(whole.path());
    let mut observer = Cuts { disk: &disk, root: whole.path(), to: cuts.path(), found: Vec::new() };
    assert_eq!(start(&experiment, whole.path(), &mut observer).unwrap(), Finish::Done);
    let expected = Outcome::of(whole.path());
    assert_eq!(observer.found.len(), 3 * expected.metrics.lines().count());
    for cut in &observer.found {
        assert_eq!(start(&experiment, cut, &mut ()).unwrap(), Finish::Done);
        Outcome::of(cut).assert_same(&expected, &format!("after the power cut {}", cut.display()));
    }
}

/// Leaves no space after the line of a step.
struct Fills<'a> {
    disk: &'a Disk,
    after: u64,
}

impl Observer for Fills<'_> {
    fn record(&mut self, record: &Record) {
        if matches!(record, Record::Step(step) if step.step == self.after) {
            self.disk.set_space(Some(1000));
        }
    }
}

#[test]
fn a_run_on_a_full_disk_resumes_once_there_is_space() {
    // The first write without space is that of an evaluation, of a checkpoint, of a step.
    for (changes, after) in [(&[][..], 2), (&["eval.every=4"], 2), (&["eval.every=4"], 3)] {
        let experiment = experiment(changes);
        let (whole, full) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        start(&experiment, whole.path(), &mut ()).unwrap();
        let disk = Disk::watch(full.path());
        let error = start(&experiment, full.path(), &mut Fills { disk: &disk, after });
        let error = error.unwrap_err().to_string();
        for word in ["rollouts.sqlite", "disk is full", "run the same command again"] {
            assert!(error.contains(word), "{error}");
        }
        disk.set_space(None);
        assert_eq!(start(&experiment, full.path(), &mut ()).unwrap(), Finish::Done);
        Outcome::of(full.path()).assert_same(&Outcome::of(whole.path()), "after a full disk");
    }
}
