//! Whole runs: the same seed gives the same bytes, regardless of interruptions.

mod common;

use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use common::outcome::{Outcome, metrics, steps};
use common::{Constant, Interrupt, Silent, environment, experiment, model};
use leyden_core::record::{EvalRecord, PartRecord, Record, StepRecord};
use leyden_lm::formats::LoadedModel;
use leyden_train::folder::RunFolder;
use leyden_train::rejection_sampling::Successes;
use leyden_train::{Environment, Experiment, Finish, Observer, TrainError};
use rusqlite::Connection;
use tempfile::TempDir;

const SCRIPTS: [&str; 3] = ["twice", "once", "brief"];

fn start(
    experiment: &Experiment,
    root: &Path,
    observer: &mut dyn Observer,
) -> Result<Finish, TrainError> {
    run_in(&environment(&SCRIPTS), experiment, root, observer)
}

fn run_in(
    environment: &Environment,
    experiment: &Experiment,
    root: &Path,
    observer: &mut dyn Observer,
) -> Result<Finish, TrainError> {
    leyden_train::run(experiment, environment, model(), root, observer)
}

/// A run without interruption.
fn uninterrupted(experiment: &Experiment) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(start(experiment, root.path(), &mut ()).unwrap(), Finish::Done);
    root
}

/// A run that is aborted after `lines` lines.
fn interrupted(experiment: &Experiment, lines: usize) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let mut observer = Interrupt { lines_left: lines };
    let run = catch_unwind(AssertUnwindSafe(|| start(experiment, root.path(), &mut observer)));
    assert!(run.is_err(), "the run was not interrupted");
    root
}

/// The latest checkpoint's folder.
fn latest(root: &Path) -> PathBuf {
    let entries = fs::read_dir(root.join("checkpoints")).unwrap();
    entries.map(|entry| entry.unwrap().path()).max().unwrap()
}

#[test]
fn a_seed_fixes_every_byte() {
    let one = Outcome::of(uninterrupted(&experiment(&[])).path());
    Outcome::of(uninterrupted(&experiment(&[])).path()).assert_same(&one, "the second time");
    let other = Outcome::of(uninterrupted(&experiment(&["seed=2"])).path());
    assert_ne!(other.metrics, one.metrics);
    let lines = one.metrics.lines().count();
    assert_eq!(lines, 4 + 2 * 3, "four steps, three evaluations in two modes");
    assert!(one.calls.iter().any(|call| call.starts_with("signals")));
}

/// The first sample of a task is that of an evaluation with one; the mean is over all.
#[test]
fn several_samples_deepen_an_evaluation() {
    let evals = |changes: &[&str]| -> Vec<EvalRecord> {
        let root = uninterrupted(&experiment(changes));
        let records = metrics(root.path());
        let records = records.lines().map(|line| serde_json::from_str(line).unwrap());
        records
            .filter_map(|r| if let Record::Eval(eval) = r { Some(*eval) } else { None })
            .collect()
    };
    let (one, four) = (evals(&["train.steps=1"]), evals(&["train.steps=1", "eval.samples=4"]));
    assert!(one.iter().all(|eval| eval.depth.is_none()));
    let (one, four) = (&one[0], &four[0]);
    assert_eq!((one.mode.as_str(), one.tasks, four.tasks), ("sampled", 3, 3));
    assert_eq!(four.rewards.len(), 12);
    let firsts: Vec<_> = four.rewards.iter().step_by(4).cloned().collect();
    assert_eq!(firsts, one.rewards);
    let all: Vec<f64> = four.rewards.iter().filter_map(|(_, reward)| *reward).collect();
    assert!((four.reward_mean - all.iter().sum::<f64>() / 12.0).abs() < 1e-12);
    let depth = four.depth.as_ref().unwrap();
    assert_eq!((depth.samples, depth.missing), (4, 0));
    assert_eq!(depth.pass_at.keys().copied().collect::<Vec<_>>(), [1, 2, 4]);
    let (total, parts) =
        (depth.error.unwrap(), (depth.error_sampling.unwrap(), depth.error_items.unwrap()));
    assert!(parts.0 > 0.0 && total.powi(2) <= parts.0.powi(2) + parts.1.powi(2) + 1e-12);
    // A greedy response is the same every time.
    let greedy = evals(&["train.steps=1", "eval.samples=4", "eval.modes=['greedy']"]);
    assert!(greedy.iter().all(|eval| eval.depth.is_none() && eval.rewards.len() == 3));
}

