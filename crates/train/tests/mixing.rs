//! Runs on several sources of tasks by weight, and with a curriculum.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use common::outcome::{Outcome, metrics, steps};
use common::{Interrupt, environment, experiment, model, task};
use leyden_core::Task;
use leyden_train::data::{Mixture, TaskSource};
use leyden_train::{Environment, Experiment, Finish, Observer, TrainError};
use rusqlite::Connection;
use tempfile::TempDir;

/// A task with the label `steps`.
fn labelled(number: usize, script: &str, steps: &str) -> Task {
    let mut task = task(number, script);
    task.labels.push(("steps".to_owned(), steps.to_owned()));
    task
}

/// An endless source whose tasks have one to three steps; their ids begin with `task-5`.
struct World;

impl TaskSource for World {
    fn len(&self) -> Option<u64> {
        None
    }

    fn task(&self, index: u64) -> Task {
        let steps = ["1", "2", "3"][index as usize % 3];
        labelled(5000 + index as usize, "once", steps)
    }
}

/// Six tasks of one to three steps, with the numbers 0 to 5.
fn file() -> Vec<Task> {
    ["1", "2", "3", "3", "2", "1"]
        .iter()
        .enumerate()
        .map(|(number, steps)| labelled(number, ["once", "twice"][number % 2], steps))
        .collect()
}

/// The file and the world.
fn mixture() -> Environment {
    let parts: Vec<Box<dyn TaskSource>> = vec![Box::new(file()), Box::new(World)];
    Environment { train: Box::new(Mixture(parts)), ..environment(&[]) }
}

fn of_file() -> Environment {
    Environment { train: Box::new(file()), ..environment(&[]) }
}

const SOURCES: &str = "data.train=['file', 'world']";
const WEIGHTS: &str = "data.weights=[1.0, 1.0]";
const BY_STEP: &str = "data.curriculum={label = 'steps', by = 'step', steps = 3}";
/// Every group of four rollouts of the highest open level opens the next one.
const BY_SUCCESS: &str =
    "data.curriculum={label = 'steps', by = 'success', threshold = 0.0, window = 4}";

fn start(
    environment: &Environment,
    experiment: &Experiment,
    root: &Path,
    observer: &mut dyn Observer,
) -> Result<Finish, TrainError> {
    leyden_train::run(experiment, environment, model(), root, observer)
}

fn whole(environment: &Environment, changes: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let finish = start(environment, &experiment(changes), root.path(), &mut ()).unwrap();
    assert_eq!(finish, Finish::Done);
    root
}

/// A training rollout of the store.
struct Stored {
    step: u64,
    task: String,
    steps: String,
    reward: f64,
}

