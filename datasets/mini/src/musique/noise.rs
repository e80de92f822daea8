//! Demonstrations that are right choice by choice, some of the time.
//!
//! A base model for reinforcement learning has to know how to search and how to answer, and
//! to copy names from what it reads, but not which name to search next nor which answers the
//! question: that is what the rewards teach. So it is shown whole rollouts, search results
//! included, in which each choice is right with a stated probability: how often to search,
//! what to look for, which name of the results to go on with, which name to answer. A wrong
//! choice is another name of the same passage, so that protocol and copying are always right.
//!
//! "Right" is meant locally: after a wrong turn the right name is the one that the question's
//! next relation leads to from where the rollout went. A policy that reads the question would
//! do the same, and the demonstrations teach one habit whatever came before.

use leyden_core::{SeedTree, Task};
use serde_json::Value;

use super::MiniMusique;
use super::relations::{RELATIONS, Relation, by_keyword};
use crate::draws::Draws;

/// One turn of a demonstrated rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// The agent searches.
    Call { query: String },
    /// What the search returned: indices into [`MiniMusique::passages`], best first.
    Result { passages: Vec<usize> },
    /// The agent ends; `name` alone, see [`answer_form`].
    Answer { name: String },
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
    /// Probability that a search after the first is for the right name.
    pub name: f64,
    /// Probability that the answer is the right name.
    pub answer: f64,
}

/// Of the rollouts with a wrong number of searches, the share that stops one too early.
const TOO_EARLY: f64 = 0.8;

impl Noise {
    /// The noise for questions of so many hops. Each choice of a longer question is right
    /// more often, for all of them have to be right at once.
    pub fn of(hops: usize) -> Self {
        match hops {
            0..=2 => Self { searches: 0.6, relation: 0.6, name: 0.45, answer: 0.42 },
            _ => Self { searches: 0.65, relation: 0.65, name: 0.58, answer: 0.5 },
        }
    }

    /// No noise: the rollout as it should go.
    pub fn none() -> Self {
        Self { searches: 1.0, relation: 1.0, name: 1.0, answer: 1.0 }
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
        for hop in 0..searches {
            // A search too many repeats the last relation.
            let asked = chain[hop.min(chain.len() - 1)];
            let relation =
                if draws.chance(self.relation) { asked } else { draws.choose(RELATIONS) };
            let query = relation.query(&name);
            let passages = search(&query);
            let right = if hop + 1 == searches { self.answer } else { self.name };
            name = pick(world, &passages, &name, asked, right, &mut draws);
            turns.push(Turn::Call { query });
            turns.push(Turn::Result { passages });
        }
        turns.push(Turn::Answer { name });
        Ok(turns)
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

/// One hop of a task as a question of its own: a search, and the name that answers it. `number`
/// says which hop, counted in a circle.
///
/// # Errors
/// If the task lacks the fields `chain` and `path` of this world.
pub fn single_hop(task: &Task, number: u64) -> Result<(String, String), NotMiniMusique> {
    let chain = chain_of(task)?;
    let hop = (number % chain.len() as u64) as usize;
    let path = path_of(task)?;
    match (path.get(hop), path.get(hop + 1)) {
        (Some(name), Some(answer)) => Ok((chain[hop].query(name), answer.clone())),
        _ => Err(NotMiniMusique { id: task.id.clone(), field: "path" }),
    }
}

/// The name that `asked` leads to from `name` in what the search found, or, with the
/// probability left by `right`, another name of the passage that tells it. Where none tells
/// it, any other name of the first passage; `name` itself if nothing was found.
fn pick(
    world: &MiniMusique,
    found: &[usize],
    name: &str,
    asked: &Relation,
    right: f64,
    draws: &mut Draws,
) -> String {
    let read = |&i: &usize| world.passages().get(i);
    let told = found.iter().filter_map(read).find_map(|p| Some((p, p.object(name, asked)?)));
    if let Some((_, object)) = told
        && draws.chance(right)
    {
        return object.to_string();
    }
    let passage = told.map(|(p, _)| p).or_else(|| found.iter().find_map(read));
    let object = told.map(|(_, object)| object);
    let others: Vec<&String> = passage
        .iter()
        .flat_map(|p| &p.names)
        .filter(|other| *other != name && Some(other.as_str()) != object)
        .collect();
    if others.is_empty() { name.to_string() } else { draws.choose(&others).to_string() }
}

fn chain_of(task: &Task) -> Result<Vec<&'static Relation>, NotMiniMusique> {
    let wrong = || NotMiniMusique { id: task.id.clone(), field: "chain" };
    let keywords = task.fields.get("chain").and_then(Value::as_array).ok_or_else(wrong)?;
    let relation = |keyword: &Value| keyword.as_str().and_then(by_keyword);
    let chain: Option<Vec<_>> = keywords.iter().map(relation).collect();
    chain.filter(|chain| !chain.is_empty()).ok_or_else(wrong)
}

/// The names from the start to the answer.
fn path_of(task: &Task) -> Result<Vec<String>, NotMiniMusique> {
    let path = task.fields.get("path").and_then(Value::as_array);
    let names =
        path.and_then(|path| path.iter().map(|name| Some(name.as_str()?.to_owned())).collect());
    names.ok_or_else(|| NotMiniMusique { id: task.id.clone(), field: "path" })
}

fn start_of(task: &Task) -> Result<String, NotMiniMusique> {
    let start = path_of(task)?.into_iter().next();
    start.ok_or_else(|| NotMiniMusique { id: task.id.clone(), field: "path" })
}

/// The task is not one of this world.
#[derive(Debug, thiserror::Error)]
#[error("task {id} is not a mini-musique task: its field `{field}` is missing or malformed")]
pub struct NotMiniMusique {
    id: String,
    field: &'static str,
}