/// With the same seed, weights and moments, the branch takes the step that the run would take next,
/// on the tasks of its first one.
#[test]
fn a_run_starts_from_a_checkpoint_of_another() {
    let changes = ["checkpoint.keep=9", "eval.modes=['greedy']", "train.warmup=0"];
    let first = uninterrupted(&experiment(&changes));
    let from = |spec: &str, more: &[&str]| {
        let init = format!("train.init_from={}{spec}", first.path().display());
        let all = [&changes[..], &[init.as_str()], more].concat();
        let root = tempfile::tempdir().unwrap();
        start(&experiment(&all), root.path(), &mut ()).map(|_| root)
    };
    let evals = |root: &Path| -> Vec<EvalRecord> {
        let records = metrics(root);
        let records = records.lines().map(|line| serde_json::from_str(line).unwrap());
        records
            .filter_map(|r| if let Record::Eval(eval) = r { Some(*eval) } else { None })
            .collect()
    };
    let whole = evals(first.path());
    // Evaluations are after steps 0, 2 and 4.
    for (spec, place) in [("", 2), ("@4", 2), ("@2", 1)] {
        let branch = from(spec, &["train.steps=1"]).unwrap();
        assert_eq!(evals(branch.path())[0].rewards, whole[place].rewards, "{spec}");
        let provenance = fs::read_to_string(branch.path().join("provenance.json")).unwrap();
        assert!(provenance.contains("state_sha256"), "{provenance}");
    }
    let weights = |root: &Path| fs::read(latest(root).join("state.safetensors")).unwrap();
    let without = from("", &["train.steps=1"]).unwrap();
    let with = from("", &["train.steps=1", "train.init_moments=true"]).unwrap();
    assert_ne!(weights(with.path()), weights(without.path()));
    let refused = |spec: &str| from(spec, &[]).err().unwrap().to_string();
    assert!(refused("@3").contains("no checkpoint of step 3; kept are 2, 4"), "{}", refused("@3"));
    assert!(refused("/final").contains("not a run folder"), "{}", refused("/final"));
}

#[test]
fn a_finished_run_is_extended() {
    let longer = ["train.steps=6", "eval.every=2"];
    let whole = uninterrupted(&experiment(&longer));
    let root = uninterrupted(&experiment(&["eval.every=2"]));
    assert_eq!(start(&experiment(&longer), root.path(), &mut ()).unwrap(), Finish::Done);
    Outcome::of(root.path()).assert_same(&Outcome::of(whole.path()), "extended");
    let shorter = start(&experiment(&["eval.every=2"]), root.path(), &mut ());
    assert!(shorter.unwrap_err().to_string().contains("another configuration"));
    let decayed = ["train.schedule=linear", "eval.every=2"];
    let root = uninterrupted(&experiment(&decayed));
    let all = [&decayed[..], &["train.steps=6"]].concat();
    let error = start(&experiment(&all), root.path(), &mut ()).unwrap_err().to_string();
    assert!(error.contains("linear") && error.contains("train.init_from"), "{error}");
}

