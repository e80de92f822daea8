//! Credit rules measured on scripted agents of a random model.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{environment, experiment, model};
use leyden_core::{Agent, AgentError, AgentOutput, Episode, Task, async_trait};
use leyden_train::checkpoint::Origin;
use leyden_train::credit_truth::{CreditSample, MeasuredCall, Rule, Settings, measure};
use leyden_train::{Environment, TrainError, run};

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| Rule::parse(text).unwrap()).collect()
}

fn settings(texts: &[&str]) -> Settings {
    Settings {
        tasks: 2,
        group: 4,
        completions: 3,
        states: 0,
        critic_steps: 0,
        rules: rules(texts),
        seed: 1,
    }
}

fn measured(
    environment: &Environment,
    changes: &[&str],
    origin: Option<&Origin>,
    settings: &Settings,
) -> Result<CreditSample, TrainError> {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("rollouts.sqlite");
    measure(&experiment(changes), environment, &model(), origin, settings, &store)
}

fn sample(scripts: &[&str], changes: &[&str], settings: &Settings) -> CreditSample {
    measured(&environment(scripts), changes, None, settings).unwrap()
}

/// The credit of a rule, by its place in the settings.
fn credit(sample: &CreditSample, rule: usize) -> &[f64] {
    sample.rules[rule].credit.as_deref().unwrap()
}

#[test]
fn the_true_advantages_of_a_rollout_add_up_to_its_reward_over_the_expected_one() {
    let sample = sample(&["twice", "twice"], &[], &settings(&["identical"]));
    assert_eq!((sample.calls.len(), sample.counts.calls, sample.counts.rollouts), (16, 16, 8));
    // A first state per task, and at most a second one per rollout.
    assert!((3..=10).contains(&sample.counts.states), "{:?}", sample.counts);
    assert_eq!(sample.counts.completions, 3 * sample.counts.states);
    assert_eq!(sample.counts.completions_without_reward, 0);
    for task in 0..2 {
        let calls: Vec<_> = sample.calls.iter().filter(|call| call.task == task).collect();
        assert_eq!(calls.len(), 8);
        let expected: Vec<f64> = calls
            .chunks(2)
            .map(|own| {
                assert_eq!((own[0].position, own[1].position, own[0].calls), (0, 1, 2));
                assert_eq!((own[0].role.as_str(), own[1].role.as_str()), ("first", "second"));
                assert!(own[0].noise >= 0.0 && own[1].noise >= 0.0);
                own[0].reward - own[0].truth - own[1].truth
            })
            .collect();
        // The value of the first state, which the rollouts of a task share.
        assert!(expected.iter().all(|value| (value - expected[0]).abs() < 1e-9), "{expected:?}");
        assert!(expected[0] > -1e-9, "{expected:?}");
    }
    assert!(sample.calls.iter().any(|call| call.truth != 0.0));
}

#[test]
fn credit_is_relative_to_its_group_and_not_divided() {
    let texts = ["identical", "last_call", "monte_carlo", "leave_one_out", "gae"];
    let sample = sample(&["twice", "twice"], &[], &settings(&texts));
    let mean = |task: usize| {
        let own = sample.calls.iter().filter(|call| call.task == task);
        own.map(|call| call.reward).sum::<f64>() / 8.0
    };
    for (index, call) in sample.calls.iter().enumerate() {
        // All rollouts have two calls, so the mean over calls is that over rollouts.
        let relative = call.reward - mean(call.task);
        assert!((credit(&sample, 0)[index] - relative).abs() < 1e-9);
        // Earlier calls are left out.
        let last = if call.position == 1 { relative } else { 0.0 };
        assert!((credit(&sample, 1)[index] - last).abs() < 1e-9);
    }
    assert!(credit(&sample, 2).iter().any(|credit| *credit != 0.0));
    assert!(credit(&sample, 3).iter().any(|credit| *credit != 0.0));
    assert_eq!(sample.rules[4].credit, Err("no critic".to_owned()));
}

#[test]
fn equal_seeds_give_equal_samples_and_the_rules_do_not_matter() {
    let one = sample(&["twice", "once"], &[], &settings(&["identical"]));
    let two = sample(&["twice", "once"], &[], &settings(&["monte_carlo", "identical"]));
    assert_eq!(one.calls, two.calls);
    assert_eq!(credit(&one, 0), credit(&two, 1));
    let other = Settings { seed: 2, ..settings(&["identical"]) };
    assert_ne!(sample(&["twice", "once"], &[], &other).calls, one.calls);
}

