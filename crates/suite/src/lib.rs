//! The benchmarks: agents with their tasks and scorers, for the trainer and the command line.
//!
//! A [`Benchmark`] defines everything specific to it: its name and keys in experiment files, its
//! agent, its sources of tasks, its scorer and demonstrations, its published dataset, its
//! generated world. The command line takes a [`Registry`] and refers to no benchmark by name, so
//! that a benchmark from another crate has all commands.
//!
//! | module | benchmark |
//! |---|---|
//! | [`calc`] | the calculator agent on Calc-X and mini-calc |
//! | [`sql`] | the text-to-SQL agent on Spider and mini-spider |
//! | [`rag`] | the retrieval agent on MuSiQue and mini-musique |
//! | [`external`] | an agent outside of this process on the tasks of another benchmark |
//! | [`chat`] | single-turn question answering on a user's own tasks |
//!
//! Shared modules: [`sources`] of tasks, an experiment's [`environment`], [`evaluation`]s,
//! [`predictions`], [`model`] sources, a user's [`own_tasks`] and [`reward`]s for them.
//!
//! ```no_run
//! // Not run: it links libtorch, which documentation tests cannot find.
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
pub mod lines;
mod mixing;
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
mod test_sample;
pub mod worker;

pub use benchmark::{Assembled, Benchmark, Dataset, Train};
pub use rag::recall;
pub use registry::Registry;
pub use settings::BenchmarkSettings;

/// Default number of tasks of a generated test split.
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
