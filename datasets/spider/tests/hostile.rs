//! Malicious queries fail with bounded cost.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leyden_spider::database::{Value, render};
use leyden_spider::execution::{Case, Verdict, judge_all};
use leyden_spider::{Database, DatabaseError, Databases, Detail, Limits, QueryError, judge};
use rusqlite::Connection;

struct World {
    folder: tempfile::TempDir,
    databases: Databases,
}

impl World {
    /// A database `shop` of two tables.
    fn new(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        make(
            folder.path(),
            "shop",
            "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price REAL);
             CREATE TABLE sale (id INTEGER, item_id INTEGER, FOREIGN KEY (item_id) REFERENCES item(id));
             INSERT INTO item VALUES (1, 'tea', 2.0), (2, 'cup', 4.5), (3, NULL, 1);
             INSERT INTO sale VALUES (1, 1), (2, 1), (3, 2);",
        );
        let databases = Databases::new(folder.path(), limits);
        Self { folder, databases }
    }

    fn shop(&self) -> Arc<Database> {
        self.databases.get("shop").unwrap()
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("shop/shop.sqlite")
    }
}

fn make(folder: &Path, id: &str, sql: &str) {
    std::fs::create_dir_all(folder.join(id)).unwrap();
    let connection = Connection::open(folder.join(id).join(format!("{id}.sqlite"))).unwrap();
    connection.execute_batch(sql).unwrap();
}

fn small() -> Limits {
    Limits {
        instructions: 1_000_000,
        time: Duration::from_secs(60),
        rows: 1_000,
        bytes: 1 << 20,
        memory: 64 << 20,
    }
}

#[test]
fn an_endless_query_stops_at_its_instructions() {
    let world = World::new(small());
    let shop = world.shop();
    for sql in [
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION SELECT x + 1 FROM c) SELECT max(x) FROM c",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT x FROM c WHERE x > 1",
        "SELECT count(*) FROM item a, item b, item c, item d, item e, item f, item g, item h,
         item i, item j, item k, item l, item m, item n, item o, item p",
    ] {
        assert_eq!(shop.query(sql).unwrap_err(), QueryError::Instructions(1_000_000), "{sql}");
    }
    // The connection is still usable.
    assert_eq!(shop.query("SELECT count(*) FROM item").unwrap().rows, [[Value::Integer(3)]]);
}

#[test]
fn an_endless_query_stops_at_its_time() {
    let time = Duration::from_millis(1);
    let world = World::new(Limits { instructions: u64::MAX, time, ..small() });
    let sql = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT count(*) FROM c";
    assert_eq!(world.shop().query(sql).unwrap_err(), QueryError::Time(time));
}

#[test]
fn results_are_bounded_in_rows_and_bytes() {
    let world = World::new(small());
    let shop = world.shop();
    let endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT ";
    let rows = shop.query(&format!("{endless} x FROM c")).unwrap_err();
    assert_eq!(rows, QueryError::Rows(1_000));
    for sql in [
        format!("{endless} printf('%100000d', x) FROM c"),
        "SELECT zeroblob(1000000000)".to_owned(),
        "SELECT replace(printf('%1000000d', 1), ' ', '0123456789')".to_owned(),
        format!("SELECT '{}'", "a".repeat(1 << 20)),
        format!("SELECT {}1", "1 + ".repeat(50_000)),
    ] {
        let error = shop.query(&sql).unwrap_err();
        assert_eq!(error, QueryError::Bytes, "{}", &sql[..60.min(sql.len())]);
    }
    let deep = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(matches!(shop.query(&deep), Err(QueryError::Complex(_))));
}

/// Without a guard, forty CTEs in 650 bytes keep `sqlite3_prepare` busy for minutes, during which
/// neither the instruction limit nor the time limit is checked.
#[test]
fn a_query_that_expands_to_too_many_tables_is_rejected_immediately() {
    let world = World::new(small());
    let shop = world.shop();
    let mut sql = "WITH c0 AS (SELECT 1 AS x)".to_owned();
    for level in 1..=40 {
        sql += &format!(", c{level} AS (SELECT a.x FROM c{0} a, c{0} b)", level - 1);
    }
    sql += " SELECT count(*) FROM c40";
    let error = shop.query(&sql).unwrap_err();
    assert!(matches!(error, QueryError::Complex(_)) && error.class() == "limit", "{error:?}");
    let verdict = judge(&shop, "SELECT count(*) FROM item", &sql).unwrap();
    assert_eq!(verdict, Verdict::Failed(error));
    // Ordinary CTEs still run.
    let usual = "WITH sold AS (SELECT item_id, count(*) AS n FROM sale GROUP BY item_id), \
                 best AS (SELECT max(n) AS n FROM sold) \
                 SELECT name FROM item JOIN sold ON item.id = item_id JOIN best ON best.n = sold.n";
    assert_eq!(shop.query(usual).unwrap().rows, [[Value::Text("tea".into())]]);
}

