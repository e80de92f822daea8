//! Supervised training: imitate demonstrations, through the same packing and optimiser.

use leyden_lm::forest::{self, Row};
use leyden_text::ChatFormat;

use crate::TrainError;
use crate::data::{DemonstrationSource, VisitOrder};

/// A demonstration as tokens: the row and its learned positions.
pub fn encode(
    source: &dyn DemonstrationSource,
    index: u64,
    format: &ChatFormat,
) -> Result<Row, TrainError> {
    let conversation = source.conversation(index);
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
        let row = encode(source, order.at(at), format)?;
        at += 1;
        if row.ids.len() <= longest {
            rows.push(row);
            passed = 0;
        } else {
            passed += 1;
            if source.len().is_some_and(|len| passed > len) {
                return Err(TrainError::Invalid(format!(
                    "no demonstration has at most {longest} tokens; raise data.demonstration_tokens"
                )));
            }
        }
    }
    Ok((rows, at))
}

/// Micro-batches of demonstrations, each its own tree: conversations have little in common.
pub fn pack(rows: &[Row], budget: usize) -> Result<Vec<forest::Pack>, TrainError> {
    let groups: Vec<usize> = (0..rows.len()).collect();
    forest::pack(rows, &groups, budget).map_err(|e| TrainError::Invalid(e.to_string()))
}
