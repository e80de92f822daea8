//! The text-to-SQL agent: write a query, run it, check it, rewrite it.
//!
//! The loop is the paper's LangGraph agent:
//!
//! ```text
//!                              ┌───────── not correct, turns left ─────────┐
//!                              ↓                                           │
//! task → write ──→ execute   rewrite ──→ execute                           │
//!                     └────────────┬────────┘                              │
//!                                  ↓                                       │
//!                                check ── correct, or no turns left → answer: the query
//!                                  └───────────────────────────────────────┘
//! ```
//!
//! Every model call is a fresh conversation of a system and a user message; results of earlier
//! calls must be in the prompt. So the calls of a rollout share little more than the schema, and
//! each is a separate transition. With a small model, the database can do the checking instead:
//! see [`Check`].

mod prompts;
mod reply;

use std::path::PathBuf;
use std::sync::Arc;

use leyden_core::{
    Agent, AgentError, AgentOutput, ChatRequest, Episode, Message, SignalKind, Task, async_trait,
};
use leyden_spider::database::render;
use leyden_spider::scorer::DATABASE_FIELD;
use leyden_spider::{Database, Detail, QueryError, Spider};

use prompts::{Prompts, Shown};
pub use reply::{is_correct_verdict, last_block};

/// Writes the first query.
pub const WRITE: &str = "write";
/// Judges whether a query is correct.
pub const CHECK: &str = "check";
/// Corrects a query.
pub const REWRITE: &str = "rewrite";

/// The prompts' level of detail, and how the schema is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt {
    /// Instructions for a model that has never seen the agent; tables with sample rows.
    Full,
    /// One line, for models already trained on the task; tables by their columns.
    Compact,
}

/// What decides whether a query needs to be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The model, in a separate call.
    Model,
    /// The result: a query that fails or returns no rows is rewritten.
    Execution,
}

/// The agent's settings; the defaults are the paper's.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlSettings {
    pub prompt: Prompt,
    pub check: Check,
    /// Maximum queries per rollout: one write, and a rewrite for each further turn.
    pub max_turns: usize,
    /// Maximum length of the schema text, in characters.
    pub schema_characters: usize,
    /// Maximum length of a result's text, in characters.
    pub result_characters: usize,
    /// Reward of a call whose query runs and returns rows, besides that of the answer; 0 is none.
    pub process_reward: f64,
}

impl Default for SqlSettings {
    fn default() -> Self {
        Self {
            prompt: Prompt::Full,
            check: Check::Model,
            max_turns: 3,
            schema_characters: 2048,
            result_characters: 2048,
            process_reward: 0.0,
        }
    }
}

/// The text-to-SQL agent. Tasks name their database in the field `db_id`.
#[derive(Debug, Clone)]
pub struct SqlAgent {
    spider: Arc<Spider>,
    settings: SqlSettings,
    prompts: Prompts,
}

/// An executed query.
struct Attempt {
    query: String,
    /// The result as shown to the model.
    result: String,
    /// The error that the database reports, if any.
    fault: Option<String>,
}

impl SqlAgent {
    pub fn new(spider: Arc<Spider>, settings: SqlSettings) -> Self {
        let prompts = Prompts::new(settings.prompt);
        let max_turns = settings.max_turns.max(1);
        Self { spider, settings: SqlSettings { max_turns, ..settings }, prompts }
    }

    /// The conversation before the first call. Demonstrations begin with the same messages.
    ///
    /// # Errors
    /// If the task's database cannot be used.
    pub fn opening(&self, task: &Task) -> Result<Vec<Message>, AgentError> {
        let database = self.database(task)?;
        self.messages(task, WRITE, &self.shown(task, &database))
    }

    /// The path of the task's database file, and the schema as shown in prompts.
    ///
    /// # Errors
    /// If the task's database cannot be used.
    pub fn database_of(&self, task: &Task) -> Result<(PathBuf, String), AgentError> {
        let database = self.database(task)?;
        let file = database.files().first().ok_or_else(|| AgentError::Task {
            task: task.id.clone(),
            what: format!("the database {} has no file", database.id()),
        })?;
        let path = std::path::absolute(file.path())
            .map_err(|error| AgentError::Task { task: task.id.clone(), what: error.to_string() })?;
        Ok((path, self.shown(task, &database).schema))
    }

    fn database(&self, task: &Task) -> Result<Arc<Database>, AgentError> {
        let broken = |what: String| AgentError::Task { task: task.id.clone(), what };
        let id = task.fields.get(DATABASE_FIELD).and_then(|value| value.as_str());
        let id = id.ok_or_else(|| broken(format!("it has no field {DATABASE_FIELD}")))?;
        self.spider.databases().get(id).map_err(|error| broken(error.to_string()))
    }

    /// The template values before there is a query.
    fn shown(&self, task: &Task, database: &Database) -> Shown {
        let detail = match self.settings.prompt {
            Prompt::Full => Detail::Full,
            Prompt::Compact => Detail::Compact,
        };
        let schema = truncate(&database.describe(detail), self.settings.schema_characters);
        Shown { schema, question: task.question.clone(), ..Shown::default() }
    }

