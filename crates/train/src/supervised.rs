//! Supervised training on demonstrations, with the same packing and optimiser.

use leyden_core::record::{RECORD_SCHEMA, StepRecord};
use leyden_lm::policy::forest::{Pack, Row};
use leyden_lm::policy::{Cotangent, Evaluated, Policy};
use leyden_text::ChatFormat;

use crate::batch::pack;
use crate::data::{DemonstrationSource, Visits};
use crate::error::TrainError;
use crate::update::Updater;

/// One step on `rows`: the mean negative log-likelihood of their learned tokens.
///
/// # Errors
/// A row that cannot be packed; errors of the policy.
pub(crate) fn imitate(
    policy: &mut Policy,
    updater: &mut Updater<'_>,
    rows: &[Row],
    step: u64,
) -> Result<StepRecord, TrainError> {
    let learned: usize = rows.iter().map(Row::action_tokens).sum();
    let weight = 1.0 / learned.max(1) as f64;
    policy.trained().zero_grad();
    let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
    let packs = updater.cut(longest, |budget| pack(rows, budget))?;
    let done = updater.replicas.share(policy, &packs, |policy, pack| {
        let learn = &mut |evaluated: &Evaluated| Cotangent {
            logp: vec![-weight; evaluated.logp.len()],
            entropy: None,
        };
        let Evaluated { logp, entropy } = policy.forward_backward(pack, 1.0, learn)?;
        Ok((-weight * logp.iter().sum::<f64>(), entropy.iter().sum::<f64>()))
    })?;
    let loss = done.iter().fold(0.0, |sum, part| sum + part.0);
    let entropy_sum = done.iter().fold(0.0, |sum, part| sum + part.1);
    let grad_norm = updater.apply(policy, step)?;
    Ok(StepRecord {
        schema: RECORD_SCHEMA,
        step,
        tasks: rows.len(),
        row_tokens: rows.iter().map(|row| row.ids.len()).sum(),
        packed_tokens: packs.iter().map(Pack::len).sum(),
        action_tokens: learned,
        loss,
        entropy: entropy_sum * weight,
        grad_norm,
        learning_rate: updater.learning_rate(step),
        ..StepRecord::default()
    })
}

/// Consecutive too long demonstrations after which the search in an endless source fails.
const MAX_SKIPPED: u64 = 10_000;

/// The next `count` demonstrations of at most `longest` tokens in visiting order; longer ones are
/// skipped.
///
/// # Errors
/// Errors of the source; a source without a demonstration that short.
pub fn collect(
    source: &dyn DemonstrationSource,
    visits: &mut Visits,
    count: usize,
    longest: usize,
    format: &ChatFormat,
) -> Result<Vec<Row>, TrainError> {
    let mut rows = Vec::with_capacity(count);
    let mut skipped = 0;
    while rows.len() < count {
        let row = source.row(visits.next_item(), format)?;
        if row.ids.len() <= longest {
            rows.push(row);
            skipped = 0;
        } else {
            skipped += 1;
            if skipped > source.len().unwrap_or(MAX_SKIPPED) {
                return Err(TrainError::Invalid(format!(
                    "no demonstration has at most {longest} tokens; raise data.demonstration_tokens"
                )));
            }
        }
    }
    Ok(rows)
}
