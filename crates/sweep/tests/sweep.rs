//! Sweeps whose runs are shell scripts: expansion, validation, sharing between workers, and
//! recovery after kills and failures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use leyden_sweep::{
    Cell, Claim, Event, FailedCells, Options, Revision, State, Sweep, SweepError, SweepFile,
    SweepFolder, Tally, check, claim, work,
};
use tempfile::TempDir;

const TWO: &str = "base = 'base.toml'\nbaseline = 'paper'\nseeds = [1, 2]\n\
    [set]\ntrain.steps = 7\n\
    [[variant]]\nname = 'paper'\n\
    [[variant]]\nname = 'discounted, late'\n\
    set = { algorithm.credit = { name = 'discounted', gamma = 0.9 } }\n";

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

/// A sweep of `text`, frozen.
fn frozen(text: &str) -> (TempDir, SweepFolder, Vec<Cell>) {
    let dir = TempDir::new().unwrap();
    let sweep = Sweep::read(&write_sweep(dir.path(), text), None).unwrap();
    let folder = SweepFolder::at(dir.path().join("sweep"));
    let cells = folder.freeze(&sweep).unwrap();
    (dir, folder, cells)
}

/// Runs cells with a shell script that gets the run folder as `$1` and the cell as `$2`.
fn run_by(folder: &SweepFolder, cells: &[Cell], script: &str, options: Options) -> Tally {
    let command = |cell: &Cell| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(folder.run_folder(cell)).arg(&cell.id);
        command
    };
    let none = |_: &[Cell]| Err("no tuning".to_owned());
    work(folder, cells, options, &command, &none, &|_| ()).unwrap()
}

const ONE_WORKER: Options = Options { workers: 1, retry: false };
/// A run that records that it ran, and finishes.
const FINE: &str = "mkdir -p $1 && echo $2 >> $1/../../ran && touch $1/finished";