/// The parts of a step add up to it.
#[test]
fn a_step_by_role_and_by_turn() {
    for changes in [
        &["train.micro_batch_tokens=64"][..],
        &["train.mini_batches=2", "algorithm.entropy_coefficient=0.01"],
        &["algorithm.loss.name=gspo"],
    ] {
        let root = uninterrupted(&experiment(changes));
        for step in steps(root.path()) {
            let roles: Vec<&str> = step.by_role.keys().map(String::as_str).collect();
            if roles.len() < 2 {
                continue;
            }
            assert_eq!(roles, ["first", "second"]);
            assert_eq!(step.by_turn.keys().copied().collect::<Vec<_>>(), [0, 1]);
            let sum = |of: fn(&PartRecord) -> f64| step.by_role.values().map(of).sum::<f64>();
            assert!((sum(|part| part.loss) - step.loss).abs() < 1e-9, "{changes:?}");
            assert_eq!(sum(|part| part.tokens as f64), step.action_tokens as f64);
            let entropy = sum(|part| part.entropy * part.tokens as f64);
            assert!((entropy / step.action_tokens as f64 - step.entropy).abs() < 1e-9);
            // Here the first turn is the first role.
            assert_eq!(step.by_turn[&0], step.by_role["first"]);
        }
        assert!(steps(root.path()).iter().any(|step| step.by_role.len() == 2));
    }
}

#[test]
fn no_interval_of_checkpoints_is_one_at_the_end() {
    let root = uninterrupted(&experiment(&["checkpoint.every=0", "checkpoint.keep=4"]));
    assert_eq!(fs::read_dir(root.path().join("checkpoints")).unwrap().count(), 1);
    let name = latest(root.path()).file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.ends_with('4'), "{name}");
}

#[test]
fn the_metrics_of_a_step_are_consistent() {
    let root = uninterrupted(&experiment(&[]));
    for step in steps(root.path()) {
        assert_eq!((step.tasks, step.rollouts, step.rollouts_without_reward), (2, 8, 0));
        assert!(step.sampler_gap < 1e-4, "gap {}", step.sampler_gap);
        assert!(step.packed_tokens < step.row_tokens, "prefixes are shared");
        assert!(step.grad_norm > 0.0 && step.entropy > 1.0 && step.reward_std > 0.0);
        assert_eq!(step.reward_histogram.iter().map(|(_, count)| count).sum::<usize>(), 8);
    }
}

#[test]
fn an_interruption_after_any_line_changes_nothing() {
    let experiment = experiment(&[]);
    let whole = Outcome::of(uninterrupted(&experiment).path());
    for lines in 1..=whole.metrics.lines().count() {
        let root = interrupted(&experiment, lines);
        assert_eq!(start(&experiment, root.path(), &mut ()).unwrap(), Finish::Done);
        Outcome::of(root.path()).assert_same(&whole, &format!("after {lines} lines"));
    }
}

#[test]
fn every_kind_of_training_resumes() {
    for changes in [
        &["train.optimizer=muon", "train.schedule=cosine", "train.warmup=2"][..],
        &["model.lora.rank=2", "model.lora.alpha=4.0", "model.lora.targets=['q', 'down']"],
        &["train.epochs=2", "train.mini_batches=2", "algorithm.entropy_coefficient=0.01"],
        &["train.objective=supervised", "train.batch=3"],
        &["algorithm.kl.coefficient=0.1", "algorithm.kl.adaptive={target = 0.01, horizon = 20}"],
        &[
            "algorithm.kl={coefficient = 0.2, placement = 'reward', estimator = 'k1'}",
            "model.lora={rank = 2, alpha = 4.0, targets = ['q']}",
        ],
        &["model.dtype=bf16"],
        &["algorithm.credit={name = 'gigpo'}", "algorithm.advantage={name = 'none'}"],
        &["algorithm.credit={name = 'monte_carlo'}", "algorithm.advantage={name = 'none'}"],
        &["algorithm.credit={name = 'learned_value'}", "algorithm.advantage={name = 'whiten'}"],
        &["algorithm.credit={name = 'bilevel_gae'}", "algorithm.advantage={name = 'whiten'}"],
        &["algorithm.credit={name = 'leave_one_out'}", "algorithm.group_by=role"],
        &["algorithm.advantage={name = 'gae'}", "critic.width=8"],
        &["rollout.refills=2", "rollout.tasks=1", "rollout.samples=2"],
    ] {
        let experiment = experiment(changes);
        let whole = Outcome::of(uninterrupted(&experiment).path());
        // Step 3 is written, its checkpoint is not.
        let root = interrupted(&experiment, 7);
        assert_eq!(start(&experiment, root.path(), &mut ()).unwrap(), Finish::Done);
        Outcome::of(root.path()).assert_same(&whole, &changes.join(" "));
    }
}

