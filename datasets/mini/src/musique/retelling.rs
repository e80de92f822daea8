//! Paraphrases of passages: pretraining data for the world's language.
//!
//! A base model should be able to read before reinforcement learning, as a pretrained model reads
//! English. Paraphrasing a passage with its facts in another order requires finding each fact and
//! copying each name. The model does not learn which fact answers which question.

use std::collections::BTreeMap;

use super::MiniMusique;
use super::graph::Entity;
use super::passages::{self, about};
use crate::draws::Draws;
use crate::names;

/// A passage shown with another one, and its paraphrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paraphrase {
    /// Two passages as titles and texts, in the order in which they are shown.
    pub original: Vec<(String, String)>,
    /// The number of the paraphrased passage, from 1.
    pub number: usize,
    /// The same facts in the other wording.
    pub paraphrase: String,
}

impl MiniMusique {
    /// Paraphrase number `index`, independent of tasks and corpus. Its names are drawn afresh each
    /// time and are never reserved ones: the corpus is small enough to be memorised, these have to
    /// be read.
    pub fn retelling(&self, index: u64) -> Paraphrase {
        let mut draws = Draws::new(self.root.child("retelling").index(index));
        let mut renaming = Renaming::default();
        let mut draw = || {
            let (entity, variants) = self.random_entity(&mut draws);
            let first = draws.below(variants.len());
            let second = (first + 1 + draws.below(variants.len() - 1)) % variants.len();
            let passage = about(entity, &self.entities, variants[first]);
            renaming.extend(&passage.names, &mut draws);
            let again = about(entity, &self.entities, variants[second]).text;
            (renaming.apply(&passage.title), renaming.apply(&passage.text), renaming.apply(&again))
        };
        let (title, text, paraphrase) = draw();
        let (other_title, other_text, _) = draw();
        let own_first = draws.chance(0.5);
        let mut passages_shown = vec![(title, text), (other_title, other_text)];
        if !own_first {
            passages_shown.reverse();
        }
        Paraphrase { original: passages_shown, number: if own_first { 1 } else { 2 }, paraphrase }
    }

    /// A random entity with passages, and the wordings of one of them.
    fn random_entity(&self, draws: &mut Draws) -> (&Entity, &'static [&'static str]) {
        loop {
            let entity = draws.choose(&self.entities);
            let texts = passages::of_kind(entity.kind);
            if !texts.is_empty() {
                return (entity, *draws.choose(&texts));
            }
        }
    }
}

/// Replacements of names within one paraphrase.
#[derive(Default)]
struct Renaming(BTreeMap<String, String>);

impl Renaming {
    /// Draws a distinct replacement for each name that has none yet.
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

    /// Replaces the names in `text`.
    fn apply(&self, text: &str) -> String {
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