fn ran(folder: &SweepFolder) -> Vec<String> {
    let text = fs::read_to_string(folder.root().join("ran")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn variants_and_seeds_become_cells() {
    let sweep = expand(TWO).unwrap();
    assert_eq!((sweep.name.as_str(), sweep.baseline.as_str()), ("credit", "paper"));
    let ids: Vec<&str> = sweep.cells.iter().map(|cell| cell.id.as_str()).collect();
    let wanted = ["paper-seed1", "discounted_late-seed1", "paper-seed2", "discounted_late-seed2"];
    assert_eq!(ids, wanted);
    assert_eq!(sweep.cells[0].overrides, ["name=\"credit-paper\"", "train.steps=7"]);
    assert_eq!(
        sweep.cells[3].overrides[2],
        "algorithm.credit={ gamma = 0.9, name = \"discounted\" }"
    );
}

#[test]
fn a_grid_is_every_combination_of_every_variant() {
    let text = format!(
        "{TWO}[grid]\ntrain.learning_rate = [1e-3, 1e-4]\nalgorithm.loss = [{{ name = 'ppo' }}, \
         {{ name = 'gspo', clip_low = 0.1 }}]\n"
    )
    .replace("baseline = 'paper'", "");
    let sweep = expand(&text).unwrap();
    assert_eq!(sweep.cells.len(), 2 * 2 * 2 * 2);
    let names: Vec<&str> = sweep.variants.iter().map(String::as_str).collect();
    assert!(names.contains(&"discounted, late, loss=ppo, learning_rate=0.001"), "{names:?}");
    // Only names of algorithms.
    let sweep = expand("base = 'base.toml'\n[grid]\nalgorithm.loss.name = ['ppo', 'gspo']\n");
    assert_eq!(sweep.unwrap().variants, ["name=ppo", "name=gspo"]);
    // A later value of a key overrides earlier ones; a grid overrides a variant.
    let text = "base = 'base.toml'\n[set]\ntrain.steps = 1\n[[variant]]\nname = 'a'\n\
        set = { train.steps = 2 }\n[grid]\ntrain.steps = [3]\neval.modes = [['greedy']]\n";
    let sweep = expand(text).unwrap();
    let own =
        ["name=\"credit-a_modes_greedy_steps_3\"", "eval.modes=[\"greedy\"]", "train.steps=3"];
    assert_eq!(sweep.cells[0].overrides, own);
    assert_eq!(sweep.baseline, "a, modes=[\"greedy\"], steps=3");
    // Neither variants nor grid: seeds of the base alone.
    assert_eq!(expand("base = 'base.toml'\nseeds = '1..3'\n").unwrap().cells.len(), 3);
}

#[test]
fn errors_in_a_sweep_file_are_reported() {
    let variant = |name: &str| format!("[[variant]]\nname = '{name}'\n");
    for (text, named) in [
        ("base = 'nowhere.toml'\n".to_owned(), "nowhere.toml"),
        ("bsae = 'base.toml'\n".to_owned(), "line 1"),
        ("base = 'base.toml'\nseeds = [1, 1]\n".to_owned(), "duplicate seed 1"),
        ("base = 'base.toml'\nseeds = [1, -1]\n".to_owned(), "not a list of non-negative integers"),
        ("base = 'base.toml'\nseeds = []\n".to_owned(), "no seed"),
        (TWO.replace("'paper'\nseeds", "'papre'\nseeds"), "none of the variants: paper; disc"),
        (format!("{TWO}{}", variant("Paper")), "collides with `paper`"),
        (format!("{TWO}{}", variant("discounted late")), "collides with `discounted, late`"),
        (format!("{TWO}{}", variant("../..")), "name a folder"),
        (format!("{TWO}{}", variant(" ")), "a variant without a name"),
        (format!("{TWO}[grid]\ntrain.steps = 3\n"), "grid.train.steps"),
        (format!("{TWO}[grid]\ntrain.steps = []\n"), "grid.train.steps"),
        (TWO.replace("train.steps", "seed"), "is set by the sweep"),
        (format!("{TWO}[report]\nmode = 'beam'\n"), "report.mode"),
        (format!("{TWO}[report]\nthreshold = nan\n"), "report.threshold"),
        (format!("{TWO}[report]\nfailed = 'skip'\n"), "`last` or `zero`"),
    ] {
        let error = expand(&text).unwrap_err().to_string();
        assert!(error.contains(named) && !error.contains('\n'), "{text}: {error}");
    }
}

#[test]
fn the_file_says_what_a_failed_cell_counts_as() {
    let failed = |lines: &str| {
        let text = format!("base = 'base.toml'\n{lines}");
        SweepFile::parse(&text, Path::new("x.toml")).unwrap().report.failed
    };
    assert_eq!(failed(""), FailedCells::Last);
    assert_eq!(failed("[report]\nfailed = 'last'\n"), FailedCells::Last);
    assert_eq!(failed("[report]\nfailed = 'zero'\n"), FailedCells::Zero);
}

#[test]
fn cells_are_frozen_and_append_only() {
    let (dir, folder, cells) = frozen(TWO);
    assert_eq!(folder.cells().unwrap(), cells);
    assert_eq!(folder.file().unwrap().name.as_deref(), Some("credit"));
    let path = dir.path().join("credit.toml");
    // New seeds are added; missing ones are not removed.
    let more = Sweep::read(&path, Some(&[2, 3])).unwrap();
    let all = folder.freeze(&more).unwrap();
    assert_eq!((&all[..4], all.len()), (&cells[..], 6));
    // Another value under an existing id is rejected, and nothing changes.
    fs::write(&path, TWO.replace("steps = 7", "steps = 8")).unwrap();
    let error = folder.freeze(&Sweep::read(&path, None).unwrap()).unwrap_err().to_string();
    assert!(error.contains("paper-seed1") && error.contains("steps=8"), "{error}");
    // So is another base.
    fs::write(&path, TWO).unwrap();
    fs::write(dir.path().join("base.toml"), "name = 'y'\n").unwrap();
    let error = folder.freeze(&Sweep::read(&path, None).unwrap()).unwrap_err().to_string();
    assert!(error.contains("base.toml is not"), "{error}");
    assert_eq!(folder.cells().unwrap(), all);
}

#[test]
fn invalid_lists_of_cells_are_rejected() {
    let (_dir, folder, _) = frozen(TWO);
    let path = folder.root().join("cells.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    for (text, named) in [
        (whole.replacen("paper-seed1", "../../x", 1), "line 1"),
        (whole.replacen("paper-seed2", "paper-seed1", 1), "twice"),
        (whole[..whole.len() - 9].to_owned(), "line 4"),
    ] {
        fs::write(&path, text).unwrap();
        let error = folder.cells().unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    let none = SweepFolder::at(folder.root().join("cells")).cells().unwrap_err().to_string();
    assert!(none.contains("not a sweep folder"), "{none}");
}

#[test]
fn invalid_cells_are_rejected_before_any_runs() {
    let (_dir, folder, cells) = frozen(TWO);
    let file = Path::new("credit.toml");
    let config = |cell: &Cell| -> Result<String, String> {
        Ok(format!("name = '{}'\nseed = {}\nx = '{}'\n", cell.id, cell.seed, cell.variant))
    };
    let checked = |resolve: &dyn Fn(&Cell) -> Result<String, String>, here: Option<&Revision>| {
        let rewrite = |old: &str| old.replace("y = 'gone'\n", "");
        check(&folder, file, &cells, resolve, &rewrite, here).map_err(|error| error.to_string())
    };
    assert_eq!(checked(&config, None), Ok(()));
    let error = checked(&|_| Err("unknown field `stepz`".to_owned()), None).unwrap_err();
    assert!(error.contains("variant `paper`: unknown field"), "{error}");
    // Only names differ.
    let same = |cell: &Cell| Ok(format!("name = '{}'\nseed = {}\n", cell.id, cell.seed));
    let error = checked(&same, None).unwrap_err();
    assert!(error.contains("`discounted, late`: is the same experiment as `paper`"), "{error}");

    // A run folder of another configuration, and then of another revision.
    let run = folder.run_folder(&cells[1]);
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join("config.toml"), config(&cells[1]).unwrap().replace("seed = 1", "seed = 9"))
        .unwrap();
    let error = checked(&config, None).unwrap_err();
    assert!(error.contains("cell discounted_late-seed1"), "{error}");
    assert!(error.contains("it has `seed = 9`, the cell `seed = 1`"), "{error}");
    // The same configuration written by an older version is accepted.
    let older = format!("{}y = 'gone'\n", config(&cells[1]).unwrap());
    fs::write(run.join("config.toml"), older).unwrap();
    assert_eq!(checked(&config, None), Ok(()));
    fs::write(run.join("provenance.json"), r#"{"git_revision": "aaaa", "cores": 2}"#).unwrap();
    let at = |revision: &str| Revision {
        git_revision: Some(revision.to_owned()),
        ..Revision::default()
    };
    assert_eq!(checked(&config, Some(&at("aaaa"))), Ok(()));
    let error = checked(&config, Some(&at("bbbb"))).unwrap_err();
    assert!(error.contains("discounted_late-seed1") && error.contains("aaaa"), "{error}");
    assert_eq!(checked(&config, None), Ok(()));
}

#[test]
fn finished_cells_are_skipped() {
    let (_dir, folder, cells) = frozen(TWO);
    let tally = run_by(&folder, &cells, FINE, ONE_WORKER);
    assert_eq!((tally.finished, tally.skipped, tally.is_complete()), (4, 0, true));
    let tally = run_by(&folder, &cells, FINE, ONE_WORKER);
    assert_eq!((tally.finished, tally.skipped, tally.is_complete()), (0, 4, true));
    assert_eq!(ran(&folder).len(), 4);
    assert_eq!(folder.state(&cells[0]).unwrap(), State::Finished);
}

#[test]
fn workers_that_share_a_folder_share_its_cells() {
    let (_dir, folder, cells) = frozen(TWO);
    // Two sweeps of two workers each, started together.
    let together = std::sync::Barrier::new(2);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let sweep = || {
            together.wait();
            run_by(&folder, &cells, FINE, Options { workers: 2, retry: false })
        };
        let both = [scope.spawn(sweep), scope.spawn(sweep)];
        both.map(|sweep| sweep.join().unwrap()).into()
    });
    let mut once = ran(&folder);
    once.sort();
    let mut wanted: Vec<String> = cells.iter().map(|cell| cell.id.clone()).collect();
    wanted.sort();
    assert_eq!(once, wanted, "a cell ran twice or never");
    assert_eq!(tallies.iter().map(|tally| tally.finished).sum::<usize>(), 4);
}

#[test]
fn a_locked_cell_is_skipped() {
    let (_dir, folder, cells) = frozen(TWO);
    let lock = folder.root().join("status").join(format!("{}.lock", cells[0].id));
    let Claim::Taken(held) = claim(&lock).unwrap() else { panic!("the lock is held") };
    let tally = run_by(&folder, &cells[..2], FINE, ONE_WORKER);
    assert_eq!((tally.finished, tally.held.len()), (1, 1));
    let own = format!("process {} on ", std::process::id());
    assert!(tally.held[0].1.starts_with(&own), "{tally:?}");
    assert!(!tally.is_complete());
    assert!(matches!(folder.state(&cells[0]).unwrap(), State::Running(_)));
    drop(held);
    assert_eq!(folder.state(&cells[0]).unwrap(), State::Waiting);
    assert!(run_by(&folder, &cells[..2], FINE, ONE_WORKER).is_complete());
}

/// If a sweep is killed and its run survives, its cell must not be started again.
#[test]
fn a_run_that_outlives_its_sweep_keeps_the_lock() {
    let (_dir, folder, cells) = frozen(TWO);
    let path = folder.root().join("status").join(format!("{}.lock", cells[0].id));
    let Claim::Taken(lock) = claim(&path).unwrap() else { panic!("the lock is held") };
    let mut orphan =
        Command::new("sleep").arg("1000").stdin(lock.as_stdin().unwrap()).spawn().unwrap();
    drop(lock);
    let tally = run_by(&folder, &cells[..1], FINE, ONE_WORKER);
    assert_eq!(tally.held.len(), 1);
    orphan.kill().unwrap();
    orphan.wait().unwrap();
    assert!(run_by(&folder, &cells[..1], FINE, ONE_WORKER).is_complete());
}

#[test]
fn the_same_command_resumes_an_interrupted_sweep() {
    let (_dir, folder, cells) = frozen(TWO);
    // The second cell's run is terminated after its start, as by a scheduler.
    let script = format!(
        "mkdir -p $1; touch $1/config.toml; [ $2 = {} ] && [ ! -e $1/again ] && touch $1/again \
         && kill -TERM $$; {FINE}",
        cells[1].id
    );
    let tally = run_by(&folder, &cells, &script, ONE_WORKER);
    assert_eq!((tally.finished, tally.left, tally.failed.len()), (1, 3, 0));
    assert_eq!(folder.state(&cells[1]).unwrap(), State::Begun);
    assert_eq!(folder.state(&cells[2]).unwrap(), State::Waiting);
    let tally = run_by(&folder, &cells, &script, ONE_WORKER);
    assert_eq!((tally.finished, tally.skipped, tally.is_complete()), (3, 1, true));
    assert_eq!(ran(&folder), cells.iter().map(|cell| cell.id.clone()).collect::<Vec<_>>());
}

#[test]
fn a_failed_cell_is_isolated_and_retried_on_request() {
    let (_dir, folder, cells) = frozen(TWO);
    let bad = format!(
        "if [ $2 = {} ]; then echo 'step 3'; echo 'leyden: step 3: the loss is NaN' >&2; exit 1; \
         elif [ $2 = {} ]; then kill -9 $$; else {FINE}; fi",
        cells[0].id, cells[2].id
    );
    let tally = run_by(&folder, &cells, &bad, ONE_WORKER);
    assert_eq!(tally.finished, 2);
    let named: Vec<&str> = tally.failed.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(named, [&cells[0].id, &cells[2].id]);
    assert_eq!(tally.failed[0].1, "step 3: the loss is NaN");
    assert!(tally.failed[1].1.contains("signal: 9"), "{tally:?}");
    assert!(fs::read_to_string(folder.log(&cells[0])).unwrap().starts_with("step 3\n"));
    // Without `retry` it is not run again, but reported again.
    let again = run_by(&folder, &cells, FINE, ONE_WORKER);
    assert_eq!((again.finished, again.failed), (0, tally.failed));
    let why = "step 3: the loss is NaN".to_owned();
    assert_eq!(folder.state(&cells[0]).unwrap(), State::Failed(why));
    let retried = run_by(&folder, &cells, FINE, Options { workers: 1, retry: true });
    assert_eq!((retried.finished, retried.is_complete()), (2, true));
}

#[test]
fn a_run_that_cannot_start_or_does_not_finish_fails_its_cell() {
    let (_dir, folder, cells) = frozen(TWO);
    let nowhere = |_: &Cell| Command::new("/nowhere/leyden");
    let events = AtomicUsize::new(0);
    let report = |_: Event<'_>| {
        events.fetch_add(1, Ordering::Relaxed);
    };
    let none = |_: &[Cell]| Err("no tuning".to_owned());
    let tally = work(&folder, &cells[..1], ONE_WORKER, &nowhere, &none, &report).unwrap();
    assert!(tally.failed[0].1.contains("/nowhere/leyden cannot be started"), "{tally:?}");
    assert_eq!(events.load(Ordering::Relaxed), 2, "started, failed");
    let tally = run_by(&folder, &cells[1..2], "true", ONE_WORKER);
    assert_eq!(tally.failed[0].1, "it ended without finishing");
}
