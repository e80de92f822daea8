//! Hardness of a query, by the official count of its parts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::sql::Query;
use crate::sql::ast::{Item, LIKE, Operand, conditions};

/// The four levels, from easy to extra hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hardness {
    Easy,
    Medium,
    Hard,
    Extra,
}

impl Hardness {
    pub const ALL: [Self; 4] = [Self::Easy, Self::Medium, Self::Hard, Self::Extra];

    pub fn name(self) -> &'static str {
        match self {
            Self::Easy => "easy",
            Self::Medium => "medium",
            Self::Hard => "hard",
            Self::Extra => "extra",
        }
    }
}

impl fmt::Display for Hardness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The hardness of a reference query.
pub fn hardness(query: &Query) -> Hardness {
    let (clauses, nested, others) = (clauses(query), nested(query), others(query));
    if clauses <= 1 && others == 0 && nested == 0 {
        Hardness::Easy
    } else if nested == 0 && (others <= 2 && clauses <= 1 || clauses <= 2 && others < 2) {
        Hardness::Medium
    } else if nested == 0 && (others > 2 && clauses <= 2 || clauses == 3 && others <= 2)
        || clauses <= 1 && others == 0 && nested <= 1
    {
        Hardness::Hard
    } else {
        Hardness::Extra
    }
}

/// Clauses, joins, ORs and LIKEs.
fn clauses(query: &Query) -> usize {
    let clauses =
        [!query.filter.is_empty(), !query.group.is_empty(), query.order.is_some(), query.limit];
    clauses.into_iter().filter(|present| *present).count()
        + query.tables.len().saturating_sub(1)
        + query.all_connectors().filter(|item| **item == Item::Or).count()
        + query.all_conditions().filter(|condition| condition.operator == LIKE).count()
}

/// Queries in conditions and after set operators.
fn nested(query: &Query) -> usize {
    let operands = query.all_conditions().flat_map(|c| [&c.first, &c.second]);
    let in_conditions = operands.filter(|o| matches!(o, Some(Operand::Query(_))));
    in_conditions.count() + query.set_queries().into_iter().flatten().count()
}

/// One each for more than one aggregation, selected column, condition and grouped column.
///
/// The official count of aggregations inspects the first field of each item, which is NOT for a
/// condition and the first letter for a connector in `having`. So NOTs count as aggregations, and
/// so do the ANDs and ORs of `having`.
fn others(query: &Query) -> usize {
    let having = query.having.iter().filter(|item| match item {
        Item::Condition(condition) => condition.not,
        Item::And | Item::Or => true,
    });
    let ordered = query.order.iter().flat_map(|(_, units)| units);
    let ordered = ordered.flat_map(|unit| [Some(unit.left), unit.right]).flatten();
    let aggregations = query.select.iter().filter(|unit| unit.0 != 0).count()
        + conditions(&query.filter).filter(|condition| condition.not).count()
        + query.group.iter().filter(|unit| unit.aggregation != 0).count()
        + ordered.filter(|unit| unit.aggregation != 0).count()
        + having.count();
    // Conditions are counted with their connectors.
    [aggregations, query.select.len(), query.filter.len(), query.group.len()]
        .into_iter()
        .filter(|count| *count > 1)
        .count()
}
