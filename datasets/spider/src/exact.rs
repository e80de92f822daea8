//! Exact set match: comparison of the parts of two queries without values.
//!
//! Both queries are first normalised ([`comparable`]): values and DISTINCT are removed, columns
//! connected by foreign keys are merged. Then ten parts are compared; the score is 1 if all agree
//! and the tables of `from` are equal. Every part either agrees or does not: the official accuracy,
//! recall and F1 of one query are all 0 or all 1.
//!
//! Rule: Yu et al. 2018, "Spider", and the official evaluation of test suites.

use crate::schema::Schema;
use crate::sql::Query;
use crate::sql::ast::{
    ColumnUnit, Condition, Conditions, Direction, IN, Item, LIKE, Operand, TableUnit, ValueUnit,
    conditions, connectors,
};

/// The parts by their official names, in their official order.
pub const PARTS: [&str; 10] = [
    "select",
    "select(no AGG)",
    "where",
    "where(no OP)",
    "group(no Having)",
    "group",
    "order",
    "and/or",
    "IUEN",
    "keywords",
];

/// Comparison of one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Items of this part in the reference, and in the prediction: accuracy is averaged only over
    /// predictions with such items, recall only over references with such items.
    pub gold: usize,
    pub predicted: usize,
    /// Whether it agrees: accuracy, recall and F1 in one.
    pub agrees: bool,
}

impl Part {
    fn counted(gold: usize, predicted: usize, same: usize) -> Self {
        Self { gold, predicted, agrees: gold == predicted && same == predicted }
    }
}

/// All ten parts, and whether the queries match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExactMatch {
    pub matches: bool,
    /// In the order of [`PARTS`].
    pub parts: [Part; 10],
}

/// Compares a parsed prediction with a parsed reference. For a prediction that does not parse use
/// the empty query, [`Query::default`].
pub fn exact_match(gold: &Query, predicted: &Query, schema: &Schema) -> ExactMatch {
    compare(&comparable(gold, schema), &comparable(predicted, schema), schema)
}

fn compare(gold: &Query, predicted: &Query, schema: &Schema) -> ExactMatch {
    let (select, select_bare) = select(gold, predicted);
    let (filter, filter_bare) = filter(gold, predicted);
    let parts = [
        select,
        select_bare,
        filter,
        filter_bare,
        group(gold, predicted, schema),
        group_with_having(gold, predicted),
        order(gold, predicted),
        and_or(gold, predicted),
        set_queries(gold, predicted, schema),
        keyword_part(gold, predicted),
    ];
    let tables = gold.tables.is_empty()
        || gold.tables.len() == predicted.tables.len()
            && common(&gold.tables, &predicted.tables) == gold.tables.len();
    ExactMatch { matches: parts.iter().all(|part| part.agrees) && tables, parts }
}

/// Size of the multiset intersection of two lists.
fn common<T: PartialEq>(gold: &[T], predicted: &[T]) -> usize {
    let mut left: Vec<&T> = gold.iter().collect();
    let found = predicted.iter().filter(|thing| {
        let place = left.iter().position(|other| other == thing);
        place.map(|place| left.swap_remove(place)).is_some()
    });
    found.count()
}

fn lists<T: PartialEq>(gold: &[T], predicted: &[T]) -> Part {
    Part::counted(gold.len(), predicted.len(), common(gold, predicted))
}

/// Selected units with, and without, their aggregation.
fn select(gold: &Query, predicted: &Query) -> (Part, Part) {
    let bare = |query: &Query| query.select.iter().map(|unit| unit.1).collect::<Vec<_>>();
    (lists(&gold.select, &predicted.select), lists(&bare(gold), &bare(predicted)))
}

/// Conditions of `where` with, and without, operators and operands.
fn filter(gold: &Query, predicted: &Query) -> (Part, Part) {
    let whole = |query| conditions(query).collect::<Vec<&Condition>>();
    let bare = |query| conditions(query).map(|condition| condition.unit).collect::<Vec<_>>();
    (
        lists(&whole(&gold.filter), &whole(&predicted.filter)),
        lists(&bare(&gold.filter), &bare(&predicted.filter)),
    )
}

/// Names of the grouped columns, whatever their tables.
fn group(gold: &Query, predicted: &Query, schema: &Schema) -> Part {
    let names =
        |query: &Query| query.group.iter().map(|unit| schema.name(unit.column)).collect::<Vec<_>>();
    lists(&names(gold), &names(predicted))
}

/// Grouped columns in order, and the condition on the groups.
fn group_with_having(gold: &Query, predicted: &Query) -> Part {
    let columns = |query: &Query| query.group.iter().map(|u| u.column).collect::<Vec<_>>();
    let some = |query: &Query| usize::from(!query.group.is_empty());
    let same = some(gold) == 1
        && some(predicted) == 1
        && columns(gold) == columns(predicted)
        && gold.having == predicted.having;
    Part::counted(some(gold), some(predicted), usize::from(same))
}

