//! Queries in worker processes: what goes past a limit ends, and nothing else does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leyden_spider::database::Value;
use leyden_spider::{Database, Databases, Limits, QueryError, Verdict, Workers, judge};
use rusqlite::Connection;

struct World {
    _folder: tempfile::TempDir,
    databases: Databases,
}

impl World {
    fn new(limits: Limits) -> Self {
        Self::with(limits, env!("CARGO_BIN_EXE_leyden-sql-worker").as_ref())
    }

    fn with(limits: Limits, program: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("shop")).unwrap();
        let file = folder.path().join("shop/shop.sqlite");
        let connection = Connection::open(file).unwrap();
        connection
            .execute_batch(
                "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price REAL, photo BLOB);
                 INSERT INTO item VALUES (1, 'tea', 2.5, x'00ff'), (2, 'cup', NULL, NULL);",
            )
            .unwrap();
        let workers = Arc::new(Workers::new(program, [""; 0]));
        let databases = Databases::new(folder.path(), limits).with_workers(Some(workers));
        Self { _folder: folder, databases }
    }

    fn shop(&self) -> Arc<Database> {
        self.databases.get("shop").unwrap()
    }
}

/// Limits under which only the worker's own bounds end a query that runs on and on.
fn unlimited(time: Duration) -> Limits {
    Limits { instructions: u64::MAX, time, ..Limits::default() }
}

#[test]
fn results_and_errors_are_those_of_this_process() {
    let world = World::new(Limits::default());
    let workers = world.shop();
    let here = Databases::new(world.databases.folder(), Limits::default()).get("shop").unwrap();
    for sql in [
        "SELECT * FROM item ORDER BY id",
        "SELECT 1.0, 1, 9e999, -0.0, 'é' || char(0), x'', NULL",
        "SELECT * FROM item WHERE 0",
        "SELECT nothing FROM item",
        "DELETE FROM item",
        "SELECT random()",
        "",
        "SELECT",
        "SELECT 1; SELECT 2",
    ] {
        assert_eq!(workers.query(sql), here.query(sql), "{sql}");
    }
    for (gold, predicted) in [
        ("SELECT name FROM item", "SELECT name FROM item ORDER BY id DESC"),
        ("SELECT name FROM item", "SELECT id FROM item"),
        ("SELECT name FROM item", "SELECT nothing FROM item"),
        ("SELECT nothing FROM item", "SELECT name FROM item"),
    ] {
        let (a, b) = (judge(&workers, gold, predicted), judge(&here, gold, predicted));
        assert_eq!(a, b, "{gold} / {predicted}");
    }
}

/// Each of these calls of SQLite would take many seconds, and is not interrupted by a progress
/// handler.
#[test]
fn a_slow_call_ends_with_its_process() {
    let limits = unlimited(Duration::from_millis(300));
    let world = World::new(limits.clone());
    let shop = world.shop();
    let long = |letter: char| format!("replace(hex(zeroblob(32000)), '00', '{letter}{letter}')");
    // Each of 64,000 characters is compared with five thousand others.
    let trim = format!("trim({}, substr({}, 1, 5000) || 'a')", long('a'), long('b'));
    let several = vec![trim; 40].join(" || ");
    let sort = "SELECT x FROM (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c \
                LIMIT 3000000) SELECT x FROM c) ORDER BY -x LIMIT 1";
    for sql in [format!("SELECT length({several})"), sort.to_owned()] {
        assert_eq!(shop.query(&sql), Err(QueryError::Time(limits.time)), "{sql}");
        // The next query finds a new process.
        assert_eq!(shop.query("SELECT 1").unwrap().rows, [[Value::Integer(1)]]);
    }
    let verdict = judge(&shop, "SELECT 1", &format!("SELECT length({several})")).unwrap();
    assert_eq!(verdict, Verdict::Failed(QueryError::Time(limits.time)));
}

#[test]
fn memory_is_bounded_for_each_query() {
    let memory = 16 << 20;
    let world = World::new(Limits { memory, ..unlimited(Duration::from_secs(120)) });
    let shop = world.shop();
    let many = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 400000) ";
    for sql in [
        format!("{many} SELECT max(y) FROM (SELECT hex(randomise) y FROM item)"),
        format!("{many} SELECT x, hex(zeroblob(200)) || x AS y FROM c ORDER BY y DESC"),
        format!("{many} SELECT count(*) FROM (SELECT DISTINCT hex(zeroblob(200)) || x FROM c)"),
    ] {
        let error = shop.query(&sql).unwrap_err();
        if sql.contains("randomise") {
            assert_eq!(error.class(), "column");
        } else {
            assert_eq!(error, QueryError::Memory(memory), "{sql}");
        }
        assert!(shop.query("SELECT count(*) FROM item").is_ok());
    }
}

#[test]
fn the_day_and_the_time_zone_do_not_matter() {
    let world = World::new(Limits::default());
    let sql = "SELECT date('now'), date('n' || 'ow'), current_timestamp, strftime('%s'), \
               datetime('now', 'localtime'), time('12:00', 'utc')";
    // `current_timestamp` and its like are functions of SQLite.
    let row = world.shop().query(sql).unwrap().rows.remove(0);
    let text: Vec<&str> = row
        .iter()
        .map(|value| match value {
            Value::Text(text) => text.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    let midnight = "2018-09-24 00:00:00";
    assert_eq!(text, ["2018-09-24", "2018-09-24", midnight, "1537747200", midnight, "12:00:00"]);
}

#[test]
fn a_program_that_is_no_worker_is_named_and_no_verdict_is_given() {
    for program in ["/bin/false", "/nowhere/worker"] {
        let world = World::with(Limits::default(), Path::new(program));
        let error = world.shop().query("SELECT 1").unwrap_err();
        assert_eq!(error.class(), "database");
        assert!(error.to_string().contains(program), "{error}");
        assert!(judge(&world.shop(), "SELECT 1", "SELECT 1").is_err());
    }
}

/// More queries than workers: the others wait.
#[test]
fn queries_of_many_threads_share_the_workers() {
    let world = World::new(Limits::default());
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let shop = world.shop();
            scope.spawn(move || {
                for i in 0..20 {
                    let number = thread * 100 + i;
                    let rows = shop.query(&format!("SELECT {number}")).unwrap().rows;
                    assert_eq!(rows, [[Value::Integer(number)]]);
                }
            });
        }
    });
}
