//! The prefix forest gives the numbers and gradients of one padded row per call.

mod common;

use common::{number, oracle, parameters, policy, random_tensors, relative, rollouts, tiny};
use leyden_core::SeedTree;
use leyden_lm::LmError;
use leyden_lm::model::{LlamaConfig, LoraConfig, Parameters, Weights};
use leyden_lm::optim::{Optimizer, OptimizerConfig};
use leyden_lm::policy::forest::{Pack, Row, pack};
use leyden_lm::policy::lora::Lora;
use leyden_lm::policy::{Cotangent, Evaluated, Policy, PolicyOptions, ValueHead};
use tch::{Device, Kind, Tensor, no_grad};

const TEMPERATURE: f64 = 0.7;

/// A cotangent that depends on the row and position, on log-probability and entropy, and, so that
/// the closure is exercised, on the value itself.
fn cotangent(pack: &Pack, evaluated: &Evaluated) -> Cotangent {
    let per_row = |name: &str, values: &[f64]| -> Vec<Vec<f64>> {
        let rows = pack.rows.iter().zip(pack.gather(values));
        rows.map(|(row, values)| {
            values.iter().enumerate().map(|(i, x)| number(name, row.row, i) * (1.0 + x)).collect()
        })
        .collect()
    };
    Cotangent {
        logp: pack.scatter(&per_row("logp", &evaluated.logp)),
        entropy: Some(pack.scatter(&per_row("entropy", &evaluated.entropy))),
    }
}

/// The loss whose derivative is `cotangent`, on the oracle's graph.
fn oracle_loss(weights: &Weights, config: &LlamaConfig, rows: &[Row]) -> Tensor {
    let (logp, entropy) = oracle(weights, config, rows, TEMPERATURE);
    let mut loss = Tensor::zeros([], (Kind::Float, Device::Cpu));
    for row in 0..rows.len() {
        for (name, values) in [("logp", &logp[row]), ("entropy", &entropy[row])] {
            let n = values.size()[0] as usize;
            let weights: Vec<f32> = (0..n).map(|i| number(name, row, i) as f32).collect();
            // d/dx (x + x²/2) = 1 + x
            let primitive = values + values.square() / 2.0;
            loss += (primitive * Tensor::from_slice(&weights)).sum(Kind::Float);
        }
    }
    loss
}

/// Gradient of the whole batch, cut into packs of `budget` tokens.
fn gradient(policy: &Policy, rows: &[Row], groups: &[usize], budget: usize) -> Tensor {
    policy.trained().zero_grad();
    for pack in pack(rows, groups, budget).unwrap() {
        policy.forward_backward(&pack, TEMPERATURE, &mut |e| cotangent(&pack, e)).unwrap();
    }
    policy.trained().grad().unwrap().copy()
}

#[test]
fn forest_gives_the_log_probabilities_of_padded_rows() {
    for tied in [true, false] {
        let config = tiny(tied);
        let policy = policy(&config, PolicyOptions::default());
        let (rows, groups) = rollouts(&config, 3);
        let weights = no_grad(|| policy.weights()).unwrap();
        let (logp, entropy) = no_grad(|| oracle(&weights, &config, &rows, TEMPERATURE));
        let packs = pack(&rows, &groups, 60).unwrap();
        assert!(packs.len() > 1 && packs.iter().any(|p| p.trees.iter().any(|t| !p.is_chain(t))));
        let mut compared = 0;
        for pack in packs {
            let evaluated = policy.evaluate(&pack, TEMPERATURE).unwrap();
            let ours = [pack.gather(&evaluated.logp), pack.gather(&evaluated.entropy)];
            for (ours, theirs) in ours.iter().zip([&logp, &entropy]) {
                for (row, values) in pack.rows.iter().zip(ours) {
                    let theirs = Vec::<f32>::try_from(&theirs[row.row]).unwrap();
                    assert_eq!(values.len(), theirs.len());
                    for (a, b) in values.iter().zip(theirs) {
                        assert!((a - f64::from(b)).abs() < 1e-5, "{a} {b}");
                        compared += 1;
                    }
                }
            }
        }
        assert_eq!(compared, 2 * rows.iter().map(Row::action_tokens).sum::<usize>());
    }
}

