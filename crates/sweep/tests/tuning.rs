//! Sweeps that tune: expansion, bad input, the order of the phases with several workers, the
//! choice, and recovery.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Barrier, Mutex};

use leyden_sweep::{
    Cell, Choice, Claim, Event, Options, Sweep, SweepError, SweepFolder, Tally, check, claim, work,
};
use tempfile::TempDir;

const TWO: &str = "base = 'base.toml'\nseeds = [1, 2]\n\
    [[variant]]\nname = 'paper'\n\
    [[variant]]\nname = 'other'\nset = { algorithm.credit = { name = 'discounted', gamma = 0.9 } }\n";

const TUNE: &str =
    "[tune]\nseeds = [101, 102]\n[tune.grid]\n'train.learning_rate' = [1e-3, 2e-3]\n";

fn write_sweep(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("credit.toml");
    fs::write(&path, text).unwrap();
    fs::write(dir.join("base.toml"), "name = 'x'\n").unwrap();
    path
}

fn expand(text: &str) -> Result<Sweep, SweepError> {
    let dir = TempDir::new().unwrap();
    Sweep::read(&write_sweep(dir.path(), text), None)
}

/// A frozen sweep with its cells, tuning cells first.
struct Tuned {
    folder: SweepFolder,
    cells: Vec<Cell>,
    dir: TempDir,
}

