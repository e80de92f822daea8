//! Problems told twice: exercises in the language of the world, without a calculation.
//!
//! A base model should understand its language before it is rewarded for anything, as a
//! pretrained model understands English. Two wordings of one expression, with the same numbers,
//! are such an exercise: who tells the one after the other must have understood which number
//! plays which part and what happens to it. No expression is ever shown, so what to type into
//! the calculator is still unknown afterwards.

use super::template::SlotWords;
use super::{MiniCalc, OPERATIONS, Template, numbers};
use crate::draws::Draws;

/// One problem in two wordings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retelling {
    pub told: String,
    /// Another training wording of the same expression with the same numbers; the same words
    /// where both wordings have a place for them.
    pub retold: String,
}

impl MiniCalc {
    /// Retelling number `index`, a stream apart from tasks and corpus: training wordings and
    /// training numbers only.
    pub fn retelling(&self, index: u64) -> Retelling {
        let mut draws = Draws::new(self.root.child("retelling").index(index));
        let operations = *draws.choose(&OPERATIONS);
        let known = |t: &&Template| !t.held_out && t.operations == operations;
        let all: Vec<&Template> = self.templates.iter().filter(known).collect();
        let told = *draws.choose(&all);
        let other = |t: &&&Template| t.shape == told.shape && t.id != told.id;
        let others: Vec<&Template> = all.iter().filter(other).copied().collect();
        let retold = closest(told, &others, &mut draws).unwrap_or(told);
        let (numbers, _) = numbers::draw(&told.expression, false, &mut draws);
        let words = SlotWords::draw(&mut draws);
        Retelling { told: told.render(&numbers, &words), retold: retold.render(&numbers, &words) }
    }
}

/// One of `others`, the likelier the fewer words it needs that `told` does not give.
fn closest<'a>(
    told: &Template,
    others: &[&'a Template],
    draws: &mut Draws,
) -> Option<&'a Template> {
    let share = |other: &&Template| {
        let (shared, all) = other.shared_word_slots(told);
        0.25_f64.powi((all - shared) as i32)
    };
    let shares: Vec<f64> = others.iter().map(share).collect();
    (!others.is_empty()).then(|| others[draws.weighted(&shares)])
}
