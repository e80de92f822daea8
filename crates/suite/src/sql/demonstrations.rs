//! Demonstrations of queries: solutions, and pretraining data of mini-spider.

use std::sync::Arc;

use leyden_core::{Message, SeedTree, Task};
use leyden_mini::MiniSpider;
use leyden_mini::spider::{Noise, Turn};
use leyden_sql::SqlAgent;
use leyden_train::data::{Conversation, DemonstrationSource};

use crate::benchmark::Train;
use crate::demonstrations::task_index;
use crate::script::play;

/// Options of the world's demonstrations.
#[derive(Debug, Clone, Copy)]
pub struct WorldOptions {
    /// Whether they are solutions of the training tasks.
    pub gold: bool,
    /// Whether they include the model's verdicts on its queries.
    pub checks: bool,
}

/// Demonstrations of the training tasks, or of the world.
pub fn of(
    train: Train<'_>,
    world: impl FnOnce() -> Arc<MiniSpider>,
    agent: &SqlAgent,
    options: WorldOptions,
) -> Box<dyn DemonstrationSource> {
    let agent = agent.clone();
    match train {
        Train::World(_) => Box::new(WorldDemonstrations { world: world(), agent, options }),
        Train::Tasks(tasks) => Box::new(Gold { tasks: tasks.to_vec(), agent }),
    }
}

fn block(query: &str) -> Message {
    Message::assistant(format!("```sql\n{query}\n```"))
}

/// Demonstrations of tasks from files: the reference query as the first one.
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

/// Either training tasks of mini-spider with their queries, or the pretraining data of its base
/// model: queries in which each choice is correct some of the time, and verdicts little better
/// than chance (see [`leyden_mini::spider::Noise`]).
struct WorldDemonstrations {
    world: Arc<MiniSpider>,
    agent: SqlAgent,
    options: WorldOptions,
}

impl DemonstrationSource for WorldDemonstrations {
    fn len(&self) -> Option<u64> {
        None
    }

    /// One call of a demonstrated rollout; each call is a separate conversation.
    fn conversation(&self, index: u64) -> Conversation {
        let seed = SeedTree::new(index).child("noise");
        let noise = if self.options.gold { Noise::none() } else { Noise::default() };
        let shown = self.world.demonstration(task_index(self.options.gold, index), &noise, seed);
        let reply = |turn: &Turn| match turn {
            Turn::Write { query } | Turn::Rewrite { query } => Some(block(query)),
            Turn::Check { .. } if !self.options.checks => None,
            Turn::Check { correct: true } => Some(Message::assistant("VERDICT: CORRECT")),
            Turn::Check { correct: false } => Some(Message::assistant("VERDICT: INCORRECT")),
        };
        let replies: Vec<Message> = shown.turns.iter().filter_map(reply).collect();
        let mut played = play(&self.agent, &shown.task, replies);
        // Half of the conversations are first queries; the other calls are similar.
        let call = match played.len() {
            0 => return Conversation::default(),
            1 => 0,
            _ if index.is_multiple_of(2) => 0,
            calls => 1 + (index / 2) as usize % (calls - 1),
        };
        played.swap_remove(call)
    }
}
