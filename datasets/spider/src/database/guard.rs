//! What is refused before SQLite prepares it.
//!
//! Neither the limits of SQLite nor the progress handler act while a statement is prepared,
//! and a short one can keep it busy for minutes: of CTEs that each name the one before several
//! times, forty in 650 bytes stand for more than 10¹² tables. So a statement is read here
//! first, and refused where it is none that reads or stands for too much. A statement that
//! sqlparser does not know is left to SQLite, unless it could expand.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{ObjectName, Query, SetExpr, Statement, Visit, Visitor};

use super::limits::QueryError;
use crate::sql::read::{Unread, statements};

/// Most tables that a query may stand for. SQLite joins at most 64.
const MOST_TABLES: u64 = 256;

/// Of a text that is not read and has CTEs: most queries, and most commas and joins. Three
/// definitions of twenty tables each stand for no more than SQLite prepares at once.
const UNREAD_QUERIES: usize = 4;
const UNREAD_TABLES: usize = 64;

/// What begins a statement of SQLite that is no query. Text that begins with another word is
/// no statement, and SQLite says where it goes wrong.
const OTHER_STATEMENTS: [&str; 22] = [
    "ALTER",
    "ANALYZE",
    "ATTACH",
    "BEGIN",
    "COMMIT",
    "CREATE",
    "DELETE",
    "DETACH",
    "DROP",
    "END",
    "EXPLAIN",
    "INSERT",
    "PRAGMA",
    "REINDEX",
    "RELEASE",
    "REPLACE",
    "ROLLBACK",
    "SAVEPOINT",
    "SET",
    "TRUNCATE",
    "UPDATE",
    "VACUUM",
];

/// Refuses what is not one query of bounded size.
///
/// # Errors
/// [`QueryError::Denied`] for another statement, [`QueryError::Sql`] for several,
/// [`QueryError::Complex`] for one that stands for too much.
pub(super) fn check(sql: &str) -> Result<(), QueryError> {
    if is_plain(sql) {
        return Ok(());
    }
    match statements(sql) {
        Ok(found) => match found.as_slice() {
            [] => Ok(()),
            [Statement::Query(query)] => {
                if writes(&query.body) {
                    return Err(QueryError::Denied("it is not a query".to_owned()));
                }
                bounded(query)
            }
            [_] => denied(sql),
            _ => Err(QueryError::Sql("more than one statement".to_owned())),
        },
        Err(Unread::Deep) => Err(QueryError::Complex(Unread::Deep.to_string())),
        Err(_) => unread(sql),
    }
}

/// Whether a text can only be one `SELECT` that stands for no more than it spells, if it is a
/// statement at all: it is short and has no CTE and no second statement. Most predictions are, and
/// reading them takes as long as running them.
fn is_plain(sql: &str) -> bool {
    const LONGEST: usize = 2000;
    const DEEPEST: usize = 8;
    let text = sql.trim().trim_end_matches(';');
    let bytes = text.as_bytes();
    // Without `WITH` as a word or a part of one there is no CTE. Each table needs a comma or a
    // word of its own.
    let has = |word: &[u8]| bytes.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word));
    let separators = bytes.iter().filter(|b| b.is_ascii_whitespace() || b",()".contains(b));
    bytes.len() <= LONGEST
        && bytes.get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"select"))
        && !bytes.contains(&b';')
        && !has(b"with")
        && separators.count() < MOST_TABLES as usize
        && deepest(bytes) <= DEEPEST
}