/// The whole order, and whether there is a limit.
fn order(gold: &Query, predicted: &Query) -> Part {
    let some = |query: &Query| usize::from(query.order.is_some());
    let same =
        gold.order.is_some() && gold.order == predicted.order && gold.limit == predicted.limit;
    Part::counted(some(gold), some(predicted), usize::from(same))
}

/// The sets of connectors of `where`. Equal sets count as one item.
fn and_or(gold: &Query, predicted: &Query) -> Part {
    let set = |query: &Query| {
        let mut set: Vec<Item> = Vec::new();
        for connector in connectors(&query.filter) {
            if !set.contains(connector) {
                set.push(connector.clone());
            }
        }
        set
    };
    let (gold, predicted) = (set(gold), set(predicted));
    if gold.len() == predicted.len() && common(&gold, &predicted) == gold.len() {
        return Part::counted(1, 1, 1);
    }
    // The official evaluator returns the two counts swapped.
    Part::counted(predicted.len(), gold.len(), 0)
}

/// Queries after `intersect`, `except` and `union`: each must match exactly.
fn set_queries(gold: &Query, predicted: &Query, schema: &Schema) -> Part {
    let count = |query: &Query| query.set_queries().into_iter().flatten().count();
    let pairs = gold.set_queries().into_iter().zip(predicted.set_queries());
    let same = pairs.filter(|pair| match pair {
        (Some(gold), Some(predicted)) => compare(gold, predicted, schema).matches,
        _ => false,
    });
    Part::counted(count(gold), count(predicted), same.count())
}

fn keyword_part(gold: &Query, predicted: &Query) -> Part {
    lists(&keywords(gold), &keywords(predicted))
}

fn keywords(query: &Query) -> Vec<&'static str> {
    let direction = query.order.as_ref().map(|(direction, _)| *direction);
    [
        ("where", !query.filter.is_empty()),
        ("group", !query.group.is_empty()),
        ("having", !query.having.is_empty()),
        ("desc", direction == Some(Direction::Descending)),
        ("asc", direction == Some(Direction::Ascending)),
        ("order", direction.is_some()),
        ("limit", query.limit),
        ("except", query.except.is_some()),
        ("union", query.union.is_some()),
        ("intersect", query.intersect.is_some()),
        ("or", query.all_connectors().any(|item| *item == Item::Or)),
        ("not", query.all_conditions().any(|condition| condition.not)),
        ("in", query.all_conditions().any(|condition| condition.operator == IN)),
        ("like", query.all_conditions().any(|condition| condition.operator == LIKE)),
    ]
    .into_iter()
    .filter_map(|(word, used)| used.then_some(word))
    .collect()
}

/// The query without parts that are not compared.
///
/// Reproduces two inconsistencies of the official evaluator: values are also removed from the
/// conditions of nested queries, but not from those of queries in `from`; DISTINCT is removed and
/// columns are merged in the query itself and after set operators, but not in nested queries.
fn comparable(query: &Query, schema: &Schema) -> Query {
    let mut query = query.clone();
    let tables: Vec<u32> = query
        .tables
        .iter()
        .filter_map(|unit| match unit {
            TableUnit::Table(table) => Some(*table),
            TableUnit::Query(_) => None,
        })
        .collect();
    drop_values(&mut query);
    merge_columns(&mut query, schema, &tables);
    query
}

fn drop_values(query: &mut Query) {
    for items in [&mut query.join, &mut query.filter, &mut query.having] {
        for item in items.iter_mut().step_by(2) {
            let Item::Condition(condition) = item else { continue };
            for operand in [&mut condition.first, &mut condition.second] {
                match operand {
                    Some(Operand::Query(nested)) => drop_values(nested),
                    other => *other = None,
                }
            }
        }
    }
    for nested in [&mut query.intersect, &mut query.except, &mut query.union].into_iter().flatten()
    {
        drop_values(nested);
    }
}

/// `tables` are those of the outermost `from`, also for queries after set operators.
fn merge_columns(query: &mut Query, schema: &Schema, tables: &[u32]) {
    let column = |unit: &mut ColumnUnit| {
        unit.column = schema.merged(unit.column, tables);
        unit.distinct = None;
    };
    let value = |unit: &mut ValueUnit| {
        column(&mut unit.left);
        unit.right.iter_mut().for_each(column);
    };
    let items = |items: &mut Conditions| {
        for item in items.iter_mut().step_by(2) {
            if let Item::Condition(condition) = item {
                value(&mut condition.unit);
            }
        }
    };
    query.distinct = None;
    query.select.iter_mut().for_each(|(_, unit)| value(unit));
    items(&mut query.join);
    items(&mut query.filter);
    items(&mut query.having);
    query.group.iter_mut().for_each(column);
    if let Some((_, units)) = &mut query.order {
        units.iter_mut().for_each(value);
    }
    for nested in [&mut query.intersect, &mut query.except, &mut query.union].into_iter().flatten()
    {
        merge_columns(nested, schema, tables);
    }
}
