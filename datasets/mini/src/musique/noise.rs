//! Demonstrations that are right choice by choice, some of the time.
//!
//! A base model for reinforcement learning has to know how to search and how to read what it
//! found, but not what to ask for: that is what the rewards teach. So it is shown whole
//! rollouts, search results included, in which the choices are right with a stated probability:
//! how often to search, and which relation to ask for next. Its usual mistake is the one that a
//! question suggests, which names its last relation first: the demonstrations ask in the order
//! of reading, from the outside in, a little more often than in the right one.
//!
//! What was found is said before going on: "the birthplace kalo.", then the next search or the
//! answer is for `kalo`. So reading is the same three steps every time: repeat the word that
//! was asked for, say what follows it in the passage, go on with that name. This is always done
//! right.
//!
//! "Right" is meant locally: after a wrong turn the right relation is the question's next one,
//! asked of where the rollout went. A policy that reads the question would do the same, and the
//! demonstrations teach one habit whatever came before.

use leyden_core::{SeedTree, Task};
use serde_json::Value;

use super::MiniMusique;
use super::relations::{RELATIONS, Relation, by_keyword};
use crate::draws::Draws;

/// One turn of a demonstrated rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// The agent says what it has `read`, if anything, and searches.
    Call { read: Option<Read>, query: String },
    /// What the search returned: indices into [`MiniMusique::passages`], best first.
    Result { passages: Vec<usize> },
    /// The agent says what it has `read` and ends; `name` alone, see [`answer_form`].
    Answer { read: Option<Read>, name: String },
}

/// A fact that was found in a passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub relation: &'static Relation,
    pub name: String,
}

impl Read {
    /// The fact as the agent says it, in the words of the passage.
    pub fn said(&self) -> String {
        format!("the {} {}.", self.relation.keyword, self.name)
    }
}

/// The answer in the form that the scorer looks for. The space before the name gives it the
/// form that it has in the passages.
pub fn answer_form(name: &str) -> String {
    format!("<answer> {name}</answer>")
}

/// How far demonstrations are from right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// Probability of as many searches as the question has hops; else mostly one fewer.
    pub searches: f64,
    /// Probability that a query has the right relation.
    pub relation: f64,
    /// Probability that a query has the relation that would be due if the question's relations
    /// were asked in the order in which it names them. The rest of the queries have any.
    pub reversed: f64,
}

/// Of the rollouts with a wrong number of searches, the share that stops one too early.
const TOO_EARLY: f64 = 0.8;

impl Noise {
    /// The noise for questions of so many hops.
    pub fn of(hops: usize) -> Self {
        let searches = if hops <= 2 { 0.6 } else { 0.65 };
        Self { searches, relation: 0.3, reversed: 0.5 }
    }

    /// No noise: the rollout as it should go.
    pub fn none() -> Self {
        Self { searches: 1.0, relation: 1.0, reversed: 0.0 }
    }

    /// The rollout that `seed` draws for `task`. `search` is the agent's own search over
    /// [`MiniMusique::passages`]: indices, best first, as many as the agent is shown.
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
            let asked = self.relation(&chain, hop, &mut draws);
            let query = asked.query(&name);
            let passages = search(&query);
            turns.push(Turn::Call { read: found.take(), query });
            found = read(world, &passages, asked, &mut draws);
            if let Some(Read { name: next, .. }) = &found {
                name.clone_from(next);
            }
            turns.push(Turn::Result { passages });
        }
        turns.push(Turn::Answer { read: found, name });
        Ok(turns)
    }

    /// What is asked for in search number `hop`.
    fn relation(
        &self,
        chain: &[&'static Relation],
        hop: usize,
        draws: &mut Draws,
    ) -> &'static Relation {
        // A search too many repeats the last relation.
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

/// What a reader who asked for a relation takes from what was found: the first fact of that
/// relation, whomever it is about; where none is told, any fact of the first passage that tells
/// some.
fn read(
    world: &MiniMusique,
    found: &[usize],
    asked: &'static Relation,
    draws: &mut Draws,
) -> Option<Read> {
    let passages = || found.iter().filter_map(|&i| world.passages().get(i));
    if let Some(name) = passages().find_map(|passage| passage.fact(asked)) {
        return Some(Read { relation: asked, name: name.to_owned() });
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

/// The task is not one of this world.
#[derive(Debug, thiserror::Error)]
#[error("task {id} is not a mini-musique task: its field `{field}` is missing or malformed")]
pub struct NotMiniMusique {
    id: String,
    field: &'static str,
}
