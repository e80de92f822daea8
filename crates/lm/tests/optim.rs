//! AdamW against its formula, and checkpointed state.

mod common;

use common::{number, relative, rollouts, tiny};
use leyden_lm::model::{LlamaConfig, Parameters};
use leyden_lm::optim::{MuonConfig, Optimizer, OptimizerConfig, clip_grad_norm};
use leyden_lm::policy::forest::pack;
use leyden_lm::policy::{Cotangent, Policy, PolicyOptions};
use tch::{Device, Kind, Tensor, no_grad};

fn two_tensors(kind: Kind) -> Parameters {
    let tensors = vec![
        ("model.layers.0.mlp.up_proj.weight".to_owned(), Tensor::ones([2, 3], (kind, Device::Cpu))),
        ("model.norm.weight".to_owned(), Tensor::ones([4], (kind, Device::Cpu)) * 2.0),
    ];
    Parameters::new(tensors, kind, Device::Cpu, true).unwrap()
}

/// Writes the gradient of step `step`; returns it.
fn set_gradient(parameters: &Parameters, step: usize) -> Vec<f64> {
    let grad = parameters.grad().unwrap();
    let values: Vec<f64> =
        (0..grad.numel()).map(|i| f64::from(number("grad", step, i) as f32)).collect();
    let _ = no_grad(|| grad.shallow_clone().f_copy_(&Tensor::from_slice(&values)));
    values
}

fn values(parameters: &Parameters) -> Vec<f64> {
    Vec::<f64>::try_from(parameters.flat().detach().to_kind(Kind::Double)).unwrap()
}

#[test]
fn adamw_follows_its_formula() {
    for decay_norms in [true, false] {
        let config = OptimizerConfig {
            lr: 0.03,
            beta1: 0.8,
            beta2: 0.95,
            eps: 1e-6,
            weight_decay: 0.2,
            decay_norms,
            ..Default::default()
        };
        let parameters = two_tensors(Kind::Float);
        let mut optimizer = Optimizer::new(&parameters, config).unwrap();
        let mut expected = values(&parameters);
        let (mut m, mut v) = (vec![0.0; 10], vec![0.0; 10]);
        for step in 1..=7 {
            let factor = 1.0 / step as f64;
            let grad = set_gradient(&parameters, step);
            optimizer.step(&parameters, factor).unwrap();
            for i in 0..10 {
                let lr = 0.03 * factor;
                let decay = if i < 6 || decay_norms { 0.2 } else { 0.0 };
                m[i] = 0.8 * m[i] + 0.2 * grad[i];
                v[i] = 0.95 * v[i] + 0.05 * grad[i] * grad[i];
                let m_hat = m[i] / (1.0 - 0.8f64.powi(step as i32));
                let v_hat: f64 = v[i] / (1.0 - 0.95f64.powi(step as i32));
                expected[i] -= lr * decay * expected[i];
                expected[i] -= lr * m_hat / (v_hat.sqrt() + 1e-6);
            }
            for (ours, expected) in values(&parameters).iter().zip(&expected) {
                assert!((ours - expected).abs() < 1e-6, "step {step}: {ours} {expected}");
            }
        }
    }
}

#[test]
fn a_master_copy_keeps_what_bf16_would_round_away() {
    let config = |master| OptimizerConfig { lr: 1e-4, master, ..Default::default() };
    let moved = |master| {
        let parameters = two_tensors(Kind::BFloat16);
        let mut optimizer = Optimizer::new(&parameters, config(master)).unwrap();
        for _ in 0..100 {
            let grad = parameters.grad().unwrap();
            let _ = no_grad(|| grad.shallow_clone().fill_(1.0));
            optimizer.step(&parameters, 1.0).unwrap();
        }
        values(&parameters)[0]
    };
    assert_eq!(moved(false), 1.0);
    assert!((moved(true) - 0.99).abs() < 3e-3, "{}", moved(true));
}

#[test]
fn the_norm_is_of_the_whole_gradient_and_clipping_keeps_its_direction() {
    let parameters = two_tensors(Kind::Float);
    let grad = set_gradient(&parameters, 1);
    let norm = grad.iter().map(|g| g * g).sum::<f64>().sqrt();
    assert!((clip_grad_norm(&parameters, None).unwrap() - norm).abs() < 1e-6);
    assert!((clip_grad_norm(&parameters, Some(10.0)).unwrap() - norm).abs() < 1e-6);
    assert!((clip_grad_norm(&parameters, Some(0.5)).unwrap() - norm).abs() < 1e-6);
    let clipped = Vec::<f32>::try_from(parameters.grad().unwrap()).unwrap();
    for (clipped, whole) in clipped.iter().zip(&grad) {
        assert!((f64::from(*clipped) - whole * 0.5 / norm).abs() < 1e-5);
    }
    let _ = no_grad(|| parameters.grad().unwrap().get(3).fill_(f64::NAN));
    assert!(clip_grad_norm(&parameters, Some(0.5)).unwrap().is_nan());
    assert!((clipped[0] - parameters.grad().unwrap().double_value(&[0]) as f32).abs() < 1e-9);
}

fn mean_logp(policy: &Policy, config: &LlamaConfig) -> f64 {
    policy.trained().zero_grad();
    let (rows, groups) = rollouts(config, 3);
    let packs = pack(&rows, &groups, 100).unwrap();
    let actions = packs.iter().map(|p| p.actions.len()).sum::<usize>() as f64;
    let mut sum = 0.0;
    for pack in packs {
        let descend = |e: &leyden_lm::policy::Evaluated| Cotangent {
            logp: vec![-1.0 / actions; e.logp.len()],
            entropy: None,
        };
        let evaluated = policy.forward_backward(&pack, 1.0, &mut { descend }).unwrap();
        sum += evaluated.logp.iter().sum::<f64>();
    }
    sum / actions
}

