//! A parser that accepts and rejects the same texts as the official evaluator's.
//!
//! Tables are parsed first (their columns resolve bare names), then the select list, then the
//! clauses in the fixed order `where`, `group by`, `having`, `order by`, `limit`; the rest is
//! ignored. So a clause out of order is silently dropped, and text after a complete query is
//! harmless. Aliases are collected over the whole text before parsing: an inner `T1` also changes
//! the outer one, the last one wins.

use std::collections::HashMap;

use super::ast::{
    AGGREGATIONS, ALL_COLUMNS, BETWEEN, ColumnId, ColumnUnit, Condition, Conditions, Direction,
    Item, OPERATORS, Operand, Query, TableUnit, UNIT_OPERATORS, ValueUnit,
};
use super::token::tokenize;
use crate::schema::Schema;

/// Maximum nesting of queries; deeper texts are rejected.
const MAX_DEPTH: usize = 100;

const CLAUSES: [&str; 9] =
    ["select", "from", "where", "group", "order", "limit", "intersect", "union", "except"];
const JOINS: [&str; 3] = ["join", "on", "as"];

/// The evaluator's parser does not accept the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the query is outside the SQL that the Spider evaluator parses")]
pub struct Rejected;

type Parsed<T> = Result<T, Rejected>;

/// Parses a query against a schema.
///
/// # Errors
/// If the official evaluator's parser fails, or the evaluator fails after it.
pub fn parse(sql: &str, schema: &Schema) -> Parsed<Query> {
    let words = tokenize(sql).ok_or(Rejected)?;
    let aliases = aliases(&words, schema)?;
    let mut parser = Parser { words: &words, at: 0, aliases: &aliases, schema, depth: 0 };
    parser.query()
}

/// Maps the word after each `as` to the word before it. An alias with the name of a table is
/// rejected.
fn aliases<'a>(words: &'a [String], schema: &Schema) -> Parsed<HashMap<&'a str, &'a str>> {
    let mut aliases = HashMap::new();
    for at in (0..words.len()).filter(|&at| words[at] == "as") {
        let alias = words.get(at + 1).ok_or(Rejected)?.as_str();
        if schema.table(alias).is_some() {
            return Err(Rejected);
        }
        // A leading `as` takes the last word: an index of -1.
        let target = if at == 0 { words.len() - 1 } else { at - 1 };
        aliases.insert(alias, words[target].as_str());
    }
    Ok(aliases)
}

