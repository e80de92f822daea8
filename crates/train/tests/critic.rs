//! The critic: a trunk of its own, the warm-up, checkpoints.

mod common;

use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use common::outcome::Outcome;
use common::{Interrupt, environment, experiment, largest, model, parts, train, with_trainer};
use leyden_core::{Call, FinishReason, Outcome as Ending, Rollout};
use leyden_rl::config::AlgorithmConfig;
use leyden_train::batch::{Batch, Selection};
use leyden_train::checkpoint::{self, Origin};
use leyden_train::config::{Layout, Truncated};
use leyden_train::trainer::Trainer;
use leyden_train::{Experiment, Finish, Observer, TrainError};
use tch::Tensor;
use tempfile::TempDir;

const GAE: &str = "algorithm.advantage={name = 'gae'}";
const OWN: [&str; 3] = [GAE, "critic.trunk=own", "critic.trunk_learning_rate=0.001"];

fn policy_of(trainer: &Trainer<'_>) -> Tensor {
    trainer.policy.trained().flat().detach().copy()
}

fn head_of(trainer: &Trainer<'_>) -> Tensor {
    trainer.critic.as_ref().unwrap().head.parameters().flat().detach().copy()
}

fn trunk_of(trainer: &Trainer<'_>) -> Option<Tensor> {
    let trunk = trainer.critic.as_ref().unwrap().trunk.as_ref();
    trunk.map(|trunk| trunk.model.trained().flat().detach().copy())
}

/// Four rollouts of one call, two of them with reward 1.
fn rollouts() -> Vec<Rollout> {
    let call = |id: u32| Call {
        agent_role: "first".to_owned(),
        prompt_ids: vec![10 + id, 20 + id, 30 + id],
        response_ids: vec![40 + id, 50 + id],
        logprobs: vec![-1.0; 2],
        text: String::new(),
        finish: FinishReason::Stop,
        policy_version: 0,
        constrained: false,
    };
    let rollout = |id: u32| Rollout {
        id: id as usize,
        task_id: "task-0".to_owned(),
        group: 0,
        calls: vec![call(id)],
        signals: Vec::new(),
        process_rewards: Vec::new(),
        answer: None,
        outcome: Ending::Reward(f64::from(id % 2)),
    };
    (0..4).map(rollout).collect()
}

fn batch_of(algorithm: &AlgorithmConfig) -> Batch {
    let left_out = HashSet::new();
    let selection = Selection {
        roles: &[],
        max_prompt_tokens: 100,
        credit: &algorithm.credit,
        truncated: Truncated::Train,
        left_out: &left_out,
        layout: Layout::Forest,
    };
    Batch::unassigned(&rollouts(), &selection)
}

#[test]
fn values_of_a_fixed_batch_are_learned() {
    for changes in [
        &[][..],
        &["critic.trunk=own", "critic.trunk_learning_rate=0.0001"],
        // The same in packs of one row and with recomputed activations.
        &[
            "critic.trunk=own",
            "critic.trunk_learning_rate=0.0001",
            "train.micro_batch_tokens=1",
            "train.activation_checkpointing=true",
        ],
    ] {
        let all = [&[GAE, "critic.learning_rate=0.01"], changes].concat();
        with_trainer(&all, |trainer| {
            let algorithm = &trainer.experiment.algorithm;
            let (policy, trunk) = (policy_of(trainer), trunk_of(trainer));
            let mut batch = batch_of(algorithm);
            let mut known = Vec::new();
            for _ in 0..40 {
                let critic = trainer.critic.as_mut().unwrap();
                let values = critic.values(&trainer.policy, &batch).unwrap();
                batch.set_values(&values);
                batch.assign(algorithm, None, 1).unwrap();
                let figures = critic.fit(&trainer.policy, &batch, &values, 1).unwrap();
                assert!(figures.grad_norm > 0.0);
                known.push(figures.explained_variance);
            }
            assert_eq!(known[0], 0.0, "it starts with 0 everywhere");
            assert!(known[39] > 0.9 && known[39] > known[1], "{changes:?}: {known:?}");
            assert!(policy_of(trainer).equal(&policy), "{changes:?}");
            assert_eq!(trunk.is_some(), !changes.is_empty());
            if let (Some(before), Some(after)) = (trunk, trunk_of(trainer)) {
                assert!(before.equal(&policy), "it starts as a copy");
                assert!(largest(&(after - before)) > 1e-4, "it is trained");
            }
        });
    }
}

/// While neither changes, a trunk of its own is the policy.
#[test]
fn a_trunk_that_does_not_learn_gives_the_values_of_a_shared_one() {
    let still = [GAE, "train.learning_rate=0.0", "train.grad_clip=0.0"];
    let shared = train(3, &still).records;
    let own = ["critic.trunk=own", "critic.trunk_learning_rate=0.0"];
    let own = train(3, &[&still[..], &own].concat()).records;
    for (shared, own) in shared.iter().zip(&own) {
        assert_eq!(shared.reward_histogram, own.reward_histogram);
        for name in ["critic_loss", "critic_explained_variance"] {
            let (shared, own) = (shared.extra[name], own.extra[name]);
            assert!((shared - own).abs() < 1e-5, "{name}: {shared} and {own}");
        }
        assert!(own.extra["critic_grad_norm"] > 0.0);
        assert!(!shared.extra.contains_key("critic_grad_norm"), "an older run has other lines");
    }
    let explicit = [&still[..], &["critic.trunk=shared", "critic.warmup=0"]].concat();
    assert_eq!(train(3, &explicit).records, shared);
}

