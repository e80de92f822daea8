//! Sources of tasks and demonstrations, and the order in which a run visits them.

use leyden_core::{Message, SeedTree, Task, ToolSpec};
use leyden_lm::policy::forest::Row;
use leyden_text::ChatFormat;
use rand::seq::SliceRandom;

use crate::error::TrainError;

/// Training tasks by index. A generated world is endless.
pub trait TaskSource: Send + Sync {
    /// Number of tasks, or `None` for an endless source.
    fn len(&self) -> Option<u64>;

    /// The task with index `index`, below `len`.
    fn task(&self, index: u64) -> Task;

    /// The sources that `data.weights` mixes; empty for a source that is not a [`Mixture`].
    fn parts(&self) -> &[Box<dyn TaskSource>] {
        &[]
    }

    fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

impl TaskSource for Vec<Task> {
    fn len(&self) -> Option<u64> {
        Some(self.len() as u64)
    }

    fn task(&self, index: u64) -> Task {
        self[index as usize].clone()
    }
}

/// Several sources of training tasks, for `data.weights`. Without weights they are one source: one
/// after the other, up to the first endless one.
pub struct Mixture(pub Vec<Box<dyn TaskSource>>);

impl TaskSource for Mixture {
    fn len(&self) -> Option<u64> {
        self.0.iter().map(|part| part.len()).sum()
    }

    fn task(&self, mut index: u64) -> Task {
        for part in &self.0 {
            match part.len() {
                Some(len) if index >= len => index -= len,
                _ => return part.task(index),
            }
        }
        panic!("the mixture has no task {index}")
    }

    fn parts(&self) -> &[Box<dyn TaskSource>] {
        &self.0
    }
}

/// A demonstration: a whole conversation that supervised training imitates.
///
/// A conversation without messages has no turn to learn and is an error in supervised training.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    pub messages: Vec<Message>,
    pub tools: Vec<ToolSpec>,
}

/// Demonstrations by index.
pub trait DemonstrationSource: Send + Sync {
    /// Number of demonstrations, or `None` for an endless source.
    fn len(&self) -> Option<u64>;

    fn conversation(&self, index: u64) -> Conversation;

    /// The demonstration as tokens, with the learned positions.
    ///
    /// # Errors
    /// A conversation without a turn to learn; errors of the template or the tokenizer.
    fn row(&self, index: u64, format: &ChatFormat) -> Result<Row, TrainError> {
        encode(&self.conversation(index), index, format)
    }

    fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

/// A conversation as tokens, with the learned positions. `index` is for error messages.
///
/// # Errors
/// A conversation without a turn to learn; errors of the template or the tokenizer.
pub fn encode(
    conversation: &Conversation,
    index: u64,
    format: &ChatFormat,
) -> Result<Row, TrainError> {
    let demonstration = format
        .encode_demonstration(&conversation.messages, &conversation.tools)
        .map_err(|e| TrainError::Invalid(format!("demonstration {index}: {e}")))?;
    let mut actions: Vec<std::ops::Range<usize>> = Vec::new();
    for (position, _) in demonstration.mask.iter().enumerate().filter(|&(_, &learned)| learned) {
        match actions.last_mut() {
            Some(last) if last.end == position => last.end += 1,
            _ => actions.push(position..position + 1),
        }
    }
    Ok(Row { ids: demonstration.ids, actions })
}

/// The order of visits: an endless source is read in order; a finite one in a new random
/// order each epoch. A pure function of seed and position, so a resumed run needs no cursor.
pub struct VisitOrder {
    len: Option<u64>,
    /// The first item of an endless source.
    first: u64,
    seed: SeedTree,
    epoch: Option<(u64, Vec<u64>)>,
}

impl VisitOrder {
    pub fn new(len: Option<u64>, seed: SeedTree) -> Self {
        Self { len, first: 0, seed: seed.child("order"), epoch: None }
    }

