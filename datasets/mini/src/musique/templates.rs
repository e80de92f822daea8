//! Chains of relations and their wordings.
//!
//! A template is a chain with one phrase per hop. For questions of two and three hops all
//! combinations exist; one in four of each chain is held out. Which one differs between chains, so
//! that every phrase of every relation occurs in training. Longer questions: see [`super::long`].

use std::collections::BTreeMap;

use leyden_core::SeedTree;

use super::relations::{RELATIONS, Relation};
use crate::draws::Draws;
use crate::fill::fill;

/// A chain of relations in one wording.
#[derive(Debug, Clone)]
pub struct Template {
    /// The keywords of the chain and the number of the wording: `writer-birthplace-land#3`.
    pub id: String,
    /// The relations from the entity that the question names to its answer.
    pub chain: Vec<&'static Relation>,
    /// The question with `{x}` for the entity.
    pub text: String,
    /// Whether the template is reserved for test.
    pub held_out: bool,
}

impl Template {
    /// Wording number `number`, from 0, of a chain.
    pub(super) fn new(
        chain: &[&'static Relation],
        number: usize,
        text: String,
        held_out: bool,
    ) -> Self {
        let id = format!("{}#{}", name(chain), number + 1);
        Self { id, chain: chain.to_vec(), text, held_out }
    }

    pub fn hops(&self) -> usize {
        self.chain.len()
    }

    /// The question about `name`.
    pub fn render(&self, name: &str) -> String {
        fill(&self.text, |_| name.to_string())
    }
}

/// One in `HELD_OUT_ONE_IN` wordings is reserved for test.
const HELD_OUT_ONE_IN: u64 = 4;

/// The templates of a world, by number of hops and by whether they are held out.
#[derive(Debug, Clone)]
pub(super) struct Templates {
    all: Vec<Template>,
    places: BTreeMap<(usize, bool), Vec<usize>>,
}

impl Templates {
    pub fn new(all: Vec<Template>) -> Self {
        let mut places: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (place, template) in all.iter().enumerate() {
            places.entry((template.hops(), template.held_out)).or_default().push(place);
        }
        Self { all, places }
    }

    pub fn all(&self) -> &[Template] {
        &self.all
    }

    pub fn draw(&self, hops: usize, held_out: bool, draws: &mut Draws) -> &Template {
        &self.all[*draws.choose(&self.places[&(hops, held_out)])]
    }
}

/// All templates of two and three hops, in a fixed order.
pub(super) fn all() -> Vec<Template> {
    [2, 3].into_iter().flat_map(chains).flat_map(|chain| wordings(&chain)).collect()
}

/// All chains of `hops` distinct relations in which the subject kind of each is the object kind of
/// the previous one.
pub(super) fn chains(hops: usize) -> Vec<Vec<&'static Relation>> {
    let mut chains: Vec<Vec<&'static Relation>> = RELATIONS.iter().map(|r| vec![r]).collect();
    for _ in 1..hops {
        let longer = chains.iter().flat_map(|chain| {
            let continues = |next: &&'static Relation| {
                let end = chain.last().map(|last| last.object);
                end == Some(next.subject) && !chain.contains(next)
            };
            RELATIONS.iter().filter(continues).map(|next| [chain.as_slice(), &[next]].concat())
        });
        chains = longer.collect();
    }
    chains
}

fn wordings(chain: &[&'static Relation]) -> Vec<Template> {
    let node = SeedTree::new(0).child("held-out wordings").child(&name(chain));
    let offset = node.seed() % HELD_OUT_ONE_IN;
    texts(chain, |_, _| true)
        .into_iter()
        .enumerate()
        .map(|(number, text)| {
            Template::new(chain, number, text, number as u64 % HELD_OUT_ONE_IN == offset)
        })
        .collect()
}

/// All texts of a chain. `allowed` selects the phrases of hop number `hop`, from 0.
pub(super) fn texts(
    chain: &[&'static Relation],
    allowed: impl Fn(usize, &str) -> bool,
) -> Vec<String> {
    let Some((last, inner)) = chain.split_last() else { return Vec::new() };
    let root =
        chain[0].subject.noun().map_or("{x}".to_string(), |noun| format!("the {noun} {{x}}"));
    let mut subjects = vec![root];
    for (hop, relation) in inner.iter().enumerate() {
        let phrases: Vec<&str> =
            relation.phrases.iter().copied().filter(|phrase| allowed(hop, phrase)).collect();
        subjects = subjects
            .iter()
            .flat_map(|subject| phrases.iter().map(|phrase| put(phrase, subject)))
            .collect();
    }
    subjects.iter().flat_map(|subject| last.asks.iter().map(|ask| put(ask, subject))).collect()
}

/// The keywords of a chain: `writer-birthplace-land`.
fn name(chain: &[&Relation]) -> String {
    let keywords: Vec<&str> = chain.iter().map(|relation| relation.keyword).collect();
    keywords.join("-")
}

fn put(phrase: &str, subject: &str) -> String {
    fill(phrase, |_| subject.to_string())
}
