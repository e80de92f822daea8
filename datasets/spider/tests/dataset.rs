//! Loader, scorer and table, on small synthetic folders and on the dataset itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use leyden_core::{Scorer, Task, shared_material};
use leyden_spider::execution::{Case, judge_all};
use leyden_spider::loader::WithoutRows;
use leyden_spider::table::{Gold, evaluate, read_gold, read_predictions};
use leyden_spider::{Limits, Spider, SpiderScorer};
use rusqlite::Connection;
use serde_json::json;

/// A folder with the databases `shop` (two items) and `bare` (no rows), and a `tables.json` that
/// also lists `gone` and `text`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let entry = |id: &str| {
        json!({
            "db_id": id,
            "table_names_original": ["item", "sale"],
            "column_names_original":
                [[-1, "*"], [0, "id"], [0, "Name"], [1, "sale_id"], [1, "item_id"]],
            "foreign_keys": [[4, 1]],
        })
    };
    let tables = json!([entry("shop"), entry("bare"), entry("gone"), entry("text")]);
    std::fs::write(folder.path().join("tables.json"), tables.to_string()).unwrap();
    let schema = "CREATE TABLE item (id, Name); CREATE TABLE sale (sale_id, item_id);";
    for (id, rows) in [("shop", "INSERT INTO item VALUES (1, 'tea'), (2, 'cup');"), ("bare", "")] {
        let own = folder.path().join("database").join(id);
        std::fs::create_dir_all(&own).unwrap();
        let connection = Connection::open(own.join(format!("{id}.sqlite"))).unwrap();
        connection.execute_batch(&format!("{schema}{rows}")).unwrap();
    }
    let text = folder.path().join("database/text");
    std::fs::create_dir_all(&text).unwrap();
    std::fs::write(text.join("text.sqlite"), "just text".repeat(200)).unwrap();
    folder
}

fn open(folder: &Path) -> Spider {
    Spider::open(folder, Limits::default()).unwrap()
}

#[test]
fn questions_become_tasks() {
    let folder = folder();
    let path = folder.path().join("dev.json");
    let rows = json!([
        {"db_id": "shop", "question": "How many?", "query": "SELECT count(*) FROM item",
         "sql": {"select": []}, "query_toks": ["SELECT"], "note": 1},
        {"db_id": "shop", "question": "Odd?", "query": "SELECT 1 WHERE 2"},
    ]);
    std::fs::write(&path, rows.to_string()).unwrap();
    let loaded = open(folder.path()).load(&path, WithoutRows::LeaveOut).unwrap();
    assert!(loaded.rejected.is_empty() && loaded.databases.is_empty());
    let [first, second] = loaded.tasks.as_slice() else { panic!("{} tasks", loaded.tasks.len()) };
    assert_eq!((first.id.as_str(), first.question.as_str()), ("dev-0", "How many?"));
    assert_eq!(first.gold, "SELECT count(*) FROM item");
    assert_eq!((first.label("hardness"), first.label("database")), (Some("easy"), Some("shop")));
    assert_eq!(first.fields.keys().collect::<Vec<_>>(), ["note", "db_id"]);
    // The official parser rejects a query without tables: a task without hardness.
    assert_eq!((second.id.as_str(), second.label("hardness")), ("dev-1", None));
}

#[test]
fn bad_rows_and_databases_are_named_and_the_rest_is_loaded() {
    let folder = folder();
    let path = folder.path().join("rows.jsonl");
    let row = |id: &str, db: &str| {
        json!({"id": id, "db_id": db, "question": "q", "query": "SELECT id FROM item"}).to_string()
    };
    let lines = [
        row("a", "shop"),
        "{\"id\": \"b\",".to_owned(),
        "[1]".to_owned(),
        json!({"id": "d", "db_id": "shop", "query": "SELECT 1"}).to_string(),
        json!({"id": 5, "db_id": "shop", "question": "q", "query": " "}).to_string(),
        row("a", "shop"),
        row("g", "nowhere"),
        row("h", "gone"),
        row("i", "text"),
        row("j", "bare"),
        row("k", "bare"),
        String::new(),
        row("l", "shop"),
    ];
    std::fs::write(&path, lines.join("\n")).unwrap();
    let spider = open(folder.path());
    let loaded = spider.load(&path, WithoutRows::LeaveOut).unwrap();
    let ids = |tasks: &[Task]| tasks.iter().map(|task| task.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&loaded.tasks), ["a", "l"]);
    let messages: Vec<String> = loaded.rejected.iter().map(ToString::to_string).collect();
    let expected = [
        "line 2: the line is not JSON",
        "line 3: the row is not a JSON object",
        "line 4 (id d): the field question is missing",
        "line 5 (id 5): the field query is empty",
        "line 6 (id a): the id was used before, in line 1",
        "line 7 (id g): tables.json has no database nowhere",
    ];
    assert_eq!(messages.len(), expected.len(), "{messages:?}");
    for (message, expected) in messages.iter().zip(expected) {
        assert!(message.contains("rows.jsonl, ") && message.contains(expected), "{message}");
    }
    let messages: Vec<String> = loaded.databases.iter().map(ToString::to_string).collect();
    assert_eq!(messages[0], "the database bare has no rows: 2 questions left out");
    assert!(messages[1].starts_with("the database gone is missing"), "{}", messages[1]);
    assert!(messages[2].starts_with("the database text cannot be used"), "{}", messages[2]);
    let kept = spider.load(&path, WithoutRows::Keep).unwrap();
    assert_eq!(ids(&kept.tasks), ["a", "j", "k", "l"]);
    assert_eq!(kept.databases.len(), 3);
}