#[test]
fn the_policy_is_not_updated_during_the_warm_up() {
    let (initial, ..) = parts(&model(), 0.0);
    let initial = initial.trained().flat().detach();
    for more in [&[][..], &["critic.trunk=own"], &["train.replicas=2", "model.threads=2"]] {
        let plain = train(1, &[&[GAE], more].concat()).records.remove(0);
        let changes = [&[GAE, "critic.warmup=2"], more].concat();
        let warm = train(2, &changes);
        assert_eq!(warm.updates, 0);
        assert!(warm.weights.equal(&initial), "{more:?}");
        for record in &warm.records {
            assert_eq!((record.loss, record.grad_norm, record.learning_rate), (0.0, 0.0, 0.0));
            assert_eq!(record.extra["critic_warmup"], 1.0);
            assert!(record.extra["critic_grad_norm"] > 0.0);
        }
        // The rest is measured as in any other step.
        let first = &warm.records[0];
        assert_eq!(first.reward_histogram, plain.reward_histogram);
        assert_eq!(first.action_tokens, plain.action_tokens);
        assert_eq!(first.extra["critic_loss"], plain.extra["critic_loss"]);
        assert!((first.entropy - plain.entropy).abs() < 1e-5);
        assert!(first.packed_tokens > 0 && first.sampler_gap < 1e-4);
        assert_eq!(first.by_role.len(), plain.by_role.len());
        let after = train(3, &changes);
        assert_eq!(after.updates, 1);
        assert!(!after.weights.equal(&initial));
        assert!(!after.records[2].extra.contains_key("critic_warmup"));
        assert!(after.records[2].grad_norm > 0.0);
    }
}

#[test]
fn the_learning_rate_of_the_policy_begins_after_the_warm_up() {
    for (schedule, rates) in [
        (&["train.schedule=linear"][..], [0.0, 0.0, 0.01, 0.005]),
        (&["train.warmup=2"], [0.0, 0.0, 0.005, 0.01]),
    ] {
        let records = train(4, &[&[GAE, "critic.warmup=2"], schedule].concat()).records;
        for (record, rate) in records.iter().zip(rates) {
            assert!((record.learning_rate - rate).abs() < 1e-12, "{schedule:?}: {record:?}");
        }
    }
}

#[test]
fn an_adaptive_kl_factor_waits_for_the_first_update() {
    let kl = "algorithm.kl={coefficient = 0.1, adaptive = {target = 0.5, horizon = 20}}";
    let records = train(4, &[GAE, kl, "critic.warmup=2"]).records;
    let factors: Vec<f64> = records.iter().map(|r| r.extra["kl_coefficient"]).collect();
    assert_eq!(factors[..3], [0.1; 3]);
    assert!(factors[3] < 0.1, "{factors:?}");
}

fn start(
    experiment: &Experiment,
    root: &Path,
    observer: &mut dyn Observer,
) -> Result<Finish, TrainError> {
    leyden_train::run(experiment, &environment(&["twice", "once"]), model(), root, observer)
}

fn uninterrupted(changes: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(start(&experiment(changes), root.path(), &mut ()).unwrap(), Finish::Done);
    root
}

/// The bytes of a checkpoint: weights and moments of policy, head and trunk.
fn state(root: &Path, step: u64) -> Vec<u8> {
    let folder = root.join(format!("checkpoints/step-{step:06}"));
    fs::read(folder.join("state.safetensors")).unwrap()
}

/// A tensor of the checkpoint of `step`.
fn saved(root: &Path, step: u64, name: &str) -> Option<Tensor> {
    let folder = root.join(format!("checkpoints/step-{step:06}"));
    let saved = checkpoint::read(&folder, step).unwrap();
    saved.tensors.into_iter().find(|(found, _)| found == name).map(|(_, tensor)| tensor)
}

#[test]
fn a_resumed_critic_equals_an_uninterrupted_one() {
    let lora = "model.lora={rank = 2, alpha = 4.0, targets = ['q', 'down']}";
    for more in [&[][..], &["critic.warmup=3"], &[lora, "critic.warmup=1"], &["model.dtype=bf16"]] {
        let changes = [&OWN[..], more].concat();
        let whole = uninterrupted(&changes);
        let root = tempfile::tempdir().unwrap();
        // Step 3 is written, its checkpoint is not.
        let mut observer = Interrupt { lines_left: 7 };
        let run = catch_unwind(AssertUnwindSafe(|| {
            start(&experiment(&changes), root.path(), &mut observer)
        }));
        assert!(run.is_err(), "the run was not interrupted");
        assert_eq!(start(&experiment(&changes), root.path(), &mut ()).unwrap(), Finish::Done);
        Outcome::of(root.path()).assert_same(&Outcome::of(whole.path()), &changes.join(" "));
        assert!(state(root.path(), 4) == state(whole.path(), 4), "{more:?}: another state");
        let size = |name: &str| saved(whole.path(), 4, name).unwrap().size();
        assert_eq!(size("critic.trunk.parameters"), size("parameters"), "{more:?}");
        assert_eq!(size("critic.trunk.exp_avg_sq"), size("exp_avg_sq"), "{more:?}");
    }
}

