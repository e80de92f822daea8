//! Demonstrations of generated worlds, and their tasks as an infinite stream.

use std::sync::Arc;

use leyden_core::{Message, Task};
use leyden_mini::names::CopyingExercises;
use leyden_train::data::{Conversation, DemonstrationSource, TaskSource};

use crate::benchmark::World;

/// First index of pretraining tasks in a world's stream, out of the reach of training runs,
/// which start below 2^39.
const FIRST_PRETRAINING_TASK: u64 = 1 << 40;

/// The index in a world's stream of the task of demonstration `index`: with `gold`, a training
/// task.
pub fn task_index(gold: bool, index: u64) -> u64 {
    if gold { index } else { FIRST_PRETRAINING_TASK + index }
}

/// The infinite stream of a world as the tasks of a run.
pub struct Stream(pub Arc<dyn World>);

impl TaskSource for Stream {
    fn len(&self) -> Option<u64> {
        None
    }

    fn task(&self, index: u64) -> Task {
        self.0.train(index)
    }
}

/// Interleaves several infinite sources, after some copying exercises. If there are any
/// exercises, every round ends with one more, so that the model does not unlearn copying.
pub struct Interleaved {
    exercises: Copying,
    /// Number of exercises at the start.
    first: u64,
    sources: Vec<Box<dyn DemonstrationSource>>,
    /// Source of each turn of a round; a source may have several turns per round.
    turns: Vec<usize>,
}

impl Interleaved {
    pub fn new(
        sources: Vec<Box<dyn DemonstrationSource>>,
        turns: Vec<usize>,
        seed: u64,
        first: u64,
    ) -> Self {
        Self { exercises: Copying(CopyingExercises::new(seed)), first, sources, turns }
    }

    /// The source of item `index` after the first exercises, and the index within that source;
    /// `None` for an exercise.
    fn locate(&self, index: u64) -> (Option<usize>, u64) {
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

impl DemonstrationSource for Interleaved {
    fn len(&self) -> Option<u64> {
        None
    }

    fn conversation(&self, index: u64) -> Conversation {
        let Some(index) = index.checked_sub(self.first) else {
            return self.exercises.conversation(index);
        };
        match self.locate(index) {
            (Some(source), item) => self.sources[source].conversation(item),
            (None, exercise) => self.exercises.conversation(exercise),
        }
    }
}

/// Copying exercises: draws from a list of names. A model that starts with some thousands of
/// these first learns to copy names by their content, which speeds up all later pretraining.
struct Copying(CopyingExercises);

impl DemonstrationSource for Copying {
    fn len(&self) -> Option<u64> {
        None
    }

    fn conversation(&self, index: u64) -> Conversation {
        let (names, drawn) = self.0.exercise(index);
        let request = Message::user(format!("draw from{names}."));
        Conversation { messages: vec![request, Message::assistant(drawn)], tools: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benchmark::{GeneratedWorld, Train};
    use crate::model::tiny;
    use leyden_train::config::Demonstrations;

    #[test]
    fn gold_demonstrations_solve_the_training_tasks() {
        let registry = crate::registry();
        for (GeneratedWorld { name, .. }, _) in registry.worlds() {
            let mut settings = tiny::settings(&registry, name, 0).unwrap();
            settings.data.demonstrations = Demonstrations::Gold;
            let dataset = registry.prepare(settings).unwrap();
            let assembled = dataset.assemble(Train::World(name), &[], true).unwrap();
            let (world, shown) = (dataset.world(name).unwrap(), assembled.demonstrations.unwrap());
            for index in 0..20 {
                let task = world.train(index);
                let messages = shown.conversation(index).messages;
                let asked = messages.iter().any(|message| message.content.contains(&task.question));
                assert!(asked, "{name}: task {index} is not shown: {messages:?}");
                // A query may be followed by its verdict; numbers are grouped by `_`.
                let plain = |text: &str| text.replace('_', "");
                let mut answered = messages.iter().rev().take(3);
                let right = answered.any(|m| plain(&m.content).contains(&plain(&task.gold)));
                assert!(right, "{name}: {} is not the end of {messages:?}", task.gold);
            }
        }
    }

    #[test]
    fn a_source_with_two_turns_gives_twice_as_many_items_without_repeats() {
        let interleaved = Interleaved::new(Vec::new(), vec![0, 1, 0], 0, 0);
        let located: Vec<(Option<usize>, u64)> = (0..6).map(|i| interleaved.locate(i)).collect();
        let (a, b) = (Some(0), Some(1));
        assert_eq!(located, [(a, 0), (b, 0), (a, 1), (a, 2), (b, 1), (a, 3)]);
    }

    #[test]
    fn exercises_come_first_and_one_ends_every_round() {
        let interleaved = Interleaved::new(Vec::new(), vec![0], 0, 2);
        let located: Vec<(Option<usize>, u64)> = (0..4).map(|i| interleaved.locate(i)).collect();
        assert_eq!(located, [(Some(0), 0), (None, 2), (Some(0), 1), (None, 3)]);
        let first: Vec<Conversation> = [0, 1, 3, 5].map(|i| interleaved.conversation(i)).into();
        for (number, conversation) in first.iter().enumerate() {
            let asked = &conversation.messages[0].content;
            assert!(asked.starts_with("draw from"), "{conversation:?}");
            assert!(first[..number].iter().all(|before| before.messages != conversation.messages));
        }
    }
}
