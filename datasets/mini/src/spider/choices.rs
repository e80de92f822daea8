//! The choices in a query and their wrong alternatives.
//!
//! One traversal of the tree serves two purposes: tasks whose result does not change under some
//! single wrong choice are rejected, and demonstrations for the base model are drawn choice by
//! choice. Only the structure varies, never names and values.

use super::query::{Aggregate, Comparison, Condition, Connective, On, Query, Term};

/// Decides a choice given the number of wrong alternatives: `None` for the correct one, or the
/// index of a wrong one.
type Decide<'a> = dyn FnMut(usize) -> Option<usize> + 'a;

/// `query` with every choice decided.
pub(super) fn decided(query: &Query, decide: &mut Decide<'_>) -> Query {
    let mut drawn = query.clone();
    // The first of two terms is the grouping column.
    if let Some(term) = drawn.select.last_mut() {
        *term = choose(term, wrong_terms(term, query), decide);
    }
    for condition in &mut drawn.conditions {
        *condition = decided_condition(condition, decide);
    }
    if drawn.conditions.len() > 1 {
        match decide(3) {
            None => {}
            Some(0) => drawn.connective = other_connective(drawn.connective),
            Some(1) => drawn.conditions.truncate(1),
            Some(_) => drop(drawn.conditions.remove(0)),
        }
    }
    if let Some((_, on)) = &mut drawn.join {
        *on = choose(on, vec![On::Ids], decide);
    }
    if drawn.group.is_some() && decide(1).is_some() {
        drawn.group = None;
    }
    if let Some((_, down)) = &mut drawn.order {
        *down = choose(down, vec![!*down], decide);
        let wrong = if drawn.limit.is_some() { None } else { Some(1) };
        drawn.limit = choose(&drawn.limit, vec![wrong], decide);
        exchange(&mut drawn, decide);
    }
    drawn
}

fn choose<T: Clone>(right: &T, wrong: Vec<T>, decide: &mut Decide<'_>) -> T {
    if wrong.is_empty() {
        return right.clone();
    }
    match decide(wrong.len()) {
        Some(i) => wrong[i].clone(),
        None => right.clone(),
    }
}

/// Other terms over the same column; for a count the column of a condition or of the group, or else
/// `id`. `max(id)` is excluded, because it also counts the rows.
fn wrong_terms(term: &Term, query: &Query) -> Vec<Term> {
    let named = query.conditions.iter().find_map(Condition::column);
    let column = term.column().or(named).or(query.group.as_deref()).unwrap_or("id").to_string();
    let aggregates = Aggregate::ALL.map(|function| Term::Aggregate(function, column.clone()));
    let counts = Term::Aggregate(Aggregate::Max, "id".to_string());
    let all = [Term::Count, Term::Column(column)].into_iter().chain(aggregates);
    all.filter(|other| *other != *term && *other != counts).collect()
}

fn decided_condition(condition: &Condition, decide: &mut Decide<'_>) -> Condition {
    match condition {
        Condition::Compare(column, op, value) => {
            let op = choose(op, wrong_comparisons(*op), decide);
            Condition::Compare(column.clone(), op, value.clone())
        }
        Condition::CompareQuery(column, op, query) => {
            let op = choose(op, wrong_comparisons(*op), decide);
            Condition::CompareQuery(column.clone(), op, Box::new(decided(query, decide)))
        }
        Condition::Id { negated, query } => {
            let negated = choose(negated, vec![!negated], decide);
            // The term of an inner query is a key, not a choice.
            let mut query = query.clone();
            for inner in &mut query.conditions {
                *inner = decided_condition(inner, decide);
            }
            Condition::Id { negated, query }
        }
    }
}

fn wrong_comparisons(right: Comparison) -> Vec<Comparison> {
    Comparison::ALL.into_iter().filter(|other| *other != right).collect()
}

fn other_connective(right: Connective) -> Connective {
    match right {
        Connective::And => Connective::Or,
        Connective::Or => Connective::And,
    }
}

/// The choice of which of two columns is selected and which one orders.
fn exchange(query: &mut Query, decide: &mut Decide<'_>) {
    let (Some(Term::Column(shown)), Some((Term::Column(by), _))) =
        (query.select.last_mut(), &mut query.order)
    else {
        return;
    };
    if decide(1).is_some() {
        std::mem::swap(shown, by);
    }
}

/// The number of wrong alternatives of every choice in a query.
pub(super) fn alternatives(query: &Query) -> Vec<usize> {
    let mut alternatives = Vec::new();
    decided(query, &mut |wrong| {
        alternatives.push(wrong);
        None
    });
    alternatives
}

/// Every query with a single wrong choice.
pub(super) fn neighbours(query: &Query) -> Vec<Query> {
    let alternatives = alternatives(query);
    let one_wrong = |position: usize, alternative: usize| {
        let mut at = 0;
        decided(query, &mut |_| {
            at += 1;
            (at == position + 1).then_some(alternative)
        })
    };
    let places = alternatives.iter().enumerate();
    places
        .flat_map(|(position, &n)| (0..n).map(move |alternative| one_wrong(position, alternative)))
        .collect()
}
