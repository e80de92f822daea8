//! Properties of mini-spider: databases, separation of training and test, executable queries that
//! are hard to guess, files, demonstrations.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use leyden_core::{SeedTree, Task};
use leyden_mini::calc::is_reserved;
use leyden_mini::names;
use leyden_mini::spider::{Content, Database, MiniSpider, Noise, TEST_TASKS, Turn};
use leyden_text::{BpeTraining, train_bpe};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn field<'a>(task: &'a Task, name: &str) -> &'a str {
    task.fields[name].as_str().unwrap_or_else(|| panic!("{} has no {name}", task.id))
}

fn database<'a>(world: &'a MiniSpider, task: &Task) -> &'a Database {
    world.database(field(task, "db_id")).unwrap_or_else(|| panic!("{} has no database", task.id))
}

fn many_tasks(world: &MiniSpider) -> (Vec<Task>, Vec<Task>) {
    ((0..1_200).map(|i| world.train(i)).collect(), world.test(600))
}

fn words(text: &str) -> Vec<String> {
    let parts = text.split(|c: char| !c.is_ascii_lowercase());
    parts.filter(|word| !word.is_empty()).map(str::to_string).collect()
}

/// The quoted values and the numbers above 10 in a text.
fn values(text: &str) -> (Vec<String>, Vec<i64>) {
    let texts = text.split('\'').skip(1).step_by(2).map(str::to_string).collect();
    let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    let numbers = numbers.map(|n| n.trim_matches('.').replace('.', ""));
    (texts, numbers.filter_map(|n| n.parse().ok()).filter(|n| *n > 10).collect())
}

#[test]
fn databases_are_many_small_and_typed() {
    let world = MiniSpider::new(0);
    let held_out = world.databases().iter().filter(|d| d.schema.held_out).count();
    assert!(world.databases().len() - held_out >= 12 && held_out >= 3);
    let mut types = HashSet::new();
    for database in world.databases() {
        let schema = &database.schema;
        assert!((2..=4).contains(&schema.tables.len()), "{}", schema.db_id);
        let mut names = HashSet::new();
        for table in &schema.tables {
            assert_eq!(table.columns[0].content, Content::Id);
            for column in &table.columns[1..] {
                assert!(names.insert(&column.name), "{}: {} twice", schema.db_id, column.name);
                types.insert(column.content.sql_type());
            }
            let rows = database.run(&format!("select * from {}", table.name)).unwrap();
            assert!((8..=20).contains(&rows.len()));
            for (i, column) in table.columns.iter().enumerate() {
                let values: HashSet<&String> = rows.iter().map(|row| &row[i]).collect();
                match column.content {
                    Content::Category => assert_eq!(values.len(), 5, "{}", column.name),
                    Content::Key(_) => assert!((2..=7).contains(&values.len())),
                    _ => assert_eq!(values.len(), rows.len(), "{}", column.name),
                }
            }
        }
        let violations = database.run("pragma foreign_key_check").unwrap();
        assert!(violations.is_empty(), "{}: {violations:?}", schema.db_id);
    }
    assert_eq!(types, HashSet::from(["integer", "real", "text"]));
}

#[test]
fn held_out_databases_have_no_new_words() {
    let world = MiniSpider::new(0);
    let of = |held_out: bool| -> HashSet<String> {
        let databases = world.databases().iter().filter(|d| d.schema.held_out == held_out);
        databases.flat_map(|d| words(&d.schema.compact())).collect()
    };
    let (known, held_out) = (of(false), of(true));
    assert!(held_out.is_subset(&known), "{:?}", held_out.difference(&known));
}

#[test]
fn held_out_templates_consist_of_known_parts() {
    let world = MiniSpider::new(0);
    let pairs = |text: &str| -> Vec<String> {
        let text = text.replace(['.', ','], " .").replace('?', " ?");
        let words: Vec<&str> = text.split_whitespace().collect();
        words.windows(2).map(|pair| pair.join(" ")).collect()
    };
    let (held_out, training): (Vec<_>, Vec<_>) =
        world.templates().iter().partition(|template| template.held_out);
    let known: HashSet<String> = training.iter().flat_map(|t| pairs(t.text)).collect();
    let texts: HashSet<&str> = world.templates().iter().map(|t| t.text).collect();
    assert_eq!(texts.len(), world.templates().len(), "two templates are one text");
    let share = held_out.len() as f64 / world.templates().len() as f64;
    assert!((0.2..0.3).contains(&share), "{share}");
    for template in held_out {
        for pair in pairs(template.text) {
            assert!(known.contains(&pair), "{} alone has {pair:?}", template.id);
        }
    }
}

