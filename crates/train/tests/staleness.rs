//! Training on samples of earlier weights: `train.staleness` and `train.replay`.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use common::outcome::{Outcome, metrics, steps};
use common::{Interrupt, environment, experiment, model};
use leyden_train::{Experiment, Finish, Observer, TrainError};
use rusqlite::Connection;
use tempfile::TempDir;

const SCRIPTS: [&str; 3] = ["twice", "once", "brief"];
const TOKEN: &str = "algorithm.correction.weight=token";
const REPLAY: [&str; 2] = ["train.replay.steps=2", TOKEN];

fn start(
    experiment: &Experiment,
    root: &Path,
    observer: &mut dyn Observer,
) -> Result<Finish, TrainError> {
    leyden_train::run(experiment, &environment(&SCRIPTS), model(), root, observer)
}

/// A run without interruption.
fn whole(changes: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(start(&experiment(changes), root.path(), &mut ()).unwrap(), Finish::Done);
    root
}

/// A run that is aborted after `lines` lines and then resumed.
fn resumed(changes: &[&str], lines: usize) -> TempDir {
    let (root, experiment) = (tempfile::tempdir().unwrap(), experiment(changes));
    let mut observer = Interrupt { lines_left: lines };
    let run = catch_unwind(AssertUnwindSafe(|| start(&experiment, root.path(), &mut observer)));
    assert!(run.is_err(), "the run was not interrupted");
    assert_eq!(start(&experiment, root.path(), &mut ()).unwrap(), Finish::Done);
    root
}

/// The rows of a query of whole numbers.
fn numbers<const N: usize>(root: &Path, sql: &str) -> Vec<[u64; N]> {
    let store = Connection::open(root.join("rollouts.sqlite")).unwrap();
    let mut statement = store.prepare(sql).unwrap();
    let row = |row: &rusqlite::Row<'_>| {
        let mut values = [0; N];
        for (column, value) in values.iter_mut().enumerate() {
            *value = row.get::<_, i64>(column)? as u64;
        }
        Ok(values)
    };
    statement.query_map([], row).unwrap().map(Result::unwrap).collect()
}