/// Parentheses open at once, those in quotes included.
fn deepest(bytes: &[u8]) -> usize {
    let (mut open, mut most) = (0usize, 0);
    for byte in bytes {
        match byte {
            b'(' => open += 1,
            b')' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

fn denied(sql: &str) -> Result<(), QueryError> {
    let first = sql.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    match OTHER_STATEMENTS.iter().find(|word| first.starts_with(*word)) {
        Some(word) => Err(QueryError::Denied(format!("{word} is not a query"))),
        None => Ok(()),
    }
}

/// Whether a query of SQL's grammar writes: `WITH … DELETE`.
fn writes(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(_) | SetExpr::Values(_) | SetExpr::Table(_) => false,
        SetExpr::Query(query) => writes(&query.body),
        SetExpr::SetOperation { left, right, .. } => writes(left) || writes(right),
        _ => true,
    }
}

/// A text that was not read may go to SQLite where it has no CTE, or few of few tables.
fn unread(sql: &str) -> Result<(), QueryError> {
    let lower = sql.to_ascii_lowercase();
    let count = |wanted: &str| {
        let words = lower.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| *word == wanted).count()
    };
    let tables = lower.matches(',').count() + count("join");
    if count("with") > 0 && (count("select") > UNREAD_QUERIES || tables > UNREAD_TABLES) {
        let what = "common table expressions in a query that cannot be read";
        return Err(QueryError::Complex(what.to_owned()));
    }
    Ok(())
}

fn bounded(query: &Query) -> Result<(), QueryError> {
    let mut tables = Tables { references: vec![Vec::new()], ..Tables::default() };
    let _ = query.visit(&mut tables);
    match tables.count() {
        0..=MOST_TABLES => Ok(()),
        u64::MAX => Err(QueryError::Complex(format!("more than {MOST_TABLES} tables"))),
        tables => Err(QueryError::Complex(format!("{tables} tables, more than {MOST_TABLES}"))),
    }
}

/// The tables that a query names, by the common table expression they are named in.
///
/// A name is taken for every CTE of that name, wherever it can be seen: a query that uses one
/// name for several counts for too many rather than too few.
#[derive(Default)]
struct Tables {
    /// Place in `references` of the bodies met so far, by their addresses.
    bodies: HashMap<*const Query, usize>,
    named: HashMap<String, Vec<usize>>,
    /// Of the query itself first, then of each CTE.
    references: Vec<Vec<String>>,
    /// Where the walk is.
    inside: Vec<usize>,
}

impl Visitor for Tables {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let place = self.references.len();
            self.references.push(Vec::new());
            self.bodies.insert(&raw const *cte.query, place);
            let name = cte.alias.name.value.to_lowercase();
            self.named.entry(name).or_default().push(place);
        }
        self.inside.extend(self.bodies.get(&(query as *const Query)));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if self.bodies.contains_key(&(query as *const Query)) {
            self.inside.pop();
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let last = relation.0.last().and_then(|part| part.as_ident());
        let name = last.map_or_else(String::new, |name| name.value.to_lowercase());
        self.references[self.inside.last().copied().unwrap_or(0)].push(name);
        ControlFlow::Continue(())
    }
}

impl Tables {
    fn count(&self) -> u64 {
        self.stands_for(0, &mut vec![None; self.references.len()])
    }