struct Parser<'a> {
    words: &'a [String],
    at: usize,
    aliases: &'a HashMap<&'a str, &'a str>,
    schema: &'a Schema,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// The current word, if there is one.
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).map(String::as_str)
    }

    /// The current word; the end of the text is an error.
    fn word(&self) -> Parsed<&'a str> {
        self.peek().ok_or(Rejected)
    }

    fn is(&self, word: &str) -> bool {
        self.peek() == Some(word)
    }

    /// Consumes `word` if it is the current word.
    fn skip(&mut self, word: &str) -> bool {
        let here = self.is(word);
        self.at += usize::from(here);
        here
    }

    fn expect(&mut self, word: &str) -> Parsed<()> {
        if self.skip(word) { Ok(()) } else { Err(Rejected) }
    }

    fn is_clause(&self) -> bool {
        self.peek().is_some_and(|word| CLAUSES.contains(&word))
    }

    /// Whether a list of columns or conditions ends here.
    fn ends_clause(&self) -> bool {
        self.is_clause() || self.is(")") || self.is(";")
    }

    fn query(&mut self) -> Parsed<Query> {
        if self.depth == MAX_DEPTH {
            return Err(Rejected);
        }
        self.depth += 1;
        let in_brackets = self.skip("(");
        let select_at = self.at;
        let from = (self.at..self.words.len()).find(|&at| self.words[at] == "from");
        self.at = from.ok_or(Rejected)? + 1;
        let (tables, join, defaults) = self.tables()?;
        let after_from = self.at;
        self.at = select_at;
        let (distinct, select) = self.select(&defaults)?;
        self.at = after_from;
        let mut query =
            Query { distinct: Some(distinct), select, tables, join, ..Query::default() };
        query.filter = self.clause_of_conditions("where", &defaults)?;
        query.group = self.group(&defaults)?;
        query.having = self.clause_of_conditions("having", &defaults)?;
        query.order = self.order(&defaults)?;
        query.limit = self.limit()?;
        while self.skip(";") {}
        if in_brackets {
            self.expect(")")?;
        }
        while self.skip(";") {}
        for (word, slot) in [
            ("intersect", &mut query.intersect),
            ("union", &mut query.union),
            ("except", &mut query.except),
        ] {
            if self.skip(word) {
                *slot = Some(Box::new(self.query()?));
                break;
            }
        }
        self.depth -= 1;
        Ok(query)
    }

    /// Tables of `from`, conditions of all its joins, and the tables in which bare columns are
    /// looked up.
    fn tables(&mut self) -> Parsed<(Vec<TableUnit>, Conditions, Vec<u32>)> {
        let (mut units, mut join, mut defaults) = (Vec::new(), Conditions::new(), Vec::new());
        while self.peek().is_some() {
            let in_brackets = self.skip("(");
            if self.word()? == "select" {
                units.push(TableUnit::Query(Box::new(self.query()?)));
            } else {
                self.skip("join");
                let table = self.table()?;
                units.push(TableUnit::Table(table));
                defaults.push(table);
            }
            if self.skip("on") {
                let conditions = self.conditions(&defaults)?;
                if !join.is_empty() {
                    join.push(Item::And);
                }
                join.extend(conditions);
            }
            if in_brackets {
                self.expect(")")?;
            }
            if self.ends_clause() {
                break;
            }
        }
        Ok((units, paired(join)?, defaults))
    }

    fn table(&mut self) -> Parsed<u32> {
        let table = self.resolve(self.word()?)?;
        let aliased = self.words.get(self.at + 1).is_some_and(|word| word == "as");
        self.at += if aliased { 3 } else { 1 };
        Ok(table)
    }

    /// The table with a name or an alias.
    fn resolve(&self, name: &str) -> Parsed<u32> {
        let name = self.aliases.get(name).copied().unwrap_or(name);
        self.schema.table(name).ok_or(Rejected)
    }

    fn select(&mut self, defaults: &[u32]) -> Parsed<(bool, Vec<(u8, ValueUnit)>)> {
        self.expect("select")?;
        let distinct = self.skip("distinct");
        let mut units = Vec::new();
        while self.peek().is_some() && !self.is_clause() {
            let aggregation = self.one_of(&AGGREGATIONS).unwrap_or(0);
            units.push((aggregation, self.value_unit(defaults)?));
            // A missing comma is not an error.
            self.skip(",");
        }
        Ok((distinct, units))
    }

    /// Consumes one of `words` and returns its index.
    fn one_of(&mut self, words: &[&str]) -> Option<u8> {
        let place = words.iter().position(|word| self.is(word))?;
        self.at += 1;
        u8::try_from(place).ok()
    }

    fn value_unit(&mut self, defaults: &[u32]) -> Parsed<ValueUnit> {
        let in_brackets = self.word()? == "(";
        self.skip("(");
        let left = self.column_unit(defaults)?;
        let operator = self.one_of(&UNIT_OPERATORS);
        let right = operator.map(|_| self.column_unit(defaults)).transpose()?;
        if in_brackets {
            self.expect(")")?;
        }
        Ok(ValueUnit { operator: operator.unwrap_or(0), left, right })
    }

    fn column_unit(&mut self, defaults: &[u32]) -> Parsed<ColumnUnit> {
        let in_brackets = self.skip("(");
        if let Some(aggregation) = self.one_of(&AGGREGATIONS) {
            self.expect("(")?;
            let distinct = self.skip("distinct");
            let column = self.column(defaults)?;
            self.expect(")")?;
            // A bracket before an aggregation is not closed here, so the caller fails on it.
            return Ok(ColumnUnit { aggregation, column, distinct: Some(distinct) });
        }
        let distinct = self.skip("distinct");
        let column = self.column(defaults)?;
        if in_brackets {
            self.expect(")")?;
        }
        Ok(ColumnUnit { aggregation: 0, column, distinct: Some(distinct) })
    }

    fn column(&mut self, defaults: &[u32]) -> Parsed<ColumnId> {
        let word = self.word()?;
        let column = if word == "*" {
            Some(ALL_COLUMNS)
        } else if let Some((table, column)) = word.split_once('.') {
            // At most one period, even if a column's name has one.
            let table = self.resolve(table)?;
            self.schema.column(table, column).filter(|_| !column.contains('.'))
        } else {
            defaults.iter().find_map(|&table| self.schema.column(table, word))
        };
        self.at += 1;
        column.ok_or(Rejected)
    }

    fn clause_of_conditions(&mut self, name: &str, defaults: &[u32]) -> Parsed<Conditions> {
        if self.skip(name) { paired(self.conditions(defaults)?) } else { Ok(Conditions::new()) }
    }

    fn conditions(&mut self, defaults: &[u32]) -> Parsed<Conditions> {
        let mut items = Conditions::new();
        while self.peek().is_some() {
            let unit = self.value_unit(defaults)?;
            let not = self.skip("not");
            let operator = self.one_of(&OPERATORS).ok_or(Rejected)?;
            let first = Some(self.operand(defaults)?);
            let second = if operator == BETWEEN {
                self.expect("and")?;
                Some(self.operand(defaults)?)
            } else {
                None
            };
            items.push(Item::Condition(Box::new(Condition { not, operator, unit, first, second })));
            if self.ends_clause() || self.peek().is_some_and(|word| JOINS.contains(&word)) {
                break;
            }
            if self.skip("and") {
                items.push(Item::And);
            } else if self.skip("or") {
                items.push(Item::Or);
            }
        }
        Ok(items)
    }

    fn operand(&mut self, defaults: &[u32]) -> Parsed<Operand> {
        let start = self.at;
        let in_brackets = self.word()? == "(";
        self.skip("(");
        let word = self.word()?;
        let operand = if word == "select" {
            Operand::Query(Box::new(self.query()?))
        } else if word.contains('"') {
            self.at += 1;
            Operand::Text(word.to_owned())
        } else if let Some(number) = number(word) {
            self.at += 1;
            Operand::Number(number)
        } else {
            Operand::Column(self.column_operand(start, defaults)?)
        };
        if in_brackets {
            self.expect(")")?;
        }
        Ok(operand)
    }

    /// A column as operand. The official parser takes the words up to the next comma, bracket,
    /// `and` or keyword, parses a column from their beginning and drops the rest: `= b + 1 or c` is
    /// `= b`. The closing bracket is not among them, so an aggregation never ends and an opening
    /// bracket is never closed: both are rejected.
    fn column_operand(&mut self, start: usize, defaults: &[u32]) -> Parsed<ColumnUnit> {
        let ends = |word: &str| {
            matches!(word, "," | ")" | "and") || CLAUSES.contains(&word) || JOINS.contains(&word)
        };
        let end = (self.at..self.words.len()).find(|&at| ends(&self.words[at]));
        let end = end.unwrap_or(self.words.len());
        let cut = &self.words[start..end];
        let unit = Parser { words: cut, at: 0, ..*self }.column_unit(defaults)?;
        self.at = end;
        Ok(unit)
    }

    fn group(&mut self, defaults: &[u32]) -> Parsed<Vec<ColumnUnit>> {
        let mut units = Vec::new();
        if self.skip("group") {
            self.expect("by")?;
            while self.peek().is_some() && !self.ends_clause() {
                units.push(self.column_unit(defaults)?);
                if !self.skip(",") {
                    break;
                }
            }
        }
        Ok(units)
    }

    fn order(&mut self, defaults: &[u32]) -> Parsed<Option<(Direction, Vec<ValueUnit>)>> {
        if !self.skip("order") {
            return Ok(None);
        }
        self.expect("by")?;
        let (mut direction, mut units) = (Direction::Ascending, Vec::new());
        while self.peek().is_some() && !self.ends_clause() {
            units.push(self.value_unit(defaults)?);
            if self.skip("desc") {
                direction = Direction::Descending;
            } else if self.skip("asc") {
                direction = Direction::Ascending;
            }
            if !self.skip(",") {
                break;
            }
        }
        Ok(Some((direction, units)))
    }

    fn limit(&mut self) -> Parsed<bool> {
        if !self.skip("limit") {
            return Ok(false);
        }
        // Any word is accepted and counts as 1.
        self.word()?;
        self.at += 1;
        Ok(true)
    }
}

/// Rejects lists with a connector in the position of a condition, on which the evaluator fails.
fn paired(items: Conditions) -> Parsed<Conditions> {
    let misplaced = items.iter().step_by(2).any(|item| !matches!(item, Item::Condition(_)));
    if misplaced { Err(Rejected) } else { Ok(items) }
}

/// A number as parsed by Python's `float`, including underscores between digits, `inf` and `nan`.
fn number(word: &str) -> Option<f64> {
    if !word.contains('_') {
        return word.parse().ok();
    }
    let bytes = word.as_bytes();
    let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let between = |at: usize| digit(at.checked_sub(1)) && digit(Some(at + 1));
    let placed = (0..bytes.len()).filter(|&at| bytes[at] == b'_').all(between);
    if placed { word.replace('_', "").parse().ok() } else { None }
}
