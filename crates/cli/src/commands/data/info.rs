//! What is in a world or a file.

use std::path::Path;

use anyhow::{Context, Result, bail};
use leyden_core::Task;
use leyden_mini::MiniMusique;
use leyden_mini::MiniSpider;
use leyden_musique::corpus;
use leyden_spider::loader::WithoutRows;
use leyden_spider::{Limits, Spider};
use leyden_train::data::DemonstrationSource;
use serde_json::{Map, Value};

use crate::dataset::{self, AGENTS, Rows, TEST_TASKS};
use crate::dataset_info::{Description, calc, rag, sql};
use crate::sources::{self, Source};
use crate::table::counted;
use crate::tiny;

/// Training tasks of an endless world that are looked at.
const WORLD_SAMPLE: u64 = 5_000;

/// Lessons that are shown.
const LESSONS: u64 = 8;

/// Prints what is in `name`.
///
/// # Errors
/// A file that cannot be read, or has no good row.
pub fn info(name: &str, seed: u64, databases: Option<&Path>) -> Result<()> {
    match Source::parse(name)? {
        Source::World(world) => {
            let agent = AGENTS.iter().find(|(_, known)| *known == world).map_or("calc", |(a, _)| a);
            self::world(world, agent, seed)?;
            lessons(agent, seed)
        }
        Source::File { path, rows } => {
            sources::check_exists(&path)?;
            let cut = |read: Rows| -> Result<Vec<Task>> {
                sources::tell(&read, &path);
                let tasks = sources::cut(read, rows.clone(), name)?.tasks;
                if tasks.is_empty() {
                    bail!("{}: there is no good row in it", path.display());
                }
                Ok(tasks)
            };
            let agent = agent_of(&path)?;
            let description = if agent == "sql" {
                let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let folder = databases.or(beside).unwrap_or(Path::new("."));
                let spider = Spider::open(folder, Limits::default())?;
                let loaded = spider.load(&path, WithoutRows::LeaveOut)?;
                let unusable = loaded.databases.clone();
                sql::describe(name, &cut(loaded.into())?, &spider, &unusable)
            } else {
                let tasks = cut(dataset::of(tiny::settings(agent, seed))?.read(&path)?)?;
                match agent {
                    "rag" => rag::describe(name, &tasks, &corpus::passages(&tasks)),
                    _ => calc::describe(name, &tasks),
                }
            };
            print!("{description}");
            Ok(())
        }
    }
}

/// Describes tasks under a name.
type Describe = dyn Fn(&str, &[Task]) -> Description;

/// Training and test tasks of a world, and what they are about.
fn world(world: &str, agent: &str, seed: u64) -> Result<()> {
    let dataset = dataset::of(tiny::settings(agent, seed))?;
    let describe: Box<Describe> = match agent {
        "sql" => {
            let folder = tempfile::tempdir().context("no temporary folder for databases")?;
            MiniSpider::new(seed).write_databases(folder.path())?;
            let spider = Spider::open(folder.path(), Limits::default())?;
            // The folder must be there as long as it is asked.
            Box::new(move |name, tasks| {
                let _folder = &folder;
                sql::describe(name, tasks, &spider, &[])
            })
        }
        "rag" => Box::new(|name, tasks| rag::describe(name, tasks, &corpus::passages(tasks))),
        _ => Box::new(calc::describe),
    };
    println!("{world} (seed {seed}), endless training tasks\n");
    let train: Vec<_> = (0..WORLD_SAMPLE).map(|i| dataset.world().train(i)).collect();
    print!("{}", describe("training, the first of the stream", &train));
    print!("\n{}", describe("test", &dataset.world().test(TEST_TASKS)));
    if agent == "rag" {
        let passages = MiniMusique::new(seed).passages().len();
        println!("\nthe agent searches the world's own corpus: {}", counted(passages, "passage"));
    }
    Ok(())
}

fn lessons(agent: &str, seed: u64) -> Result<()> {
    println!("\nlessons of the tiny model, which is to be good at the protocol only");
    let lessons = tiny::lessons(agent, seed)?;
    for index in 0..LESSONS {
        let conversation = lessons.conversation(index);
        println!("  {index}");
        for message in &conversation.messages {
            let speaker = format!("{:?}", message.role).to_lowercase();
            let call = message.tool_calls.first();
            let call = call.map(|c| format!("{}{}", c.name, c.arguments));
            let text = message.content.replace('\n', " ⏎ ");
            println!("    {speaker:<9} {text}{}", call.unwrap_or_default());
        }
    }
    Ok(())
}

/// The agent whose dataset a file holds, by the fields of its beginning.
fn agent_of(path: &Path) -> Result<&'static str> {
    use std::io::Read;
    if path.extension().is_some_and(|extension| extension == "parquet") {
        let first: Option<Map<String, Value>> =
            leyden_hub::parquet::rows(path)?.next().transpose()?;
        return Ok(agent_by(|field| first.as_ref().is_some_and(|row| row.contains_key(field))));
    }
    let mut start = Vec::new();
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    file.take(1 << 20).read_to_end(&mut start)?;
    let start = String::from_utf8_lossy(&start);
    Ok(agent_by(|field| start.contains(&format!("\"{field}\""))))
}

fn agent_by(has: impl Fn(&str) -> bool) -> &'static str {
    if has("db_id") {
        "sql"
    } else if has("paragraphs") || has("question_decomposition") || has("answer") && !has("result")
    {
        "rag"
    } else {
        "calc"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_is_known_by_its_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        for (row, agent) in [
            (r#"{"db_id": "x", "question": "q", "query": "q"}"#, "sql"),
            (r#"[{"question": "q", "answer": "a"}]"#, "rag"),
            (r#"{"id": "x", "paragraphs": []}"#, "rag"),
            (r#"{"id": "x", "question": "q", "result": "1", "answer": "1"}"#, "calc"),
        ] {
            std::fs::write(&path, row).unwrap();
            assert_eq!(agent_of(&path).unwrap(), agent, "{row}");
        }
    }
}