#[test]
fn a_folder_without_tables_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Spider::open(folder.path(), Limits::default()).unwrap_err().to_string();
    assert!(missing.starts_with("there is no file ") && missing.contains("tables.json"));
    std::fs::write(folder.path().join("tables.json"), "{}").unwrap();
    let wrong = Spider::open(folder.path(), Limits::default()).unwrap_err().to_string();
    assert!(wrong.contains("is not a list of schemas"), "{wrong}");
    let spider = open(self::folder().path());
    let error = spider.load("/nowhere/dev.json", WithoutRows::Keep).unwrap_err().to_string();
    assert!(error.starts_with("the file /nowhere/dev.json cannot be read"), "{error}");
}

#[test]
fn the_folder_of_databases_finds_its_tables() {
    let folder = folder();
    let spider = open(&folder.path().join("database"));
    assert!(spider.knows("shop") && spider.databases().get("shop").is_ok());
}

#[test]
fn the_reward_is_execution_match() {
    let folder = folder();
    let scorer = SpiderScorer::new(Arc::new(open(folder.path())));
    let task = |db: &str, gold: &str| Task {
        id: "t".into(),
        question: "?".into(),
        gold: gold.into(),
        labels: vec![],
        fields: [("db_id".to_owned(), json!(db))].into_iter().collect(),
    };
    let shop = task("shop", "SELECT count(*) FROM item");
    let parts = |answer| {
        let score = scorer.score(&shop, answer).unwrap();
        assert_eq!(score.reward, score.parts["execution"]);
        (score.reward, score.parts["runs"], score.parts["exact_match"])
    };
    assert_eq!(parts(Some("SELECT count(*) FROM item")), (1.0, 1.0, 1.0));
    assert_eq!(parts(Some("SELECT 2")), (1.0, 1.0, 0.0));
    assert_eq!(parts(Some("SELECT count(*) FROM sale")), (0.0, 1.0, 0.0));
    assert_eq!(parts(Some("DROP TABLE item")), (0.0, 0.0, 0.0));
    assert_eq!(parts(None), (0.0, 0.0, 0.0));
    for (broken, what) in [
        (task("shop", "SELECT x FROM item"), "reference query does not run"),
        (task("gone", "SELECT 1"), "the database gone is missing"),
        (task("../shop", "SELECT 1"), "is not the name of a database"),
    ] {
        for answer in [Some("SELECT 1"), None] {
            let error = scorer.score(&broken, answer).unwrap_err().to_string();
            assert!(error.starts_with("task t cannot be scored: "), "{error}");
            assert!(error.contains(what), "{error}");
        }
    }
}

#[test]
fn columns_of_a_foreign_key_count_as_one() {
    let folder = folder();
    let spider = open(folder.path());
    let matches = |gold: &str, predicted: &str| {
        spider.compare("shop", gold, predicted).unwrap().exact.matches
    };
    let join = "FROM item AS a JOIN sale AS b ON a.id = b.item_id";
    let gold = format!("SELECT a.id {join}");
    assert!(matches(&gold, &format!("SELECT b.item_id {join}")));
    assert!(!matches(&gold, &format!("SELECT b.sale_id {join}")));
    // Only columns of tables in `from` are merged, and tables must be the same.
    assert!(!matches("SELECT id FROM item", "SELECT item_id FROM sale"));
    assert!(matches(
        "SELECT DISTINCT id FROM item WHERE Name = 'a'",
        "SELECT id FROM item WHERE name = 'b'"
    ));
}

#[test]
fn the_table_has_the_official_averages() {
    let folder = folder();
    let spider = open(folder.path());
    let gold = |query: &str, database: &str| Gold {
        query: query.into(),
        database: database.into(),
        id: query.contains("missing").then(|| "dev-3".to_owned()),
    };
    let golds = [
        gold("SELECT count(*) FROM item", "shop"),
        gold("SELECT id FROM item WHERE name = 'tea'", "shop"),
        gold("SELECT id , name FROM item ORDER BY id", "shop"),
        gold("SELECT missing FROM item", "shop"),
    ];
    let predictions = [
        "SELECT count(*) FROM item",
        "SELECT id FROM item",
        "SELECT id, name FROM item ORDER BY id DESC",
        "SELECT 1",
    ]
    .map(str::to_owned);
    let evaluation = evaluate(&spider, &golds, &predictions);
    let [easy, medium, _, extra, all] = evaluation.levels.as_slice() else { panic!() };
    assert_eq!((easy.count, medium.count, extra.count, all.count), (2, 1, 0, 3));
    assert_eq!((easy.execution, easy.exact_match), (0.5, 0.5));
    let part = |level: &leyden_spider::table::Level, name: &str| {
        let part = level.parts.iter().find(|part| part.name == name).unwrap();
        (part.accuracy, part.recall, part.f1)
    };
    assert_eq!(part(easy, "select"), (1.0, 1.0, 1.0));
    // One reference has a condition but no prediction does, so accuracy has an empty denominator.
    assert_eq!(part(easy, "where"), (0.0, 0.0, 1.0));
    assert_eq!(part(medium, "order"), (0.0, 0.0, 1.0));
    assert_eq!(part(medium, "and/or"), (1.0, 1.0, 1.0));
    assert_eq!(part(extra, "select"), (0.0, 0.0, 0.0));
    let text = evaluation.to_text();
    assert!(text.contains("not scored: 1\n  question 4 (dev-3): "), "{text}");
    assert!(text.contains("execution            0.500                0.000"), "{text}");
    assert_eq!(evaluation.to_json()["levels"][4]["count"], 3);
    assert_eq!(evaluation.rows.len(), 3);
}

