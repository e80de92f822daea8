//! Clause-by-clause comparison of arbitrary queries.
//!
//! Exact set match is undefined for queries outside Spider's grammar, and needs the schema of
//! `tables.json`. This comparison needs neither: sqlparser parses both queries, and each clause
//! becomes a multiset of items compared as text, without literals, with lower-case names and
//! resolved aliases. It is not an official measure; it shows where a prediction differs and
//! classifies the failure.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, GroupByExpr, Ident, JoinConstraint, JoinOperator, LimitClause,
    ObjectName, ObjectNamePart, OrderByKind, OrderBySort, Query, Select, SelectItem, SetExpr,
    TableFactor, VisitMut, VisitorMut,
};

use crate::sql::read::{Unread, query};

/// A clause of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Clause {
    /// Tables and queries in FROM and WITH.
    Tables,
    /// Kinds of joins and their conditions.
    Joins,
    Select,
    Where,
    Group,
    Having,
    Order,
    Limit,
    /// UNION, INTERSECT and EXCEPT with the query that follows.
    Set,
}

impl Clause {
    /// All clauses, in the order of precedence for [`Compared::failure`].
    pub const ALL: [Self; 9] = [
        Self::Tables,
        Self::Joins,
        Self::Select,
        Self::Where,
        Self::Group,
        Self::Having,
        Self::Order,
        Self::Limit,
        Self::Set,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tables => "tables",
            Self::Joins => "joins",
            Self::Select => "select",
            Self::Where => "where",
            Self::Group => "group by",
            Self::Having => "having",
            Self::Order => "order by",
            Self::Limit => "limit",
            Self::Set => "set operators",
        }
    }
}

/// The items of a query by clause. Missing clauses are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clauses(BTreeMap<Clause, Vec<String>>);

/// Result of comparing two queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// Clauses of either query.
    pub used: Vec<Clause>,
    /// Clauses that differ, in the order of [`Clause::ALL`].
    pub differing: Vec<Clause>,
}

impl Compared {
    /// Share of the used clauses that agree, 1 if none is used.
    pub fn share(&self) -> f64 {
        let used = self.used.len().max(1) as f64;
        1.0 - self.differing.len() as f64 / used
    }

    /// The kind of failure: the first clause that differs.
    pub fn failure(&self) -> Option<Clause> {
        self.differing.first().copied()
    }
}

/// Compares a prediction with its reference.
///
/// ```
/// use leyden_spider::clauses::{Clause, compare};
///
/// let gold = "SELECT T1.name FROM singer AS T1 JOIN song AS T2 ON T1.id = T2.singer WHERE T2.year > 2000";
/// let same = "select s.name from song x inner join singer s on x.singer = s.id where x.year > 1990";
/// assert!(compare(gold, same)?.differing.is_empty());
/// let other = "SELECT name FROM singer LEFT JOIN song ON singer.id = song.singer";
/// assert_eq!(compare(gold, other)?.failure(), Some(Clause::Joins));
/// # Ok::<(), leyden_spider::sql::read::Unread>(())
/// ```
///
/// # Errors
/// [`Unread`] for a text that is not a single query or cannot be parsed.
pub fn compare(gold: &str, predicted: &str) -> Result<Compared, Unread> {
    let (gold, predicted) = (Clauses::of(gold)?, Clauses::of(predicted)?);
    let has = |clause: &Clause| gold.0.contains_key(clause) || predicted.0.contains_key(clause);
    let used: Vec<Clause> = Clause::ALL.into_iter().filter(has).collect();
    let differs = |clause: &Clause| gold.0.get(clause) != predicted.0.get(clause);
    let differing = used.iter().copied().filter(differs).collect();
    Ok(Compared { used, differing })
}

impl Clauses {
    /// Parses a query.
    ///
    /// # Errors
    /// [`Unread`] for a text that is not a single query or cannot be parsed.
    pub fn of(sql: &str) -> Result<Self, Unread> {
        let mut query = query(sql)?;
        let mut aliases = Aliases::default();
        let _ = query.visit(&mut aliases);
        let _ = query.visit(&mut Plain { aliases: aliases.found });
        let mut clauses = Self::default();
        clauses.add_query(&query);
        for (clause, items) in &mut clauses.0 {
            if *clause != Clause::Order {
                items.sort();
            }
        }
        Ok(clauses)
    }

    fn put(&mut self, clause: Clause, item: String) {
        self.0.entry(clause).or_default().push(item);
    }