#[test]
fn merged_gradient_is_the_sum_of_separate_rows() {
    for tied in [true, false] {
        let config = tiny(tied);
        let policy = policy(&config, PolicyOptions::default());
        let (rows, groups) = rollouts(&config, 3);
        let merged = gradient(&policy, &rows, &groups, usize::MAX);
        policy.trained().zero_grad();
        oracle_loss(&policy.weights().unwrap(), &config, &rows).backward();
        let separate = policy.trained().grad().unwrap();
        let error = relative(&merged, separate);
        assert!(error < 1e-5, "relative error {error:e}");
        for (name, start, length) in policy.trained().layout() {
            let part = |x: &Tensor| x.narrow(0, start, length);
            let error = relative(&part(&merged), &part(separate));
            assert!(error < 3e-5, "{name}: relative error {error:e}");
        }
    }
}

#[test]
fn micro_batches_head_chunks_and_checkpoints_change_nothing() {
    let config = tiny(true);
    let (rows, groups) = rollouts(&config, 5);
    let whole = gradient(&policy(&config, PolicyOptions::default()), &rows, &groups, usize::MAX);
    assert!(whole.norm().double_value(&[]) > 0.1);
    for (budget, checkpointing, head_chunk) in
        [(1, false, None), (40, false, None), (70, true, None), (usize::MAX, true, Some(3))]
    {
        let options = PolicyOptions { checkpointing, head_chunk, ..Default::default() };
        let parts = gradient(&policy(&config, options), &rows, &groups, budget);
        let error = relative(&parts, &whole);
        assert!(error < 1e-5, "budget {budget}, {options:?}: relative error {error:e}");
    }
    let alone: Vec<usize> = (0..rows.len()).collect();
    let separate = gradient(&policy(&config, PolicyOptions::default()), &rows, &alone, 1);
    assert!(relative(&separate, &whole) < 1e-5);
}

#[test]
fn a_zero_cotangent_adds_nothing_and_costs_no_backward() {
    let config = tiny(true);
    let policy = policy(&config, PolicyOptions::default());
    let (rows, groups) = rollouts(&config, 5);
    for pack in pack(&rows, &groups, 100).unwrap() {
        let zero = vec![0.0; pack.actions.len()];
        let evaluated = policy
            .forward_backward(&pack, 1.0, &mut |_| Cotangent { logp: zero.clone(), entropy: None })
            .unwrap();
        assert_eq!(evaluated, policy.evaluate(&pack, 1.0).unwrap());
    }
    assert_eq!(policy.trained().grad().unwrap().norm().double_value(&[]), 0.0);
}

#[test]
fn bf16_compute_gives_f32_gradients_close_to_those_of_f32() {
    let config = tiny(true);
    let (rows, groups) = rollouts(&config, 5);
    let exact = gradient(&policy(&config, PolicyOptions::default()), &rows, &groups, 80);
    for checkpointing in [false, true] {
        let options =
            PolicyOptions { compute: Kind::BFloat16, checkpointing, ..Default::default() };
        let rounded = gradient(&policy(&config, options), &rows, &groups, 80);
        assert_eq!(rounded.kind(), Kind::Float);
        let cosine = rounded.dot(&exact) / (rounded.norm() * exact.norm());
        assert!(cosine.double_value(&[]) > 0.995, "{cosine}");
        // Sums over tokens in bf16 alone would lie on its coarse grid.
        let on_grid = rounded.to_kind(Kind::BFloat16).to_kind(Kind::Float).eq_tensor(&rounded);
        assert!(on_grid.to_kind(Kind::Float).mean(Kind::Float).double_value(&[]) < 0.9);
    }
}

