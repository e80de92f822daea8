//! The queries of the world as trees, and as text.
//!
//! Names and values are always surrounded by the same characters, ` age `, `'kalo'`, so that they
//! have a single tokenization in schema, question and query.

use std::fmt::{Display, Formatter, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    Max,
    Min,
    Avg,
}

impl Aggregate {
    pub const ALL: [Self; 3] = [Self::Max, Self::Min, Self::Avg];

    pub fn sql(self) -> &'static str {
        match self {
            Self::Max => "max",
            Self::Min => "min",
            Self::Avg => "avg",
        }
    }
}

/// A term in `select` or `order by`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Term {
    Count,
    Column(String),
    Aggregate(Aggregate, String),
}

impl Term {
    /// The column of the term.
    pub fn column(&self) -> Option<&str> {
        match self {
            Self::Count => None,
            Self::Column(column) | Self::Aggregate(_, column) => Some(column),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Greater,
    Less,
}

impl Comparison {
    pub const ALL: [Self; 4] = [Self::Equal, Self::NotEqual, Self::Greater, Self::Less];
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// Comparison with an SQL literal.
    Compare(String, Comparison, String),
    /// Comparison with the single value of a query.
    CompareQuery(String, Comparison, Box<Query>),
    /// `id in (…)`, or `id not in (…)`.
    Id { negated: bool, query: Box<Query> },
}

impl Condition {
    /// The column that is compared.
    pub fn column(&self) -> Option<&str> {
        match self {
            Self::Compare(column, ..) | Self::CompareQuery(column, ..) => Some(column),
            Self::Id { .. } => None,
        }
    }
}

/// How a table is joined to the one that its key refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    /// `parents.id = parents_id`: correct.
    Key,
    /// `parents.id = children.id`: a common mistake.
    Ids,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connective {
    And,
    Or,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    pub select: Vec<Term>,
    pub from: String,
    /// The table that the key of `from` refers to.
    pub join: Option<(String, On)>,
    pub conditions: Vec<Condition>,
    pub connective: Connective,
    pub group: Option<String>,
    /// The term, and whether the order is descending.
    pub order: Option<(Term, bool)>,
    pub limit: Option<usize>,
}

impl Query {
    pub fn select(select: Vec<Term>, from: &str) -> Self {
        Self {
            select,
            from: from.to_string(),
            join: None,
            conditions: Vec::new(),
            connective: Connective::And,
            group: None,
            order: None,
            limit: None,
        }
    }
}

impl Display for Term {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Count => f.write_str("count(*)"),
            Self::Column(name) => f.write_str(name),
            Self::Aggregate(function, name) => write!(f, "{}( {name} )", function.sql()),
        }
    }
}

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::Less => "<",
        })
    }
}

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Compare(column, op, value) => write!(f, "{column} {op} {value}"),
            Self::CompareQuery(column, op, query) => write!(f, "{column} {op} ( {query} )"),
            Self::Id { negated, query } => {
                write!(f, "id {}in ( {query} )", if *negated { "not " } else { "" })
            }
        }
    }
}

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let terms: Vec<String> = self.select.iter().map(Term::to_string).collect();
        write!(f, "select {} from {}", terms.join(", "), self.from)?;
        match &self.join {
            Some((parent, On::Key)) => write!(f, " join {parent} on {parent}.id = {parent}_id")?,
            Some((parent, On::Ids)) => {
                write!(f, " join {parent} on {parent}.id = {}.id", self.from)?;
            }
            None => {}
        }
        for (i, condition) in self.conditions.iter().enumerate() {
            let word = match (i, self.connective) {
                (0, _) => "where",
                (_, Connective::And) => "and",
                (_, Connective::Or) => "or",
            };
            write!(f, " {word} {condition}")?;
        }
        if let Some(column) = &self.group {
            write!(f, " group by {column}")?;
        }
        if let Some((term, down)) = &self.order {
            write!(f, " order by {term} {}", if *down { "desc" } else { "asc" })?;
        }
        if let Some(n) = self.limit {
            write!(f, " limit {n}")?;
        }
        Ok(())
    }
}
