//! Supervised training: imitate demonstrations, through the same packing and optimiser.

use std::time::Instant;

use leyden_core::record::{RECORD_SCHEMA, StepRecord, Timing};
use leyden_lm::forest::{Pack, Row};
use leyden_lm::{Cotangent, Evaluated};
use leyden_text::ChatFormat;

use crate::TrainError;
use crate::batch::pack;
use crate::data::{Conversation, DemonstrationSource, VisitOrder};
use crate::trainer::{Trainer, lap};

impl Trainer<'_> {
    /// One step: the mean negative log-likelihood of the learned tokens of `train.batch`
    /// demonstrations.
    pub(crate) fn supervised_step(
        &mut self,
        step: u64,
        timing: &mut Timing,
    ) -> Result<StepRecord, TrainError> {
        let train = &self.experiment.train;
        let source = self.environment.demonstrations.as_deref().ok_or_else(|| {
            TrainError::Invalid("there are no demonstrations to train on".to_owned())
        })?;
        let started = Instant::now();
        let (rows, next) = collect(
            source,
            &mut self.order,
            self.position,
            train.batch,
            self.experiment.data.demonstration_tokens,
            &self.format,
        )?;
        self.position = next;
        lap(timing, "data", started);
        let started = Instant::now();
        let learned: usize = rows.iter().map(Row::action_tokens).sum();
        let weight = 1.0 / learned.max(1) as f64;
        self.policy.trained().zero_grad();
        let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let packs =
            self.replicas.cut(train.micro_batch_tokens, longest, |budget| pack(&rows, budget))?;
        let done = self.replicas.share(&mut self.policy, &packs, |policy, pack| {
            let learn = &mut |evaluated: &Evaluated| Cotangent {
                logp: vec![-weight; evaluated.logp.len()],
                entropy: None,
            };
            let Evaluated { logp, entropy } = policy.forward_backward(pack, 1.0, learn)?;
            Ok((-weight * logp.iter().sum::<f64>(), entropy.iter().sum::<f64>()))
        })?;
        let loss = done.iter().fold(0.0, |sum, part| sum + part.0);
        let entropy_sum = done.iter().fold(0.0, |sum, part| sum + part.1);
        let packed = packs.iter().map(Pack::len).sum();
        let grad_norm = self.apply(step)?;
        lap(timing, "update", started);
        Ok(StepRecord {
            schema: RECORD_SCHEMA,
            step,
            tasks: rows.len(),
            row_tokens: rows.iter().map(|row| row.ids.len()).sum(),
            packed_tokens: packed,
            action_tokens: learned,
            loss,
            entropy: entropy_sum * weight,
            grad_norm,
            learning_rate: self.learning_rate(step),
            ..StepRecord::default()
        })
    }
}

/// A conversation as tokens: the row and its learned positions. `index` is its number, for
/// errors.
///
/// # Errors
/// A conversation without a turn to learn; the template's or the tokenizer's.
pub fn encode(
    conversation: &Conversation,
    index: u64,
    format: &ChatFormat,
) -> Result<Row, TrainError> {
    let demonstration = format
        .encode_demonstration(&conversation.messages, &conversation.tools)
        .map_err(|e| TrainError::Invalid(format!("demonstration {index}: {e}")))?;
    let mut actions: Vec<std::ops::Range<usize>> = Vec::new();
    for (position, _) in demonstration.mask.iter().enumerate().filter(|&(_, &learned)| learned) {
        match actions.last_mut() {
            Some(last) if last.end == position => last.end += 1,
            _ => actions.push(position..position + 1),
        }
    }
    Ok(Row { ids: demonstration.ids, actions })
}

/// Too long demonstrations in a row after which an endless source is given up.
const MOST_PASSED: u64 = 10_000;

/// The next `count` demonstrations of at most `longest` tokens, from `position` on in visiting
/// order; too long ones are passed over, and returned is the position after the last.
pub fn collect(
    source: &dyn DemonstrationSource,
    order: &mut VisitOrder,
    position: u64,
    count: usize,
    longest: usize,
    format: &ChatFormat,
) -> Result<(Vec<Row>, u64), TrainError> {
    let mut rows = Vec::with_capacity(count);
    let mut at = position;
    let mut passed = 0;
    while rows.len() < count {
        let row = source.row(order.at(at), format)?;
        at += 1;
        if row.ids.len() <= longest {
            rows.push(row);
            passed = 0;
        } else {
            passed += 1;
            if passed > source.len().unwrap_or(MOST_PASSED) {
                return Err(TrainError::Invalid(format!(
                    "no demonstration has at most {longest} tokens; raise data.demonstration_tokens"
                )));
            }
        }
    }
    Ok((rows, at))
}
