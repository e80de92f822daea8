//! Accepted and rejected queries of the official parser, and consequences of its quirks.

use leyden_spider::schema::{Schema, TableEntry};
use leyden_spider::sql::{Query, parse};
use leyden_spider::{Hardness, exact_match, hardness};
use proptest::prelude::*;
use serde_json::json;

fn schema() -> Schema {
    let entry: TableEntry = serde_json::from_value(json!({
        "db_id": "shop",
        "table_names_original": ["Item", "Sale"],
        "column_names_original": [
            [-1, "*"], [0, "Id"], [0, "Name"], [0, "Price"], [1, "Sale_Id"], [1, "Item_Id"]
        ],
        "foreign_keys": [[5, 1]],
    }))
    .unwrap();
    Schema::of_entry(&entry)
}

fn read(sql: &str) -> Option<Query> {
    parse(sql, &schema()).ok()
}

#[test]
fn plain_queries_are_accepted() {
    for sql in [
        "SELECT count(*) FROM item",
        "SELECT count(DISTINCT name) , max(price) FROM Item",
        "SELECT T1.name FROM item AS T1 JOIN sale AS T2 ON T1.id = T2.item_id WHERE T1.price > 3.5",
        "SELECT id - price FROM item",
        "SELECT name FROM item WHERE id NOT IN (SELECT item_id FROM sale)",
        "SELECT name FROM item WHERE price BETWEEN 1 AND 2 OR name LIKE '%a%'",
        "SELECT name FROM item GROUP BY name HAVING count(*) >= 2 ORDER BY count(*) DESC LIMIT 3;",
        "SELECT id FROM item EXCEPT SELECT item_id FROM sale",
        "SELECT count(*) FROM (SELECT id FROM item WHERE price > 1)",
        "(SELECT id FROM item)",
    ] {
        assert!(read(sql).is_some(), "{sql}");
    }
}

/// Valid SQL outside the evaluator's grammar, which scores 0.
#[test]
fn valid_queries_outside_the_grammar_are_rejected() {
    for sql in [
        "SELECT id AS number FROM item",
        "SELECT id FROM item AS item",
        "SELECT id FROM item WHERE name IS NULL",
        "SELECT id FROM item WHERE id IN (1, 2)",
        "SELECT id FROM item WHERE id=1",
        "SELECT id FROM item WHERE EXISTS (SELECT id FROM sale)",
        "SELECT id FROM item LEFT JOIN sale ON item.id = sale.item_id",
        "SELECT name FROM item , sale",
        "SELECT name FROM item T1",
        "SELECT id FROM item UNION ALL SELECT item_id FROM sale",
        "SELECT max(id) - min(id) FROM item",
        "SELECT `id` FROM item",
        "SELECT id FROM item WHERE name = \"it's\"",
        "SELECT name FROM item GROUP BY name HAVING count(*) > max(price)",
        "SELECT 1",
        "SELECT id FROM item LIMIT",
        "WITH a AS (SELECT id FROM item) SELECT id FROM a",
        "DROP TABLE item",
        "",
        "(",
    ] {
        assert_eq!(read(sql), None, "{sql}");
    }
}

#[test]
fn parts_that_the_parser_ignores_make_no_difference() {
    let same = |a: &str, b: &str| {
        let (a, b) = (read(a).expect(a), read(b).expect(b));
        assert_eq!(a, b);
    };
    // A comma may be missing; text after a complete query is ignored.
    same("SELECT id name FROM item", "SELECT id , name FROM item");
    same("SELECT id FROM item ORDER BY id.", "SELECT id FROM item ORDER BY id");
    same("SELECT id FROM item ; DROP TABLE item", "SELECT id FROM item");
    same("SELECT id FROM item GROUP BY id WHERE id > 1", "SELECT id FROM item GROUP BY id");
    same("SELECT id FROM item LIMIT 5", "SELECT id FROM item LIMIT many");
    // The rest of an operand that begins with a column is dropped.
    same("SELECT id FROM item WHERE id = name or else", "SELECT id FROM item WHERE id = name");
    // The last definition of an alias applies everywhere.
    same(
        "SELECT T1.item_id FROM sale AS T1 WHERE item_id = 1",
        "SELECT item_id FROM sale WHERE item_id = 1",
    );
    let outer = "SELECT T1.id FROM item AS T1 WHERE T1.id IN (SELECT T1.item_id FROM sale AS T1)";
    assert_eq!(read(outer), None, "the inner T1 has no column id");
}