    fn add_query(&mut self, query: &Query) {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.put(Clause::Tables, format!("with {}", cte.query));
        }
        self.add_body(&query.body);
        if let Some(order) = &query.order_by
            && let OrderByKind::Expressions(expressions) = &order.kind
        {
            for ordered in expressions {
                let direction = match &ordered.options.sort {
                    Some(OrderBySort::Desc) => "desc",
                    _ => "asc",
                };
                self.put(Clause::Order, format!("{} {direction}", ordered.expr));
            }
        }
        match &query.limit_clause {
            None | Some(LimitClause::LimitOffset { limit: None, offset: None, .. }) => {}
            Some(LimitClause::LimitOffset { offset: None, .. }) => {
                self.put(Clause::Limit, "limit".to_owned());
            }
            Some(_) => self.put(Clause::Limit, "limit with offset".to_owned()),
        }
    }

    fn add_body(&mut self, body: &SetExpr) {
        match body {
            SetExpr::Select(select) => self.add_select(select),
            SetExpr::Query(query) => self.add_query(query),
            SetExpr::SetOperation { left, right, op, set_quantifier } => {
                self.add_body(left);
                self.put(Clause::Set, format!("{op} {set_quantifier} {right}"));
            }
            other => self.put(Clause::Select, other.to_string()),
        }
    }

    fn add_select(&mut self, select: &Select) {
        for item in &select.projection {
            let words = match item {
                SelectItem::UnnamedExpr(expression)
                | SelectItem::ExprWithAlias { expr: expression, .. } => expression.to_string(),
                other => other.to_string(),
            };
            self.put(Clause::Select, words);
        }
        for (index, table) in select.from.iter().enumerate() {
            self.put(Clause::Tables, table.relation.to_string());
            // A comma is a join without a condition.
            if index > 0 {
                self.put(Clause::Joins, "inner".to_owned());
            }
            for join in &table.joins {
                self.put(Clause::Tables, join.relation.to_string());
                self.add_join(&join.join_operator);
            }
        }
        for condition in select.selection.iter().flat_map(conjuncts) {
            let clause = if joins(condition) { Clause::Joins } else { Clause::Where };
            self.put(clause, symmetric(condition));
        }
        if let GroupByExpr::Expressions(expressions, _) = &select.group_by {
            expressions.iter().for_each(|e| self.put(Clause::Group, e.to_string()));
        }
        for condition in select.having.iter().flat_map(conjuncts) {
            self.put(Clause::Having, symmetric(condition));
        }
    }

    fn add_join(&mut self, operator: &JoinOperator) {
        let (kind, constraint) = match operator {
            JoinOperator::Join(on) | JoinOperator::Inner(on) | JoinOperator::CrossJoin(on) => {
                ("inner", Some(on))
            }
            JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => ("left", Some(on)),
            JoinOperator::Right(on) | JoinOperator::RightOuter(on) => ("right", Some(on)),
            JoinOperator::FullOuter(on) => ("full", Some(on)),
            _ => ("other", None),
        };
        self.put(Clause::Joins, kind.to_owned());
        match constraint {
            Some(JoinConstraint::On(on)) => {
                for condition in conjuncts(on) {
                    self.put(Clause::Joins, symmetric(condition));
                }
            }
            Some(JoinConstraint::Using(names)) => {
                names.iter().for_each(|name| self.put(Clause::Joins, format!("using {name}")));
            }
            Some(JoinConstraint::Natural) => self.put(Clause::Joins, "natural".to_owned()),
            _ => {}
        }
    }
}

/// The operands of nested ANDs.
fn conjuncts(expression: &Expr) -> Vec<&Expr> {
    let (mut found, mut open) = (Vec::new(), vec![expression]);
    while let Some(expression) = open.pop() {
        match expression {
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                open.extend([right.as_ref(), left.as_ref()]);
            }
            other => found.push(other),
        }
    }
    found
}

/// Whether a condition equates two columns, like a join.
fn joins(condition: &Expr) -> bool {
    let column = |e: &Expr| matches!(e, Expr::CompoundIdentifier(_));
    matches!(condition, Expr::BinaryOp { left, op: BinaryOperator::Eq, right }
        if column(left) && column(right))
}

/// A condition as text, with the operands of symmetric operators sorted.
fn symmetric(condition: &Expr) -> String {
    match condition {
        Expr::BinaryOp { left, op, right }
            if matches!(op, BinaryOperator::Eq | BinaryOperator::NotEq | BinaryOperator::Or) =>
        {
            let mut sides = [symmetric(left), symmetric(right)];
            sides.sort();
            format!("{} {op} {}", sides[0], sides[1])
        }
        other => other.to_string(),
    }
}

/// The meaning of each alias; the last definition wins.
#[derive(Default)]
struct Aliases {
    found: HashMap<String, String>,
}

impl VisitorMut for Aliases {
    type Break = ();

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<()> {
        let (name, alias) = match table {
            TableFactor::Table { name, alias, .. } => (lower(name), alias),
            TableFactor::Derived { alias, .. } => ("(query)".to_owned(), alias),
            _ => return ControlFlow::Continue(()),
        };
        if let Some(alias) = alias.take() {
            self.found.insert(alias.name.value.to_lowercase(), name);
        }
        ControlFlow::Continue(())
    }
}

/// Normalises a query: lower case, no quotes, aliases resolved, no literals, no parentheses around
/// conditions.
struct Plain {
    aliases: HashMap<String, String>,
}

