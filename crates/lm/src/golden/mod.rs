//! Parity with transformers on a random Llama, from `fixtures.json` in the model's folder.
//!
//! Padded inputs are converted: a row with padding on either side becomes the packed row of its
//! real tokens (mask 1) at their positions; if the file gives no positions, transformers counts
//! columns, including padding. So padding needs no code of its own, only positions.

mod folder;
mod training;

use std::path::Path;

use leyden_core::{Family, GoldenReport};
use serde::Deserialize;
use tch::{Tensor, no_grad_guard};

use crate::error::LmError;
use crate::formats::loaded::load_weights;
use crate::formats::safetensors;
use crate::golden::folder::{Folder, GoldenBatch, TOLERANCE, distance};
use crate::model::forward::Weights;
use crate::model::rotary::inverse_frequencies;
use crate::policy::forest::{Pack, Row, pack};
use crate::policy::trainable::Policy;

#[derive(Deserialize)]
struct Fixtures {
    cases: Vec<Case>,
    rope_inv_freq: Vec<f64>,
    rope_attention_scaling: f64,
    train: Option<training::Train>,
}

/// A padded batch and transformers' results, [rows][columns].
#[derive(Deserialize)]
struct Case {
    name: String,
    input_ids: Vec<Vec<u32>>,
    attention_mask: Vec<Vec<u8>>,
    position_ids: Option<Vec<Vec<usize>>>,
    /// Name of the logits in `fixtures.safetensors`, [rows, columns, vocabulary].
    logits_tensor: String,
    /// Column t: of the token at t + 1, given those up to t.
    logprobs: Vec<Vec<f64>>,
    entropy: Vec<Vec<f64>>,
    greedy: Option<Vec<Vec<u32>>>,
}

/// Compares this crate with the golden values of a folder: rotary frequencies, logits,
/// log-probabilities, entropies, greedy continuation, loss, gradients and AdamW steps.
///
/// # Errors
/// A missing or damaged file, or a case that packed rows cannot represent.
pub fn check_llama(folder: &Path) -> Result<GoldenReport, LmError> {
    let (config, weights) = load_weights(folder)?;
    let path = folder.join("fixtures.json");
    let text = std::fs::read_to_string(&path).map_err(|e| LmError::file(&path, e))?;
    let fixtures: Fixtures = serde_json::from_str(&text).map_err(|e| LmError::file(&path, e))?;
    let (expected, _) = safetensors::read_file(&folder.join("fixtures.safetensors"))?;
    let folder = Folder {
        path: folder.to_owned(),
        config,
        weights,
        expected: expected.into_iter().collect(),
    };
    let mut families = vec![rotary(&folder, &fixtures)];
    families.extend(forward(&folder, &fixtures.cases)?);
    if let Some(train) = &fixtures.train {
        families.extend(training::check(&folder, train)?);
    }
    Ok(GoldenReport { families })
}

fn rotary(folder: &Folder, fixtures: &Fixtures) -> Family {
    let mut family = Family::numeric("rotary inverse frequencies (relative)", 1e-6);
    let ours = inverse_frequencies(&folder.config);
    family.error(ours.len().abs_diff(fixtures.rope_inv_freq.len()) as f64, || {
        format!("{} frequencies, expected {}", ours.len(), fixtures.rope_inv_freq.len())
    });
    for (i, (a, b)) in ours.iter().zip(&fixtures.rope_inv_freq).enumerate() {
        family.error((a - b).abs() / b.abs(), || format!("frequency {i}: {a}, expected {b}"));
    }
    // `llama3` scaling changes frequencies alone; other kinds also scale the attention.
    let scaling = fixtures.rope_attention_scaling;
    family.error((scaling - 1.0).abs(), || format!("attention scaling 1, expected {scaling}"));
    family
}