#[test]
fn only_reading_is_allowed() {
    let world = World::new(small());
    let before = std::fs::read(world.file()).unwrap();
    let outside = world.folder.path().join("outside.sqlite");
    Connection::open(&outside).unwrap().execute_batch("CREATE TABLE secret (x)").unwrap();
    let other = world.folder.path().join("new.sqlite");
    let shop = world.shop();
    let denied = [
        "DROP TABLE item".to_owned(),
        "DELETE FROM item".to_owned(),
        "INSERT INTO item VALUES (9, 'x', 0) RETURNING id".to_owned(),
        "UPDATE item SET price = 0 RETURNING id".to_owned(),
        "CREATE TABLE t (x)".to_owned(),
        "CREATE TEMP TABLE t AS SELECT 1".to_owned(),
        "CREATE VIRTUAL TABLE t USING fts5(x)".to_owned(),
        format!("ATTACH '{}' AS o", outside.display()),
        format!("ATTACH '{}' AS o", other.display()),
        format!("VACUUM INTO '{}'", other.display()),
        "PRAGMA table_info(item)".to_owned(),
        "PRAGMA writable_schema = 1".to_owned(),
        "SELECT * FROM pragma_table_info('item')".to_owned(),
        "SELECT load_extension('libm.so')".to_owned(),
        "SELECT LOAD_EXTENSION('libm.so')".to_owned(),
        format!("SELECT writefile('{}', 'x')", other.display()),
        format!("SELECT readfile('{}')", world.file().display()),
        "SELECT fts3_tokenizer('simple', x'00')".to_owned(),
        "SELECT random()".to_owned(),
        "SELECT name FROM item ORDER BY random()".to_owned(),
        "BEGIN".to_owned(),
        "SAVEPOINT s".to_owned(),
        "ANALYZE".to_owned(),
        "REINDEX".to_owned(),
        "SELECT * FROM o.secret".to_owned(),
    ];
    for sql in &denied {
        let error = shop.query(sql).unwrap_err();
        assert!(
            matches!(error, QueryError::Denied(_) | QueryError::Sql(_) | QueryError::NotAQuery),
            "{sql}: {error:?}"
        );
        let verdict = judge(&shop, "SELECT count(*) FROM item", sql).unwrap();
        assert!(matches!(verdict, Verdict::Failed(_)), "{sql}: {verdict:?}");
    }
    assert!(!other.exists());
    assert_eq!(std::fs::read(world.file()).unwrap(), before);
    let files = std::fs::read_dir(world.folder.path().join("shop")).unwrap().count();
    assert_eq!(files, 1, "a journal was left behind");
    assert!(judge(&shop, "SELECT count(*) FROM item", "SELECT 3").unwrap().matches());
}

#[test]
fn text_without_a_query_fails_even_for_an_empty_reference_result() {
    let world = World::new(small());
    let shop = world.shop();
    let empty = "SELECT id FROM item WHERE id > 99";
    for sql in
        ["", " ", ";", "-- SELECT id FROM item", "/* */", "DROP TABLE item", "SELECT ?", "\0"]
    {
        let verdict = judge(&shop, empty, sql).unwrap();
        assert!(matches!(verdict, Verdict::Failed(_)), "{sql:?}: {verdict:?}");
    }
    // Only the first statement is judged, as in the original; the second is never run.
    assert!(judge(&shop, empty, "SELECT 1 WHERE 0; DROP TABLE item").unwrap().matches());
    assert!(matches!(shop.query("SELECT 1; SELECT 2"), Err(QueryError::Sql(_))));
}

#[test]
fn errors_have_a_class() {
    let world = World::new(small());
    let shop = world.shop();
    for (sql, class) in [
        ("SELEC id FROM item", "syntax"),
        ("SELECT", "syntax"),
        ("SELECT colour FROM item", "column"),
        ("SELECT id FROM item JOIN sale ON item.id = item_id", "column"),
        ("SELECT id FROM nowhere", "table"),
        ("SELECT yearly(id) FROM item", "function"),
        ("PRAGMA user_version", "denied"),
        ("", "not_a_query"),
    ] {
        assert_eq!(shop.query(sql).unwrap_err().class(), class, "{sql}");
    }
}

