//! mini-ledger: word problems of two to twelve dependent steps, in the format of Calc-X.
//!
//! A problem tells how a quantity changes, sentence by sentence: a stock, a purse, a recipe, a
//! queue, a debt, a game, a tank, a flock. A step is one operation on the running result and one
//! number of its sentence, or an earlier result named by its time ("as many as there were at
//! noon"). With a calculator that takes one operation a call, a problem of k steps takes k calls,
//! and one wrong step spoils the answer. The horizon is therefore long and of known length, which
//! makes the world a test of credit assignment.
//!
//! Up to two sentences of a problem have a number that does not matter.
//!
//! Training and test are disjoint as in mini-calc: a fifth of all numbers from
//! [`SMALLEST_RESERVABLE`] on ([`crate::calc::is_reserved`]) occurs in test questions only, and
//! about a fifth of the wordings is held out. Factors and divisors have one digit and are shared.
//! Results on the way are whole numbers from 1 to [`LARGEST_RESULT`].

mod export;
mod noise;
mod plan;
mod problem;
mod stories;
mod words;

use std::ops::RangeInclusive;

use leyden_core::{SeedTree, Task};

use crate::draws::Draws;

pub use crate::files::ExportError;
pub use noise::{Call, Demonstration, MOST_CALLS, Noise, Purpose, is_misread};
pub use plan::{LARGEST_RESULT, SMALLEST_RESERVABLE};
pub use problem::Wording;
use problem::{Problem, Request};

/// Number of test tasks of the default test split: every length of every horizon, with training
/// wordings and with held-out ones, at least 21 times.
pub const TEST_TASKS: usize = 528;

/// Steps of the shortest and the longest problem.
pub const LENGTHS: RangeInclusive<usize> = 2..=12;

/// Lengths of training problems unless others are given.
pub const TRAINING_LENGTHS: RangeInclusive<usize> = 2..=8;

/// The lengths of each horizon.
const HORIZONS: [(&str, &[usize]); 3] =
    [("2-4", &[2, 3, 4]), ("5-8", &[5, 6, 7, 8]), ("9-12", &[9, 10, 11, 12])];

/// The world of one seed. Tasks can be accessed in any order: seed, split and index determine the
/// task, together with the training lengths for training tasks.
#[derive(Debug, Clone)]
pub struct MiniLedger {
    root: SeedTree,
    lengths: RangeInclusive<usize>,
}

impl MiniLedger {
    pub fn new(seed: u64) -> Self {
        Self { root: SeedTree::new(seed).child("mini-ledger"), lengths: TRAINING_LENGTHS }
    }

    /// The same world with other lengths of training problems, in steps. The test tasks do not
    /// depend on them.
    ///
    /// # Errors
    /// If the range is empty or not within [`LENGTHS`].
    pub fn with_lengths(mut self, lengths: RangeInclusive<usize>) -> Result<Self, LengthsError> {
        let inside = LENGTHS.contains(lengths.start()) && LENGTHS.contains(lengths.end());
        if !inside || lengths.is_empty() {
            return Err(LengthsError { shortest: *lengths.start(), longest: *lengths.end() });
        }
        self.lengths = lengths;
        Ok(self)
    }

    /// All wordings of steps and of sentences beside the story, including held-out ones.
    pub fn wordings(&self) -> Vec<Wording> {
        problem::wordings()
    }

    /// Training task number `index` of an endless stream, of a length drawn from the training
    /// lengths.
    pub fn train(&self, index: u64) -> Task {
        self.training_problem(index).task()
    }

    fn training_problem(&self, index: u64) -> Problem {
        let id = format!("mini-ledger/train/{index}");
        self.trained(id, &mut Draws::new(self.root.child("train").index(index)))
    }

    /// A problem of a training length with training wordings and training numbers.
    fn trained(&self, id: String, draws: &mut Draws) -> Problem {
        let (shortest, longest) = (*self.lengths.start(), *self.lengths.end());
        let length = shortest + draws.below(longest - shortest + 1);
        Problem::draw(Request { id, length, held_out: false, reserved: false }, draws)
    }

    /// The first `n` test tasks ([`TEST_TASKS`] by default), all with numbers reserved for test.
    ///
    /// Three consecutive tasks have one of each horizon; three with training wordings alternate
    /// with three that have at least one held-out wording; the lengths of a horizon alternate.
    pub fn test(&self, n: usize) -> Vec<Task> {
        (0..n).map(|i| self.test_task(i)).collect()
    }

    fn test_task(&self, i: usize) -> Task {
        let mut draws = Draws::new(self.root.child("test").index(i as u64));
        let (_, lengths) = HORIZONS[i % 3];
        let request = Request {
            id: format!("mini-ledger/test/{i:04}"),
            length: lengths[i / 6 % lengths.len()],
            held_out: i / 3 % 2 == 1,
            reserved: true,
        };
        Problem::draw(request, &mut draws).task()
    }

    /// `n` training questions for training a tokenizer, independent of the training tasks.
    pub fn corpus(&self, n: usize) -> Vec<String> {
        let node = self.root.child("corpus");
        let question = |i| {
            let mut draws = Draws::new(node.index(i as u64));
            self.trained(String::new(), &mut draws).task().question
        };
        (0..n).map(question).collect()
    }
}

/// The horizon of a length: `2-4`, `5-8` or `9-12`.
fn horizon(length: usize) -> &'static str {
    let of_length = HORIZONS.iter().find(|(_, lengths)| lengths.contains(&length));
    of_length.map_or("other", |(name, _)| name)
}

/// The training lengths are not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "training lengths from {shortest} to {longest} steps: give a range within {} to {}",
    LENGTHS.start(), LENGTHS.end()
)]
pub struct LengthsError {
    shortest: usize,
    longest: usize,
}
