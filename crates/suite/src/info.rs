//! Prints statistics of a generated world or a file of tasks.

use std::path::Path;

use anyhow::{Context, Result, bail};
use leyden_train::data::DemonstrationSource;

use crate::TEST_TASKS;
use crate::benchmark::{Benchmark, LoadedTasks};
use crate::model::tiny;
use crate::own_tasks::Fields;
use crate::registry::Registry;
use crate::settings::BenchmarkSettings;
use crate::sources::{self, Source};

/// Number of sampled training tasks of a world.
const WORLD_SAMPLE: u64 = 5_000;

/// Number of shown demonstrations of the tiny model's pretraining data.
const DEMONSTRATIONS: u64 = 8;

/// Prints statistics of `name`; `databases` is the databases' folder if it is not the questions'.
///
/// # Errors
/// A file that cannot be read or has no valid rows.
pub fn info(registry: &Registry, name: &str, seed: u64, databases: Option<&Path>) -> Result<()> {
    let (path, rows) = match Source::parse(name, registry)? {
        Source::World(world) => {
            self::world(registry, world, seed)?;
            return demonstrations(registry, world, seed);
        }
        Source::File { path, rows } => (path, rows),
    };
    sources::check_exists(&path, registry)?;
    let benchmark = benchmark_of(registry, &path)?;
    let mut settings = BenchmarkSettings::defaults(registry, benchmark.name())?;
    settings.data.seed = seed;
    if let Some(databases) = databases {
        settings.set("data.databases", databases.display().to_string())?;
    }
    let dataset = registry.prepare(settings)?;
    let read: LoadedTasks = dataset.read(&path)?;
    sources::report(&read, &path);
    let tasks = sources::cut(read, rows, name)?.tasks;
    if tasks.is_empty() {
        bail!("{}: the file has no valid rows", path.display());
    }
    print!("{}", dataset.describe(name, &tasks)?);
    Ok(())
}

/// Statistics of training and test tasks of a world.
fn world(registry: &Registry, name: &str, seed: u64) -> Result<()> {
    let dataset = registry.prepare(tiny::settings(registry, name, seed)?)?;
    let world = sources::world_of(registry, name, dataset.as_ref())?;
    println!("{name} (seed {seed}), infinite stream of training tasks\n");
    let train: Vec<_> = (0..WORLD_SAMPLE).map(|i| world.train(i)).collect();
    print!("{}", dataset.describe("training, the first of the stream", &train)?);
    print!("\n{}", dataset.describe("test", &world.test(TEST_TASKS))?);
    if let Some(note) = world.note() {
        println!("\n{note}");
    }
    Ok(())
}

fn demonstrations(registry: &Registry, world: &str, seed: u64) -> Result<()> {
    let (found, _) = registry.world(world).context("there is no such world")?;
    let model = found.model.unwrap_or("of this world");
    println!("\npretraining data of the model {model}, which learns only the protocol from it");
    let source = tiny::demonstrations(registry, world, seed)?;
    for index in 0..DEMONSTRATIONS {
        let conversation = source.conversation(index);
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

/// The benchmark that a file's dataset belongs to, by the field names in its first rows.
fn benchmark_of<'a>(registry: &'a Registry, path: &Path) -> Result<&'a dyn Benchmark> {
    let fields = Fields::of(path)?;
    registry.recognise(&|field| fields.has(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_is_recognised_by_its_fields() {
        let registry = crate::registry();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        for (row, agent) in [
            (r#"{"db_id": "x", "question": "q", "query": "q"}"#, "sql"),
            (r#"[{"question": "q", "answer": "a"}]"#, "rag"),
            (r#"{"id": "x", "paragraphs": []}"#, "rag"),
            (r#"{"id": "x", "question": "q", "result": "1", "answer": "1"}"#, "calc"),
        ] {
            std::fs::write(&path, row).unwrap();
            let found = benchmark_of(&registry, &path).unwrap();
            assert_eq!(found.name(), agent, "{row}");
        }
    }
}