    fn messages(&self, task: &Task, role: &str, shown: &Shown) -> Result<Vec<Message>, AgentError> {
        let (system, user) = self
            .prompts
            .render(role, shown)
            .map_err(|error| AgentError::Task { task: task.id.clone(), what: error.to_string() })?;
        Ok(vec![Message::system(system), Message::user(user)])
    }

    /// Calls the model in a fresh conversation.
    async fn call(
        &self,
        task: &Task,
        episode: &Episode<'_>,
        role: &str,
        shown: &Shown,
    ) -> Result<String, AgentError> {
        let messages = self.messages(task, role, shown)?;
        let request =
            ChatRequest { agent_role: role.to_owned(), messages, ..ChatRequest::default() };
        Ok(episode.chat(request).await?.message.content)
    }

    /// Executes a query; errors and empty results are recorded as signals.
    fn execute(&self, database: &Database, query: String, episode: &Episode<'_>) -> Attempt {
        let longest = self.settings.result_characters;
        let (result, fault) = match database.query(&query) {
            Ok(result) => {
                let empty = result.rows.is_empty();
                if empty {
                    episode.signal(SignalKind::EmptyResult, query.clone());
                } else if self.settings.process_reward != 0.0 {
                    episode.reward(self.settings.process_reward);
                }
                let text = render(&result, longest.saturating_add(1));
                (text, empty.then(|| "The result is empty.".to_owned()))
            }
            Err(error) => {
                episode.signal(SignalKind::ToolError, format!("{}: {error}", error.class()));
                (format!("ERROR: {error}"), Some(fault(&error)))
            }
        };
        Attempt { query, result: truncate(&result, longest), fault }
    }

    /// Whether the query is accepted as the answer, and the feedback if not.
    async fn review(
        &self,
        task: &Task,
        episode: &Episode<'_>,
        attempt: &Attempt,
        shown: &Shown,
    ) -> Result<(bool, String), AgentError> {
        match self.settings.check {
            Check::Model => {
                let text = self.call(task, episode, CHECK, shown).await?;
                Ok((is_correct_verdict(&text), text))
            }
            Check::Execution => {
                Ok((attempt.fault.is_none(), attempt.fault.clone().unwrap_or_default()))
            }
        }
    }
}

#[async_trait]
impl Agent for SqlAgent {
    fn name(&self) -> &str {
        "sql"
    }

    fn roles(&self) -> &[&str] {
        match self.settings.check {
            Check::Model => &[WRITE, CHECK, REWRITE],
            Check::Execution => &[WRITE, REWRITE],
        }
    }

    /// The current query after each call that writes one.
    fn drafts(&self) -> bool {
        true
    }

    async fn run(&self, task: &Task, episode: &Episode<'_>) -> Result<AgentOutput, AgentError> {
        let database = self.database(task)?;
        let mut shown = self.shown(task, &database);
        let written = self.call(task, episode, WRITE, &shown).await?;
        // Without a fenced block the whole text is the query.
        let mut query = last_block(&written).unwrap_or(written.trim()).to_owned();
        episode.draft(query.clone());
        for turn in 1..=self.settings.max_turns {
            let attempt = self.execute(&database, query, episode);
            shown.query.clone_from(&attempt.query);
            shown.result.clone_from(&attempt.result);
            let (correct, feedback) = self.review(task, episode, &attempt, &shown).await?;
            query = attempt.query;
            if correct {
                break;
            }
            if turn == self.settings.max_turns {
                episode.signal(SignalKind::TurnLimit, format!("no query passed in {turn} turns"));
                break;
            }
            shown.feedback = feedback;
            let text = self.call(task, episode, REWRITE, &shown).await?;
            // Without a fenced block the query is unchanged.
            if let Some(rewritten) = last_block(&text) {
                if rewritten == query {
                    episode.signal(SignalKind::RepeatedCall, query.clone());
                }
                query = rewritten.to_owned();
                episode.draft(query.clone());
            }
        }
        if query.is_empty() {
            episode.signal(SignalKind::NoAnswer, "the query is empty");
            return Ok(AgentOutput::of(None));
        }
        Ok(AgentOutput::of(Some(query)))
    }
}

/// The feedback for an error if no model checks.
fn fault(error: &QueryError) -> String {
    match error.class() {
        "column" => "A column does not exist or is ambiguous.",
        "table" => "A table does not exist.",
        "syntax" => "The syntax is wrong.",
        "limit" => "The query takes too long or finds too much.",
        "denied" | "not_a_query" => "Only a SELECT is allowed.",
        _ => "The query failed.",
    }
    .to_owned()
}

/// Truncates to `longest` characters, with a note if there are more.
fn truncate(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}\n... (truncated)", &text[..end]),
        None => text.to_owned(),
    }
}
