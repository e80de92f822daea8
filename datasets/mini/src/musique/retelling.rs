//! Passages told again: exercises in the language of the world.
//!
//! A base model should be able to read before it is rewarded for anything, as a pretrained
//! model reads English. To tell a passage again with its facts in another order takes finding
//! each fact and copying each name from where it stands. Which fact answers which question
//! is still unknown afterwards.

use std::collections::BTreeMap;

use super::MiniMusique;
use super::graph::Entity;
use super::passages::{self, about};
use crate::draws::Draws;
use crate::names;

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
    /// Retelling number `index`, a stream apart from tasks and corpus. Its names are drawn anew
    /// each time, none of them of those kept for test: the corpus has few enough facts to be
    /// learned by heart, these have to be read.
    pub fn retelling(&self, index: u64) -> Retelling {
        let mut draws = Draws::new(self.root.child("retelling").index(index));
        let mut given = Given::default();
        let mut draw = || {
            let (entity, variants) = self.anybody(&mut draws);
            let first = draws.below(variants.len());
            let second = (first + 1 + draws.below(variants.len() - 1)) % variants.len();
            let passage = about(entity, &self.entities, variants[first]);
            given.extend(&passage.names, &mut draws);
            let again = about(entity, &self.entities, variants[second]).text;
            (given.put(&passage.title), given.put(&passage.text), given.put(&again))
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

    /// An entity that passages tell about, and the wordings of one of them.
    fn anybody(&self, draws: &mut Draws) -> (&Entity, &'static [&'static str]) {
        loop {
            let entity = draws.choose(&self.entities);
            let texts = passages::of_kind(entity.kind);
            if !texts.is_empty() {
                return (entity, *draws.choose(&texts));
            }
        }
    }
}

/// Names and those that stand for them in one exercise.
#[derive(Default)]
struct Given(BTreeMap<String, String>);

impl Given {
    /// Draws a new name for each that has none yet; no two get the same.
    fn extend(&mut self, names: &[String], draws: &mut Draws) {
        let free = names::free();
        for name in names {
            while !self.0.contains_key(name) {
                let new = draws.choose(free);
                if self.0.values().all(|known| known != new) {
                    self.0.insert(name.clone(), new.clone());
                }
            }
        }
    }

    /// `text` with the new names.
    fn put(&self, text: &str) -> String {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
            let (before, word) = rest.split_at(start);
            let end = word.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(word.len());
            let (word, after) = word.split_at(end);
            parts.push(before);
            parts.push(self.0.get(word).map_or(word, String::as_str));
            rest = after;
        }
        parts.push(rest);
        parts.concat()
    }
}