/// Credit of the calls of a run's first step by rollout and call, with the number of letters of
/// their texts.
fn credits(root: &Path) -> Vec<Vec<(f64, f64)>> {
    let store = Connection::open(root.join("rollouts.sqlite")).unwrap();
    let mut statement = store
        .prepare(
            "SELECT rollout, credit, text FROM calls \
             WHERE phase = 'train' AND step = 1 ORDER BY rollout, idx",
        )
        .unwrap();
    let rows = statement.query_map([], |row| {
        let text: String = row.get(2)?;
        let letters = text.chars().filter(char::is_ascii_lowercase).count() as f64 / 10.0;
        Ok((row.get::<_, u32>(0)? as usize, (row.get(1)?, letters)))
    });
    let mut all: Vec<Vec<(f64, f64)>> = Vec::new();
    for (rollout, call) in rows.unwrap().map(Result::unwrap) {
        all.resize_with(all.len().max(rollout + 1), Vec::new);
        all[rollout].push(call);
    }
    all
}

#[test]
fn a_call_is_scored_relative_to_the_answer_before_it() {
    let changes =
        ["algorithm.credit={name = 'leave_one_out'}", "algorithm.group_by=role", "train.steps=1"];
    let root = tempfile::tempdir().unwrap();
    run_in(&environment(&["twice"]), &experiment(&changes), root.path(), &mut ()).unwrap();
    for calls in credits(root.path()) {
        // The reward counts the last text's letters; there is no answer before the first call.
        let [(first, before), (second, after)] = calls[..] else { panic!("{calls:?}") };
        assert!((first - after).abs() < 1e-12 && (second - (after - before)).abs() < 1e-12);
    }
}

/// The counterfactual is the rollout that ended before the call, so it has fewer calls.
#[test]
fn a_shaped_reward_is_compared_with_a_shaped_one() {
    let changes = [
        "algorithm.credit={name = 'leave_one_out'}",
        "algorithm.group_by=role",
        "reward.per_call=0.25",
        "train.steps=1",
    ];
    let root = tempfile::tempdir().unwrap();
    run_in(&environment(&["twice"]), &experiment(&changes), root.path(), &mut ()).unwrap();
    for calls in credits(root.path()) {
        let [(first, before), (second, after)] = calls[..] else { panic!("{calls:?}") };
        assert!((first - (after + 2.0 * 0.25)).abs() < 1e-12, "{calls:?}");
        assert!((second - (after - before + 0.25)).abs() < 1e-12, "{calls:?}");
    }
}

#[test]
fn a_call_earns_the_change_of_the_state_value() {
    let changes = [
        "algorithm.credit={name = 'monte_carlo'}",
        "algorithm.advantage={name = 'none'}",
        "train.steps=1",
        "rollout.completions=3",
    ];
    let root = tempfile::tempdir().unwrap();
    run_in(&environment(&["twice"]), &experiment(&changes), root.path(), &mut ()).unwrap();
    let all = credits(root.path());
    let rewards: Vec<f64> = all.iter().map(|calls| calls[1].1).collect();
    for (index, calls) in all.iter().enumerate() {
        // The first state is shared by the task's rollouts: the other three are its completions.
        let group: Vec<usize> =
            (index / 4 * 4..index / 4 * 4 + 4).filter(|&o| o != index).collect();
        let expected = group.iter().map(|&other| rewards[other]).sum::<f64>() / 3.0;
        assert!((calls[0].0 + calls[1].0 - (rewards[index] - expected)).abs() < 1e-12);
    }
    let step = &steps(root.path())[0];
    // Eight second calls, in separate or shared states: three completions for each.
    assert!(step.extra["completions"] > 0.0 && step.extra["completions"] <= 24.0);
    assert!(step.extra["completion_tokens"] >= step.extra["completions"]);
}