impl Tuned {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let path = write_sweep(dir.path(), &format!("{TWO}{TUNE}"));
        let sweep = Sweep::read(&path, None).unwrap();
        let folder = SweepFolder::at(dir.path().join("sweep"));
        folder.freeze(&sweep).unwrap();
        let cells = [sweep.tuning, sweep.cells].concat();
        Self { folder, cells, dir }
    }

    fn cell(&self, id: &str) -> &Cell {
        self.cells.iter().find(|cell| cell.id == id).unwrap()
    }

    fn lock(&self, id: &str) -> PathBuf {
        self.folder.root().join("status").join(format!("{id}.lock"))
    }

    /// Runs cells with a script that gets the run folder as `$1`, the cell as `$2` and its
    /// overrides as `$3`.
    fn run(&self, cells: &[Cell], script: &str, retry: bool) -> Tally {
        self.watched(cells, script, retry, &|_| ())
    }

    fn watched(
        &self,
        cells: &[Cell],
        script: &str,
        retry: bool,
        report: &(dyn Fn(Event<'_>) + Sync),
    ) -> Tally {
        let command = |cell: &Cell| {
            let mut command = Command::new("sh");
            let folder = self.folder.run_folder(cell);
            command.args(["-c", script, "sh"]).arg(folder).arg(&cell.id);
            command.arg(cell.overrides.join(" "));
            command
        };
        let options = Options { workers: 1, retry };
        let measure = |cells: &[Cell]| Ok(cells.iter().map(|cell| self.area(cell)).collect());
        work(&self.folder, cells, options, &command, &measure, report).unwrap()
    }

    /// The measure of these sweeps: `paper` is better with the first point, `other` with the
    /// second; 0 for a failed cell.
    fn area(&self, cell: &Cell) -> f64 {
        let first = cell.point.as_ref().unwrap()[0] == "train.learning_rate=0.001";
        match (self.folder.is_finished(cell), first == (cell.variant == "paper")) {
            (false, _) => 0.0,
            (true, true) => 0.75,
            (true, false) => 0.5,
        }
    }

    fn ran(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.root().join("ran")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The choices and the overrides that each cell ran with, by file.
    fn results(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for variant in ["paper", "other"] {
            let path = self.folder.choice_file(variant);
            found.push((variant.to_owned(), fs::read_to_string(path).unwrap()));
        }
        for cell in &self.cells {
            let set = self.folder.run_folder(cell).join("set");
            found.push((cell.id.clone(), fs::read_to_string(set).unwrap_or_default()));
        }
        found
    }
}

/// A run that records that it ran and with what, and finishes.
const FINE: &str =
    "mkdir -p $1 && echo $2 >> $1/../../ran && echo \"$3\" > $1/set && touch $1/finished";

#[test]
fn every_variant_has_a_tuning_cell_for_every_point_and_seed() {
    let grid = "'train.learning_rate' = [2e-3, 1]\nalgorithm.loss.clip_low = [0.1, 0.2]\n";
    let text = format!("{TWO}[tune]\nseeds = '101..102'\n[tune.grid]\n{grid}");
    let sweep = expand(&text).unwrap();
    assert_eq!((sweep.tuning.len(), sweep.cells.len()), (2 * 4 * 2, 2 * 2));
    let ids: Vec<&str> = sweep.tuning[..3].iter().map(|cell| cell.id.as_str()).collect();
    let wanted = ["tune-paper-point1-seed101", "tune-paper-point1-seed102"];
    assert_eq!(ids, [wanted[0], wanted[1], "tune-paper-point2-seed101"]);
    // By key, then in the order of the list.
    let point = |index: usize| sweep.tuning[index].point.as_ref().unwrap().join(" ");
    assert_eq!(point(0), "algorithm.loss.clip_low=0.1 train.learning_rate=0.002");
    assert_eq!(point(2), "algorithm.loss.clip_low=0.1 train.learning_rate=1");
    assert_eq!(point(4), "algorithm.loss.clip_low=0.2 train.learning_rate=0.002");
    let own = &sweep.tuning[8];
    assert_eq!((own.variant.as_str(), own.seed), ("other", 101));
    assert_eq!(own.overrides[0], "name=\"credit-other-tune1\"");
    assert!(own.overrides[1].starts_with("algorithm.credit="));
    assert_eq!(own.overrides[2..], *own.point.as_ref().unwrap());
    // The comparison's own cells are those of the sweep without tuning.
    assert_eq!(sweep.cells, expand(TWO).unwrap().cells);
    assert!(expand(TWO).unwrap().tuning.is_empty());
}

#[test]
fn errors_in_a_tuning_are_reported() {
    let tune = |lines: &str| format!("{TWO}[tune]\nseeds = [101]\n[tune.grid]\n{lines}\n");
    let rate = "train.learning_rate = [1e-3, 2e-3]";
    for (text, named) in [
        (format!("{TWO}[tune]\n[tune.grid]\n{rate}\n"), "tune.seeds: is missing"),
        (tune(rate).replace("[101]", "[2, 3]"), "tune.seeds: seed 2 is also a seed of the sweep"),
        (tune(rate).replace("[101]", "[101, 101]"), "tune.seeds: duplicate seed 101"),
        (tune(rate).replace("[101]", "[]"), "tune.seeds: there is no seed"),
        (format!("{TWO}[tune]\nseeds = [101]\n"), "tune.grid: has no key"),
        (tune(""), "tune.grid: has no key"),
        (tune("train.learning_rate = []"), "tune.grid.train.learning_rate: [] is not a list"),
        (tune("train.learning_rate = 1e-3"), "0.001 is not a list of numbers"),
        (tune("train.learning_rate = [1e-3, 'high']"), "\"high\" is not a number"),
        (tune("train.learning_rate = [1e-3, nan]"), "nan is not a number"),
        (tune("train.learning_rate = [true]"), "true is not a number"),
        (tune("train.steps = [1, 2, 1.0]"), "tune.grid.train.steps: 1.0 is in the list twice"),
        (tune(&format!("{rate}\n'train.learning_rate' = [1]")), "tuned as well"),
        (tune("seed = [1, 2]"), "tune.grid.seed: is set by the sweep"),
        (tune(rate).replace("[tune]", "[tune]\ngird = 1"), "gird"),
        (tune(&format!("{rate}\n[set]\ntrain.learning_rate = 1")), "remove one of them"),
        (tune(&format!("{rate}\n[grid]\ntrain.learning_rate = [1]")), "remove one of them"),
        (
            tune("algorithm.credit.gamma = [0.5, 0.9]"),
            "variant `other`: sets `algorithm.credit.gamma`, which [tune.grid] tunes",
        ),
        (
            tune(&format!("a = {list:?}\nb = {list:?}", list = (0..40).collect::<Vec<_>>())),
            "tune.grid: has more than 1000 points",
        ),
    ] {
        let error = expand(&text).unwrap_err().to_string();
        assert!(error.contains(named) && !error.contains('\n'), "{text}: {error}");
    }
    // A key of the same table that the variant does not set can be tuned.
    assert!(expand(&tune("algorithm.credit.lambda = [0.5, 0.9]")).is_ok());
    // Seeds of the command line count, too.
    let dir = TempDir::new().unwrap();
    let path = write_sweep(dir.path(), &tune(rate));
    let error = Sweep::read(&path, Some(&[7, 101])).unwrap_err().to_string();
    assert!(error.contains("seed 101 is also a seed of the sweep"), "{error}");
}

#[test]
fn points_that_no_experiment_has_are_rejected_before_any_cell_runs() {
    let tuned = Tuned::new();
    let file = Path::new("credit.toml");
    let checked = |resolve: &dyn Fn(&Cell) -> Result<String, String>| {
        let rewrite = |text: &str| text.to_owned();
        check(&tuned.folder, file, &tuned.cells[..8], resolve, &rewrite, None)
            .map_err(|error| error.to_string())
    };
    let config = |cell: &Cell| format!("seed = {}\nx = '{}'\n", cell.seed, cell.variant);
    let unknown = checked(&|_| Err("unknown field `learning_rat`".to_owned())).unwrap_err();
    let words = "variant `paper`: with train.learning_rate=0.001 of [tune.grid]: unknown field";
    assert!(unknown.contains(words), "{unknown}");
    // A key without effect.
    let same = checked(&|cell| Ok(config(cell))).unwrap_err();
    let words = "train.learning_rate=0.001 and train.learning_rate=0.002 of [tune.grid] are the \
                 same experiment";
    assert!(same.contains(words), "{same}");
    let fine = |cell: &Cell| Ok(format!("{}y = '{}'\n", config(cell), cell.overrides.join(" ")));
    assert_eq!(checked(&fine), Ok(()));
}

#[test]
fn the_best_mean_is_chosen_and_ties_go_to_the_first_point() {
    let sweep = expand(&format!("{TWO}{}", TUNE.replace("2e-3]", "2e-3, 4e-3]"))).unwrap();
    let cells = &sweep.tuning[..6];
    let chosen = |areas: [f64; 6]| Choice::of(cells, &areas).unwrap();
    let best = chosen([0.5, 0.5, 0.25, 1.0, 0.5, 0.625]);
    assert_eq!(best.chosen, ["train.learning_rate=0.002"]);
    assert_eq!((best.variant.as_str(), &best.seeds[..]), ("paper", &[101, 102][..]));
    let means: Vec<f64> = best.points.iter().map(|point| point.mean).collect();
    assert_eq!(means, [0.5, 0.625, 0.5625]);
    assert_eq!(best.points[1].areas, [0.25, 1.0]);
    // Ties, and nothing but failures.
    let tie = chosen([0.1, 0.3, 0.7, 0.2, 0.2, 0.7]);
    assert_eq!(tie.chosen, ["train.learning_rate=0.002"]);
    assert_eq!(chosen([0.0; 6]).chosen, ["train.learning_rate=0.001"]);
    // Negative rewards.
    assert_eq!(chosen([-2.0, -2.0, -1.0, -1.5, -3.0, 0.0]).chosen, ["train.learning_rate=0.002"]);
    assert_eq!(Choice::of(cells, &[0.5; 5]), None);
    assert_eq!(Choice::of(cells, &[f64::NAN; 6]), None);
    assert_eq!(Choice::of(&[], &[]), None);
    // The choice is applied last.
    let cell = best.apply(&sweep.cells[1]);
    assert_eq!(cell.overrides.last().unwrap(), "train.learning_rate=0.002");
    assert_eq!(cell.overrides[..2], sweep.cells[1].overrides);
}

#[test]
fn a_tuning_is_frozen_and_only_new_variants_are_added() {
    let tuned = Tuned::new();
    let folder = &tuned.folder;
    assert_eq!(folder.tuning().unwrap(), tuned.cells[..8]);
    assert_eq!(folder.cells().unwrap(), tuned.cells[8..]);
    let freeze = |text: &str, seeds: Option<&[u64]>| {
        let sweep = Sweep::read(&write_sweep(tuned.dir.path(), text), seeds).unwrap();
        let frozen = folder.freeze(&sweep).map_err(|error| error.to_string());
        let checked = folder.check_tuning(&sweep).map_err(|error| error.to_string());
        assert_eq!(checked.err(), frozen.as_ref().err().cloned());
        frozen
    };
    for (text, seeds) in [
        (TWO.to_owned(), None),
        (format!("{TWO}{}", TUNE.replace("2e-3", "3e-3")), None),
        (format!("{TWO}{}", TUNE.replace("102", "103")), None),
        (format!("{TWO}{}", TUNE.replace("[1e-3, 2e-3]", "[2e-3, 1e-3]")), None),
    ] {
        let error = freeze(&text, seeds).unwrap_err();
        assert!(error.contains("`paper` has another [tune] in it than here"), "{text}: {error}");
    }
    assert_eq!(folder.tuning().unwrap(), tuned.cells[..8]);
    // More seeds need no more tuning; a new variant has its own.
    let more = format!("{TWO}[[variant]]\nname = 'third'\n{TUNE}");
    assert_eq!(freeze(&more, Some(&[1, 2, 3])).unwrap().len(), 4 + 5);
    assert_eq!(folder.tuning().unwrap().len(), 12);
    // A sweep that has begun without tuning is another one.
    let without = SweepFolder::at(tuned.dir.path().join("without"));
    let sweep = |text: &str| Sweep::read(&write_sweep(tuned.dir.path(), text), None).unwrap();
    without.freeze(&sweep(TWO)).unwrap();
    assert!(!without.root().join("tuning.jsonl").exists() && without.tuning().unwrap().is_empty());
    let error = without.freeze(&sweep(&format!("{TWO}{TUNE}"))).unwrap_err().to_string();
    assert!(error.contains("another [tune]"), "{error}");
    // So is one whose earlier seeds are now to be tuned with: only the variant is new.
    let text = format!("base = 'base.toml'\nseeds = [5]\n[[variant]]\nname = 'new'\n{TUNE}");
    let error = without.freeze(&sweep(&text.replace("101", "1"))).unwrap_err().to_string();
    assert!(error.contains("seed 1 is also a seed of the sweep"), "{error}");
    assert!(!without.root().join("tuning.jsonl").exists());
    // Tuning cells elsewhere are no comparison.
    fs::copy(folder.root().join("tuning.jsonl"), folder.root().join("cells.jsonl")).unwrap();
    let error = folder.cells().unwrap_err().to_string();
    assert!(error.contains("line 1") && error.contains("tuning.jsonl"), "{error}");
}

#[test]
fn cells_run_after_the_tuning_with_the_point_of_their_variant() {
    let tuned = Tuned::new();
    let tally = tuned.run(&tuned.cells, FINE, false);
    assert_eq!((tally.finished, tally.is_complete()), (12, true));
    let order: Vec<String> = tuned.cells.iter().map(|cell| cell.id.clone()).collect();
    assert_eq!(tuned.ran(), order);
    let set = |id: &str| {
        let folder = tuned.folder.run_folder(tuned.cell(id));
        fs::read_to_string(folder.join("set")).unwrap()
    };
    for seed in [1, 2] {
        let paper = set(&format!("paper-seed{seed}"));
        assert_eq!(paper, "name=\"credit-paper\" train.learning_rate=0.001\n");
        assert!(set(&format!("other-seed{seed}")).ends_with(" train.learning_rate=0.002\n"));
    }
    let choice = tuned.folder.choice("other").unwrap().unwrap();
    assert_eq!(choice.chosen, ["train.learning_rate=0.002"]);
    assert_eq!(choice.points[0].areas, [0.5, 0.5]);
    let tally = tuned.run(&tuned.cells, FINE, false);
    assert_eq!((tally.finished, tally.skipped, tally.is_complete()), (0, 12, true));
}

/// The second worker runs what is free, which is the other variant, before it waits.
#[test]
fn a_worker_waits_for_tuning_cells_that_run_elsewhere() {
    let tuned = Tuned::new();
    let pipe = tuned.dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Ends once the second worker waits for it.
    let slow = tuned.cells[0].id.as_str();
    let script = format!("if [ $2 = {slow} ]; then cat {pipe:?} > /dev/null; fi; {FINE}");
    let (begun, waits) = (Barrier::new(2), Mutex::new(Vec::new()));
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            let report = |event: Event<'_>| {
                if let Event::Began(_) = event {
                    begun.wait();
                }
            };
            tuned.watched(&tuned.cells[..1], &script, false, &report)
        });
        begun.wait();
        let report = |event: Event<'_>| {
            if let Event::Waits(cell) = event {
                waits.lock().unwrap().push(cell.id.clone());
                fs::write(&pipe, "go\n").unwrap();
            }
        };
        let second = tuned.watched(&tuned.cells, &script, false, &report);
        (first.join().unwrap(), second)
    });
    assert_eq!((first.finished, first.is_complete()), (1, true));
    assert_eq!((second.finished, second.skipped, second.is_complete()), (11, 1, true));
    assert_eq!(waits.into_inner().unwrap(), [slow]);
    let mut order: Vec<&str> = tuned.cells[1..8].iter().map(|cell| cell.id.as_str()).collect();
    order.extend(["other-seed1", "other-seed2", slow, "paper-seed1", "paper-seed2"]);
    assert_eq!(tuned.ran(), order);
}

