//! Tests of the agent with a scripted model.

use std::sync::Arc;

use futures::executor::block_on;
use leyden_core::{
    Agent, AgentError, ChatRequest, Episode, Message, ProcessReward, Script, Signal, SignalKind,
    Speaker, Task,
};
use leyden_spider::{Limits, Spider};
use leyden_sql::{Check, Prompt, SqlAgent, SqlSettings};
use serde_json::json;

struct Outcome {
    answer: Option<String>,
    signals: Vec<Signal>,
    rewards: Vec<ProcessReward>,
    requests: Vec<ChatRequest>,
}

impl Outcome {
    fn roles(&self) -> Vec<&str> {
        self.requests.iter().map(|request| request.agent_role.as_str()).collect()
    }

    fn kinds(&self) -> Vec<&SignalKind> {
        self.signals.iter().map(|signal| &signal.kind).collect()
    }

    fn user(&self, call: usize) -> &str {
        &self.requests[call].messages[1].content
    }
}

/// A dataset folder with one database of 200 long names.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tables = json!([{
        "db_id": "shop",
        "table_names_original": ["item"],
        "column_names_original": [[-1, "*"], [0, "id"], [0, "name"]],
        "foreign_keys": [],
    }]);
    std::fs::write(folder.path().join("tables.json"), tables.to_string()).unwrap();
    let own = folder.path().join("database/shop");
    std::fs::create_dir_all(&own).unwrap();
    let connection = rusqlite::Connection::open(own.join("shop.sqlite")).unwrap();
    let rows: Vec<String> = (0..200).map(|id| format!("({id}, '{}')", "x".repeat(50))).collect();
    let rows = rows.join(", ");
    connection
        .execute_batch(&format!(
            "CREATE TABLE item (id INTEGER, name TEXT); INSERT INTO item VALUES {rows};"
        ))
        .unwrap();
    folder
}

fn task(database: &str) -> Task {
    Task {
        id: "t".to_owned(),
        question: "how many items?".to_owned(),
        gold: "SELECT count(*) FROM item".to_owned(),
        labels: Vec::new(),
        fields: [("db_id".to_owned(), json!(database))].into_iter().collect(),
    }
}

fn run_agent(settings: SqlSettings, replies: &[&str]) -> Outcome {
    let folder = folder();
    let spider = Arc::new(Spider::open(folder.path(), Limits::default()).unwrap());
    let script = Script::of_messages(replies.iter().map(|text| Message::assistant(*text)));
    let episode = Episode::new(&script);
    let agent = SqlAgent::new(spider, settings);
    let output = block_on(agent.run(&task("shop"), &episode)).unwrap();
    let rewards = episode.take_rewards();
    let signals = episode.into_signals();
    let requests = script.into_requests();
    for request in &requests {
        let speakers: Vec<Speaker> = request.messages.iter().map(|m| m.role).collect();
        assert_eq!(
            speakers,
            [Speaker::System, Speaker::User],
            "every call is a fresh conversation"
        );
        assert!(agent.roles().contains(&request.agent_role.as_str()));
    }
    Outcome { answer: output.answer, signals, rewards, requests }
}

fn compact(check: Check) -> SqlSettings {
    SqlSettings { prompt: Prompt::Compact, check, ..SqlSettings::default() }
}

const COUNT: &str = "```sql\nSELECT count(*) FROM item\n```";
const BROKEN: &str = "```sql\nSELECT count(x) FROM item\n```";

#[test]
fn an_accepted_query_is_the_answer() {
    let outcome = run_agent(SqlSettings::default(), &[COUNT, "Fine.\nVERDICT: CORRECT"]);
    assert_eq!(outcome.answer.as_deref(), Some("SELECT count(*) FROM item"));
    assert_eq!(outcome.roles(), ["write", "check"]);
    assert!(outcome.signals.is_empty());
    let system = &outcome.requests[0].messages[0].content;
    assert!(system.contains("CREATE TABLE item") && system.contains("3 rows of item"), "{system}");
    assert_eq!(outcome.user(0), "how many items?");
    assert!(outcome.user(1).contains("SELECT count(*) FROM item"), "{}", outcome.user(1));
    assert!(outcome.user(1).contains("count(*)\n200"), "{}", outcome.user(1));
}

#[test]
fn a_rejected_query_is_rewritten_with_feedback() {
    let replies = [BROKEN, "x is unknown.\nVERDICT: INCORRECT", COUNT, "VERDICT: CORRECT"];
    let outcome = run_agent(SqlSettings::default(), &replies);
    assert_eq!(outcome.answer.as_deref(), Some("SELECT count(*) FROM item"));
    assert_eq!(outcome.roles(), ["write", "check", "rewrite", "check"]);
    assert_eq!(outcome.kinds(), [&SignalKind::ToolError]);
    assert_eq!(outcome.signals[0].call, 0);
    assert!(outcome.signals[0].detail.starts_with("column: no such column"));
    let rewrite = outcome.user(2);
    for part in ["how many items?", "SELECT count(x)", "ERROR: no such column: x", "x is unknown."]
    {
        assert!(rewrite.contains(part), "{part} is not in: {rewrite}");
    }
    // The last check gets the new query and its result, nothing of the old one.
    assert!(!outcome.user(3).contains("count(x)") && outcome.user(3).contains("200"));
}