fn stored(root: &Path) -> Vec<Stored> {
    let store = Connection::open(root.join("rollouts.sqlite")).unwrap();
    let mut statement = store
        .prepare(
            "SELECT step, task_id, labels, reward FROM rollouts WHERE phase = 'train' \
             ORDER BY step, id",
        )
        .unwrap();
    let rows = statement.query_map([], |row| {
        let labels: String = row.get(2)?;
        let labels: serde_json::Value = serde_json::from_str(&labels).unwrap();
        Ok(Stored {
            step: row.get::<_, i64>(0)? as u64,
            task: row.get(1)?,
            steps: labels["steps"].as_str().unwrap().to_owned(),
            reward: row.get(3)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

#[test]
fn weights_and_curricula_resume() {
    let refills = ["rollout.refills=1", "rollout.samples=2"];
    for changes in [
        &[SOURCES, WEIGHTS][..],
        &[SOURCES, WEIGHTS, BY_STEP],
        &[SOURCES, WEIGHTS, BY_SUCCESS],
        &[SOURCES, WEIGHTS, BY_SUCCESS, refills[0], refills[1]],
        &[BY_STEP],
        &[BY_SUCCESS],
    ] {
        let environment = if changes.contains(&SOURCES) { mixture() } else { of_file() };
        let expected = Outcome::of(whole(&environment, changes).path());
        let experiment = experiment(changes);
        // Before the first checkpoint, at the checkpoint of step 2, and after the steps 3 and 4.
        for lines in [3, 6, 7, 8] {
            let root = tempfile::tempdir().unwrap();
            let mut observer = Interrupt { lines_left: lines };
            let run =
                AssertUnwindSafe(|| start(&environment, &experiment, root.path(), &mut observer));
            assert!(catch_unwind(run).is_err(), "the run was not interrupted");
            let finish = start(&environment, &experiment, root.path(), &mut ()).unwrap();
            assert_eq!(finish, Finish::Done);
            let when = format!("{} after {lines} lines", changes.join(" "));
            Outcome::of(root.path()).assert_same(&expected, &when);
        }
    }
}

#[test]
fn all_sources_are_drawn_and_each_in_its_own_order() {
    let root = whole(&mixture(), &[SOURCES, WEIGHTS, "rollout.tasks=6", "rollout.samples=2"]);
    let rollouts = stored(root.path());
    let mut drawn: Vec<&str> = rollouts.iter().map(|rollout| rollout.task.as_str()).collect();
    drawn.dedup();
    let number = |id: &&str| id["task-".len()..].parse::<u64>().unwrap();
    // The file's tasks have small numbers.
    let of_world: Vec<u64> = drawn.iter().map(number).filter(|number| *number > 1000).collect();
    assert!(of_world.windows(2).all(|pair| pair[1] == pair[0] + 1), "{drawn:?}");
    assert!(of_world.len() > 2 && drawn.len() - of_world.len() > 2, "{drawn:?}");
    assert!(steps(root.path()).iter().all(|step| step.level.is_none()));
}

#[test]
fn levels_open_by_step_and_their_names_are_recorded() {
    let root = whole(&mixture(), &[SOURCES, WEIGHTS, BY_STEP, "rollout.tasks=6"]);
    let steps = steps(root.path());
    // Two further levels over three steps: after 1.5 and 3 of them.
    let names: Vec<&str> = steps.iter().filter_map(|step| step.level.as_deref()).collect();
    assert_eq!(names, ["1", "1", "2", "3"]);
    let open: Vec<f64> = steps.iter().map(|step| step.extra["levels_open"]).collect();
    assert_eq!(open, [1.0, 1.0, 2.0, 3.0]);
    assert!(steps.iter().all(|step| !step.extra.contains_key("level_success")));
    let mut drawn: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for rollout in stored(root.path()) {
        drawn.entry(rollout.step).or_default().insert(rollout.steps);
    }
    for (step, name) in names.iter().enumerate() {
        let values = &drawn[&(step as u64 + 1)];
        assert!(values.iter().all(|value| value.as_str() <= *name), "step {step}: {values:?}");
    }
}

#[test]
fn success_is_the_mean_reward_of_the_last_rollouts_of_the_level() {
    let root = whole(&of_file(), &[BY_SUCCESS]);
    let (steps, rollouts) = (steps(root.path()), stored(root.path()));
    assert_eq!(steps[0].level.as_deref(), Some("1"));
    assert_eq!(steps[1].level.as_deref(), Some("2"));
    let mut window: Vec<f64> = Vec::new();
    for (place, step) in steps.iter().enumerate() {
        let level = step.level.as_deref().unwrap();
        if place > 0 && steps[place - 1].level != step.level {
            window.clear();
        }
        let of_step = rollouts.iter().filter(|r| r.step == step.step);
        window.extend(of_step.filter(|r| r.steps == level).map(|r| r.reward));
        let last = &window[window.len().saturating_sub(4)..];
        let mean = last.iter().sum::<f64>() / last.len() as f64;
        match step.extra.get("level_success") {
            Some(success) => assert!((success - mean).abs() < 1e-12, "step {}", step.step),
            None => assert!(last.is_empty(), "step {}", step.step),
        }
        // Four rollouts open the next level.
        if let Some(next) = steps.get(place + 1).filter(|_| level != "3") {
            assert_eq!(next.level != step.level, last.len() == 4);
        }
    }
    // A threshold that is out of reach.
    let out = "data.curriculum={label = 'steps', by = 'success', threshold = 1000.0, window = 4}";
    let root = whole(&of_file(), &[out]);
    let steps = self::steps(root.path());
    assert!(steps.iter().all(|step| step.level.as_deref() == Some("1")));
    assert!(stored(root.path()).iter().all(|rollout| rollout.steps == "1"));
}

/// Success is measured by the task's reward, whatever training sees.
#[test]
fn a_shaped_reward_opens_no_level() {
    let out = "data.curriculum={label = 'steps', by = 'success', threshold = 500.0, window = 4}";
    let root = whole(&of_file(), &[out, "reward.per_call=1000.0"]);
    let steps = steps(root.path());
    assert!(steps.iter().all(|step| step.extra["reward_seen_mean"] > 500.0));
    assert!(steps.iter().all(|step| step.level.as_deref() == Some("1")));
}

#[test]
fn a_run_without_both_writes_nothing_about_them() {
    let root = whole(&of_file(), &[]);
    let text = metrics(root.path());
    assert!(!text.contains("level"), "{text}");
    let state = fs::read_to_string(root.path().join("checkpoints/step-000004/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let keys: Vec<&str> = state.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["schema", "step", "position", "quiet_steps"]);
    assert_eq!(state["position"], 8);
    let config = fs::read_to_string(root.path().join("config.toml")).unwrap();
    assert!(!config.contains("weights") && !config.contains("curriculum"), "{config}");
}

#[test]
fn a_refused_curriculum_leaves_no_folder() {
    for (changes, words) in [
        (
            &["data.curriculum={label = 'hops', by = 'step', steps = 3}"][..],
            &["data.curriculum.label", "task-0", "`hops`", "script, steps"][..],
        ),
        (
            &["data.curriculum={label = 'script', by = 'step', steps = 3}"],
            &["data.curriculum.label", "script = `once`", "not a number"],
        ),
        (
            &["data.curriculum={label = 'steps', levels = ['1', '2'], by = 'step', steps = 3}"],
            &["data.curriculum.levels", "steps = `3`"],
        ),
        (
            &["data.curriculum={label = 'steps', first = 4, by = 'step', steps = 3}"],
            &["data.curriculum.first: 4", "steps (3)"],
        ),
        (&[SOURCES, WEIGHTS], &["data.weights", "weights (2)", "sources (1)"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("run");
        let error = start(&of_file(), &experiment(changes), &root, &mut ()).unwrap_err();
        let error = error.to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert!(!error.contains('\n') && !root.exists(), "{error}");
    }
}

#[test]
fn a_checkpoint_of_another_order_is_named() {
    let changes = [SOURCES, WEIGHTS, BY_SUCCESS];
    let (environment, experiment) = (mixture(), experiment(&changes));
    let root = tempfile::tempdir().unwrap();
    let mut observer = Interrupt { lines_left: 7 };
    let run = AssertUnwindSafe(|| start(&environment, &experiment, root.path(), &mut observer));
    assert!(catch_unwind(run).is_err());
    let path = root.path().join("checkpoints/step-000002/state.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut state: serde_json::Value = serde_json::from_str(&text).unwrap();
    state["tasks"]["visited"].as_array_mut().unwrap().pop();
    fs::write(&path, state.to_string()).unwrap();
    let error = start(&environment, &experiment, root.path(), &mut ()).unwrap_err().to_string();
    for words in ["step-000002", "another configuration", "remove this folder"] {
        assert!(error.contains(words), "{error}");
    }
}