#[test]
fn files_of_both_formats_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let lines = read_gold(write("gold.sql", "SELECT 1\tshop\n\nSELECT  2 \tbare\n")).unwrap();
    let rows = "{\"query\": \"SELECT 1\", \"db_id\": \"shop\"}\n{\"gold\": \"SELECT  2\", \"db_id\": \"bare\"}";
    assert_eq!(lines, read_gold(write("gold.jsonl", rows)).unwrap());
    assert_eq!(lines[1].query, "SELECT  2");
    let list = rows.replace("}\n{", "},\n{");
    assert_eq!(lines, read_gold(write("dev.json", &format!("[{list}]"))).unwrap());
    let wrong = read_gold(write("bad.json", &format!("[{list}, {{}}]"))).unwrap_err().to_string();
    assert!(wrong.contains("bad.json, row 3 of its list: there is no field query"), "{wrong}");
    let cut = read_gold(write("cut.json", &format!("[{list}"))).unwrap_err().to_string();
    assert!(cut.contains("cut.json begins as a JSON list but is none"), "{cut}");
    let wrong = read_gold(write("bad.sql", "SELECT 1\tshop\nSELECT 2")).unwrap_err().to_string();
    assert!(wrong.contains("bad.sql, line 2: there is no tab"), "{wrong}");
    let plain = write("pred.sql", "SELECT 1 WHERE x > value AND y\textra\n\n\n");
    assert_eq!(read_predictions(&plain, 2).unwrap(), ["SELECT 1 WHERE x > 1 AND y", ""]);
    let rows = write("pred.jsonl", "{\"prediction\": \"SELECT 1\"}\n{\"pred\": null}\n");
    assert_eq!(read_predictions(rows, 2).unwrap(), ["SELECT 1", ""]);
    let few = read_predictions(plain, 9).unwrap_err().to_string();
    assert!(few.contains("has 3 predictions for 9 references"), "{few}");
}

/// The published counts of the development set, and its queries on their databases.
#[test]
fn the_dataset_loads_and_its_references_run() {
    let Some(folder) = shared_material("data/spider") else { return };
    let spider = open(&folder);
    let dev = spider.load(folder.join("dev.json"), WithoutRows::Keep).unwrap();
    assert_eq!((dev.tasks.len(), dev.rejected.len()), (1034, 0));
    assert_eq!(dev.databases.len(), 1);
    assert_eq!((dev.databases[0].id.as_str(), dev.databases[0].questions), ("wta_1", 62));
    let mut levels = BTreeMap::new();
    for task in &dev.tasks {
        *levels.entry(task.label("hardness").unwrap_or("none")).or_insert(0) += 1;
    }
    let published = [("easy", 248), ("extra", 166), ("hard", 174), ("medium", 446)];
    assert_eq!(levels.into_iter().collect::<Vec<_>>(), published);
    let left = spider.load(folder.join("dev.json"), WithoutRows::LeaveOut).unwrap();
    assert_eq!(left.tasks.len(), 972);
    let mut broken = Vec::new();
    let mut judged = 0;
    for file in ["dev.json", "train_spider_min.jsonl", "train_others_min.jsonl"] {
        let loaded = spider.load(folder.join(file), WithoutRows::Keep).unwrap();
        assert!(loaded.rejected.is_empty(), "{:?}", loaded.rejected[0]);
        let cases: Vec<Case<'_>> = loaded
            .tasks
            .iter()
            .map(|task| Case {
                database: task.label("database").unwrap_or_default(),
                gold: &task.gold,
                predicted: &task.gold,
            })
            .collect();
        judged += cases.len();
        for (task, verdict) in loaded.tasks.iter().zip(judge_all(spider.databases(), &cases)) {
            match verdict {
                Ok(verdict) => assert!(verdict.matches(), "{}", task.id),
                Err(error) => broken.push(format!("{}: {error}", task.id)),
            }
        }
    }
    println!("{judged} references, {} do not run: {broken:#?}", broken.len());
    assert!(judged > 9_000 && broken.len() <= 3, "{broken:#?}");
}
