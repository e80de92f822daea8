//! Statistics of Spider: its queries and their databases.

use std::collections::{BTreeMap, BTreeSet};

use leyden_core::Task;
use leyden_spider::Spider;
use leyden_spider::execution::{Case, judge_all};
use leyden_spider::loader::{DatabaseProblem, UnusableDatabase};
use leyden_spider::scorer::DATABASE_FIELD;
use serde_json::Value;

use crate::describe::{Description, SHOWN, distribution};
use crate::table::{counted, shortened};

/// Describes questions on the databases of `spider`; `unusable` are the databases whose questions
/// were skipped.
pub fn describe(
    name: &str,
    tasks: &[Task],
    spider: &Spider,
    unusable: &[UnusableDatabase],
) -> Description {
    let mut description = Description::new(name, tasks);
    let used: BTreeSet<&str> = tasks.iter().map(database).collect();
    description.own = vec![format!("databases: {} in use", used.len())];
    description.own.extend(unusable_lines(unusable));
    let tables = used.iter().filter_map(|id| spider.databases().get(id).ok());
    let visible = |name: &str| !name.starts_with("sqlite_");
    let tables = tables
        .map(|database| database.tables().iter().filter(|table| visible(&table.name)).count());
    description.own.push(format!("tables per database: {}", distribution(tables)));
    description.own.extend(queries(tasks, spider));
    description.measure("question", tasks.iter().map(|task| task.question.as_str()));
    description.measure("query", tasks.iter().map(|task| task.gold.as_str()));
    description.show(tasks, |task| {
        vec![
            ("database", database(task).to_owned()),
            ("question", task.question.clone()),
            ("query", task.gold.clone()),
        ]
    });
    description
}

fn database(task: &Task) -> &str {
    task.fields.get(DATABASE_FIELD).and_then(Value::as_str).unwrap_or_default()
}

/// The databases that cannot be used, by problem.
fn unusable_lines(unusable: &[UnusableDatabase]) -> Vec<String> {
    let mut kinds: BTreeMap<&str, Vec<&UnusableDatabase>> = BTreeMap::new();
    for database in unusable {
        let kind = match &database.problem {
            DatabaseProblem::WithoutRows(_) => "without rows",
            DatabaseProblem::Unusable(leyden_spider::DatabaseError::Missing { .. }) => "missing",
            DatabaseProblem::Unusable(_) => "not usable",
        };
        kinds.entry(kind).or_default().push(database);
    }
    let line = |(kind, databases): (&str, Vec<&UnusableDatabase>)| {
        let questions: usize = databases.iter().map(|database| database.questions).sum();
        let names: Vec<&str> = databases.iter().map(|database| database.id.as_str()).collect();
        format!(
            "  {kind}: {} ({}), {} skipped",
            databases.len(),
            shortened(&names.join(", "), SHOWN),
            counted(questions, "question")
        )
    };
    kinds.into_iter().map(line).collect()
}

/// The number of reference queries that the official parser accepts, and that execute.
fn queries(tasks: &[Task], spider: &Spider) -> Vec<String> {
    let parses = |task: &Task| match spider.hardness(database(task), &task.gold) {
        Ok(_) => None,
        Err(_) => Some(task.gold.clone()),
    };
    // Compared with itself, a query executes once per database variant.
    let cases: Vec<Case<'_>> = tasks
        .iter()
        .map(|task| Case { database: database(task), gold: &task.gold, predicted: &task.gold })
        .collect();
    let verdicts = judge_all(spider.databases(), &cases);
    let mut verdicts = verdicts.into_iter().map(|verdict| verdict.err());
    let mut lines = share("the official parser accepts", tasks, parses);
    lines.extend(share("run", tasks, |_| verdicts.next().flatten().map(|error| error.to_string())));
    lines
}

/// The number of reference queries without a fault; `fault` returns the fault of a query.
fn share(
    what: &str,
    tasks: &[Task],
    mut fault: impl FnMut(&Task) -> Option<String>,
) -> Vec<String> {
    let faults: Vec<(&Task, String)> =
        tasks.iter().filter_map(|task| Some((task, fault(task)?))).collect();
    let good = tasks.len() - faults.len();
    let percent = 100.0 * good as f64 / tasks.len().max(1) as f64;
    let line = format!("reference queries that {what}: {good} of {} ({percent:.1} %)", tasks.len());
    let first = faults.first().map(|(task, why)| {
        format!("  {} not (first: {}: {})", faults.len(), task.id, shortened(why, SHOWN))
    });
    [line].into_iter().chain(first).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use leyden_mini::MiniSpider;
    use leyden_spider::Limits;
    use leyden_spider::loader::WithoutRows;

    #[test]
    fn databases_and_queries_are_counted_and_broken_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dev.json");
        MiniSpider::new(0).write(folder.path(), 0, 12).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut rows: Vec<Value> = serde_json::from_str(&text).unwrap();
        rows[3]["query"] = "SELECT nothing FROM nowhere".into();
        std::fs::write(&path, serde_json::to_string(&rows).unwrap()).unwrap();
        // One database is not an SQLite file, one is missing.
        let first = rows[0]["db_id"].as_str().unwrap().to_owned();
        let other =
            |row: &&Value| row["db_id"] != rows[0]["db_id"] && row["db_id"] != rows[3]["db_id"];
        let second = rows.iter().find(other).unwrap()["db_id"].as_str().unwrap().to_owned();
        let file = |id: &str| folder.path().join(format!("database/{id}/{id}.sqlite"));
        std::fs::write(file(&first), "no database").unwrap();
        std::fs::remove_file(file(&second)).unwrap();

        let spider = Spider::open(folder.path(), Limits::default()).unwrap();
        let loaded = spider.load(&path, WithoutRows::LeaveOut).unwrap();
        let text = describe("dev", &loaded.tasks, &spider, &loaded.databases).to_string();
        let tasks = loaded.tasks.len();
        let good = format!("{} of {tasks} (", tasks - 1);
        for line in [
            format!("  missing: 1 ({second}), "),
            format!("  not usable: 1 ({first}), "),
            format!("reference queries that the official parser accepts: {good}"),
            format!("reference queries that run: {good}"),
            format!(
                "  1 not (first: {}: its reference query does not run",
                rows[3]["id"].as_str().unwrap()
            ),
            "    query     select".to_owned(),
        ] {
            assert!(text.contains(&line), "{line:?} is not in\n{text}");
        }
    }
}
