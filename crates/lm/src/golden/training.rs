//! Loss, gradients and AdamW steps against transformers and `torch.optim.AdamW`.

use std::collections::BTreeMap;

use leyden_core::Family;
use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::error::LmError;
use crate::golden::folder::{Folder, GoldenBatch, TOLERANCE, distance};
use crate::optim::optimizer::{Optimizer, OptimizerConfig};
use crate::policy::forest::Action;
use crate::policy::trainable::{Cotangent, Policy};

/// Label of an ignored token.
const IGNORED: i64 = -100;

/// Below this magnitude rounding decides a gradient's sign, and Adam's first steps follow the sign
/// at full size: such parameters are not compared.
const UNDECIDED: f64 = 1e-6;

#[derive(Deserialize)]
pub struct Train {
    input_ids: Vec<Vec<u32>>,
    attention_mask: Vec<Vec<u8>>,
    labels: Vec<Vec<i64>>,
    adamw: AdamW,
    /// Mean over all labels before the first step, and after each.
    losses: Vec<f64>,
    grad_norms: BTreeMap<String, f64>,
    grad_norm_total: f64,
    param_norms_after_3: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct AdamW {
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
}

pub fn check(folder: &Folder, train: &Train) -> Result<Vec<Family>, LmError> {
    let policy = folder.policy(true)?;
    let mut batch =
        GoldenBatch::new(folder, &train.input_ids, &train.attention_mask, |_, column| column)?;
    select(folder, train, &mut batch)?;
    let config = OptimizerConfig {
        lr: train.adamw.lr,
        beta1: train.adamw.beta1,
        beta2: train.adamw.beta2,
        eps: train.adamw.eps,
        weight_decay: train.adamw.weight_decay,
        ..OptimizerConfig::default()
    };
    let mut optimizer = Optimizer::new(policy.trained(), config)?;
    let mut losses = Family::numeric("losses", TOLERANCE);
    let mut families = Vec::new();
    for (step, &expected) in train.losses.iter().enumerate() {
        let loss = loss(&policy, &batch)?;
        losses.error((loss - expected).abs(), || format!("step {step}: {loss}, not {expected}"));
        if step == 0 {
            families.extend(gradients(folder, train, &policy)?);
        }
        if step + 1 < train.losses.len() {
            optimizer.step(policy.trained(), 1.0)?;
        }
    }
    families.insert(0, losses);
    families.extend(parameters(folder, train, &policy)?);
    Ok(families)
}

/// Keeps the labelled actions.
fn select(folder: &Folder, train: &Train, batch: &mut GoldenBatch) -> Result<(), LmError> {
    let mut kept: Vec<Action> = Vec::new();
    for (row, labels) in train.labels.iter().enumerate() {
        let columns = &batch.columns[row];
        // Column 0 is never predicted, regardless of its label.
        for (column, &label) in labels.iter().enumerate().skip(1) {
            if label == IGNORED {
                continue;
            }
            let at = columns.binary_search(&column).ok().filter(|&at| at > 0);
            let node = at.map(|at| batch.pack.trees[row].start + at);
            match node.filter(|&node| i64::from(batch.pack.ids[node]) == label) {
                Some(node) => kept.push(Action { node, parent: node - 1 }),
                None => {
                    let what = format!(
                        "train: label {label} of row {row} at column {column} is not the token \
                         there, or nothing real comes before it"
                    );
                    return Err(LmError::file(folder.path.join("fixtures.json"), what));
                }
            }
        }
    }
    batch.pack.actions = kept;
    batch.pack.rows.clear();
    Ok(())
}

/// Mean negative log-probability; replaces the previous gradient.
fn loss(policy: &Policy, batch: &GoldenBatch) -> Result<f64, LmError> {
    policy.trained().zero_grad();
    let n = batch.pack.actions.len() as f64;
    let evaluated = policy.forward_backward(&batch.pack, 1.0, &mut |e| Cotangent {
        logp: vec![-1.0 / n; e.logp.len()],
        entropy: None,
    })?;
    Ok(-evaluated.logp.iter().sum::<f64>() / n)
}

fn gradients(folder: &Folder, train: &Train, policy: &Policy) -> Result<Vec<Family>, LmError> {
    let mut values = Family::numeric("gradients", TOLERANCE);
    let mut norms = Family::numeric("gradient norms (relative)", TOLERANCE);
    for (name, &expected) in &train.grad_norms {
        let ours = policy.trained().get(name)?.grad();
        let theirs = folder.expected(&format!("grad.{name}"))?;
        values.error(distance(&ours, theirs), || name.clone());
        let norm = norm(&ours);
        norms.error((norm / expected - 1.0).abs(), || format!("{name}: {norm}, not {expected}"));
    }
    let (total, expected) =
        (crate::optim::optimizer::clip_grad_norm(policy.trained(), None)?, train.grad_norm_total);
    norms.error((total / expected - 1.0).abs(), || format!("total: {total}, not {expected}"));
    Ok(vec![values, norms])
}

fn parameters(folder: &Folder, train: &Train, policy: &Policy) -> Result<Vec<Family>, LmError> {
    let mut values = Family::numeric("parameters after AdamW", TOLERANCE);
    let mut norms = Family::numeric("parameter norms after AdamW (relative)", 1e-6);
    for (name, &expected) in &train.param_norms_after_3 {
        let ours = policy.trained().get(name)?.detach();
        let theirs = folder.expected(&format!("param_after_3.{name}"))?;
        let gradient = folder.expected(&format!("grad.{name}"))?;
        let decided = gradient.abs().ge(UNDECIDED).to_kind(ours.kind());
        values.error(distance(&(&ours * &decided), &(theirs * &decided)), || name.clone());
        let norm = norm(&ours);
        norms.error((norm / expected - 1.0).abs(), || format!("{name}: {norm}, not {expected}"));
    }
    Ok(vec![values, norms])
}

fn norm(x: &Tensor) -> f64 {
    x.to_kind(Kind::Double).norm().double_value(&[])
}