#[test]
fn values_and_distinct_are_ignored_and_operators_are_not() {
    let schema = schema();
    let matches = |gold: &str, predicted: &str| {
        exact_match(&read(gold).unwrap(), &read(predicted).unwrap(), &schema).matches
    };
    let gold = "SELECT DISTINCT name FROM item WHERE price > 3 AND id = 4 ORDER BY id LIMIT 1";
    assert!(matches(
        gold,
        "SELECT name FROM item WHERE id = 9 AND price > 'x' ORDER BY id ASC LIMIT 7"
    ));
    assert!(!matches(gold, "SELECT name FROM item WHERE id = 9 AND price < 3 ORDER BY id LIMIT 1"));
    assert!(!matches(gold, "SELECT name FROM item WHERE id = 9 OR price > 3 ORDER BY id LIMIT 1"));
    assert!(!matches(gold, "SELECT name FROM item WHERE id = 9 AND price > 3 ORDER BY id"));
    assert!(matches("SELECT id , name FROM item", "SELECT name , id FROM item"));
    assert!(!matches("SELECT id , id FROM item", "SELECT id , name FROM item"));
    // In nested queries values are removed but DISTINCT stays; in those of `from` both stay.
    let nested = |inner: &str| format!("SELECT name FROM item WHERE id IN ({inner})");
    let one = nested("SELECT item_id FROM sale WHERE sale_id = 1");
    assert!(matches(&one, &nested("SELECT item_id FROM sale WHERE sale_id = 2")));
    assert!(!matches(&one, &nested("SELECT DISTINCT item_id FROM sale WHERE sale_id = 1")));
    let from =
        |value: u32| format!("SELECT count(*) FROM (SELECT id FROM item WHERE id = {value})");
    assert!(matches(&from(1), &from(1)));
    assert!(!matches(&from(1), &from(2)));
}

#[test]
fn hardness_counts_like_the_official_program() {
    for (sql, level) in [
        ("SELECT count(*) FROM item", Hardness::Easy),
        ("SELECT id FROM item WHERE price > 1", Hardness::Easy),
        ("SELECT id , name FROM item", Hardness::Medium),
        ("SELECT id FROM item ORDER BY price LIMIT 1", Hardness::Medium),
        ("SELECT id FROM item WHERE id > 1 OR id < 3 ORDER BY id LIMIT 1", Hardness::Extra),
        ("SELECT id FROM item WHERE id > 1 ORDER BY id LIMIT 1", Hardness::Hard),
        ("SELECT id FROM item EXCEPT SELECT item_id FROM sale", Hardness::Hard),
        // A NOT counts as an aggregation, and so does the AND of `having`.
        ("SELECT count(*) FROM item WHERE id IN (SELECT item_id FROM sale)", Hardness::Hard),
        ("SELECT count(*) FROM item WHERE id NOT IN (SELECT item_id FROM sale)", Hardness::Extra),
        ("SELECT count(*) FROM item GROUP BY id HAVING max(id) > 1", Hardness::Easy),
        ("SELECT count(*) FROM item GROUP BY id HAVING max(id) > 1 AND id < 9", Hardness::Medium),
    ] {
        assert_eq!(hardness(&read(sql).expect(sql)), level, "{sql}");
    }
}

#[test]
fn deep_queries_are_rejected() {
    let brackets = format!("SELECT id FROM {}item", "(".repeat(50_000));
    assert_eq!(read(&brackets), None);
    let unions = "SELECT id FROM item UNION ".repeat(20_000);
    assert_eq!(read(&unions), None);
    let nested = "SELECT id FROM item WHERE id IN (".repeat(20_000);
    assert_eq!(read(&nested), None);
}

proptest! {
    /// The parser never panics; it accepts or rejects any text.
    #[test]
    fn any_text_is_accepted_or_rejected(text in ".{0,200}") {
        let _ = read(&text);
    }

    /// The same for SQL-like texts; accepted queries match themselves.
    #[test]
    fn any_words_are_accepted_or_rejected(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "select", "from", "where", "group", "by", "having", "order", "limit", "union",
                "item", "sale", "id", "name", "t1", "t1.id", "as", "on", "join", "and", "or",
                "not", "in", "between", "like", "count", "max", "(", ")", ",", ";", "*", "=",
                ">", "1", "'a'", "\"", ".", "a.", "distinct", "none", "desc", "-", "id.",
            ]),
            0..40,
        ),
    ) {
        if let Some(query) = read(&words.join(" ")) {
            let matched = exact_match(&query, &query, &schema());
            prop_assert!(matched.matches, "{query:?}");
            let _ = hardness(&query);
        }
    }
}
