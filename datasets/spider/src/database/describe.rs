//! What a model is shown of a database: its schema, and the result of a query.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use super::{Database, ResultSet, TableInfo};

/// How much of a schema is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Detail {
    /// `CREATE TABLE` statements, each with three rows of its table: what the paper's agent
    /// sees.
    Full,
    /// One line a table, `name(column, …)`, and one a foreign key: for small models.
    Compact,
}

/// Rows shown of each table.
const SAMPLE_ROWS: usize = 3;

/// Longest sample value, in characters.
const SAMPLE_CHARACTERS: usize = 100;

impl Database {
    /// The schema as text. Made once and kept.
    pub fn describe(&self, detail: Detail) -> Arc<str> {
        let mut kept = self.described.lock().unwrap_or_else(|e| e.into_inner());
        let text = kept.entry(detail).or_insert_with(|| match detail {
            Detail::Full => self.full().into(),
            Detail::Compact => self.compact().into(),
        });
        Arc::clone(text)
    }

    fn full(&self) -> String {
        let tables: Vec<String> = self.visible().map(|table| self.with_samples(table)).collect();
        tables.join("\n\n")
    }

    fn visible(&self) -> impl Iterator<Item = &TableInfo> {
        self.tables().iter().filter(|table| !table.name.starts_with("sqlite_"))
    }

    fn with_samples(&self, table: &TableInfo) -> String {
        let quoted = table.name.replace('"', "\"\"");
        let mut text = format!("{}\n\n/*\n", table.sql.trim());
        match self.query(&format!("SELECT * FROM \"{quoted}\" LIMIT {SAMPLE_ROWS}")) {
            Ok(result) => {
                let shown = result.rows.len();
                let rows = if shown == 1 { "row" } else { "rows" };
                let _ = writeln!(text, "{shown} {rows} of {}:", table.name);
                text.push_str(&result.columns.join("\t"));
                text.push('\n');
                for row in &result.rows {
                    let cells: Vec<String> =
                        row.iter().map(|v| cut(&v.to_string(), SAMPLE_CHARACTERS)).collect();
                    text.push_str(&cells.join("\t"));
                    text.push('\n');
                }
            }
            Err(error) => {
                let _ = writeln!(text, "no rows can be shown: {error}");
            }
        }
        text + "*/"
    }

    fn compact(&self) -> String {
        let names: HashMap<String, &TableInfo> =
            self.visible().map(|table| (table.name.to_lowercase(), table)).collect();
        let mut lines: Vec<String> = self
            .visible()
            .map(|table| format!("{}({})", table.name, table.columns.join(", ")))
            .collect();
        for table in self.visible() {
            for (column, other, key) in &table.references {
                // A reference without a column means the other table's primary key, which in
                // these schemas has the same name or comes first.
                let found = names.get(&other.to_lowercase());
                let other = found.map_or(other.as_str(), |table| &table.name);
                let same = |c: &&String| c.eq_ignore_ascii_case(column);
                let key = key.as_deref().or_else(|| {
                    let columns = &found?.columns;
                    columns.iter().find(same).or(columns.first()).map(String::as_str)
                });
                let key = key.unwrap_or(column);
                lines.push(format!("{}.{column} = {other}.{key}", table.name));
            }
        }
        lines.join("\n")
    }
}

/// A result as text: a line of column names, a line for each row, at most `longest`
/// characters. An empty result says so.
pub fn render(result: &ResultSet, longest: usize) -> String {
    let mut text = result.columns.join(" | ");
    if result.rows.is_empty() {
        text.push_str("\n(no rows)");
    }
    for row in &result.rows {
        text.push('\n');
        let cells: Vec<String> = row.iter().map(ToString::to_string).collect();
        text.push_str(&cells.join(" | "));
        if text.len() > 4 * longest {
            break;
        }
    }
    cut(&text, longest)
}

fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => text[..end].to_owned(),
        None => text.to_owned(),
    }
}