fn lora_config() -> LoraConfig {
    let targets = ["down_proj", "q_proj", "v_proj", "o_proj", "up_proj"];
    LoraConfig { rank: 3, alpha: 6.0, targets: targets.map(str::to_owned).to_vec() }
}

fn lora_policy(config: &LlamaConfig, options: PolicyOptions) -> Policy {
    let lora = Lora::new(lora_config(), config, Device::Cpu, SeedTree::new(4)).unwrap();
    Policy::with_lora(config.clone(), parameters(config, 1, false), lora, options).unwrap()
}

/// Sets B, zero at first, to non-zero values.
fn disturb(lora: &Lora) {
    let flat = lora.parameters().flat();
    let n = flat.size()[0];
    let noise: Vec<f32> = (0..n as usize).map(|i| 0.3 * number("lora", 0, i) as f32).collect();
    let _ = no_grad(|| flat.shallow_clone().g_add_(&Tensor::from_slice(&noise)));
}

#[test]
fn fresh_adapters_leave_the_base_as_it_is() {
    let config = tiny(true);
    let (rows, groups) = rollouts(&config, 5);
    let (base, adapted) =
        (policy(&config, PolicyOptions::default()), lora_policy(&config, PolicyOptions::default()));
    for pack in pack(&rows, &groups, 100).unwrap() {
        let expected = base.evaluate(&pack, 1.0).unwrap();
        assert_eq!(adapted.evaluate(&pack, 1.0).unwrap(), expected);
        disturb(adapted.lora().unwrap());
        assert_ne!(adapted.evaluate(&pack, 1.0).unwrap(), expected);
        assert_eq!(adapted.evaluate_base(&pack, 1.0).unwrap(), expected);
        let _ = no_grad(|| adapted.trained().flat().shallow_clone().zero_());
    }
}

#[test]
fn merged_adapters_equal_unmerged_ones() {
    let config = tiny(false);
    let (rows, groups) = rollouts(&config, 5);
    let adapted = lora_policy(&config, PolicyOptions::default());
    disturb(adapted.lora().unwrap());
    let merged = adapted.lora().unwrap().merge(adapted.base()).unwrap();
    let merged = Parameters::new(merged, Kind::Float, Device::Cpu, false).unwrap();
    let merged = Policy::new(config, merged, PolicyOptions::default());
    let inference = adapted.inference_weights().unwrap();
    for pack in pack(&rows, &groups, 100).unwrap() {
        let apart = adapted.evaluate(&pack, 1.0).unwrap();
        let together = merged.evaluate(&pack, 1.0).unwrap();
        for (a, b) in apart.logp.iter().zip(&together.logp) {
            // (W + BA) x and W x + B (A x) round differently; 2.3e-5 seen on one processor.
            assert!((a - b).abs() < 5e-5, "{a} {b}");
        }
        let engine = no_grad(|| merged.hidden(&inference, &pack)).unwrap();
        let own = no_grad(|| merged.hidden(&merged.weights().unwrap(), &pack)).unwrap();
        assert!(engine.equal(&own));
    }
}

#[test]
fn kept_values_give_the_weights_of_their_time() {
    let config = tiny(true);
    let (rows, groups) = rollouts(&config, 5);
    let packs = pack(&rows, &groups, 100).unwrap();
    let options = PolicyOptions::default();
    for policy in [policy(&config, options), lora_policy(&config, options)] {
        if let Some(lora) = policy.lora() {
            disturb(lora);
        }
        let hidden = |weights: &Weights| no_grad(|| policy.hidden(weights, &packs[0])).unwrap();
        let kept = policy.trained().flat().detach().copy();
        let then = hidden(&policy.inference_weights().unwrap());
        let _ = no_grad(|| policy.trained().flat().shallow_clone().g_mul_scalar_(1.5));
        assert!(!hidden(&policy.inference_weights().unwrap()).equal(&then));
        assert!(hidden(&policy.inference_weights_of(&kept).unwrap()).equal(&then));
        assert!(policy.inference_weights_of(&kept.narrow(0, 0, 1)).is_err());
    }
}