/// All workers of two sweeps take part in both phases.
#[test]
fn workers_share_both_phases() {
    let tuned = Tuned::new();
    let together = Barrier::new(4);
    let worker = || {
        together.wait();
        tuned.run(&tuned.cells, FINE, false)
    };
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let all = [(); 4].map(|()| scope.spawn(worker));
        all.map(|worker| worker.join().unwrap()).into()
    });
    assert_eq!(tallies.iter().map(|tally| tally.finished).sum::<usize>(), 12);
    let (ran, place) = (tuned.ran(), |id: &str| tuned.ran().iter().position(|own| own == id));
    assert_eq!(ran.len(), 12, "{ran:?}");
    for cell in &tuned.cells[..8] {
        let own = [1, 2].map(|seed| place(&format!("{}-seed{seed}", cell.variant)).unwrap());
        assert!(own.iter().all(|own| *own > place(&cell.id).unwrap()), "{ran:?}");
    }
}

#[test]
fn a_tuning_cell_whose_process_is_killed_is_taken_over() {
    let tuned = Tuned::new();
    let lost = tuned.cells[0].id.as_str();
    let Claim::Taken(lock) = claim(&tuned.lock(lost)).unwrap() else { panic!("it is free") };
    let lock = Mutex::new(Some(lock));
    let report = |event: Event<'_>| {
        if let Event::Waits(_) = event {
            drop(lock.lock().unwrap().take());
        }
    };
    let tally = tuned.watched(&tuned.cells, FINE, false, &report);
    assert_eq!((tally.finished, tally.is_complete()), (12, true), "{tally:?}");
    assert!(lock.into_inner().unwrap().is_none());
    assert_eq!(tuned.ran().iter().position(|id| id == lost), Some(9));
}