    /// An endless source is read from an item that depends on `seed`, below 2^39, so that runs of
    /// different seeds see different tasks of a generated world.
    #[must_use]
    pub fn from_drawn_start(mut self) -> Self {
        self.first = self.seed.child("first").seed() >> 25;
        self
    }

    /// The item at `position`, counted over all epochs.
    pub fn at(&mut self, position: u64) -> u64 {
        let Some(len) = self.len else { return self.first + position };
        let number = position / len;
        if self.epoch.as_ref().is_none_or(|(epoch, _)| *epoch != number) {
            let mut order: Vec<u64> = (0..len).collect();
            order.shuffle(&mut self.seed.index(number).rng());
            self.epoch = Some((number, order));
        }
        self.epoch.as_ref().map_or(0, |(_, order)| order[(position % len) as usize])
    }
}

/// A run's position in its order of visits.
pub struct Visits {
    order: VisitOrder,
    /// Number of items visited so far; sufficient state to resume.
    pub position: u64,
}

impl Visits {
    /// The order of `len` items, `None` for an endless source, from its start.
    pub fn new(len: Option<u64>, seed: SeedTree) -> Self {
        Self { order: VisitOrder::new(len, seed), position: 0 }
    }

    /// The order of `len` training tasks; see [`VisitOrder::from_drawn_start`].
    pub fn of_tasks(len: Option<u64>, seed: SeedTree) -> Self {
        Self { order: VisitOrder::new(len, seed).from_drawn_start(), position: 0 }
    }

    /// The index of the next item.
    pub fn next_item(&mut self) -> u64 {
        let item = self.order.at(self.position);
        self.position += 1;
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An endless source.
    struct Endless;

    impl TaskSource for Endless {
        fn len(&self) -> Option<u64> {
            None
        }

        fn task(&self, index: u64) -> Task {
            task(&format!("endless {index}"))
        }
    }

    fn task(id: &str) -> Task {
        Task {
            id: id.to_owned(),
            question: String::new(),
            gold: String::new(),
            labels: Vec::new(),
            fields: serde_json::Map::new(),
        }
    }

    #[test]
    fn a_mixture_as_one_source_has_its_parts_one_after_the_other() {
        let file = |ids: &[&str]| -> Box<dyn TaskSource> {
            Box::new(ids.iter().map(|id| task(id)).collect::<Vec<_>>())
        };
        let files = Mixture(vec![file(&["a", "b"]), file(&["c"])]);
        assert_eq!(files.len(), Some(3));
        assert_eq!([0, 1, 2].map(|index| files.task(index).id), ["a", "b", "c"]);
        let with_world = Mixture(vec![file(&["a"]), Box::new(Endless)]);
        assert_eq!(with_world.len(), None);
        assert_eq!([0, 5].map(|index| with_world.task(index).id), ["a", "endless 4"]);
    }

    #[test]
    fn an_epoch_visits_everything_once_and_the_next_in_another_order() {
        let mut order = VisitOrder::new(Some(10), SeedTree::new(3));
        let visits: Vec<u64> = (0..20).map(|i| order.at(i)).collect();
        for epoch in visits.chunks(10) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(visits[..10], visits[10..]);
        // Starting in the middle, as a resumed run does, gives the same order.
        assert_eq!(VisitOrder::new(Some(10), SeedTree::new(3)).at(13), visits[13]);
    }

    #[test]
    fn seeds_see_different_tasks_of_an_endless_source() {
        let first = |seed| {
            let mut visits = Visits::of_tasks(None, SeedTree::new(seed));
            let items = [visits.next_item(), visits.next_item()];
            assert_eq!(items[1], items[0] + 1);
            items[0]
        };
        let starts: Vec<u64> = (1..=20).map(first).collect();
        assert_eq!(starts[0], first(1));
        for (i, start) in starts.iter().enumerate() {
            assert!(*start < 1 << 39);
            assert!(starts[..i].iter().all(|other| other.abs_diff(*start) > 1_000_000));
        }
        // Demonstrations begin at the first one: pretraining data have an order of their own.
        assert_eq!(Visits::new(None, SeedTree::new(1)).next_item(), 0);
    }
}