impl VisitorMut for Plain {
    type Break = ();

    /// Removes the qualifiers of columns if there is only one table.
    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if let [table] = select.from.as_slice()
            && table.joins.is_empty()
            && let TableFactor::Table { name, .. } = &table.relation
        {
            let table = lower(name);
            let _ = sqlparser::ast::visit_expressions_mut(select, |expression| {
                if let Expr::CompoundIdentifier(parts) = expression
                    && let [owner, column] = parts.as_slice()
                    && owner.value == table
                {
                    *expression = Expr::Identifier(column.clone());
                }
                ControlFlow::<()>::Continue(())
            });
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, .. } = table {
            let plain = Ident::new(lower(name));
            *name = ObjectName(vec![ObjectNamePart::Identifier(plain)]);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        match expression {
            Expr::Identifier(name) => *name = Ident::new(name.value.to_lowercase()),
            Expr::CompoundIdentifier(parts) => {
                for part in parts.iter_mut() {
                    *part = Ident::new(part.value.to_lowercase());
                }
                if let [owner, _] = parts.as_mut_slice()
                    && let Some(table) = self.aliases.get(&owner.value)
                {
                    *owner = Ident::new(table.clone());
                }
            }
            Expr::Value(_) => *expression = Expr::Identifier(Ident::new("value")),
            Expr::Nested(inner) => {
                let inner = std::mem::replace(inner.as_mut(), Expr::Identifier(Ident::new("")));
                *expression = inner;
            }
            Expr::Function(function) => {
                let plain = Ident::new(lower(&function.name));
                function.name = ObjectName(vec![ObjectNamePart::Identifier(plain)]);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn lower(name: &ObjectName) -> String {
    let parts = name.0.iter().filter_map(ObjectNamePart::as_ident);
    parts.map(|part| part.value.to_lowercase()).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differing(gold: &str, predicted: &str) -> Vec<&'static str> {
        compare(gold, predicted).unwrap().differing.into_iter().map(Clause::name).collect()
    }

    #[test]
    fn equivalent_queries_agree() {
        for (gold, predicted) in [
            ("SELECT name FROM t", "select `NAME` from T"),
            ("SELECT a, b FROM t", "SELECT b, a AS x FROM t y"),
            (
                "SELECT a FROM t WHERE x = 1 AND y = 2",
                "SELECT a FROM t WHERE (y = 5) AND (x = 'b')",
            ),
            ("SELECT t.a FROM t WHERE t.x IS NULL", "SELECT a FROM t AS q WHERE q.x IS NULL"),
            ("SELECT u.a FROM t, u WHERE t.x = u.y", "SELECT u.a FROM t JOIN u ON u.y = t.x"),
            ("SELECT count(*) FROM t", "SELECT COUNT(*) FROM t"),
            ("SELECT a FROM t ORDER BY b", "SELECT a FROM t ORDER BY b ASC"),
            ("SELECT a FROM t LIMIT 1", "SELECT a FROM t LIMIT 3"),
        ] {
            assert!(differing(gold, predicted).is_empty(), "{gold}; {predicted}");
        }
    }

    #[test]
    fn each_clause_can_differ() {
        let gold = "SELECT a, count(*) FROM t LEFT JOIN u ON t.i = u.i WHERE u.b IS NULL GROUP BY a \
                    HAVING count(*) > 1 ORDER BY a LIMIT 2";
        for (from, to, expected) in [
            ("FROM t", "FROM s", vec!["tables"]),
            ("LEFT JOIN", "JOIN", vec!["joins"]),
            ("SELECT a, count(*)", "SELECT a, sum(c)", vec!["select"]),
            ("IS NULL", "IS NOT NULL", vec!["where"]),
            ("GROUP BY a", "GROUP BY a, d", vec!["group by"]),
            ("> 1", "< 1", vec!["having"]),
            ("ORDER BY a", "ORDER BY a DESC", vec!["order by"]),
            ("LIMIT 2", "", vec!["limit"]),
            ("LIMIT 2", "LIMIT 2 OFFSET 1", vec!["limit"]),
        ] {
            let other = gold.replacen(from, to, 1);
            let found = differing(gold, &other);
            // Another table also changes the qualifiers of its columns.
            assert!(found.starts_with(&expected), "{other}: {found:?}");
        }
        let union = differing("SELECT a FROM t UNION SELECT a FROM u", "SELECT a FROM t");
        assert_eq!(union, ["set operators"]);
    }

    #[test]
    fn shares_and_failures_are_reported() {
        let compared =
            compare("SELECT a FROM t WHERE b > 1", "SELECT c FROM t WHERE b > 2").unwrap();
        assert_eq!(compared.used.len(), 3);
        assert!((compared.share() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(compared.failure(), Some(Clause::Select));
        assert_eq!(compare("SELECT 1", "No query."), Err(Unread::Unknown));
        assert_eq!(compare("SELECT 1", "DROP TABLE t"), Err(Unread::NotAQuery));
    }
}