/// A task of a job array has one cell only.
#[test]
fn a_cell_alone_does_not_wait_for_its_tuning() {
    let tuned = Tuned::new();
    let Claim::Taken(held) = claim(&tuned.lock(&tuned.cells[0].id)).unwrap() else { panic!() };
    let tally = tuned.run(&tuned.cells[8..], FINE, false);
    assert_eq!((tally.waiting.len(), tally.is_complete()), (4, false));
    let words = "4 of the 4 tuning cells of its variant have not ended, \
                 tune-paper-point1-seed101 among them";
    assert!(tally.waiting[0].1.contains(words), "{tally:?}");
    drop(held);
    assert!(tuned.run(&tuned.cells[..8], FINE, false).is_complete());
    assert!(tuned.folder.choice("paper").unwrap().is_none(), "not before it is needed");
    assert!(tuned.run(&tuned.cells[8..9], FINE, false).is_complete());
    assert!(tuned.folder.choice("paper").unwrap().is_some());
}

#[test]
fn failed_tuning_cells_count_and_are_final_once_the_choice_is_made() {
    let tuned = Tuned::new();
    // Both cells of the better point of `paper`, and one of the better point of `other`.
    let lost = ["tune-paper-point1-seed101", "tune-paper-point1-seed102"];
    let also = "tune-other-point2-seed102";
    let bad = format!(
        "case $2 in {}|{}|{also}) echo 'leyden: the loss is NaN' >&2; exit 1;; esac; {FINE}",
        lost[0], lost[1]
    );
    let tally = tuned.run(&tuned.cells[..8], &bad, false);
    assert_eq!((tally.finished, tally.failed.len(), tally.settled.len()), (5, 3, 0));
    // Before the choice they can be retried.
    let retried = tuned.run(&tuned.cells[7..8], FINE, true);
    assert_eq!((retried.finished, retried.is_complete()), (1, true));
    let tally = tuned.run(&tuned.cells, &bad, false);
    assert_eq!((tally.finished, tally.failed.len()), (4, 0));
    let settled: Vec<&str> = tally.settled.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!((settled, tally.is_complete()), (lost.to_vec(), true));
    let choice = tuned.folder.choice("paper").unwrap().unwrap();
    assert_eq!(choice.chosen, ["train.learning_rate=0.002"]);
    assert_eq!(choice.points[0].areas, [0.0, 0.0]);
    assert_eq!(tuned.folder.choice("other").unwrap().unwrap().points[1].areas, [0.75, 0.75]);
    // Afterwards they cannot.
    let before = tuned.results();
    let again = tuned.run(&tuned.cells, FINE, true);
    assert_eq!((again.finished, again.settled.len(), again.is_complete()), (0, 2, true));
    assert_eq!(tuned.results(), before);
}