fn optimizers() -> [OptimizerConfig; 3] {
    let adam = OptimizerConfig { lr: 3e-3, ..Default::default() };
    let muon = Some(MuonConfig::default());
    [
        adam.clone(),
        OptimizerConfig { muon, ..adam.clone() },
        OptimizerConfig { master: true, ..adam },
    ]
}

fn fresh(config: &LlamaConfig, kind: Kind) -> Policy {
    let tensors = common::random_tensors(config, 1);
    let parameters = Parameters::new(tensors, kind, Device::Cpu, true).unwrap();
    Policy::new(config.clone(), parameters, PolicyOptions { compute: kind, ..Default::default() })
}

#[test]
fn a_resumed_optimiser_equals_an_uninterrupted_one_to_the_bit() {
    let config = tiny(true);
    for optimizer_config in optimizers() {
        let kind = if optimizer_config.master { Kind::BFloat16 } else { Kind::Float };
        let run = |policy: &Policy, optimizer: &mut Optimizer, steps: usize| {
            for _ in 0..steps {
                mean_logp(policy, &config);
                optimizer.step(policy.trained(), 1.0).unwrap();
            }
        };
        let whole = fresh(&config, kind);
        let mut optimizer = Optimizer::new(whole.trained(), optimizer_config.clone()).unwrap();
        run(&whole, &mut optimizer, 2);
        // A checkpoint holds copies; later steps must not change them.
        let saved: Vec<_> = optimizer.state().into_iter().map(|(n, t)| (n, t.copy())).collect();
        let model = whole.trained().flat().copy();
        run(&whole, &mut optimizer, 3);

        let resumed = fresh(&config, kind);
        let _ = no_grad(|| resumed.trained().flat().shallow_clone().f_copy_(&model));
        let mut optimizer = Optimizer::new(resumed.trained(), optimizer_config).unwrap();
        optimizer.load_state(&saved).unwrap();
        assert_eq!(optimizer.steps(), 2);
        run(&resumed, &mut optimizer, 3);
        assert!(resumed.trained().flat().equal(whole.trained().flat()));
        assert!(relative(whole.trained().flat(), &model) > 1e-4);
    }
}

#[test]
fn both_optimisers_learn_the_batch() {
    let config = tiny(false);
    for optimizer_config in optimizers().into_iter().take(2) {
        let policy = fresh(&config, Kind::Float);
        let mut optimizer = Optimizer::new(policy.trained(), optimizer_config).unwrap();
        let before = mean_logp(&policy, &config);
        for _ in 0..30 {
            mean_logp(&policy, &config);
            optimizer.step(policy.trained(), 1.0).unwrap();
        }
        let after = mean_logp(&policy, &config);
        assert!(after > 0.3 * before, "{before} → {after}");
    }
}

#[test]
fn muon_moves_matrices_and_leaves_the_rest_to_adamw() {
    let config = tiny(false);
    let [adam, muon, _] = optimizers();
    let moved = |optimizer_config: OptimizerConfig| {
        let policy = fresh(&config, Kind::Float);
        let mut optimizer = Optimizer::new(policy.trained(), optimizer_config).unwrap();
        mean_logp(&policy, &config);
        optimizer.step(policy.trained(), 1.0).unwrap();
        policy
    };
    let (adam, muon) = (moved(adam), moved(muon));
    for (name, tensor) in adam.trained().iter() {
        let other = muon.trained().get(name).unwrap();
        let matrix = tensor.dim() == 2 && name.contains(".layers.");
        assert_eq!(tensor.equal(other), !matrix, "{name}");
        if matrix {
            // All singular values of the step are near lr · √(rows / columns) for tall matrices.
            let before = common::random_tensors(&config, 1);
            let start = &before.iter().find(|(n, _)| n == name).unwrap().1;
            let (_, sizes, _) = (other.detach() - start).svd(true, false);
            let tall = (tensor.size()[0] as f64 / tensor.size()[1] as f64).max(1.0).sqrt();
            let top = sizes.max().double_value(&[]) / (0.02 * tall);
            assert!((0.6..1.3).contains(&top), "{name}: {top}");
        }
    }
}

#[test]
fn wrong_constants_and_states_are_refused_by_name() {
    let parameters = two_tensors(Kind::Float);
    let refused = |config| Optimizer::new(&parameters, config).err().unwrap().to_string();
    let beta = OptimizerConfig { beta2: 1.0, ..Default::default() };
    assert!(refused(beta).contains("beta2 is 1"));
    let rate = OptimizerConfig { lr: f64::NAN, ..Default::default() };
    assert!(refused(rate).contains("lr is NaN"));
    let mut optimizer = Optimizer::new(&parameters, OptimizerConfig::default()).unwrap();
    let mut state = optimizer.state();
    state[1].1 = Tensor::zeros([3], (Kind::Float, Device::Cpu));
    let error = optimizer.load_state(&state).unwrap_err().to_string();
    assert!(error.contains("`exp_avg`") && error.contains("[3]"), "{error}");
    let error = optimizer.load_state(&state[..1]).unwrap_err().to_string();
    assert!(error.contains("`exp_avg`") && error.contains("missing"), "{error}");
    let other = common::parameters(&tiny(true), 1, true);
    assert!(optimizer.step(&other, 1.0).unwrap_err().to_string().contains("created for"));
    let frozen = Parameters::new(vec![], Kind::Float, Device::Cpu, false).unwrap();
    assert!(Optimizer::new(&frozen, OptimizerConfig::default()).is_err());
}
