//! How much a reference query asks for: a label of each task.
//!
//! Some rewards are easy to earn. Where the reference finds nothing, every query without rows is
//! right (49 of the 972 questions of Spider's dev set about databases with rows, 174 of 6,605 for
//! training); where it gives a single cell, a guess may be. With the label `gold_result` reports
//! count these apart, and `data.train_exclude` leaves them out.

use leyden_core::Task;
use serde_json::Value;

use crate::execution::gold_result;
use crate::scorer::DATABASE_FIELD;
use crate::spider::Spider;

/// Name of the label.
pub const GOLD_RESULT: &str = "gold_result";

/// Values of the label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GoldResult {
    /// No rows, so that every query without rows earns the reward.
    Empty,
    OneCell,
    /// Several cells.
    Rows,
    /// The reference query does not run; scoring the task is an error.
    Fails,
}

impl GoldResult {
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::OneCell => "one cell",
            Self::Rows => "rows",
            Self::Fails => "fails",
        }
    }
}

impl Spider {
    /// Adds the label [`GOLD_RESULT`] to tasks that lack it, by running their reference queries.
    ///
    /// On threads of its own: datasets are read before a program has chosen the size of rayon's
    /// global pool, which its first use would fix.
    pub(crate) fn label_gold_results(&self, tasks: &mut [Task]) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = tasks.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            for part in tasks.chunks_mut(share) {
                scope.spawn(|| part.iter_mut().for_each(|task| self.label_gold_result(task)));
            }
        });
    }

    fn label_gold_result(&self, task: &mut Task) {
        if task.label(GOLD_RESULT).is_some() {
            return;
        }
        let id = task.fields.get(DATABASE_FIELD).and_then(Value::as_str).unwrap_or_default();
        let Ok(database) = self.databases().get(id) else { return };
        let result = match gold_result(&database, &task.gold) {
            Err(_) => GoldResult::Fails,
            Ok(result) if result.rows.is_empty() => GoldResult::Empty,
            Ok(result) if result.rows.len() == 1 && result.columns.len() == 1 => {
                GoldResult::OneCell
            }
            Ok(_) => GoldResult::Rows,
        };
        task.labels.push((GOLD_RESULT.to_owned(), result.name().to_owned()));
    }
}