#[test]
fn a_query_that_returns_rows_rewards_its_call() {
    let replies = [BROKEN, "VERDICT: INCORRECT", COUNT, "VERDICT: CORRECT"];
    let settings = SqlSettings { process_reward: 0.25, ..SqlSettings::default() };
    let outcome = run_agent(settings, &replies);
    assert_eq!(outcome.rewards, [ProcessReward { call: 2, value: 0.25 }]);
    assert!(run_agent(SqlSettings::default(), &replies).rewards.is_empty());
}

#[test]
fn three_turns_are_six_calls() {
    let wrong = "VERDICT: INCORRECT";
    let outcome = run_agent(SqlSettings::default(), &[COUNT, wrong, COUNT, "hm", BROKEN, wrong]);
    assert_eq!(outcome.roles(), ["write", "check", "rewrite", "check", "rewrite", "check"]);
    assert_eq!(outcome.answer.as_deref(), Some("SELECT count(x) FROM item"));
    let kinds = [&SignalKind::RepeatedCall, &SignalKind::ToolError, &SignalKind::TurnLimit];
    assert_eq!(outcome.kinds(), kinds);
    let one = SqlSettings { max_turns: 1, ..SqlSettings::default() };
    assert_eq!(run_agent(one, &[COUNT, wrong]).roles(), ["write", "check"]);
}

#[test]
fn without_a_block_a_write_is_the_whole_text_and_a_rewrite_keeps_the_query() {
    let replies = [" SELECT 1\n", "VERDICT: INCORRECT", "I would not know.", "VERDICT: CORRECT"];
    let outcome = run_agent(SqlSettings::default(), &replies);
    assert_eq!(outcome.answer.as_deref(), Some("SELECT 1"));
    assert!(outcome.signals.is_empty());
}

#[test]
fn the_database_alone_can_check() {
    let outcome = run_agent(compact(Check::Execution), &["SELECT count(*) FROM item"]);
    assert_eq!(outcome.roles(), ["write"]);
    let system = &outcome.requests[0].messages[0].content;
    assert!(system.ends_with("item(id, name)") && system.lines().count() == 1, "{system}");
    let empty = "```sql\nSELECT id FROM item WHERE id < 0\n```";
    let outcome = run_agent(compact(Check::Execution), &[BROKEN, empty, empty]);
    assert_eq!(outcome.roles(), ["write", "rewrite", "rewrite"]);
    assert!(outcome.user(1).contains("A column does not exist"), "{}", outcome.user(1));
    assert!(outcome.user(2).contains("The result is empty."), "{}", outcome.user(2));
    let kinds = [
        &SignalKind::ToolError,
        &SignalKind::EmptyResult,
        &SignalKind::RepeatedCall,
        &SignalKind::EmptyResult,
        &SignalKind::TurnLimit,
    ];
    assert_eq!(outcome.kinds(), kinds);
    assert_eq!(outcome.answer.as_deref(), Some("SELECT id FROM item WHERE id < 0"));
}

#[test]
fn long_schemas_and_results_are_truncated() {
    let all = "```sql\nSELECT * FROM item\n```";
    let settings = SqlSettings { schema_characters: 20, ..SqlSettings::default() };
    let outcome = run_agent(settings, &[all, "VERDICT: CORRECT"]);
    let system = &outcome.requests[0].messages[0].content;
    assert!(system.contains("CREATE TABLE item (i\n... (truncated)"), "{system}");
    let check = outcome.user(1);
    let result = check.split("Its result:\n```\n").nth(1).unwrap();
    let result = result.strip_suffix("\n```").unwrap();
    assert_eq!(result.chars().count(), 2048 + "\n... (truncated)".len());
}

#[test]
fn an_empty_reply_is_no_answer() {
    let outcome = run_agent(compact(Check::Execution), &["", "", ""]);
    assert_eq!(outcome.answer, None);
    assert_eq!(outcome.signals.last().unwrap().kind, SignalKind::NoAnswer);
}

#[test]
fn a_destructive_query_is_refused_and_shown() {
    let drop = "```sql\nDROP TABLE item\n```";
    let outcome = run_agent(compact(Check::Execution), &[drop, COUNT]);
    assert!(outcome.signals[0].detail.starts_with("denied: "), "{}", outcome.signals[0].detail);
    assert_eq!(outcome.answer.as_deref(), Some("SELECT count(*) FROM item"));
}

#[test]
fn text_in_double_braces_is_not_a_template() {
    let braces = "```sql\nSELECT '{{ schema }}'\n```";
    let outcome = run_agent(SqlSettings::default(), &[braces, "VERDICT: CORRECT"]);
    assert!(outcome.user(1).contains("SELECT '{{ schema }}'"));
}

#[test]
fn a_task_without_a_usable_database_is_an_error_and_not_an_answer() {
    let folder = folder();
    let spider = Arc::new(Spider::open(folder.path(), Limits::default()).unwrap());
    let agent = SqlAgent::new(spider, SqlSettings::default());
    let script = Script::default();
    let mut nameless = task("shop");
    nameless.fields.clear();
    for (task, what) in [(task("gone"), "gone is missing"), (nameless, "no field db_id")] {
        let error = block_on(agent.run(&task, &Episode::new(&script))).unwrap_err();
        assert!(matches!(&error, AgentError::Task { .. }) && error.to_string().contains(what));
    }
    assert_eq!(agent.opening(&task("shop")).unwrap().len(), 2);
}