fn forward(folder: &Folder, cases: &[Case]) -> Result<Vec<Family>, LmError> {
    let _guard = no_grad_guard();
    let policy = folder.policy(false)?;
    let weights = policy.weights()?;
    let mut families = [
        Family::numeric("logits", TOLERANCE),
        Family::numeric("log-probabilities", TOLERANCE),
        Family::numeric("entropies", TOLERANCE),
        Family::exact("greedy continuation"),
    ];
    let [logits, logp, entropy, greedy] = &mut families;
    for case in cases {
        let batch =
            GoldenBatch::new(folder, &case.input_ids, &case.attention_mask, |row, column| {
                case.position_ids.as_ref().map_or(column, |p| p[row][column])
            })?;
        let all = logits_of(&policy, &weights, &batch.pack)?;
        let expected = folder.expected(&case.logits_tensor)?;
        let evaluated = policy.evaluate(&batch.pack, 1.0)?;
        let (ours_logp, ours_entropy) =
            (batch.pack.gather(&evaluated.logp), batch.pack.gather(&evaluated.entropy));
        for (row, columns) in batch.columns.iter().enumerate() {
            let name = format!("{} row {row}", case.name);
            let tree = &batch.pack.trees[row];
            let ours = all.narrow(0, tree.start as i64, tree.len() as i64);
            let real: Vec<i64> = columns.iter().map(|&c| c as i64).collect();
            let theirs = expected.get(row as i64).index_select(0, &Tensor::from_slice(&real));
            logits.error(distance(&ours, &theirs), || name.clone());
            for (i, pair) in columns.windows(2).enumerate() {
                let at = || format!("{name} column {}", pair[0]);
                logp.error((ours_logp[row][i] - case.logprobs[row][pair[0]]).abs(), at);
                entropy.error((ours_entropy[row][i] - case.entropy[row][pair[0]]).abs(), at);
            }
        }
        if let Some(expected) = &case.greedy {
            continue_greedily(&policy, &weights, &batch, &case.name, expected, greedy)?;
        }
    }
    Ok(families.into())
}

/// Generates with the training forward pass, one full pass per token.
///
/// The reference always has its full number of tokens: ending a turn is forbidden
/// (`min_new_tokens`). If our best token differs, but the expected one is equally good within the
/// tolerance, the rest of the row is not comparable and is skipped.
fn continue_greedily(
    policy: &Policy,
    weights: &Weights,
    batch: &GoldenBatch,
    name: &str,
    expected: &[Vec<u32>],
    family: &mut Family,
) -> Result<(), LmError> {
    for (row, expected) in expected.iter().enumerate() {
        let tree = batch.pack.trees[row].clone();
        let (mut ids, mut positions) =
            (batch.pack.ids[tree.clone()].to_vec(), batch.pack.positions[tree].to_vec());
        for (step, &token) in expected.iter().enumerate() {
            let pack = chain(&ids, &positions)?;
            let logits = logits_of(policy, weights, &pack)?.get(-1);
            for &end in policy.config().eos.iter().filter(|&&end| end != token) {
                let _ = logits.get(i64::from(end)).f_fill_(f64::NEG_INFINITY)?;
            }
            let best = logits.f_argmax(0, false)?.f_int64_value(&[])?;
            let lead = logits.f_double_value(&[best])? - logits.f_double_value(&[token.into()])?;
            if best != i64::from(token) && lead <= TOLERANCE {
                break;
            }
            family.agree(best == i64::from(token), || {
                format!("{name} row {row} token {step}: {best}, expected {token}")
            });
            if best != i64::from(token) {
                break;
            }
            ids.push(token);
            positions.push(positions.last().map_or(0, |p| p + 1));
        }
    }
    Ok(())
}

/// One row at the given positions.
fn chain(ids: &[u32], positions: &[usize]) -> Result<Pack, LmError> {
    let row = Row { ids: ids.to_vec(), actions: Vec::new() };
    let packs = pack(&[row], &[0], usize::MAX).map_err(|e| LmError::Invalid(e.to_string()))?;
    let mut pack = packs.into_iter().next().unwrap_or_default();
    pack.positions = positions.to_vec();
    Ok(pack)
}

fn logits_of(policy: &Policy, weights: &Weights, pack: &Pack) -> Result<Tensor, LmError> {
    Ok(policy.hidden(weights, pack)?.f_linear(&weights.head, None::<&Tensor>)?)
}
