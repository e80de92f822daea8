//! The rows of a database.
//!
//! Drawn so that wrong queries give other results: the numbers in a column are distinct, so that
//! an order has no ties; every category occurs; some parents have no children. A third of the
//! names and two of five categories are reserved for test questions.

use leyden_core::SeedTree;

use super::schema::{Content, Schema, Table};
use crate::draws::Draws;
use crate::names::Supply;

/// One value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Integer(i64),
    Tenths(i64),
    Text(String),
}

impl Cell {
    /// The value as an SQL literal.
    pub fn sql(&self) -> String {
        match self {
            Self::Integer(n) => n.to_string(),
            Self::Tenths(n) => format!("{}.{}", n / 10, n % 10),
            Self::Text(text) => format!("'{text}'"),
        }
    }
}

/// Number of rows of a referenced table, and of an unreferenced one.
const PARENTS: usize = 9;
const CHILDREN: usize = 14;
/// Number of parents without children.
const CHILDLESS: usize = 2;
/// Number of categories of a column: for training, and reserved for test.
const CATEGORIES: (usize, usize) = (3, 2);

/// The rows of all tables, in the order of the schema.
pub(super) fn draw(schema: &Schema, seed: SeedTree) -> Vec<Vec<Vec<Cell>>> {
    let mut names = Supply::new(seed.child("names"));
    let mut draws = Draws::new(seed.child("rows"));
    let references = schema.references();
    let rows = |i: usize| {
        let number =
            if references.iter().any(|&(_, parent)| parent == i) { PARENTS } else { CHILDREN };
        table(&schema.tables[i], number, &mut names, &mut draws)
    };
    (0..schema.tables.len()).map(rows).collect()
}

fn table(table: &Table, rows: usize, names: &mut Supply, draws: &mut Draws) -> Vec<Vec<Cell>> {
    let columns: Vec<Vec<Cell>> =
        table.columns.iter().map(|c| column(c.content, rows, names, draws)).collect();
    (0..rows).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect()
}

fn column(content: Content, rows: usize, names: &mut Supply, draws: &mut Draws) -> Vec<Cell> {
    let mut cells: Vec<Cell> = match content {
        Content::Id => return (1..=rows as i64).map(Cell::Integer).collect(),
        Content::Key(_) => {
            let mut parents: Vec<i64> = (1..=PARENTS as i64).collect();
            draws.shuffle(&mut parents);
            let parents = &parents[CHILDLESS..];
            (0..rows).map(|_| Cell::Integer(*draws.choose(parents))).collect()
        }
        Content::Name => (0..rows).map(|row| Cell::Text(names.next(row % 3 == 0))).collect(),
        Content::Category => {
            let (free, kept) = CATEGORIES;
            let words: Vec<String> = (0..free + kept).map(|i| names.next(i >= free)).collect();
            let all = words
                .iter()
                .cloned()
                .chain(std::iter::repeat_with(|| words[draws.below(words.len())].clone()));
            all.take(rows).map(Cell::Text).collect()
        }
        Content::Integer(low, high) => {
            distinct(low, high, rows, draws, |_| true).into_iter().map(Cell::Integer).collect()
        }
        Content::Tenths(low, high) => distinct(low, high, rows, draws, |n| n % 10 != 0)
            .into_iter()
            .map(Cell::Tenths)
            .collect(),
    };
    draws.shuffle(&mut cells);
    cells
}

fn distinct(low: i64, high: i64, n: usize, draws: &mut Draws, fits: fn(i64) -> bool) -> Vec<i64> {
    let mut numbers: Vec<i64> = Vec::new();
    while numbers.len() < n {
        let number = draws.between(low, high);
        if fits(number) && !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    numbers
}