    /// Tables of one body with every CTE in it written out; `known` also ends the circle of one
    /// that names itself.
    fn stands_for(&self, place: usize, known: &mut Vec<Option<u64>>) -> u64 {
        if let Some(count) = known[place] {
            return count;
        }
        known[place] = Some(1);
        let mut sum = 0u64;
        for name in &self.references[place] {
            let count = match self.named.get(name) {
                Some(places) => places.iter().map(|p| self.stands_for(*p, known)).max(),
                None => None,
            };
            sum = sum.saturating_add(count.unwrap_or(1));
        }
        // One without a table is a row of its own.
        known[place] = Some(sum.max(1));
        sum.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complex(sql: &str) -> bool {
        matches!(check(sql), Err(QueryError::Complex(_)))
    }

    /// `levels` CTEs, each of which joins the one before with itself.
    fn doubling(levels: usize, backwards: bool) -> String {
        let mut ctes: Vec<String> = (1..=levels)
            .map(|n| format!("c{n} AS (SELECT a.x FROM c{0} a, c{0} b)", n - 1))
            .collect();
        ctes.insert(0, "c0 AS (SELECT 1 AS x)".to_owned());
        if backwards {
            ctes.reverse();
        }
        format!("WITH {} SELECT count(*) FROM c{levels}", ctes.join(", "))
    }

    #[test]
    fn common_table_expressions_are_counted_as_written_out() {
        assert_eq!(check(&doubling(7, false)), Ok(()));
        assert!(complex(&doubling(9, false)));
        assert!(complex(&doubling(40, false)) && complex(&doubling(40, true)));
        // Three names of twenty tables each.
        let twenty = |name: &str| vec![name; 20].join(", ");
        let sql = format!(
            "WITH a AS (SELECT 1 FROM {}), b AS (SELECT 1 FROM {}), c AS (SELECT 1 FROM {}) \
             SELECT 1 FROM c",
            twenty("t"),
            twenty("a"),
            twenty("b")
        );
        assert!(complex(&sql));
        // Within a query in a condition, and in a CTE of a CTE.
        assert!(complex(&format!("SELECT 1 WHERE 1 IN ({})", doubling(12, false))));
        assert!(complex(&format!("WITH z AS ({}) SELECT * FROM z", doubling(12, true))));
    }

    #[test]
    fn what_is_recursive_or_used_often_is_not_what_expands() {
        for sql in [
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c",
            "WITH a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM a",
            "WITH t AS (SELECT * FROM s) SELECT * FROM t a JOIN t b ON a.x = b.x JOIN t c",
            "SELECT a, b FROM t WHERE x IN (SELECT y FROM u) UNION SELECT 1, 2 ORDER BY 1 LIMIT 3",
        ] {
            assert_eq!(check(sql), Ok(()), "{sql}");
        }
        let joined = vec!["t"; 300].join(", ");
        assert!(complex(&format!("SELECT 1 FROM {joined}")));
    }

    /// What is not read has to be what reading allows.
    #[test]
    fn plain_texts_are_queries_within_the_bounds() {
        for sql in [
            "SELECT count(*) FROM t WHERE name LIKE '%x%' GROUP BY a, b",
            " select a from t; ",
            "SELECT a FROM t WHERE x IN (SELECT y FROM u) EXCEPT SELECT 1",
        ] {
            assert!(is_plain(sql), "{sql}");
        }
        let many = format!("SELECT 1 FROM {}", vec!["t"; 256].join(","));
        for sql in [
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "SELECT 1 WHERE 1 IN (wItH a AS (SELECT 1) SELECT * FROM a)",
            "SELECT 1; DROP TABLE t",
            "DELETE FROM t",
            "EXPLAIN SELECT 1",
            "SELECT abs(abs(abs(abs(abs(abs(abs(abs(abs(1)))))))))",
            "sel",
            "",
            &many,
        ] {
            assert!(!is_plain(sql), "{sql}");
        }
    }

    #[test]
    fn nesting_is_bounded_and_long_chains_are_left_to_sqlite() {
        let nested =
            |depth: usize| format!("SELECT {}1{}", "abs(".repeat(depth), ")".repeat(depth));
        assert_eq!(check(&nested(12)), Ok(()));
        assert!(complex(&nested(17)) && complex(&nested(20_000)));
        assert!(complex(&format!("SELECT * FROM {}t", "(".repeat(40_000))));
        let chain = format!("SELECT 1{}", " + 1".repeat(20_000));
        assert_eq!(check(&chain), Ok(()));
        assert!(complex(&format!("{} {chain}", doubling(40, false))));
    }

    /// Texts that fail in their innermost part, which the parser tries again from every one
    /// around it.
    #[test]
    fn no_text_keeps_the_parser_busy() {
        for (opened, times) in [
            ("(", 16),
            ("CAST(", 16),
            ("CASE WHEN (", 16),
            ("NOT EXISTS (SELECT ", 16),
            ("SELECT * FROM (", 16),
            ("abs(abs", 8),
            ("case.", 5_000),
            ("a.(", 16),
            ("NOT ", 5_000),
            ("- ", 5_000),
            ("CASE ", 900),
            ("INTERVAL ", 900),
            ("EXTRACT(DAY FROM ", 16),
            ("t JOIN (", 16),
        ] {
            for start in ["SELECT ", "SELECT * FROM "] {
                let _ = check(&format!("{start}{}", opened.repeat(times)));
                let _ = check(&format!("{start}{}1 2 'x' from ,", opened.repeat(times)));
            }
        }
    }

    #[test]
    fn text_that_is_not_read_must_not_expand_either() {
        // SQLite reads what sqlparser does not; a quote that does not end stands for that.
        assert_eq!(check("SELECT 1 WHERE x IS NOT 'a"), Ok(()));
        assert_eq!(check("WITH a AS (SELECT 1) SELECT * FROM a WHERE 'x"), Ok(()));
        assert!(complex(&format!("{} WHERE 'x", doubling(40, false))));
    }

    #[test]
    fn only_queries_pass() {
        for sql in ["PRAGMA user_version", "EXPLAIN SELECT 1", "insert into t values (1)"] {
            assert!(matches!(check(sql), Err(QueryError::Denied(_))), "{sql}");
        }
        let writes = check("WITH a AS (SELECT 1) DELETE FROM t");
        assert!(matches!(writes, Err(QueryError::Denied(_))), "{writes:?}");
        assert!(matches!(check("SELECT 1; SELECT 2"), Err(QueryError::Sql(_))));
        // No statement of SQLite: it says itself where it goes wrong.
        for sql in ["", "-- nothing", "To list all singers, use", "Show all singers", "VALUES (1)"]
        {
            assert_eq!(check(sql), Ok(()), "{sql}");
        }
    }
}