#[test]
fn a_limit_measures_some_of_the_calls() {
    let all = sample(&["twice", "twice"], &[], &settings(&["identical"]));
    let limited = Settings { states: 5, ..settings(&["identical"]) };
    let some = sample(&["twice", "twice"], &[], &limited);
    assert_eq!((some.calls.len(), some.counts.calls), (5, 16));
    assert!(some.counts.states < all.counts.states);
    for (call, credit_of) in some.calls.iter().zip(credit(&some, 0)) {
        let place =
            |other: &MeasuredCall| (other.rollout, other.position) == (call.rollout, call.position);
        // Which calls are measured does not change the credit.
        let index = all.calls.iter().position(place).unwrap();
        assert_eq!(credit(&all, 0)[index], *credit_of);
    }
}

#[test]
fn a_critic_is_that_of_the_checkpoint_or_fitted() {
    let changes = [
        "algorithm.credit={name = 'learned_value'}",
        "algorithm.advantage={name = 'whiten'}",
        "train.steps=2",
    ];
    let environment = environment(&["twice", "once"]);
    let root = tempfile::tempdir().unwrap();
    run(&experiment(&changes), &environment, model(), root.path(), &mut ()).unwrap();
    let origin = Origin::find(root.path().to_str().unwrap()).unwrap();
    assert_eq!(origin.step, 2);
    let mut settings = settings(&["learned_value", "bilevel_gae", "identical"]);
    let critics = |sample: &CreditSample| -> Vec<Option<&'static str>> {
        sample.rules.iter().map(|rule| rule.critic).collect()
    };
    let from_run = measured(&environment, &changes, Some(&origin), &settings).unwrap();
    // A critic of calls has no values of the other tokens.
    assert_eq!(critics(&from_run), [Some("of the checkpoint"), None, None]);
    assert_eq!(from_run.rules[1].credit, Err("no critic".to_owned()));
    settings.critic_steps = 2;
    let fitted = measured(&environment, &changes, Some(&origin), &settings).unwrap();
    assert_eq!(critics(&fitted), [Some("of the checkpoint"), Some("fitted"), None]);
    assert_eq!(fitted.calls, from_run.calls);
    assert_eq!(credit(&fitted, 0), credit(&from_run, 0));
    let start = measured(&environment, &changes, None, &settings).unwrap();
    assert_eq!(critics(&start), [Some("fitted"), Some("fitted"), None]);
    assert_ne!(start.calls, from_run.calls, "another policy");
}

#[test]
fn what_cannot_be_measured_is_refused_with_a_reason() {
    let refused = |scripts: &[&str], changes: &[&str], settings: &Settings| {
        measured(&environment(scripts), changes, None, settings).unwrap_err().to_string()
    };
    let usual = || settings(&["identical"]);
    for (settings, part) in [
        (Settings { tasks: 0, ..usual() }, "at least 1"),
        (Settings { group: 1, ..usual() }, "2 or more rollouts"),
        (Settings { completions: 1, ..usual() }, "2 or more completions"),
        (settings(&[]), "no rule to measure"),
        (settings(&["identical", "identical"]), "named twice"),
    ] {
        let error = refused(&["twice"], &[], &settings);
        assert!(error.contains(part), "{error}");
    }
    let error = refused(&["twice"], &["train.objective=supervised"], &usual());
    assert!(error.contains("train.objective is supervised"), "{error}");
    let error = refused(&["unscorable"], &[], &usual());
    assert!(error.contains("its gold is empty"), "{error}");
}

#[test]
fn an_agent_without_drafts_has_no_leave_one_out() {
    let mut undrafted = environment(&["twice"]);
    undrafted.agent = Arc::new(Undrafted);
    let settings = settings(&["leave_one_out", "identical"]);
    let sample = measured(&undrafted, &[], None, &settings).unwrap();
    let error = sample.rules[0].credit.as_ref().unwrap_err();
    assert!(error.contains("no answers before a call"), "{error}");
    assert!(sample.rules[1].credit.is_ok());
}

/// [`common::Scripted`] that does not declare its drafts.
struct Undrafted;

#[async_trait]
impl Agent for Undrafted {
    fn name(&self) -> &str {
        "undrafted"
    }

    fn roles(&self) -> &[&str] {
        &["first", "second"]
    }

    async fn run(&self, task: &Task, episode: &Episode<'_>) -> Result<AgentOutput, AgentError> {
        common::Scripted.run(task, episode).await
    }
}

#[test]
fn the_rollouts_are_written_to_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("rollouts.sqlite");
    let settings = settings(&["identical"]);
    let environment = environment(&["twice"]);
    measure(&experiment(&[]), &environment, &model(), None, &settings, &store).unwrap();
    assert_eq!(count(&store, "rollouts"), 8);
    assert_eq!(count(&store, "calls"), 16);
}

fn count(store: &Path, table: &str) -> u32 {
    let store = rusqlite::Connection::open(store).unwrap();
    store.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}
