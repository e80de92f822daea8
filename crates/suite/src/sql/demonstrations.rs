//! Queries as they should be written, and as a base model should know them.

use std::sync::Arc;

use leyden_core::{Message, SeedTree, Task};
use leyden_mini::MiniSpider;
use leyden_mini::spider::{Noise, Turn};
use leyden_sql::SqlAgent;
use leyden_train::data::{Conversation, DemonstrationSource};

use crate::benchmark::Train;
use crate::demonstrations::lesson;
use crate::script::play;

/// What the demonstrations of the world show.
#[derive(Debug, Clone, Copy)]
pub struct OfTheWorld {
    /// Only what is right.
    pub gold: bool,
    /// Whether the model says itself if a query is right.
    pub checks: bool,
}

/// Demonstrations of the training tasks, or of the world.
pub fn of(
    train: Train<'_>,
    world: impl FnOnce() -> Arc<MiniSpider>,
    agent: &SqlAgent,
    options: OfTheWorld,
) -> Box<dyn DemonstrationSource> {
    let agent = agent.clone();
    match train {
        Train::World => Box::new(WorldDemonstrations { world: world(), agent, options }),
        Train::Tasks(tasks) => Box::new(Gold { tasks: tasks.to_vec(), agent }),
    }
}

fn block(query: &str) -> Message {
    Message::assistant(format!("```sql\n{query}\n```"))
}

/// The reference query as the first one, for tasks of files.
struct Gold {
    tasks: Vec<Task>,
    agent: SqlAgent,
}

impl DemonstrationSource for Gold {
    fn len(&self) -> Option<u64> {
        Some(self.tasks.len() as u64)
    }

    fn conversation(&self, index: u64) -> Conversation {
        let task = &self.tasks[index as usize];
        let played = play(&self.agent, task, vec![block(&task.gold)]);
        played.into_iter().next().unwrap_or_default()
    }
}

/// Either the training tasks of mini-spider with their queries, or what its base model is
/// raised on: queries right choice by choice, some of the time, and verdicts little better than
/// chance (see [`leyden_mini::spider::Noise`]).
struct WorldDemonstrations {
    world: Arc<MiniSpider>,
    agent: SqlAgent,
    options: OfTheWorld,
}

impl DemonstrationSource for WorldDemonstrations {
    fn len(&self) -> Option<u64> {
        None
    }

    /// One call of a demonstrated rollout: each is a conversation of its own.
    fn conversation(&self, index: u64) -> Conversation {
        let seed = SeedTree::new(index).child("noise");
        let noise = if self.options.gold { Noise::none() } else { Noise::default() };
        let shown = self.world.demonstration(lesson(self.options.gold, index), &noise, seed);
        let reply = |turn: &Turn| match turn {
            Turn::Write { query } | Turn::Rewrite { query } => Some(block(query)),
            Turn::Check { .. } if !self.options.checks => None,
            Turn::Check { correct: true } => Some(Message::assistant("VERDICT: CORRECT")),
            Turn::Check { correct: false } => Some(Message::assistant("VERDICT: INCORRECT")),
        };
        let replies: Vec<Message> = shown.turns.iter().filter_map(reply).collect();
        let mut played = play(&self.agent, &shown.task, replies);
        // Half of the lessons are first queries, from which the others differ little.
        let call = match played.len() {
            0 => return Conversation::default(),
            1 => 0,
            _ if index.is_multiple_of(2) => 0,
            calls => 1 + (index / 2) as usize % (calls - 1),
        };
        played.swap_remove(call)
    }
}
