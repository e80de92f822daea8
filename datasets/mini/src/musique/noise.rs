//! Demonstrations in which each choice is correct with a given probability.
//!
//! A base model for reinforcement learning has to know how to search and how to read results, but
//! not what to search for; the rewards train that. Its demonstrations are whole rollouts with
//! search results, in which two choices are correct with a given probability: the number of
//! searches and the next relation. The most common mistake follows the question, which names its
//! last relation first: queries in this reversed order are somewhat more frequent than correct
//! ones, except for questions of more than three hops, whose rollouts would hardly ever be
//! rewarded.
//!
//! A result is stated before the next step: "the birthplace kalo.", then the next search or the
//! answer is for `kalo`. Reading is thus the same three steps every time: repeat the keyword, copy
//! the name that follows it in the passage, continue with that name. These steps are always
//! correct.
//!
//! Correctness is local: after a wrong step the correct relation is still the question's next one,
//! applied to the current entity. A policy that follows the question would do the same, so the
//! demonstrations are consistent after mistakes.

use leyden_core::{SeedTree, Task};
use serde_json::Value;

use super::MiniMusique;
use super::relations::{RELATIONS, Relation, by_keyword};
use crate::draws::Draws;

/// One turn of a demonstrated rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// The agent states the fact `read`, if any, and searches.
    Call { read: Option<Read>, query: String },
    /// The search results: indices into [`MiniMusique::passages`], best first.
    Result { passages: Vec<usize> },
    /// The agent states the fact `read` and answers with the bare `name`; see [`answer_form`].
    Answer { read: Option<Read>, name: String },
}

/// A fact found in a passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub relation: &'static Relation,
    pub name: String,
}

impl Read {
    /// The fact as stated by the agent, in the words of the passage.
    pub fn said(&self) -> String {
        format!("the {} {}.", self.relation.keyword, self.name)
    }
}

/// The answer in the form that the scorer expects. With the leading space the name is tokenized as
/// in the passages.
pub fn answer_form(name: &str) -> String {
    format!("<answer> {name}</answer>")
}

/// Error rates of demonstrations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// Probability that the number of searches equals the number of hops; otherwise it is mostly
    /// one less.
    pub searches: f64,
    /// Probability that a query has the correct relation.
    pub relation: f64,
    /// Probability that a query has the relation at its position in the order in which the
    /// question names them. The remaining queries have a random relation.
    pub reversed: f64,
}

/// Of the rollouts with a wrong number of searches, the share with one too few.
const TOO_EARLY: f64 = 0.8;

impl Noise {
    /// The noise for questions with `hops` hops. About one rollout in ten finds the answer, for
    /// each number of hops: a longer rollout needs more correct choices, so each of them is correct
    /// more often.
    pub fn of(hops: usize) -> Self {
        let (searches, relation, reversed) = match hops {
            ..=2 => (0.6, 0.3, 0.5),
            3 => (0.65, 0.3, 0.5),
            4 | 5 => (0.65, 0.55, 0.3),
            _ => (0.65, 0.65, 0.25),
        };
        Self { searches, relation, reversed }
    }

    /// No noise: the correct rollout.
    pub fn none() -> Self {
        Self { searches: 1.0, relation: 1.0, reversed: 0.0 }
    }

    /// Draws a rollout for `task`. `search` is the agent's search over
    /// [`MiniMusique::passages`]; it returns indices, best first, as many as the agent sees.
    ///
    /// # Errors
    /// If the task lacks the fields `chain` and `path` of this world.
    pub fn draw(
        &self,
        world: &MiniMusique,
        task: &Task,
        seed: SeedTree,
        mut search: impl FnMut(&str) -> Vec<usize>,
    ) -> Result<Vec<Turn>, NotMiniMusique> {
        let chain = chain_of(task)?;
        let mut name = start_of(task)?;
        let mut draws = Draws::new(seed.child("noise"));
        let searches = self.number_of_searches(chain.len(), &mut draws);
        let mut turns = Vec::new();
        let mut found = None;
        for hop in 0..searches {
            let queried = self.relation(&chain, hop, &mut draws);
            let query = queried.query(&name);
            let passages = search(&query);
            turns.push(Turn::Call { read: found.take(), query });
            found = read(world, &passages, queried, &mut draws);
            if let Some(Read { name: next, .. }) = &found {
                name.clone_from(next);
            }
            turns.push(Turn::Result { passages });
        }
        turns.push(Turn::Answer { read: found, name });
        Ok(turns)
    }

    /// The relation of search number `hop`.
    fn relation(
        &self,
        chain: &[&'static Relation],
        hop: usize,
        draws: &mut Draws,
    ) -> &'static Relation {
        // An excess search repeats the last relation.
        let hop = hop.min(chain.len() - 1);
        let drawn = draws.uniform();
        if drawn < self.relation {
            chain[hop]
        } else if drawn < self.relation + self.reversed {
            chain[chain.len() - 1 - hop]
        } else {
            draws.choose(RELATIONS)
        }
    }

    fn number_of_searches(&self, hops: usize, draws: &mut Draws) -> usize {
        if draws.chance(self.searches) {
            hops
        } else if draws.chance(TOO_EARLY) {
            hops - 1
        } else {
            hops + 1
        }
    }
}

/// The fact extracted from search results: the first fact of the queried relation about any
/// subject; if there is none, a random fact of the first passage with facts.
fn read(
    world: &MiniMusique,
    found: &[usize],
    queried: &'static Relation,
    draws: &mut Draws,
) -> Option<Read> {
    let passages = || found.iter().filter_map(|&i| world.passages().get(i));
    if let Some(name) = passages().find_map(|passage| passage.fact(queried)) {
        return Some(Read { relation: queried, name: name.to_owned() });
    }
    let facts = passages().map(|passage| &passage.facts).find(|facts| !facts.is_empty())?;
    let (relation, name) = draws.choose(facts);
    Some(Read { relation, name: name.clone() })
}

fn chain_of(task: &Task) -> Result<Vec<&'static Relation>, NotMiniMusique> {
    let wrong = || NotMiniMusique { id: task.id.clone(), field: "chain" };
    let keywords = task.fields.get("chain").and_then(Value::as_array).ok_or_else(wrong)?;
    let relation = |keyword: &Value| keyword.as_str().and_then(by_keyword);
    let chain: Option<Vec<_>> = keywords.iter().map(relation).collect();
    chain.filter(|chain| !chain.is_empty()).ok_or_else(wrong)
}

fn start_of(task: &Task) -> Result<String, NotMiniMusique> {
    let path = task.fields.get("path").and_then(Value::as_array);
    let start = path.and_then(|path| Some(path.first()?.as_str()?.to_owned()));
    start.ok_or_else(|| NotMiniMusique { id: task.id.clone(), field: "path" })
}

/// The task does not belong to this world.
#[derive(Debug, thiserror::Error)]
#[error("task {id} is not a mini-musique task: its field `{field}` is missing or malformed")]
pub struct NotMiniMusique {
    id: String,
    field: &'static str,
}