#[test]
fn a_critic_learns_the_expected_reward() {
    let changes = [
        "algorithm.credit={name = 'learned_value'}",
        "algorithm.advantage={name = 'whiten'}",
        "train.steps=12",
        "train.learning_rate=0",
        "rollout.samples=12",
        "rollout.max_tokens=30",
        "critic.learning_rate=0.03",
        "critic.epochs=10",
        "eval.every=0",
    ];
    let root = tempfile::tempdir().unwrap();
    // Two tasks with different rewards: an answer of two tokens has fewer letters than one of
    // thirty.
    run_in(&environment(&["once", "brief"]), &experiment(&changes), root.path(), &mut ()).unwrap();
    let known = |step: &StepRecord| step.extra["critic_explained_variance"];
    let all = steps(root.path());
    assert_eq!(known(&all[0]), 0.0, "it starts with 0 everywhere");
    let late = all[8..].iter().map(known).sum::<f64>() / 4.0;
    assert!(late > 0.3, "{late}");
    assert!(all[11].extra["critic_loss"] < all[0].extra["critic_loss"]);
}

/// An answer without letters has reward 0, so some groups of two have no variance.
#[test]
fn groups_without_variance_are_replaced() {
    let changes = ["rollout.refills=3", "rollout.samples=2", "train.steps=6"];
    let root = tempfile::tempdir().unwrap();
    run_in(&environment(&["brief"; 5]), &experiment(&changes), root.path(), &mut ()).unwrap();
    let mut refilled = 0;
    for step in steps(root.path()) {
        let out = step.extra.get("groups_left_out").copied().unwrap_or(0.0) as usize;
        assert_eq!(step.rollouts, 2 * step.tasks);
        assert!(step.tasks % 2 == 0 && step.tasks <= 8 && step.tasks - out <= 2);
        assert_eq!(step.groups_without_variance, 0);
        refilled += usize::from(step.tasks > 2);
    }
    assert!(refilled > 0, "every group had variance: the test is vacuous");
}

#[test]
fn own_successes_are_imitated_token_for_token() {
    let first = tempfile::tempdir().unwrap();
    run_in(&environment(&["twice"]), &experiment(&[]), first.path(), &mut ()).unwrap();
    let none = HashSet::new();
    let all = Successes::read(first.path(), 0.0, &[], &none).unwrap();
    assert_eq!(all.rollouts, 4 * 8, "eight rollouts in each of four steps");
    let second = Successes::read(first.path(), 0.0, &["second".to_owned()], &none).unwrap();
    assert!(second.calls() < all.calls() && second.calls() > 1);
    let (best, _) = credits(first.path())
        .iter()
        .map(|calls| calls[1])
        .fold((0.0, 0.0), |a, b| if b.1 > a.0 { (b.1, b.1) } else { a });
    let some = Successes::read(first.path(), best, &[], &none).unwrap();
    assert!(some.rollouts >= 1 && some.rollouts < all.rollouts);
    // Rollouts of test questions are not imitated.
    let asked = HashSet::from(["what is 0?".to_owned()]);
    let error = Successes::read(first.path(), 0.0, &[], &asked).err().unwrap().to_string();
    assert!(error.contains("not in data.test"), "{error}");
    let error = Successes::read(first.path(), 99.0, &[], &none).err().unwrap().to_string();
    assert!(error.contains("rollouts.sqlite") && error.contains("at least 99"), "{error}");
    let nowhere = Successes::read(Path::new("nowhere"), 1.0, &[], &none).err().unwrap().to_string();
    assert!(nowhere.contains("nowhere/rollouts.sqlite") && nowhere.contains("data.successes"));
    // The sampled tokens are learned: their likelihood rises.
    let imitating = Environment { demonstrations: Some(Box::new(some)), ..environment(&["twice"]) };
    let changes = ["train.objective=supervised", "train.batch=2", "train.steps=12", "eval.every=0"];
    let root = tempfile::tempdir().unwrap();
    run_in(&imitating, &experiment(&changes), root.path(), &mut ()).unwrap();
    let steps = steps(root.path());
    assert!(steps[11].loss < 0.8 * steps[0].loss, "{} {}", steps[0].loss, steps[11].loss);
}