#[test]
fn a_critic_starts_from_the_checkpoint_of_another_run() {
    let short = ["train.steps=2", "eval.every=0"];
    let run = |changes: &[&str]| uninterrupted(&[&short[..], changes].concat());
    let (without, shared, own) = (run(&[]), run(&[GAE]), run(&OWN));
    assert!(saved(shared.path(), 2, "critic.trunk.parameters").is_none());
    let initialise = |root: &TempDir, moments: bool, trainer: &mut Trainer<'_>| {
        let origin = Origin::find(root.path().to_str().unwrap()).unwrap();
        checkpoint::initialise(&origin, moments, trainer)
    };
    let of = |root: &TempDir, name: &str| saved(root.path(), 2, name).unwrap();
    for (root, has_critic) in [(&without, false), (&shared, true)] {
        with_trainer(&OWN, |trainer| {
            let fresh = head_of(trainer);
            initialise(root, false, trainer).unwrap();
            let weights = of(root, "parameters");
            assert!(policy_of(trainer).equal(&weights));
            assert!(trunk_of(trainer).unwrap().equal(&weights), "a copy of the policy");
            let head = if has_critic { of(root, "critic.parameters") } else { fresh };
            assert!(head_of(trainer).equal(&head));
            let error = initialise(root, true, trainer).unwrap_err().to_string();
            for words in ["train.init_from", "critic.trunk = \"own\"", "train.init_moments"] {
                assert!(error.contains(words), "{error}");
            }
        });
    }
    for moments in [false, true] {
        with_trainer(&OWN, |trainer| {
            initialise(&own, moments, trainer).unwrap();
            let trunk = trunk_of(trainer).unwrap();
            assert!(trunk.equal(&of(&own, "critic.trunk.parameters")));
            assert!(!trunk.equal(&policy_of(trainer)));
            assert!(head_of(trainer).equal(&of(&own, "critic.parameters")));
            let optimizer = &trainer.critic.as_ref().unwrap().trunk.as_ref().unwrap().optimizer;
            assert_eq!(optimizer.steps(), if moments { 8 } else { 0 }, "four passes in each step");
        });
    }
    with_trainer(&[GAE], |trainer| {
        let fresh = head_of(trainer);
        initialise(&own, false, trainer).unwrap();
        assert!(policy_of(trainer).equal(&of(&own, "parameters")));
        assert!(head_of(trainer).equal(&fresh), "it was fitted to another trunk");
        let error = initialise(&own, true, trainer).unwrap_err().to_string();
        assert!(error.contains("critic.trunk = \"shared\""), "{error}");
        initialise(&shared, true, trainer).unwrap();
        assert!(head_of(trainer).equal(&of(&shared, "critic.parameters")));
    });
}

#[test]
fn invalid_keys_are_refused() {
    let parse = |changes: &[&str]| {
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        Experiment::parse(&experiment(&[]).to_toml(), Path::new("x.toml"), &changes, &())
    };
    for (changes, words) in [
        (&["critic.trunk=own"][..], ["critic.trunk:", "no critic; use algorithm.advantage gae"]),
        (&["critic.warmup=1"], ["critic.warmup:", "no critic; use algorithm.advantage gae"]),
        (&[GAE, "critic.warmup=5"], ["critic.warmup:", "at most train.steps (4)"]),
        (&[GAE, "critic.trunk_learning_rate=-1"], ["critic.trunk_learning_rate", "negative"]),
        (&[GAE, "critic.trunk=both"], ["`both`", "`own`"]),
    ] {
        let error = parse(changes).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    assert!(parse(&[GAE, "critic.warmup=4", "critic.trunk=own"]).unwrap().has_own_trunk());
    // Supervised training ignores the keys of its algorithm.
    let supervised = [GAE, "train.objective=supervised", "critic.trunk=own", "critic.warmup=9"];
    let supervised = parse(&supervised).unwrap();
    assert_eq!((supervised.has_own_trunk(), supervised.critic_warmup()), (false, 0));
}

#[test]
fn a_critic_that_diverges_stops_the_run() {
    let root = tempfile::tempdir().unwrap();
    let changes = experiment(&[GAE, "critic.learning_rate=1e38", "eval.every=0"]);
    let error = start(&changes, root.path(), &mut ()).unwrap_err().to_string();
    for words in ["step 1", "critic's gradient norm", "critic.learning_rate"] {
        assert!(error.contains(words), "{error}");
    }
}
