//! Scores of predictions that somebody wrote down: by this program's evaluations, or by any
//! other that names each answer's question.
//!
//! The official formats of Spider and MuSiQue are read by their own rooms. What is here reads
//! lines of `id` and `answer`, finds the question of each, and judges the answers as training
//! would: what an evaluation recorded as rewards must come out again.

pub mod answers;
pub mod calcx;
pub mod musique;
pub mod rewards;

use std::path::Path;

use anyhow::{Result, bail};

use crate::dataset::{self, Dataset, Rows};
use crate::sources::{self, Source};
use crate::table::counted;
use crate::tiny;

/// Questions to score: a file of a dataset, or some of its rows.
pub struct Gold {
    /// As it was asked for.
    pub name: String,
    pub read: Rows,
}

impl Gold {
    /// Reads the questions that `name` stands for as an evaluation of `agent` reads them, with
    /// the databases in `db`.
    ///
    /// # Errors
    /// A world, a file that cannot be read or has no good row.
    pub fn read(agent: &str, name: &str, db: Option<&Path>) -> Result<Self> {
        let (path, rows) = match Source::parse(name)? {
            Source::File { path, rows } => (path, rows),
            Source::World(world) => bail!(
                "--gold {world}: references come from a file; `leyden data make {world}` writes one"
            ),
        };
        sources::check_exists(&path)?;
        let mut settings = tiny::settings(agent, 0);
        settings.data.databases = db.map_or(String::new(), |db| db.display().to_string());
        let dataset: Box<dyn Dataset> = dataset::of(settings)?;
        let read = dataset.read(&path)?;
        sources::tell(&read, &path);
        let read = sources::cut(read, rows, name)?;
        if read.tasks.is_empty() {
            bail!("{name}: there is no good row in it");
        }
        Ok(Self { name: name.to_owned(), read })
    }

    /// Refuses a file with bad rows: predictions without ids belong to rows by their order.
    pub fn without_flaw(&self) -> Result<()> {
        match self.read.rejected.first() {
            None => Ok(()),
            Some(first) => bail!(
                "{}: {} cannot be used ({first}), and predictions without ids belong to rows by \
                 their order",
                self.name,
                counted(self.read.rejected.len(), "row")
            ),
        }
    }
}