/// Token ids and log-probabilities of a training step.
fn sampled(root: &Path, step: u64) -> Vec<[Vec<u8>; 2]> {
    let store = Connection::open(root.join("rollouts.sqlite")).unwrap();
    let sql = "SELECT response_ids, logprobs FROM calls WHERE step = ?1 AND phase = 'train'
               ORDER BY rollout, idx";
    let mut statement = store.prepare(sql).unwrap();
    let rows = statement.query_map([step as i64], |row| Ok([row.get(0)?, row.get(1)?])).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn by_default_nothing_is_recorded() {
    let root = whole(&["train.staleness=0", "train.replay.steps=0"]);
    Outcome::of(root.path()).assert_same(&Outcome::of(whole(&[]).path()), "switched off");
    for word in ["stale", "replay", "earlier"] {
        assert!(!metrics(root.path()).contains(word), "{word}");
    }
    let state = root.path().join("checkpoints/step-000004/state.safetensors");
    let header = String::from_utf8_lossy(&std::fs::read(state).unwrap()).into_owned();
    assert!(!header.contains("earlier."));
    assert!(numbers::<4>(root.path(), "SELECT * FROM replayed").is_empty());
}

#[test]
fn a_step_is_sampled_with_the_weights_of_its_version() {
    for staleness in [1, 2, 8] {
        let root = whole(&[&format!("train.staleness={staleness}"), TOKEN]);
        let train = "SELECT DISTINCT step, policy_version FROM calls WHERE phase = 'train'
                     ORDER BY step";
        let expected: Vec<[u64; 2]> =
            (1..=4).map(|step: u64| [step, (step - 1).saturating_sub(staleness)]).collect();
        assert_eq!(numbers::<2>(root.path(), train), expected);
        let evaluated = "SELECT DISTINCT step, policy_version FROM calls WHERE phase != 'train'
                         ORDER BY step";
        assert_eq!(numbers::<2>(root.path(), evaluated), [[0, 0], [2, 2], [4, 4]]);
        for step in steps(root.path()) {
            let behind = staleness.min(step.step - 1) as f64;
            let recorded = ["staleness_mean", "staleness_max"].map(|name| step.extra[name]);
            assert_eq!(recorded, [behind, behind], "step {}", step.step);
            assert!(!step.extra.contains_key("groups_replayed"));
        }
    }
}

/// Step 2 samples exactly what it would with weights that never change, and step 3 does not.
#[test]
fn the_sampled_tokens_are_those_of_the_earlier_weights() {
    let frozen = whole(&["train.learning_rate=0"]);
    let current = whole(&[TOKEN]);
    let stale = whole(&["train.staleness=1", TOKEN]);
    let [frozen, current, stale] = [&frozen, &current, &stale].map(|root| root.path());
    for (step, as_frozen) in [(1, true), (2, true), (3, false), (4, false)] {
        let equal = sampled(stale, step) == sampled(frozen, step);
        assert_eq!(equal, as_frozen, "step {step}");
    }
    assert_ne!(sampled(current, 2), sampled(frozen, 2));
    // The mismatch contains the update in between.
    let gaps: Vec<f64> = steps(stale).iter().map(|step| step.sampler_gap).collect();
    assert!(gaps[0] < 1e-4 && gaps[1] > 1e-3, "{gaps:?}");
    assert!(steps(current).iter().all(|step| step.sampler_gap < 1e-4));
    // Where nothing moves, staleness changes nothing but the version.
    let still = whole(&["train.staleness=2", "train.learning_rate=0", TOKEN]);
    for step in 1..=4 {
        assert_eq!(sampled(still.path(), step), sampled(frozen, step));
    }
    assert!(steps(still.path()).iter().all(|step| step.sampler_gap < 1e-4));
}

#[test]
fn groups_of_earlier_steps_are_trained_again() {
    let root = whole(&[&REPLAY[..], &["train.steps=6", "eval.every=0"]].concat());
    let drawn = numbers::<4>(root.path(), "SELECT * FROM replayed ORDER BY step, grp");
    let steps = steps(root.path());
    let counts: Vec<f64> = steps.iter().map(|step| step.extra["groups_replayed"]).collect();
    assert_eq!(counts, [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    assert_eq!(drawn.len(), 5);
    assert_eq!(steps[0].extra["staleness_max"], 0.0);
    for (step, [at, group, from, from_group]) in steps[1..].iter().zip(drawn) {
        assert_eq!((at, group), (step.step, 1), "it follows the one fresh group");
        let behind = at - from;
        assert!((1..=2).contains(&behind), "{from} in {at}");
        let known = numbers::<1>(
            root.path(),
            &format!(
                "SELECT count(*) FROM rollouts WHERE step = {from} AND phase = 'train' \
                 AND grp = {from_group}"
            ),
        );
        assert_eq!(known, [[4]]);
        // The metrics of rollouts are of the fresh ones.
        assert_eq!((step.tasks, step.rollouts), (1, 4));
        assert_eq!(step.extra["staleness_max"], behind as f64);
        let mean = step.extra["staleness_mean"];
        assert!(mean > 0.0 && mean < behind as f64, "{mean}");
        let fresh: usize =
            sampled(root.path(), at).iter().map(|[ids, _]| ids.len() / size_of::<u32>()).sum();
        assert!(step.action_tokens > fresh, "{} of {fresh}", step.action_tokens);
    }
}

/// Where nothing moves, the trainer recomputes the log-probabilities that were read back.
#[test]
fn groups_are_read_back_as_they_were_sampled() {
    let root = whole(&[&REPLAY[..], &["train.learning_rate=0"]].concat());
    let steps = steps(root.path());
    assert!(steps[1..].iter().all(|step| step.extra["groups_replayed"] == 1.0));
    for step in steps {
        assert!(step.sampler_gap < 1e-4, "step {}: {}", step.step, step.sampler_gap);
    }
}

#[test]
fn both_resume() {
    let lora = "model.lora={rank = 2, alpha = 4.0, targets = ['q', 'down']}";
    let whitened = "algorithm.advantage={name = 'whiten'}";
    let none = "algorithm.advantage={name = 'none'}";
    for changes in [
        &["train.staleness=1"][..],
        &["train.staleness=3", "train.mini_batches=2", "train.epochs=2"],
        &["train.staleness=2", lora],
        &["train.staleness=1", "model.dtype=bf16"],
        &["train.staleness=1", "rollout.engines=2", "train.replicas=2"],
        &["train.staleness=1", "algorithm.credit={name = 'monte_carlo'}", none],
        &["train.staleness=1", "algorithm.credit={name = 'learned_value'}", whitened],
        &["train.staleness=1", "algorithm.kl.coefficient=0.1"],
        &["train.replay.steps=1"],
        &["train.replay.steps=3", "rollout.tasks=3", "train.replay.share=0.6"],
        &["train.replay.steps=2", "reward.flip=0.3", "reward.per_token=0.01"],
        &["train.replay.steps=2", "rollout.refills=2", "rollout.samples=2"],
        &["train.replay.steps=2", "algorithm.credit={name = 'gigpo'}", none],
        &["train.replay.steps=2", "algorithm.credit={name = 'signals'}", "train.truncated=mask"],
        &["train.replay.steps=2", "train.staleness=1", "train.mini_batches=2"],
    ] {
        let changes = [changes, &[TOKEN]].concat();
        let expected = whole(&changes);
        // Step 3 is written, its checkpoint is not.
        let root = resumed(&changes, 7);
        let when = changes.join(" ");
        Outcome::of(root.path()).assert_same(&Outcome::of(expected.path()), &when);
        let replayed =
            |root: &Path| numbers::<4>(root, "SELECT * FROM replayed ORDER BY step, grp");
        assert_eq!(replayed(root.path()), replayed(expected.path()), "{when}");
    }
}

#[test]
fn an_interruption_after_any_line_changes_nothing() {
    for changes in [&["train.staleness=2", TOKEN][..], &REPLAY] {
        let expected = Outcome::of(whole(changes).path());
        for lines in 1..=expected.metrics.lines().count() {
            let root = resumed(changes, lines);
            Outcome::of(root.path()).assert_same(&expected, &format!("after {lines} lines"));
        }
    }
}

/// The checkpoint at the end of a run has the earlier weights that further steps need.
#[test]
fn a_finished_run_is_extended() {
    for changes in [&["train.staleness=2", TOKEN][..], &REPLAY] {
        let longer = [changes, &["train.steps=6"]].concat();
        let root = whole(changes);
        assert_eq!(start(&experiment(&longer), root.path(), &mut ()).unwrap(), Finish::Done);
        Outcome::of(root.path()).assert_same(&Outcome::of(whole(&longer).path()), "extended");
    }
}

/// Its steps begin with the weights that it starts from, not with those kept by the other run.
#[test]
fn a_run_starts_from_one_with_earlier_weights() {
    let first = whole(&["train.staleness=2", TOKEN]);
    let init = format!("train.init_from={}", first.path().display());
    let changes =
        [init.as_str(), "train.init_moments=true", "train.staleness=1", TOKEN, "train.steps=2"];
    let root = whole(&changes);
    let versions = "SELECT DISTINCT step, policy_version FROM calls WHERE phase = 'train'
                    ORDER BY step";
    assert_eq!(numbers::<2>(root.path(), versions), [[1, 0], [2, 0]]);
    assert!(steps(root.path())[0].sampler_gap < 1e-4);
}
