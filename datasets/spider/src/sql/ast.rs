//! The evaluator's representation of a query. Equality of these types is the evaluator's.

/// A column by its number in a [`Schema`](crate::schema::Schema).
pub type ColumnId = u32;

/// `*`.
pub const ALL_COLUMNS: ColumnId = 0;

/// The aggregations by name. The first means no aggregation; as a quirk, the parser accepts the
/// word `none` as one.
pub const AGGREGATIONS: [&str; 6] = ["none", "max", "min", "count", "sum", "avg"];

/// Operators between two columns; the word `none` is again accepted.
pub const UNIT_OPERATORS: [&str; 5] = ["none", "-", "+", "*", "/"];

/// Operators of a condition.
pub const OPERATORS: [&str; 12] =
    ["not", "between", "=", ">", "<", ">=", "<=", "!=", "in", "like", "is", "exists"];

/// Indices into [`OPERATORS`].
pub const BETWEEN: u8 = 1;
pub const IN: u8 = 8;
pub const LIKE: u8 = 9;

/// A column with an aggregation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnUnit {
    /// Index into [`AGGREGATIONS`].
    pub aggregation: u8,
    pub column: ColumnId,
    /// `None` if DISTINCT is ignored.
    pub distinct: Option<bool>,
}

/// One column, or two with an operator between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueUnit {
    /// Index into [`UNIT_OPERATORS`].
    pub operator: u8,
    pub left: ColumnUnit,
    pub right: Option<ColumnUnit>,
}

/// Right-hand side of a condition.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    Number(f64),
    /// Including quotes, which are always double.
    Text(String),
    Column(ColumnUnit),
    Query(Box<Query>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    pub not: bool,
    /// Index into [`OPERATORS`].
    pub operator: u8,
    pub unit: ValueUnit,
    /// `None` for a value if values are ignored.
    pub first: Option<Operand>,
    /// The upper end of `between`.
    pub second: Option<Operand>,
}

/// An item of a list of conditions. The parser does not require a connector between two
/// conditions, so that either may be at an odd position.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Condition(Box<Condition>),
    And,
    Or,
}

/// Conditions at even positions, connectors at odd ones.
pub type Conditions = Vec<Item>;

/// The conditions of a list: its even positions.
pub fn conditions(items: &Conditions) -> impl Iterator<Item = &Condition> {
    items.iter().step_by(2).filter_map(|item| match item {
        Item::Condition(condition) => Some(&**condition),
        Item::And | Item::Or => None,
    })
}

/// The connectors of a list: its odd positions.
pub fn connectors(items: &Conditions) -> impl Iterator<Item = &Item> {
    items.iter().skip(1).step_by(2)
}

#[derive(Debug, Clone, PartialEq)]
pub enum TableUnit {
    /// A table by its number in the schema.
    Table(u32),
    Query(Box<Query>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Ascending,
    Descending,
}

/// One select, with the query that a set operator joins to it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Query {
    pub distinct: Option<bool>,
    /// Selected units, each with an aggregation (index into [`AGGREGATIONS`]).
    pub select: Vec<(u8, ValueUnit)>,
    pub tables: Vec<TableUnit>,
    /// Conditions of all joins.
    pub join: Conditions,
    pub filter: Conditions,
    pub group: Vec<ColumnUnit>,
    pub having: Conditions,
    /// The parser keeps one direction, the last one.
    pub order: Option<(Direction, Vec<ValueUnit>)>,
    /// Whether there is a limit; the number is not kept.
    pub limit: bool,
    pub intersect: Option<Box<Query>>,
    pub except: Option<Box<Query>>,
    pub union: Option<Box<Query>>,
}

impl Query {
    /// The conditions of joins, filter and having.
    pub fn all_conditions(&self) -> impl Iterator<Item = &Condition> {
        conditions(&self.join).chain(conditions(&self.filter)).chain(conditions(&self.having))
    }

    /// The connectors of joins, filter and having.
    pub fn all_connectors(&self) -> impl Iterator<Item = &Item> {
        connectors(&self.join).chain(connectors(&self.filter)).chain(connectors(&self.having))
    }

    /// Queries after set operators: intersect, except, union.
    pub fn set_queries(&self) -> [Option<&Query>; 3] {
        [self.intersect.as_deref(), self.except.as_deref(), self.union.as_deref()]
    }
}