#[test]
fn adapters_get_the_gradient_of_the_merged_model() {
    let config = tiny(true);
    let (rows, groups) = rollouts(&config, 5);
    for checkpointing in [false, true] {
        let options = PolicyOptions { checkpointing, ..Default::default() };
        let adapted = lora_policy(&config, options);
        let lora = adapted.lora().unwrap();
        disturb(lora);
        let ours = gradient(&adapted, &rows, &groups, 90);
        lora.parameters().zero_grad();
        let merged: Vec<(String, Tensor)> = random_tensors(&config, 1)
            .into_iter()
            .map(|(name, base)| {
                let module = name.trim_end_matches(".weight");
                let part = |m: &str| lora.parameters().get(&format!("{module}.lora_{m}.weight"));
                let sum = match (part("A"), part("B")) {
                    (Ok(a), Ok(b)) => base + b.matmul(a) * 2.0,
                    _ => base,
                };
                (name, sum)
            })
            .collect();
        let weights = Weights::from_lookup(&config, Kind::Float, |name| {
            Ok(merged.iter().find(|(n, _)| n == name).map(|(_, t)| t).unwrap())
        })
        .unwrap();
        oracle_loss(&weights, &config, &rows).backward();
        let error = relative(&ours, lora.parameters().grad().unwrap());
        assert!(error < 2e-5, "relative error {error:e}");
    }
}

/// d loss / d states of a linear loss [actions, width].
fn slopes(pack: &Pack, width: usize) -> Tensor {
    let n = pack.actions.len();
    let all: Vec<f32> = (0..n * width).map(|i| number("states", n, i) as f32).collect();
    Tensor::from_slice(&all).view([n as i64, width as i64])
}

#[test]
fn a_trunk_has_the_states_of_its_policy_and_gradients_of_its_own() {
    for (tied, adapted, checkpointing) in
        [(true, false, false), (false, false, true), (true, true, false), (true, true, true)]
    {
        let config = tiny(tied);
        let options = PolicyOptions { checkpointing, ..Default::default() };
        let policy = if adapted { lora_policy(&config, options) } else { policy(&config, options) };
        policy.lora().into_iter().for_each(disturb);
        let trunk = policy.trunk().unwrap();
        policy.trained().zero_grad();
        trunk.trained().zero_grad();
        let (rows, groups) = rollouts(&config, 5);
        let packs = pack(&rows, &groups, 90).unwrap();
        for pack in &packs {
            assert!(trunk.states(pack).unwrap().equal(&policy.states(pack).unwrap()));
            let mut slope = |states: &Tensor| {
                let slopes = slopes(pack, config.hidden_size);
                assert_eq!(states.size(), slopes.size());
                Ok(slopes)
            };
            trunk.states_forward_backward(pack, &mut slope).unwrap();
        }
        assert_eq!(policy.trained().grad().unwrap().norm().double_value(&[]), 0.0);
        let weights = policy.weights().unwrap();
        let mut loss = Tensor::zeros([], (Kind::Float, Device::Cpu));
        for pack in &packs {
            let parents: Vec<i64> = pack.actions.iter().map(|a| a.parent as i64).collect();
            let hidden = policy.hidden(&weights, pack).unwrap();
            let states = hidden.index_select(0, &Tensor::from_slice(&parents));
            loss += (states * slopes(pack, config.hidden_size)).sum(Kind::Float);
        }
        loss.backward();
        let ours = trunk.trained().grad().unwrap();
        // A separate head comes last; the trunk has none.
        let theirs = policy.trained().grad().unwrap().narrow(0, 0, ours.size()[0]);
        let error = relative(ours, &theirs);
        assert!(error < 1e-5, "{tied} {adapted} {checkpointing}: relative error {error:e}");
        assert_eq!(ours.size() == policy.trained().flat().size(), tied);
        if adapted {
            assert_eq!(trunk.base().flat().data_ptr(), policy.base().flat().data_ptr());
        }
        // Its updates do not reach the policy.
        let before = policy.trained().flat().copy();
        let _ = no_grad(|| trunk.trained().flat().shallow_clone().g_add_scalar_(1.0));
        assert!(policy.trained().flat().equal(&before));
    }
}

