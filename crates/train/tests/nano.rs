//! `examples/nano.rs` and the trainer agree: same rewards, same losses.

use std::path::Path;
use std::sync::Arc;

use leyden_calc::{CalculatorAgent, Prompt};
use leyden_calcx::CalcxScorer;
use leyden_core::Task;
use leyden_lm::formats::LoadedModel;
use leyden_lm::generate::{Engine, Limits};
use leyden_lm::model::Parameters;
use leyden_lm::optim::{Optimizer, OptimizerConfig};
use leyden_lm::policy::{Policy, PolicyOptions};
use leyden_mini::MiniCalc;
use leyden_train::data::TaskSource;
use leyden_train::store::RolloutStore;
use leyden_train::trainer::Trainer;
use leyden_train::{Environment, Experiment};
use tch::{Device, Kind};

#[path = "../examples/nano.rs"]
#[allow(dead_code, reason = "its `main` is the example's")]
mod nano;

struct Stream(MiniCalc);

impl TaskSource for Stream {
    fn len(&self) -> Option<u64> {
        None
    }

    fn task(&self, index: u64) -> Task {
        self.0.train(index)
    }
}

/// Reward and loss of the first steps of `leyden run benchmarks/experiments/mini/calc.toml`.
fn of_the_trainer(model: &Path, steps: u64) -> Vec<(f64, f64)> {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks/experiments/mini/calc.toml");
    // Several engines or replicas split the batch differently, which changes rounding.
    let alone = ["rollout.engines=1", "train.replicas=1"].map(str::to_owned);
    let experiment = Experiment::read(&file, &alone, &()).unwrap();
    let LoadedModel { config, tensors, format } = LoadedModel::load(model).unwrap();
    let train = &experiment.train;
    let parameters = Parameters::new(tensors, Kind::Float, Device::Cpu, true).unwrap();
    let policy = Policy::new(config.clone(), parameters, PolicyOptions::default());
    let optimizer = OptimizerConfig {
        lr: train.learning_rate,
        beta1: train.beta1,
        beta2: train.beta2,
        weight_decay: train.weight_decay,
        ..OptimizerConfig::default()
    };
    let optimizer = Optimizer::new(policy.trained(), optimizer).unwrap();
    let limits = Limits {
        context: config.max_positions,
        cache_tokens: experiment.rollout.cache_tokens,
        prefill_tokens: train.micro_batch_tokens,
    };
    let weights = policy.inference_weights().unwrap();
    let engine = Engine::new(config, weights, Device::Cpu, limits);
    let environment = Environment {
        agent: Arc::new(CalculatorAgent::new(Prompt::Compact, 3)),
        scorer: Arc::new(CalcxScorer),
        train: Box::new(Stream(MiniCalc::new(0))),
        test: Vec::new(),
        demonstrations: None,
        provenance: serde_json::Map::new(),
    };
    let folder = tempfile::tempdir().unwrap();
    let store = RolloutStore::open(&folder.path().join("rollouts.sqlite")).unwrap();
    let mut trainer =
        Trainer::new(&experiment, &environment, format, policy, optimizer, engine, store).unwrap();
    let record = |step| trainer.step(step, &()).unwrap().0;
    (1..=steps).map(record).map(|record| (record.reward_mean, record.loss)).collect()
}

#[test]
fn the_first_five_steps_are_the_trainer_s() {
    tch::set_num_threads(1);
    let model = Path::new(nano::MODEL);
    let theirs = of_the_trainer(model, 5);
    let mut nano = nano::Nano::new(model).unwrap();
    for (step, (reward, loss)) in (1..).zip(theirs) {
        let ours = nano.step(step).unwrap();
        assert!(reward > 0.0 && loss != 0.0, "step {step} has no gradient: {reward} {loss}");
        assert_eq!(ours.reward, reward, "step {step}");
        assert!((ours.loss - loss).abs() < 1e-9, "step {step}: {} and {loss}", ours.loss);
    }
}

#[test]
fn the_example_stays_within_400_lines() {
    let lines = include_str!("../examples/nano.rs").lines().count();
    assert!(lines <= 400, "{lines} lines");
}
