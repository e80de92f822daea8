//! Chains of relations and their wordings.
//!
//! A template is a chain with one phrase per hop. All combinations exist; one in four of each chain
//! is held out. Which one differs between chains, so that every phrase of every relation occurs in
//! training.

use leyden_core::SeedTree;

use super::relations::{RELATIONS, Relation};
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

/// All templates of two and three hops, in a fixed order.
pub(super) fn all() -> Vec<Template> {
    [2, 3].into_iter().flat_map(chains).flat_map(|chain| wordings(&chain)).collect()
}

/// All chains of `hops` distinct relations in which the subject kind of each is the object kind of
/// the previous one.
fn chains(hops: usize) -> Vec<Vec<&'static Relation>> {
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
    let Some((last, inner)) = chain.split_last() else { return Vec::new() };
    let root =
        chain[0].subject.noun().map_or("{x}".to_string(), |noun| format!("the {noun} {{x}}"));
    let mut subjects = vec![root];
    for relation in inner {
        subjects = subjects
            .iter()
            .flat_map(|subject| relation.phrases.iter().map(|phrase| put(phrase, subject)))
            .collect();
    }
    let texts = subjects.iter().flat_map(|subject| last.asks.iter().map(|ask| put(ask, subject)));
    let keywords: Vec<&str> = chain.iter().map(|relation| relation.keyword).collect();
    let name = keywords.join("-");
    let offset = SeedTree::new(0).child("held-out wordings").child(&name).seed() % HELD_OUT_ONE_IN;
    texts
        .enumerate()
        .map(|(number, text)| Template {
            id: format!("{name}#{}", number + 1),
            chain: chain.to_vec(),
            text,
            held_out: number as u64 % HELD_OUT_ONE_IN == offset,
        })
        .collect()
}

fn put(phrase: &str, subject: &str) -> String {
    fill(phrase, |_| subject.to_string())
}
