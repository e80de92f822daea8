//! Passages told again, and names said again: exercises without a question.
//!
//! A base model should be able to read before it is rewarded for anything, as a pretrained
//! model reads English. To tell a passage again with its facts in another order takes finding
//! each fact and copying each name from where it stands. Which fact answers which question
//! is still unknown afterwards.

use super::MiniMusique;
use super::passages::{self, about};
use crate::draws::Draws;
use crate::names;

/// Names of an exercise in copying.
const LISTED: usize = 8;

/// A passage among others, and its other wording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retelling {
    /// Two passages as titles and texts, in the order in which they are shown.
    pub told: Vec<(String, String)>,
    /// The number of the one that is told again, counted from 1.
    pub number: usize,
    /// The same facts in the other wording.
    pub retold: String,
}

impl MiniMusique {
    /// Retelling number `index`, a stream apart from tasks and corpus; training's realm only.
    pub fn retelling(&self, index: u64) -> Retelling {
        let mut draws = Draws::new(self.root.child("retelling").index(index));
        let mut draw = || loop {
            let entity = draws.choose(&self.entities);
            if entity.reserved {
                continue;
            }
            let texts = passages::of_kind(entity.kind);
            if texts.is_empty() {
                continue;
            }
            let variants = *draws.choose(&texts);
            let first = draws.below(variants.len());
            let second = (first + 1 + draws.below(variants.len() - 1)) % variants.len();
            let tell = |variant: &str| about(entity, &self.entities, variant).text;
            return (entity.name.clone(), tell(variants[first]), tell(variants[second]));
        };
        let (title, text, retold) = draw();
        let (other_title, other_text, _) = draw();
        let own_first = draws.chance(0.5);
        let mut told = vec![(title, text), (other_title, other_text)];
        if !own_first {
            told.reverse();
        }
        Retelling { told, number: if own_first { 1 } else { 2 }, retold }
    }

    /// Names to be said again in another order: two texts. No two of the names begin alike, so
    /// that the first syllable tells the second; which name comes next, nothing tells. Who can
    /// do this copies a name by what it is and not by where it stands.
    pub fn names_again(&self, index: u64) -> (String, String) {
        let mut draws = Draws::new(self.root.child("names").index(index));
        let all: Vec<String> =
            names::all().into_iter().filter(|n| !names::is_reserved(n)).collect();
        let mut listed: Vec<&String> = Vec::new();
        while listed.len() < LISTED {
            let name = draws.choose(&all);
            if listed.iter().all(|known| known[..2] != name[..2]) {
                listed.push(name);
            }
        }
        let text = |names: &[&String]| names.iter().map(|n| format!(" {n}")).collect::<String>();
        let told = text(&listed);
        draws.shuffle(&mut listed);
        (told, text(&listed))
    }
}
