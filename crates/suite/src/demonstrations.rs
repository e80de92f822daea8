//! Demonstrations of generated worlds, and their tasks as an endless stream.

use std::sync::Arc;

use leyden_core::{Message, Task};
use leyden_mini::names::NamesAgain;
use leyden_train::data::{Conversation, DemonstrationSource, TaskSource};

use crate::benchmark::World;

/// Tasks of base models begin here in a world's stream: runs from its start never meet them.
const FIRST_LESSON: u64 = 1 << 40;

/// The task of a world's stream that demonstration `index` is about: the one that a run meets as
/// that number, if it is `gold`.
pub fn lesson(gold: bool, index: u64) -> u64 {
    if gold { index } else { FIRST_LESSON + index }
}

/// The endless stream of a world as the tasks of a run.
pub struct Stream(pub Arc<dyn World>);

impl TaskSource for Stream {
    fn len(&self) -> Option<u64> {
        None
    }

    fn task(&self, index: u64) -> Task {
        self.0.train(index)
    }
}

/// Demonstrations of several endless sources in turn, after some exercises in copying. With
/// any at all, every round ends with one more, so that what they teach is not unlearned.
pub struct InTurn {
    exercises: Copying,
    /// So many exercises come first.
    first: u64,
    sources: Vec<Box<dyn DemonstrationSource>>,
    /// Whose turn it is, round by round; a source may have several turns of a round.
    turns: Vec<usize>,
}

impl InTurn {
    pub fn new(
        sources: Vec<Box<dyn DemonstrationSource>>,
        turns: Vec<usize>,
        seed: u64,
        first: u64,
    ) -> Self {
        Self { exercises: Copying(NamesAgain::new(seed)), first, sources, turns }
    }

    /// The source of item `index` after the first exercises, and which of that source's items
    /// it is; no source where the turn is an exercise's.
    fn place(&self, index: u64) -> (Option<usize>, u64) {
        let exercise = u64::from(self.first > 0);
        let round = self.turns.len() as u64 + exercise;
        let slot = (index % round) as usize;
        let Some(&source) = self.turns.get(slot) else {
            return (None, self.first + index / round);
        };
        let count = |turns: &[usize]| turns.iter().filter(|&&turn| turn == source).count() as u64;
        (Some(source), index / round * count(&self.turns) + count(&self.turns[..slot]))
    }
}

impl DemonstrationSource for InTurn {
    fn len(&self) -> Option<u64> {
        None
    }

    fn conversation(&self, index: u64) -> Conversation {
        let Some(index) = index.checked_sub(self.first) else {
            return self.exercises.conversation(index);
        };
        match self.place(index) {
            (Some(source), item) => self.sources[source].conversation(item),
            (None, exercise) => self.exercises.conversation(exercise),
        }
    }
}

/// Exercises in copying: draws from a list of names. A model that begins with some thousands
/// of these has learned to copy a name by what it is before it meets anything else, and every
/// other lesson goes faster.
struct Copying(NamesAgain);

impl DemonstrationSource for Copying {
    fn len(&self) -> Option<u64> {
        None
    }

    fn conversation(&self, index: u64) -> Conversation {
        let (told, again) = self.0.exercise(index);
        let asked = Message::user(format!("draw from{told}."));
        Conversation { messages: vec![asked, Message::assistant(again)], tools: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benchmark::Train;
    use crate::model::tiny;
    use leyden_train::config::Demonstrations;

    #[test]
    fn gold_demonstrations_solve_the_tasks_that_a_run_meets() {
        let registry = crate::registry();
        for (_, benchmark) in registry.worlds() {
            let agent = benchmark.name();
            let mut settings = tiny::settings(&registry, agent, 0).unwrap();
            settings.data.demonstrations = Demonstrations::Gold;
            let dataset = registry.prepare(settings).unwrap();
            let assembled = dataset.assemble(Train::World, &[], true).unwrap();
            let (world, shown) = (dataset.world().unwrap().1, assembled.demonstrations.unwrap());
            for index in 0..20 {
                let task = world.train(index);
                let messages = shown.conversation(index).messages;
                let asked = messages.iter().any(|message| message.content.contains(&task.question));
                assert!(asked, "{agent}: task {index} is not shown: {messages:?}");
                // A query may be followed by its verdict; numbers are grouped by `_`.
                let plain = |text: &str| text.replace('_', "");
                let mut answered = messages.iter().rev().take(3);
                let right = answered.any(|m| plain(&m.content).contains(&plain(&task.gold)));
                assert!(right, "{agent}: {} is not the end of {messages:?}", task.gold);
            }
        }
    }

    #[test]
    fn a_source_with_two_turns_gives_twice_as_many_and_none_twice() {
        let in_turn = InTurn::new(Vec::new(), vec![0, 1, 0], 0, 0);
        let places: Vec<(Option<usize>, u64)> = (0..6).map(|i| in_turn.place(i)).collect();
        let (a, b) = (Some(0), Some(1));
        assert_eq!(places, [(a, 0), (b, 0), (a, 1), (a, 2), (b, 1), (a, 3)]);
    }

    #[test]
    fn exercises_come_first_and_one_ends_every_round() {
        let in_turn = InTurn::new(Vec::new(), vec![0], 0, 2);
        let places: Vec<(Option<usize>, u64)> = (0..4).map(|i| in_turn.place(i)).collect();
        assert_eq!(places, [(Some(0), 0), (None, 2), (Some(0), 1), (None, 3)]);
        let first: Vec<Conversation> = [0, 1, 3, 5].map(|i| in_turn.conversation(i)).into();
        for (number, conversation) in first.iter().enumerate() {
            let asked = &conversation.messages[0].content;
            assert!(asked.starts_with("draw from"), "{conversation:?}");
            assert!(first[..number].iter().all(|before| before.messages != conversation.messages));
        }
    }
}
