//! mini-spider: questions over small databases, in the formats of Spider.
//!
//! Seventeen databases of two or three tables, four of them reserved for test; some twenty kinds of
//! questions, easy, medium and hard by Spider's rule. Schema, question and query use identical
//! words, so that a small model copies a name instead of inflecting it; schema and question are a
//! prompt of some hundred tokens.
//!
//! Test questions differ from training questions in their wording, their database or their values;
//! labels record in which. A task is accepted only if no single wrong choice in its query gives the
//! same result, so that guessing is not rewarded.

mod choices;
mod database;
mod export;
mod kinds;
mod noise;
mod query;
mod rows;
mod schema;
mod templates;

use leyden_core::{SeedTree, Task};
use serde_json::{Map, json};

use crate::draws::Draws;
use crate::fill::fill;
use kinds::Kind;
use query::Query;

pub use database::Database;
pub use noise::{Demonstration, GUESS, Noise, Turn};
pub use schema::{Column, Content, Schema, Table};
pub use templates::Template;

/// Number of test tasks of the default test split.
pub const TEST_TASKS: usize = 256;

/// Hardness of ten consecutive questions.
const HARDNESS: [&str; 10] =
    ["easy", "medium", "easy", "medium", "hard", "easy", "medium", "easy", "medium", "hard"];

/// Attempts to find a fair question for a template before another template is drawn.
const ATTEMPTS: usize = 60;

/// The world of one seed: the schemas are fixed, the rows depend on the seed. Tasks can be accessed
/// in any order: seed, split and index determine the task.
#[derive(Debug, Clone)]
pub struct MiniSpider {
    root: SeedTree,
    databases: Vec<Database>,
    templates: Vec<Template>,
}

/// The requested properties of a task.
struct Requested {
    hardness: &'static str,
    template_held_out: bool,
    database_held_out: bool,
    test: bool,
}

impl MiniSpider {
    /// # Panics
    /// If SQLite cannot create the in-memory databases of a few hundred rows.
    pub fn new(seed: u64) -> Self {
        let root = SeedTree::new(seed).child("mini-spider");
        let database = |schema: Schema| {
            let node = root.child("database").child(schema.db_id);
            Database::new(schema, node)
        };
        let databases = schema::all().into_iter().map(database).collect();
        Self { root, databases, templates: templates::all() }
    }

    /// All databases, including held-out ones.
    pub fn databases(&self) -> &[Database] {
        &self.databases
    }

    /// The database with this id.
    pub fn database(&self, db_id: &str) -> Option<&Database> {
        self.databases.iter().find(|database| database.schema.db_id == db_id)
    }

    /// All templates, including held-out ones.
    pub fn templates(&self) -> &[Template] {
        &self.templates
    }

    /// Training task number `index` of an endless stream.
    pub fn train(&self, index: u64) -> Task {
        self.training(index).0
    }

    fn training(&self, index: u64) -> (Task, Query) {
        let mut draws = Draws::new(self.root.child("train").index(index));
        self.training_draw(format!("mini-spider/train/{index}"), &mut draws)
    }

    fn training_draw(&self, id: String, draws: &mut Draws) -> (Task, Query) {
        let requested = Requested {
            hardness: HARDNESS[draws.below(HARDNESS.len())],
            template_held_out: false,
            database_held_out: false,
            test: false,
        };
        self.draw(id, &requested, draws)
    }

    /// The first `n` test tasks ([`TEST_TASKS`] by default). Of four in a row the second and the
    /// fourth have a held-out template, the third and the fourth a held-out database; all their
    /// values are reserved for test.
    pub fn test(&self, n: usize) -> Vec<Task> {
        (0..n).map(|i| self.test_task(i)).collect()
    }

    fn test_task(&self, i: usize) -> Task {
        let mut draws = Draws::new(self.root.child("test").index(i as u64));
        let requested = Requested {
            hardness: HARDNESS[i / 4 % HARDNESS.len()],
            template_held_out: i % 2 == 1,
            database_held_out: i % 4 >= 2,
            test: true,
        };
        self.draw(format!("mini-spider/test/{i:04}"), &requested, &mut draws).0
    }