#[test]
fn a_broken_reference_is_an_error_and_not_a_failed_prediction() {
    let world = World::new(small());
    let cases = [
        Case { database: "shop", gold: "SELECT x FROM item", predicted: "SELECT 1" },
        Case { database: "nowhere", gold: "SELECT 1", predicted: "SELECT 1" },
        Case { database: "shop", gold: "SELECT 1", predicted: "SELECT 1.0" },
        Case { database: "shop", gold: "SELECT 1", predicted: "SELECT '1'" },
    ];
    let verdicts = judge_all(&world.databases, &cases);
    let message = verdicts[0].as_ref().unwrap_err().to_string();
    assert!(message.contains("shop") && message.contains("no such column"), "{message}");
    assert!(verdicts[1].as_ref().unwrap_err().to_string().contains("nowhere is missing"));
    assert_eq!(verdicts[2], Ok(Verdict::Match));
    assert_eq!(verdicts[3], Ok(Verdict::Different));
}

#[test]
fn all_files_of_a_test_suite_must_agree() {
    let world = World::new(small());
    let suite = world.folder.path().join("shop/shop_2.sqlite");
    Connection::open(suite)
        .unwrap()
        .execute_batch("CREATE TABLE item (id, name, price); CREATE TABLE sale (id, item_id);")
        .unwrap();
    let shop = world.shop();
    assert_eq!(shop.files().len(), 2);
    // Equal results on the first file, different ones on the second.
    assert!(!judge(&shop, "SELECT count(*) FROM item", "SELECT 3").unwrap().matches());
    let counted = judge(&shop, "SELECT count(*) FROM item", "SELECT count(id) FROM item");
    assert!(counted.unwrap().matches());
}

#[test]
fn invalid_utf8_is_dropped_from_text() {
    let folder = tempfile::tempdir().unwrap();
    make(
        folder.path(),
        "latin",
        "CREATE TABLE t (name TEXT); INSERT INTO t VALUES (CAST(x'4672616EE76F6973' AS TEXT));",
    );
    let database = Databases::new(folder.path(), small()).get("latin").unwrap();
    let result = database.query("SELECT name FROM t").unwrap();
    assert_eq!(result.rows, [[Value::Text("Franois".into())]]);
    assert!(database.describe(Detail::Full).contains("Franois"));
}

#[test]
fn databases_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("text")).unwrap();
    std::fs::write(folder.path().join("text/text.sqlite"), "no database at all".repeat(100))
        .unwrap();
    let databases = Databases::new(folder.path(), small());
    let message = |id: &str| databases.get(id).unwrap_err().to_string();
    assert!(message("gone").starts_with("the database gone is missing"), "{}", message("gone"));
    assert!(message("text").contains("not a readable SQLite file"), "{}", message("text"));
    for id in ["..", "../text", "a/b", "", ".hidden"] {
        assert!(matches!(databases.get(id), Err(DatabaseError::Name { .. })), "{id}");
    }
}

#[test]
fn paths_may_contain_uri_syntax() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("a b?mode=rw#é%41");
    make(&odd, "shop", "CREATE TABLE t (x); INSERT INTO t VALUES (1);");
    let database = Databases::new(&odd, small()).get("shop").unwrap();
    assert!(database.has_rows());
}

#[test]
fn a_schema_is_shown_in_full_or_compactly() {
    let world = World::new(small());
    let shop = world.shop();
    let full = shop.describe(Detail::Full);
    assert!(full.contains("CREATE TABLE item ("), "{full}");
    assert!(full.contains("3 rows of item:\nid\tname\tprice\n1\ttea\t2.0\n"), "{full}");
    assert!(full.contains("3\tNULL\t1.0\n*/"), "{full}");
    assert_eq!(
        &*shop.describe(Detail::Compact),
        "item(id, name, price)\nsale(id, item_id)\nsale.item_id = item.id"
    );
}

#[test]
fn results_are_shown_as_text_of_bounded_length() {
    let world = World::new(small());
    let shop = world.shop();
    let shown = |sql: &str, longest| render(&shop.query(sql).unwrap(), longest);
    assert_eq!(shown("SELECT id, name FROM item LIMIT 1", 99), "id | name\n1 | tea");
    assert_eq!(shown("SELECT id FROM item WHERE 0", 99), "id\n(no rows)");
    assert_eq!(shown("SELECT id, name FROM item", 12), "id | name\n1 ");
}
