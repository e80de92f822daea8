//! Paraphrases of problems: pretraining data for the world's language, without calculations.
//!
//! A base model should understand its language before reinforcement learning, as a pretrained
//! model understands English. A pair is two wordings of one expression with the same numbers;
//! generating the second from the first requires the role of each number. No expression is shown,
//! so the model does not learn the input to the calculator.

use super::template::SlotWords;
use super::{MiniCalc, OPERATIONS, Template, numbers};
use crate::draws::Draws;

/// One problem in two wordings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paraphrase {
    pub original: String,
    /// Another training wording of the same expression with the same numbers, and the same words
    /// in the slots that both wordings have.
    pub paraphrase: String,
}

impl MiniCalc {
    /// Paraphrase number `index`, independent of tasks and corpus: training wordings and training
    /// numbers only.
    pub fn retelling(&self, index: u64) -> Paraphrase {
        let mut draws = Draws::new(self.root.child("retelling").index(index));
        let operations = *draws.choose(&OPERATIONS);
        let known = |t: &&Template| !t.held_out && t.operations == operations;
        let all: Vec<&Template> = self.templates.iter().filter(known).collect();
        let first = *draws.choose(&all);
        let other = |t: &&&Template| t.shape == first.shape && t.id != first.id;
        let others: Vec<&Template> = all.iter().filter(other).copied().collect();
        let second = closest(first, &others, &mut draws).unwrap_or(first);
        let (numbers, _) = numbers::draw(&first.expression, false, &mut draws);
        let words = SlotWords::draw(&mut draws);
        Paraphrase {
            original: first.render(&numbers, &words),
            paraphrase: second.render(&numbers, &words),
        }
    }
}

/// Draws one of `others`; those with fewer slots that `first` lacks are more likely.
fn closest<'a>(
    first: &Template,
    others: &[&'a Template],
    draws: &mut Draws,
) -> Option<&'a Template> {
    let share = |other: &&Template| {
        let (shared, all) = other.shared_word_slots(first);
        0.25_f64.powi((all - shared) as i32)
    };
    let shares: Vec<f64> = others.iter().map(share).collect();
    (!others.is_empty()).then(|| others[draws.weighted(&shares)])
}