#[test]
fn gold_queries_run_and_return_rows() {
    let world = MiniSpider::new(1);
    let (training, test) = many_tasks(&world);
    let mut used = HashSet::new();
    for task in training.iter().chain(&test) {
        let rows = database(&world, task).run(&task.gold);
        let rows = rows.unwrap_or_else(|e| panic!("{}: {}: {e}", task.id, task.gold));
        assert!(
            !rows.is_empty() && rows.iter().flatten().all(|cell| cell != "null"),
            "{}",
            task.gold
        );
        assert_eq!(field(task, "query"), task.gold);
        assert!(!task.question.contains(['{', '}']), "{}", task.question);
        used.insert(field(task, "template"));
    }
    let unused: Vec<&str> =
        world.templates().iter().map(|t| t.id.as_str()).filter(|id| !used.contains(id)).collect();
    assert!(unused.is_empty(), "templates that no task uses: {unused:?}");
}

#[test]
fn training_and_test_share_neither_values_nor_wordings_nor_databases() {
    let world = MiniSpider::new(1);
    let (training, test) = many_tasks(&world);
    for (tasks, reserved) in [(&training, false), (&test, true)] {
        for task in tasks {
            let asked = values(&task.question);
            let (mut texts, mut numbers) = values(&task.gold);
            assert!(texts.iter().all(|text| names::is_reserved(text) == reserved), "{}", task.gold);
            assert!(numbers.iter().all(|n| is_reserved(*n) == reserved), "{}", task.gold);
            texts.sort();
            numbers.sort_unstable();
            let (mut asked_texts, mut asked_numbers) = asked;
            asked_texts.sort();
            asked_numbers.sort_unstable();
            assert_eq!((asked_texts, asked_numbers), (texts, numbers), "{}", task.question);
        }
    }
    let held_out = |task: &Task, name: &str| task.label(name) == Some("held_out");
    for task in &training {
        assert!(!held_out(task, "template") && !held_out(task, "database"), "{}", task.id);
    }
    for task in training.iter().chain(&test) {
        assert_eq!(held_out(task, "database"), database(&world, task).schema.held_out);
        assert_eq!(held_out(task, "template"), field(task, "template").contains("#held"));
    }
    let asked = |task: &Task| (task.question.clone(), field(task, "db_id").to_string());
    let trained: HashSet<_> = training.iter().map(asked).collect();
    let repeated: Vec<_> = test.iter().map(asked).filter(|q| trained.contains(q)).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
    let test = &test[..TEST_TASKS];
    for name in ["template", "database"] {
        assert_eq!(test.iter().filter(|t| held_out(t, name)).count(), TEST_TASKS / 2);
    }
    let different: HashSet<_> = test.iter().map(asked).collect();
    assert!(different.len() * 100 > 95 * test.len(), "{} of {}", different.len(), test.len());
}

/// Spider's rule applied to the text of a query, which is sufficient in this world.
fn hardness(sql: &str) -> &'static str {
    let outer = sql.split("( select").next().unwrap_or(sql);
    let count = |part: &str| outer.matches(part).count();
    let components = ["where", "group by", "order by", "limit", " join ", " or "];
    let components: usize = components.iter().map(|part| count(part)).sum();
    let select = outer.split(" from ").next().unwrap_or_default();
    let aggregates =
        ["count(", "max(", "min(", "avg("].iter().map(|part| count(part)).sum::<usize>();
    let others = usize::from(aggregates > 1)
        + usize::from(select.contains(','))
        + usize::from(count(" and ") + count(" or ") > 0);
    let nested = sql.matches("( select").count();
    match (components, others, nested) {
        (..=1, 0, 0) => "easy",
        (c, o, 0) if (o <= 2 && c <= 1) || (c <= 2 && o < 2) => "medium",
        (c, o, 0) if (o > 2 && c <= 2) || (c == 3 && o <= 2) => "hard",
        (..=1, 0, 1) => "hard",
        _ => "extra",
    }
}

#[test]
fn labels_have_the_hardness_by_spiders_rule() {
    let world = MiniSpider::new(1);
    let (training, test) = many_tasks(&world);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for task in training.iter().chain(&test) {
        let label = task.label("hardness").unwrap();
        assert_eq!(label, hardness(&task.gold), "{}", task.gold);
        *counts.entry(label).or_default() += 1;
    }
    let share = |name: &str| counts[name] as f64 / (training.len() + test.len()) as f64;
    assert!((share("easy") - 0.4).abs() < 0.03 && (share("hard") - 0.2).abs() < 0.03);
}

/// A result in canonical form for the test-suite rule, with columns in any order.
fn result(database: &Database, sql: &str, ordered: bool) -> Option<Vec<Vec<String>>> {
    let mut rows = database.run(sql).ok()?;
    rows.iter_mut().for_each(|row| row.sort());
    if !ordered {
        rows.sort();
    }
    Some(rows)
}