#[test]
fn an_incomplete_last_line_is_regenerated() {
    let experiment = experiment(&[]);
    let whole = Outcome::of(uninterrupted(&experiment).path());
    let root = interrupted(&experiment, 7);
    for name in ["metrics.jsonl", "timings.jsonl"] {
        let path = root.path().join(name);
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"kind\":\"step\",\"sch");
        fs::write(path, text).unwrap();
    }
    start(&experiment, root.path(), &mut ()).unwrap();
    Outcome::of(root.path()).assert_same(&whole, "after an incomplete line");
    let timings = fs::read_to_string(root.path().join("timings.jsonl")).unwrap();
    let phases: Vec<serde_json::Value> =
        timings.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(phases.len(), whole.metrics.lines().count(), "one timing for each line");
}

#[test]
fn an_observer_receives_the_kept_records() {
    #[derive(Default)]
    struct Lines {
        kept: usize,
        new: usize,
    }
    impl Observer for Lines {
        fn record(&mut self, _: &Record) {
            self.new += 1;
        }
        fn resumed(&mut self, kept: &[Record]) {
            self.kept = kept.len();
        }
    }
    let experiment = experiment(&[]);
    let root = interrupted(&experiment, 7);
    let mut seen = Lines::default();
    start(&experiment, root.path(), &mut seen).unwrap();
    // The checkpoint of step 2: three evaluation lines less one pair, two steps.
    assert_eq!((seen.kept, seen.new), (6, 4));
}

#[test]
fn a_finished_run_is_left_alone() {
    let experiment = experiment(&["train.steps=1"]);
    let root = uninterrupted(&experiment);
    let before = Outcome::of(root.path());
    let mut nobody = Interrupt { lines_left: 1 };
    assert_eq!(start(&experiment, root.path(), &mut nobody).unwrap(), Finish::AlreadyDone);
    Outcome::of(root.path()).assert_same(&before, "after a second start");
    assert!(LoadedModel::load(&root.path().join("final")).is_ok());
}

#[test]
fn another_configuration_in_the_same_folder_is_rejected() {
    let root = uninterrupted(&experiment(&["train.steps=1"]));
    for (change, old, new) in [
        ("train.learning_rate=0.5", "learning_rate = 0.01", "learning_rate = 0.5"),
        ("rollout.samples=3", "samples = 4", "samples = 3"),
    ] {
        let other = experiment(&["train.steps=1", change]);
        let error = start(&other, root.path(), &mut ()).unwrap_err().to_string();
        for word in [root.path().to_str().unwrap(), old, new] {
            assert!(error.contains(word), "{error}");
        }
    }
}

#[test]
fn a_folder_is_locked_by_its_process() {
    let experiment = experiment(&["train.steps=1"]);
    let root = tempfile::tempdir().unwrap();
    let held = RunFolder::open(root.path(), &experiment).unwrap();
    let error = start(&experiment, root.path(), &mut ()).unwrap_err().to_string();
    let holder = format!("process {} on ", std::process::id());
    for word in [root.path().to_str().unwrap(), "another run is using this folder", &holder] {
        assert!(error.contains(word), "{error}");
    }
    drop(held);
    assert_eq!(start(&experiment, root.path(), &mut ()).unwrap(), Finish::Done);
}

