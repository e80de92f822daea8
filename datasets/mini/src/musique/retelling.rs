//! Passages told again, and passages asked about: exercises in the language of the world.
//!
//! A base model should be able to read before it is rewarded for anything, as a pretrained
//! model reads English. To tell a passage again with its facts in another order takes finding
//! each fact and copying each name from where it stands. Which fact answers which question
//! is still unknown afterwards.

use std::collections::BTreeMap;

use super::MiniMusique;
use super::graph::Entity;
use super::passages::{self, Passage, about};
use super::relations::Relation;
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

/// Passages and many questions on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Two passages as titles and texts.
    pub told: Vec<(String, String)>,
    /// Searches, each with the name that answers it.
    pub asked: Vec<(String, String)>,
}

/// Questions of a reading exercise, drawn from the facts of its passages.
const ASKED: usize = 8;

impl MiniMusique {
    /// Reading exercise number `index`, a stream apart from tasks and corpus. Its names are
    /// drawn anew each time, none of them of those kept for test: the corpus has few enough
    /// facts to be learned by heart, these have to be read.
    pub fn reading(&self, index: u64) -> Reading {
        let mut draws = Draws::new(self.root.child("reading").index(index));
        let free: Vec<String> =
            names::all().into_iter().filter(|name| !names::is_reserved(name)).collect();
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        let mut told = Vec::new();
        let mut facts = Vec::new();
        while told.len() < 2 {
            let (entity, variants) = self.anybody(&mut draws, |_| true);
            let variant = *draws.choose(variants);
            let passage = about(entity, &self.entities, variant);
            for name in &passage.names {
                while !given.contains_key(name) {
                    let new = draws.choose(&free);
                    if given.values().all(|known| known != new) {
                        given.insert(name.clone(), new.clone());
                    }
                }
            }
            told.push((renamed(&passage.title, &given), renamed(&passage.text, &given)));
            facts.extend(asked(&passage, &given));
        }
        let asked = (0..ASKED).map(|_| draws.choose(&facts).clone()).collect();
        Reading { told, asked }
    }

    /// An entity of those `wanted` that passages tell about, and the wordings of one of them.
    fn anybody(
        &self,
        draws: &mut Draws,
        wanted: impl Fn(&Entity) -> bool,
    ) -> (&Entity, &'static [&'static str]) {
        loop {
            let entity = draws.choose(&self.entities);
            let texts = passages::of_kind(entity.kind);
            if wanted(entity) && !texts.is_empty() {
                return (entity, *draws.choose(&texts));
            }
        }
    }

    /// Retelling number `index`, a stream apart from tasks and corpus; training's realm only.
    pub fn retelling(&self, index: u64) -> Retelling {
        let mut draws = Draws::new(self.root.child("retelling").index(index));
        let mut draw = || {
            let (entity, variants) = self.anybody(&mut draws, |entity| !entity.reserved);
            let first = draws.below(variants.len());
            let second = (first + 1 + draws.below(variants.len() - 1)) % variants.len();
            let tell = |variant: &str| about(entity, &self.entities, variant).text;
            (entity.name.clone(), tell(variants[first]), tell(variants[second]))
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
}

/// `text` with other names.
fn renamed(text: &str, names: &BTreeMap<String, String>) -> String {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        let (before, word) = rest.split_at(start);
        let end = word.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        parts.push(before);
        parts.push(names.get(word).map_or(word, String::as_str));
        rest = after;
    }
    parts.push(rest);
    parts.concat()
}

/// The facts of a passage under other names: the search for each, and what it finds.
fn asked(passage: &Passage, names: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let Some(subject) = passage.subject.as_ref().and_then(|name| names.get(name)) else {
        return Vec::new();
    };
    let fact = |(relation, object): &(&'static Relation, String)| {
        Some((relation.query(subject), names.get(object)?.clone()))
    };
    passage.facts.iter().filter_map(fact).collect()
}
