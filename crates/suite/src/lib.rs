//! The benchmarks: agents with their tasks and scorers, as the trainer and the command line use
//! them.
//!
//! A [`Benchmark`] owns everything that only it knows: its name and its keys in experiment
//! files, its agent, where its tasks come from, its scorer and demonstrations, its published
//! dataset, its generated world. The command line is handed a [`Registry`] of them and knows
//! none by name, so that one written elsewhere has all commands.
//!
//! | module | benchmark |
//! |---|---|
//! | [`calc`] | the calculator agent on Calc-X and mini-calc |
//! | [`sql`] | the text-to-SQL agent on Spider and mini-spider |
//! | [`rag`] | the retrieval agent on MuSiQue and mini-musique |
//! | [`external`] | an agent outside of this process on the tasks of another benchmark |
//! | [`chat`] | one question, one answer, on tasks of a user's own |
//!
//! What they share stands beside them: [`sources`] of tasks, an experiment's [`environment`],
//! [`evaluation`]s, [`predictions`], models by [`model`] name, [`own_tasks`] of a user and a
//! [`reward`] for them.
//!
//! ```no_run
//! // It links libtorch, which a documentation test is not told where to find.
//! let registry = leyden_suite::registry();
//! let names: Vec<&str> = registry.iter().map(|benchmark| benchmark.name()).collect();
//! assert_eq!(names, ["calc", "sql", "rag", "external", "chat"]);
//! ```

pub mod benchmark;
pub mod calc;
pub mod chat;
pub mod demonstrations;
pub mod describe;
pub mod environment;
pub mod evaluation;
pub mod external;
pub mod fetch;
pub mod info;
pub mod model;
pub mod own_tasks;
pub mod predictions;
pub mod rag;
pub mod registry;
pub mod reward;
mod script;
pub mod settings;
pub mod sources;
pub mod sql;
pub mod table;
pub mod worker;

pub use benchmark::{Assembled, Benchmark, Dataset, Train};
pub use rag::recall;
pub use registry::Registry;
pub use settings::BenchmarkSettings;

/// Tasks of a generated test split where nobody says how many.
pub const TEST_TASKS: usize = 256;

/// The benchmarks of this crate.
pub fn registry() -> Registry {
    Registry::new()
        .with(calc::Calc)
        .with(sql::Sql)
        .with(rag::Rag)
        .with(external::External)
        .with(chat::Chat)
}