#[test]
fn a_damaged_checkpoint_is_named_and_can_be_removed() {
    let experiment = experiment(&["checkpoint.every=1", "checkpoint.keep=3"]);
    let whole = Outcome::of(uninterrupted(&experiment).path());
    for (file, damage) in [
        (
            "state.safetensors",
            &(|bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec()) as &dyn Fn(Vec<u8>) -> Vec<u8>,
        ),
        ("state.safetensors", &|_| Vec::new()),
        ("state.json", &|_| b"{\"schema\": 1, \"step\"".to_vec()),
        ("state.json", &|bytes| {
            String::from_utf8(bytes).unwrap().replace(": 3", ": 2").into_bytes()
        }),
    ] {
        // In the evaluation after step 4, the last checkpoint is that of step 3.
        let root = interrupted(&experiment, 9);
        let checkpoint = latest(root.path());
        let path = checkpoint.join(file);
        fs::write(&path, damage(fs::read(&path).unwrap())).unwrap();
        let error = start(&experiment, root.path(), &mut ()).unwrap_err().to_string();
        for words in ["step-000003", "remove this folder"] {
            assert!(error.contains(words), "{error}");
        }
        assert!(!error.contains('\n'), "{error}");
        fs::remove_dir_all(checkpoint).unwrap();
        assert_eq!(start(&experiment, root.path(), &mut ()).unwrap(), Finish::Done);
        Outcome::of(root.path()).assert_same(&whole, file);
    }
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_earlier_one() {
    let experiment = experiment(&[]);
    let whole = Outcome::of(uninterrupted(&experiment).path());
    let root = interrupted(&experiment, 7);
    // A file at the path of the next checkpoint's temporary folder.
    let obstacle = root.path().join("checkpoints/step-000004.tmp");
    fs::write(&obstacle, "").unwrap();
    let error = start(&experiment, root.path(), &mut ()).unwrap_err().to_string();
    for words in ["step 4", "checkpoint was not written", "previous checkpoint"] {
        assert!(error.contains(words), "{error}");
    }
    assert!(latest(root.path()).starts_with(&obstacle), "the obstacle still exists");
    fs::remove_file(obstacle).unwrap();
    assert!(latest(root.path()).ends_with("step-000002"));
    assert_eq!(start(&experiment, root.path(), &mut ()).unwrap(), Finish::Done);
    Outcome::of(root.path()).assert_same(&whole, "after a failed checkpoint");
}

#[test]
fn only_the_latest_checkpoints_are_kept() {
    let root = uninterrupted(&experiment(&["checkpoint.every=1", "checkpoint.keep=2"]));
    let mut names: Vec<String> = fs::read_dir(root.path().join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["step-000003", "step-000004"]);
}

/// Regression: a run stopped at a checkpoint trained one more step at each restart, and was marked
/// as finished at its last step.
#[test]
fn without_variance_a_run_stops_and_stays_stopped() {
    let experiment = experiment(&["train.patience_without_variance=2"]);
    let environment =
        Environment { scorer: std::sync::Arc::new(Constant), ..environment(&SCRIPTS) };
    let root = tempfile::tempdir().unwrap();
    let error = run_in(&environment, &experiment, root.path(), &mut ()).unwrap_err().to_string();
    for words in ["step 2", "2 steps", "same reward", "rollouts.sqlite"] {
        assert!(error.contains(words), "{error}");
    }
    let before = metrics(root.path());
    assert_eq!(steps(root.path()).len(), 2);
    assert!(steps(root.path()).iter().all(|step| step.groups_without_variance == 2));
    let again = run_in(&environment, &experiment, root.path(), &mut ()).unwrap_err().to_string();
    assert_eq!((again, metrics(root.path())), (error, before));
}

#[test]
fn rollouts_without_reward_are_counted_and_excluded() {
    let root = tempfile::tempdir().unwrap();
    let environment = environment(&["once", "fails"]);
    let experiment = experiment(&["train.steps=1"]);
    run_in(&environment, &experiment, root.path(), &mut ()).unwrap();
    let step = &steps(root.path())[0];
    assert_eq!((step.rollouts, step.rollouts_without_reward, step.calls), (8, 4, 8));
    assert_eq!(step.reward_histogram.iter().map(|(_, count)| count).sum::<usize>(), 4);
    let store = Connection::open(root.path().join("rollouts.sqlite")).unwrap();
    let count = |condition: &str| -> i64 {
        let from = "calls JOIN rollouts ON calls.step = rollouts.step AND \
            calls.phase = rollouts.phase AND calls.rollout = rollouts.id";
        let sql =
            format!("SELECT count(*) FROM {from} WHERE rollouts.phase = 'train' AND {condition}");
        store.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count("missing IS NULL AND reward IS NOT NULL AND advantage IS NOT NULL"), 4);
    assert_eq!(count("missing LIKE '%tool has gone%' AND reward IS NULL AND advantage IS NULL"), 4);
}

#[test]
fn a_step_without_any_reward_says_why() {
    let root = tempfile::tempdir().unwrap();
    let environment = environment(&["long", "long"]);
    let error =
        run_in(&environment, &experiment(&[]), root.path(), &mut ()).unwrap_err().to_string();
    for words in ["step 1", "none of the 8 rollouts", "task-", "tokens", "160"] {
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn weights_that_diverge_stop_the_run_at_their_step() {
    let root = tempfile::tempdir().unwrap();
    let experiment = experiment(&["train.learning_rate=1e38", "eval.every=0"]);
    let error = start(&experiment, root.path(), &mut ()).unwrap_err().to_string();
    for words in ["step 2", "logits are not finite", "train.learning_rate", "checkpoint"] {
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn invalid_setups_are_rejected_before_generation() {
    let without = Environment { demonstrations: None, ..environment(&SCRIPTS) };
    for (environment, change, words) in [
        (environment(&[]), "train.steps=1", &["data.train", "nothing"][..]),
        (without, "train.objective=supervised", &["data.train", "no demonstrations"]),
        (
            environment(&SCRIPTS),
            "train.roles=['third']",
            &["train.roles", "third", "first, second"],
        ),
        (
            Environment { agent: std::sync::Arc::new(Silent), ..environment(&SCRIPTS) },
            "algorithm.credit.name=leave_one_out",
            &["algorithm.credit.name", "silent", "would have answered"],
        ),
        (environment(&SCRIPTS), "model.device=abacus", &["abacus"]),
        (environment(&SCRIPTS), "model.dtype=f7", &["f7"]),
    ] {
        let root = tempfile::tempdir().unwrap();
        let run = run_in(&environment, &experiment(&[change]), root.path(), &mut ());
        let error = run.unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert_eq!(metrics(root.path()), "");
    }
}

#[test]
fn demonstrations_are_learned() {
    let changes = [
        "train.objective=supervised",
        "train.batch=4",
        "train.steps=30",
        "train.learning_rate=0.02",
        "eval.every=0",
    ];
    let root = uninterrupted(&experiment(&changes));
    let steps = steps(root.path());
    let (first, last) = (steps[0].loss, steps[29].loss);
    assert!((first - 5.6).abs() < 0.3, "a random model is as good as guessing: {first}");
    assert!(last < first / 2.0, "{first} → {last}");
}

#[test]
fn an_evaluation_without_rewards_does_not_print_zero() {
    let record = |without_reward| EvalRecord {
        mode: "greedy".to_owned(),
        tasks: 3,
        without_reward,
        ..EvalRecord::default()
    };
    let none = leyden_train::run::sentence(&record(3));
    assert!(none.contains("no reward on 3") && !none.contains("0.000"), "{none}");
    let some = leyden_train::run::sentence(&record(1));
    assert!(some.contains("reward 0.000") && some.contains("1 without reward"), "{some}");
}