#[test]
fn values_are_learned_through_the_trunk() {
    let config = tiny(true);
    let trunk = policy(&config, PolicyOptions::default()).trunk().unwrap();
    let head = ValueHead::new(config.hidden_size, 8, Device::Cpu, SeedTree::new(2)).unwrap();
    // A constant head that is not 0.
    let n = head.parameters().flat().size()[0] as usize;
    let noise: Vec<f32> = (0..n).map(|i| 0.3 * number("head", 0, i) as f32).collect();
    let _ =
        no_grad(|| head.parameters().flat().shallow_clone().g_add_(&Tensor::from_slice(&noise)));
    let (rows, groups) = rollouts(&config, 5);
    let pack = &pack(&rows, &groups, usize::MAX).unwrap()[0];
    let options = OptimizerConfig { lr: 3e-3, weight_decay: 0.0, ..OptimizerConfig::default() };
    let mut optimizer = Optimizer::new(trunk.trained(), options).unwrap();
    let mut errors = Vec::new();
    for _ in 0..100 {
        trunk.trained().zero_grad();
        let mut slope = |values: &[f64]| -> Vec<f64> {
            let targets = (0..values.len()).map(|action| number("target", 0, action));
            let gaps: Vec<f64> = values.iter().zip(targets).map(|(v, t)| v - t).collect();
            errors.push(gaps.iter().map(|gap| gap * gap).sum::<f64>());
            gaps
        };
        trunk
            .states_forward_backward(pack, &mut |states| {
                head.forward_backward_through(states, &mut slope)
            })
            .unwrap();
        optimizer.step(trunk.trained(), 1.0).unwrap();
    }
    assert!(errors[99] < 0.5 * errors[0], "{} → {}", errors[0], errors[99]);
}

#[test]
fn misuse_is_reported() {
    let config = tiny(true);
    let trained = policy(&config, PolicyOptions::default());
    let pack_of =
        |ids: &[u32]| pack(&[Row::call(&ids[..1], &ids[1..])], &[0], 99).unwrap().remove(0);
    let outside = trained.evaluate(&pack_of(&[1, 61]), 1.0).unwrap_err();
    assert!(matches!(outside, LmError::TokenOutside { id: 61, vocabulary: 61 }), "{outside}");
    let short = trained.forward_backward(&pack_of(&[1, 2]), 1.0, &mut |_| Cotangent::default());
    assert!(short.unwrap_err().to_string().contains("0 derivatives"));
    let frozen =
        Policy::new(config.clone(), parameters(&config, 1, false), PolicyOptions::default());
    let error = frozen.forward_backward(&pack_of(&[1, 2]), 1.0, &mut |_| unreachable!());
    assert!(error.unwrap_err().to_string().contains("frozen"));
    let lora =
        |config_: LoraConfig| Lora::new(config_, &config, Device::Cpu, SeedTree::new(4)).err();
    let unknown = LoraConfig { targets: vec!["q".to_owned()], ..lora_config() };
    assert!(lora(unknown).unwrap().to_string().contains("`q` is unknown"));
    let twice = LoraConfig { targets: vec!["q_proj".to_owned(); 2], ..lora_config() };
    assert!(lora(twice).unwrap().to_string().contains("twice"));
}