    /// `n` texts for training a tokenizer: training questions, queries and schemas in turn,
    /// independent of the training tasks.
    pub fn corpus(&self, n: usize) -> Vec<String> {
        let node = self.root.child("corpus");
        let text = |i: usize| {
            let mut draws = Draws::new(node.index(i as u64));
            let (task, query) = self.training_draw(String::new(), &mut draws);
            match i % 3 {
                0 => task.question,
                1 => query.to_string(),
                _ => task.fields["schema"].as_str().unwrap_or_default().to_string(),
            }
        };
        (0..n).map(text).collect()
    }

    /// Draws a task with the requested properties whose result changes under every single wrong
    /// choice.
    fn draw(&self, id: String, requested: &Requested, draws: &mut Draws) -> (Task, Query) {
        let databases: Vec<&Database> = self
            .databases
            .iter()
            .filter(|d| d.schema.held_out == requested.database_held_out)
            .collect();
        let known = !requested.template_held_out && !requested.database_held_out;
        let fits = |t: &&Template| {
            t.held_out == requested.template_held_out
                && t.kind.hardness() == requested.hardness
                // A question with a known template and database must differ in its value.
                && (!requested.test || !known || t.kind.has_value())
        };
        let templates: Vec<&Template> = self.templates.iter().filter(fits).collect();
        loop {
            let template = *draws.choose(&templates);
            // This kind has few distinct questions, so it is drawn less often.
            if template.kind == Kind::Count && draws.chance(0.5) {
                continue;
            }
            // Kinds with many choices are rarely fair; retry so that they do not become rare.
            for _ in 0..ATTEMPTS {
                let database = *draws.choose(&databases);
                let filled = kinds::fill(template.kind, database, requested.test, draws);
                if let Some(filled) = filled.filter(|filled| is_fair(&filled.query, database)) {
                    let question = fill(template.text, |slot| filled.word(slot));
                    let task = task(id, question, &filled.query, template, database);
                    return (task, filled.query);
                }
            }
        }
    }
}

/// Whether the query has a result that no query with a single wrong choice has.
fn is_fair(query: &Query, database: &Database) -> bool {
    let ordered = query.order.is_some();
    let rows =
        |query: &Query| database.run(&query.to_string()).map(|rows| comparable(rows, ordered));
    let Ok(result) = rows(query) else { return false };
    let nothing = |row: &Vec<String>| row.iter().any(|cell| cell == "null" || cell == "0");
    if result.is_empty() || result.iter().any(nothing) {
        return false;
    }
    choices::neighbours(query).iter().all(|other| rows(other).is_ok_and(|rows| rows != result))
}

/// Rows in a canonical form for the test-suite rule: the order of columns never matters, the order
/// of rows only if the query has one.
fn comparable(mut rows: Vec<Vec<String>>, ordered: bool) -> Vec<Vec<String>> {
    rows.iter_mut().for_each(|row| row.sort());
    if !ordered {
        rows.sort();
    }
    rows
}

fn task(
    id: String,
    question: String,
    query: &Query,
    template: &Template,
    database: &Database,
) -> Task {
    let query = query.to_string();
    let mut fields = Map::new();
    fields.insert("db_id".into(), json!(database.schema.db_id));
    fields.insert("query".into(), json!(query));
    fields.insert("schema".into(), json!(database.schema.compact()));
    fields.insert("template".into(), json!(template.id));
    fields.insert("source".into(), json!("mini-spider"));
    let seen = |held_out| if held_out { "held_out" } else { "seen" };
    let labels = [
        ("hardness", template.kind.hardness()),
        ("database", seen(database.schema.held_out)),
        ("template", seen(template.held_out)),
    ];
    let labels = labels.map(|(name, value)| (name.to_string(), value.to_string())).to_vec();
    Task { id, question, gold: query, labels, fields }
}