#[test]
fn a_resumed_tuning_gives_what_an_uninterrupted_one_gives() {
    let whole = Tuned::new();
    assert!(whole.run(&whole.cells, FINE, false).is_complete());
    for stop in 0..12 {
        let tuned = Tuned::new();
        let script = format!(
            "mkdir -p $1; touch $1/config.toml; [ $2 = {} ] && [ ! -e $1/again ] \
             && touch $1/again && kill -TERM $$; {FINE}",
            tuned.cells[stop].id
        );
        let tally = tuned.run(&tuned.cells, &script, false);
        assert_eq!((tally.finished, tally.left, tally.waiting.len()), (stop, 12 - stop, 0));
        assert!(tuned.run(&tuned.cells, &script, false).is_complete());
        assert_eq!(tuned.results(), whole.results());
        assert_eq!(tuned.ran(), whole.ran());
    }
}

#[test]
fn a_choice_is_not_changed_and_a_damaged_one_is_named() {
    let tuned = Tuned::new();
    assert!(tuned.run(&tuned.cells[..9], FINE, false).is_complete());
    let path = tuned.folder.choice_file("paper");
    let text = fs::read_to_string(&path).unwrap();
    // Whatever the cells say now.
    let other = text.replacen("learning_rate=0.001", "learning_rate=0.002", 1);
    fs::write(&path, &other).unwrap();
    assert!(tuned.run(&tuned.cells, FINE, false).is_complete());
    assert_eq!(fs::read_to_string(&path).unwrap(), other);
    let set = tuned.folder.run_folder(tuned.cell("paper-seed2")).join("set");
    assert!(fs::read_to_string(set).unwrap().ends_with("learning_rate=0.002\n"));
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    let error = tuned.folder.choice("paper").unwrap_err().to_string();
    assert!(error.contains("choices/paper.json: not the choice"), "{error}");
}

#[test]
fn cells_that_cannot_be_measured_hold_back_their_variant_only() {
    let tuned = Tuned::new();
    let measure = |cells: &[Cell]| match cells[0].variant.as_str() {
        "paper" => Err("tune-paper-point1-seed101 has no evaluation".to_owned()),
        _ => Ok(cells.iter().map(|cell| tuned.area(cell)).collect()),
    };
    let command = |cell: &Cell| {
        let mut command = Command::new("sh");
        command.args(["-c", FINE, "sh"]).arg(tuned.folder.run_folder(cell)).arg(&cell.id);
        command
    };
    let options = Options { workers: 2, retry: false };
    let tally = work(&tuned.folder, &tuned.cells, options, &command, &measure, &|_| ()).unwrap();
    assert_eq!((tally.finished, tally.waiting.len(), tally.is_complete()), (10, 2, false));
    let (id, why) = &tally.waiting[0];
    assert_eq!(id, "paper-seed1");
    assert!(why.ends_with("for its variant: tune-paper-point1-seed101 has no evaluation"), "{why}");
    assert!(tuned.folder.choice("paper").unwrap().is_none());
}