#[test]
fn queries_of_other_tasks_and_mutated_texts_rarely_give_the_right_result() {
    let world = MiniSpider::new(2);
    let swaps = [
        ("max(", "min("),
        ("min(", "avg("),
        ("avg(", "max("),
        (" > ", " < "),
        (" < ", " > "),
        (" desc", " asc"),
        (" asc", " desc"),
        ("not in", "in"),
        (" and ", " or "),
        (" or ", " and "),
        (" = '", " != '"),
        (" limit 1", ""),
        ("count(*)", "id"),
    ];
    let tasks: Vec<Task> = (0..1_500).map(|i| world.train(i)).collect();
    let (mut mutated, mut hits) = (0, 0);
    let (mut others, mut lucky) = (0, 0);
    for (i, task) in tasks.iter().enumerate() {
        let database = database(&world, task);
        let ordered = task.gold.contains("order by");
        let gold = result(database, &task.gold, ordered);
        assert!(gold.is_some());
        for (from, to) in swaps {
            if task.gold.contains(from) {
                mutated += 1;
                let sql = task.gold.replacen(from, to, 1);
                hits += usize::from(result(database, &sql, ordered) == gold);
            }
        }
        // Another question's query on the same database.
        let same = |other: &&Task| {
            field(other, "db_id") == field(task, "db_id") && other.gold != task.gold
        };
        for other in tasks[i + 1..].iter().filter(same).take(5) {
            others += 1;
            lucky += usize::from(result(database, &other.gold, ordered) == gold);
        }
    }
    println!("mutated queries: {hits} of {mutated} right; of other tasks: {lucky} of {others}");
    assert!(
        mutated > 2_000 && hits * 50 < mutated,
        "{hits} of {mutated} mutated queries are right"
    );
    assert!(lucky * 25 < others, "{lucky} of {others} queries of other tasks are right");
}

#[test]
fn files_are_in_the_formats_of_spider() {
    let folder = tempfile::tempdir().unwrap();
    let world = MiniSpider::new(1);
    let out = folder.path().join("new");
    world.write(&out, 20, 12).unwrap();
    // Overwriting works.
    world.write(&out, 20, 12).unwrap();
    let read = |name: &str| -> Vec<Value> {
        serde_json::from_str(&std::fs::read_to_string(out.join(name)).unwrap()).unwrap()
    };
    for (rows, tasks) in [
        (read("train.json"), (0..20).map(|i| world.train(i)).collect::<Vec<_>>()),
        (read("dev.json"), world.test(12)),
    ] {
        assert_eq!(rows.len(), tasks.len());
        for (row, task) in rows.iter().zip(&tasks) {
            assert_eq!(row["db_id"], field(task, "db_id"));
            assert_eq!(
                (&row["question"], &row["query"]),
                (&task.question[..].into(), &task.gold[..].into())
            );
            let path = out.join(format!("database/{0}/{0}.sqlite", field(task, "db_id")));
            let file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
            let mut statement = file.prepare(&task.gold).unwrap();
            let found = statement.query_map([], |_| Ok(())).unwrap().count();
            assert_eq!(found, database(&world, task).run(&task.gold).unwrap().len());
        }
    }
    let tables = read("tables.json");
    assert_eq!(tables.len(), world.databases().len());
    for (entry, database) in tables.iter().zip(world.databases()) {
        let columns = entry["column_names_original"].as_array().unwrap();
        assert_eq!(columns[0], serde_json::json!([-1, "*"]));
        assert_eq!(columns.len(), entry["column_types"].as_array().unwrap().len());
        assert_eq!(columns.len(), entry["column_names"].as_array().unwrap().len());
        let name = |n: &Value| columns[n.as_u64().unwrap() as usize][1].as_str().unwrap();
        let table = |n: &Value| {
            let t = columns[n.as_u64().unwrap() as usize][0].as_u64().unwrap() as usize;
            entry["table_names_original"][t].as_str().unwrap()
        };
        let primary = entry["primary_keys"].as_array().unwrap();
        assert_eq!(primary.len(), database.schema.tables.len());
        assert!(primary.iter().all(|n| name(n) == "id"));
        let foreign = entry["foreign_keys"].as_array().unwrap();
        assert_eq!(foreign.len(), database.schema.tables.len() - 1);
        for pair in foreign {
            assert_eq!(name(&pair[0]), format!("{}_id", table(&pair[1])));
            assert_eq!(name(&pair[1]), "id");
        }
    }
    std::fs::write(folder.path().join("file"), "").unwrap();
    let error = world.write(&folder.path().join("file"), 1, 1).unwrap_err();
    assert!(error.to_string().contains("tables.json"), "{error}");
}

#[test]
fn tasks_do_not_depend_on_the_order_of_access_and_differ_between_seeds() {
    let world = MiniSpider::new(5);
    let late = world.train(1_000_000);
    assert_eq!(MiniSpider::new(5).train(1_000_000), late);
    assert_ne!(MiniSpider::new(6).train(1_000_000).question, late.question);
    assert_eq!(world.test(10), world.test(30)[..10]);
    assert_eq!(world.corpus(9), MiniSpider::new(5).corpus(9));
}

/// The committed base model is pretrained on this world, which must not change.
#[test]
fn the_first_tasks_and_the_rows_are_pinned() {
    let world = MiniSpider::new(1);
    let mut hash = Sha256::new();
    for task in (0..100).map(|i| world.train(i)).chain(world.test(100)) {
        hash.update(serde_json::to_vec(&task).unwrap());
    }
    for database in world.databases() {
        for table in &database.schema.tables {
            let rows = database.run(&format!("select * from {}", table.name)).unwrap();
            hash.update(serde_json::to_vec(&rows).unwrap());
        }
    }
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, "f31bceb669140b54");
}

#[test]
fn about_one_demonstration_in_ten_is_correct() {
    let world = MiniSpider::new(3);
    let mut right: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut queries = 0;
    let n = 2_000;
    for i in 0..n {
        let shown = world.demonstration(i, &Noise::default(), SeedTree::new(4).index(i));
        let task = &shown.task;
        assert_eq!(*task, world.train(i));
        let ordered = task.gold.contains("order by");
        let database = database(&world, task);
        let found = result(database, shown.query(), ordered);
        assert!(found.is_some(), "{} is not well-formed", shown.query());
        let hit = usize::from(found == result(database, &task.gold, ordered));
        for group in [task.label("hardness").unwrap(), "all"] {
            let counts = right.entry(group.to_string()).or_default();
            *counts = (counts.0 + hit, counts.1 + 1);
        }
        queries += shown.turns.iter().filter(|turn| !matches!(turn, Turn::Check { .. })).count();
    }
    println!("{right:?}; {queries} queries in {n} rollouts");
    for (group, (right, all)) in &right {
        let share = *right as f64 / *all as f64;
        assert!((0.07..0.15).contains(&share), "{group}: {share}");
    }
}

#[test]
fn demonstrations_keep_names_and_values_and_the_protocol() {
    let world = MiniSpider::new(3);
    for i in 0..500 {
        let shown = world.demonstration(i, &Noise::default(), SeedTree::new(i));
        let (known, right) = (words(&world.train(i).gold), values(&shown.task.gold));
        let grammar = "select count max min avg from where and or not in group order by asc desc \
                       limit join on id";
        let allowed: BTreeSet<String> = known.into_iter().chain(words(grammar)).collect();
        let mut checked = true;
        for (turn, place) in shown.turns.iter().zip(0..) {
            match turn {
                Turn::Check { correct } => {
                    checked = true;
                    assert!(!*correct || place + 1 == shown.turns.len(), "continues");
                }
                Turn::Write { query } | Turn::Rewrite { query } => {
                    assert!(std::mem::take(&mut checked), "two queries in a row");
                    assert_eq!(matches!(turn, Turn::Write { .. }), place == 0);
                    let unknown: Vec<_> =
                        words(query).into_iter().filter(|w| !allowed.contains(w)).collect();
                    assert!(unknown.is_empty(), "{query}: {unknown:?}");
                    let (texts, numbers) = values(query);
                    assert!(texts.iter().all(|text| right.0.contains(text)), "{query}");
                    assert!(numbers.iter().all(|n| right.1.contains(n)), "{query}");
                }
            }
        }
        assert!(checked && shown.turns.len() <= 6);
        let none = world.demonstration(i, &Noise::none(), SeedTree::new(i));
        let query = none.task.gold.clone();
        assert_eq!(none.turns, [Turn::Write { query }, Turn::Check { correct: true }]);
    }
}

#[test]
fn schema_and_question_fit_a_short_prompt_of_a_small_vocabulary() {
    let world = MiniSpider::new(0);
    let training = BpeTraining { vocab_size: 1_024, min_frequency: 20, ..BpeTraining::default() };
    let tokenizer = train_bpe(world.corpus(6_000), &training).unwrap();
    let length = |text: &str| tokenizer.encode(text).unwrap().len();
    let tests = world.test(TEST_TASKS);
    let prompt = |task: &Task| length(field(task, "schema")) + length(&task.question);
    let longest = tests.iter().map(prompt).max();
    assert!(longest <= Some(100), "{longest:?} tokens in schema and question");
    let longest = tests.iter().map(|task| length(&task.gold)).max();
    println!("{longest:?} tokens in a query");
    assert!(longest <= Some(40), "{longest:?} tokens in a query");
}
