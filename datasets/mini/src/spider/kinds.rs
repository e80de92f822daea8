//! The kinds of questions, their hardness by Spider's rule, and their queries.

use super::database::Database;
use super::query::{Aggregate, Comparison, Condition, Connective, On, Query, Term};
use super::rows::Cell;
use super::schema::{Content, Table};
use crate::calc;
use crate::draws::Draws;
use crate::names;

/// A kind of question: one shape of query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Count,
    CountWhere,
    ListWhere,
    Aggregate,
    AggregateWhere,
    Order,
    Top,
    TopMany,
    Group,
    GroupAggregate,
    CountTwo,
    ListTwo,
    JoinList,
    JoinCount,
    JoinAggregate,
    JoinGroup,
    Without,
    CountWithout,
    Having,
    Beyond,
    JoinTop,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::CountWhere => "count-where",
            Self::ListWhere => "list-where",
            Self::Aggregate => "aggregate",
            Self::AggregateWhere => "aggregate-where",
            Self::Order => "order",
            Self::Top => "top",
            Self::TopMany => "top-many",
            Self::Group => "group",
            Self::GroupAggregate => "group-aggregate",
            Self::CountTwo => "count-two",
            Self::ListTwo => "list-two",
            Self::JoinList => "join-list",
            Self::JoinCount => "join-count",
            Self::JoinAggregate => "join-aggregate",
            Self::JoinGroup => "join-group",
            Self::Without => "without",
            Self::CountWithout => "count-without",
            Self::Having => "having",
            Self::Beyond => "beyond",
            Self::JoinTop => "join-top",
        }
    }

    /// Hardness of the query by the rule of Spider's evaluation.
    pub fn hardness(self) -> &'static str {
        match self {
            Self::Count | Self::CountWhere | Self::ListWhere | Self::Aggregate => "easy",
            Self::AggregateWhere | Self::Order => "easy",
            Self::Without | Self::CountWithout | Self::Having | Self::Beyond | Self::JoinTop => {
                "hard"
            }
            _ => "medium",
        }
    }

    /// Whether its questions contain a value, so that the value alone distinguishes test questions
    /// from training questions.
    pub fn has_value(self) -> bool {
        matches!(
            self,
            Self::CountWhere
                | Self::ListWhere
                | Self::AggregateWhere
                | Self::TopMany
                | Self::CountTwo
                | Self::ListTwo
                | Self::JoinList
                | Self::JoinCount
                | Self::JoinAggregate
                | Self::Having
        )
    }
}

/// A query and the words for the slots of its question.
pub(super) struct Filled {
    pub query: Query,
    words: Vec<(&'static str, String)>,
}

impl Filled {
    /// # Panics
    /// If a template of this kind has a slot that the kind does not fill.
    pub fn word(&self, slot: &str) -> String {
        let found = self.words.iter().find(|(name, _)| *name == slot);
        found.map(|(_, word)| word.clone()).unwrap_or_else(|| panic!("unknown slot {{{slot}}}"))
    }
}

/// Draws a query of `kind` over `database`; `None` if the drawn tables lack the necessary columns.
pub(super) fn fill(
    kind: Kind,
    database: &Database,
    reserved: bool,
    draws: &mut Draws,
) -> Option<Filled> {
    let builder = Builder { database, reserved, draws, words: Vec::new() };
    match kind {
        Kind::Count
        | Kind::CountWhere
        | Kind::ListWhere
        | Kind::Aggregate
        | Kind::AggregateWhere
        | Kind::CountTwo
        | Kind::ListTwo
        | Kind::Beyond => builder.filtered(kind),
        Kind::Order | Kind::Top | Kind::TopMany => builder.ordered(kind),
        Kind::Group | Kind::GroupAggregate => builder.grouped(kind),
        Kind::JoinList
        | Kind::JoinCount
        | Kind::JoinAggregate
        | Kind::JoinGroup
        | Kind::JoinTop => builder.joined(kind),
        Kind::Without | Kind::CountWithout | Kind::Having => builder.nested(kind),
    }
}

struct Builder<'a> {
    database: &'a Database,
    reserved: bool,
    draws: &'a mut Draws,
    words: Vec<(&'static str, String)>,
}

impl Builder<'_> {
    fn filtered(mut self, kind: Kind) -> Option<Filled> {
        let t = self.any_table();
        let term = match kind {
            Kind::Count | Kind::CountWhere | Kind::CountTwo => Term::Count,
            Kind::Aggregate | Kind::AggregateWhere => self.aggregate(t)?,
            _ => self.shown(t)?,
        };
        let mut query = Query::select(vec![term], &self.table(t).name);
        match kind {
            Kind::Count | Kind::Aggregate => {}
            Kind::Beyond => query.conditions.push(self.beyond(t)?),
            _ => query.conditions.push(self.condition(t, "where")?),
        }
        if matches!(kind, Kind::CountTwo | Kind::ListTwo) {
            let second = self.condition(t, "where2")?;
            let Some(Condition::Compare(first, ..)) = query.conditions.first() else { return None };
            if matches!(&second, Condition::Compare(column, ..) if column == first) {
                return None;
            }
            query.conditions.push(second);
            let or = self.draws.chance(0.5);
            query.connective = if or { Connective::Or } else { Connective::And };
            self.set_word("con", if or { "or" } else { "and" });
        }
        self.done(query)
    }

    fn ordered(mut self, kind: Kind) -> Option<Filled> {
        let t = self.any_table();
        let shown = self.shown(t)?;
        let mut query = Query::select(vec![shown], &self.table(t).name);
        query.order = Some(self.order(t)?);
        query.limit = match kind {
            Kind::Order => None,
            Kind::TopMany => {
                let n = *self.draws.choose(if self.reserved { &[4, 6] } else { &[2, 3, 5] });
                self.set_word("n", &n.to_string());
                Some(n)
            }
            _ => Some(1),
        };
        self.done(query)
    }

    fn grouped(mut self, kind: Kind) -> Option<Filled> {
        let t = self.any_table();
        let by = self.column(t, |c| c == Content::Category)?;
        self.set_word("c", &by);
        let term = if kind == Kind::Group { Term::Count } else { self.aggregate(t)? };
        let mut query = Query::select(vec![Term::Column(by.clone()), term], &self.table(t).name);
        query.group = Some(by);
        self.done(query)
    }

    fn joined(mut self, kind: Kind) -> Option<Filled> {
        let (child, parent) = self.any_reference()?;
        let select = match kind {
            Kind::JoinCount => vec![Term::Count],
            Kind::JoinAggregate => vec![self.aggregate(child)?],
            Kind::JoinList => vec![self.shown(child)?],
            _ => vec![self.shown(parent)?],
        };
        let mut query = Query::select(select, &self.table(child).name);
        query.join = Some((self.table(parent).name.clone(), On::Key));
        match kind {
            Kind::JoinGroup => {
                let Some(Term::Column(by)) = query.select.first() else { return None };
                query.group = Some(by.clone());
                query.select.push(Term::Count);
            }
            Kind::JoinTop => {
                query.order = Some(self.order(child)?);
                query.limit = Some(1);
            }
            _ => query.conditions.push(self.condition(parent, "where")?),
        }
        self.set_table_words(child, parent);
        self.done(query)
    }

    fn nested(mut self, kind: Kind) -> Option<Filled> {
        let (child, parent) = self.any_reference()?;
        let term = if kind == Kind::CountWithout { Term::Count } else { self.shown(parent)? };
        let key = format!("{}_id", self.table(parent).name);
        let mut inner = Query::select(vec![Term::Column(key)], &self.table(child).name);
        if kind == Kind::Having {
            inner.conditions.push(self.condition(child, "where")?);
        }
        let mut query = Query::select(vec![term], &self.table(parent).name);
        let negated = kind != Kind::Having;
        query.conditions.push(Condition::Id { negated, query: Box::new(inner) });
        self.set_table_words(child, parent);
        self.done(query)
    }

    /// `None` for a circular query: the age of those whose age is 30.
    fn done(self, query: Query) -> Option<Filled> {
        let shown = |column| query.select.iter().any(|term| term.column() == Some(column));
        let conditions = query.conditions.iter().filter_map(Condition::column);
        let order = query.order.iter().filter_map(|(term, _)| term.column());
        let circular = conditions.chain(order).any(shown);
        (!circular).then_some(Filled { query, words: self.words })
    }

    fn set_word(&mut self, slot: &'static str, word: &str) {
        self.words.push((slot, word.to_string()));
    }

    fn table(&self, t: usize) -> &Table {
        &self.database.schema.tables[t]
    }

    fn any_table(&mut self) -> usize {
        let t = self.draws.below(self.database.schema.tables.len());
        let name = self.table(t).name.clone();
        self.set_word("t", &name);
        t
    }

    fn any_reference(&mut self) -> Option<(usize, usize)> {
        let references = self.database.schema.references();
        (!references.is_empty()).then(|| *self.draws.choose(&references))
    }

    fn set_table_words(&mut self, child: usize, parent: usize) {
        let (child, parent) = (self.table(child).name.clone(), self.table(parent).name.clone());
        self.set_word("t", &child);
        self.set_word("p", &parent);
    }

    /// The name of a random column that satisfies `fits`.
    fn column(&mut self, t: usize, fits: impl Fn(Content) -> bool) -> Option<String> {
        let columns = &self.database.schema.tables[t].columns;
        let fit: Vec<_> = columns.iter().filter(|c| fits(c.content)).collect();
        (!fit.is_empty()).then(|| self.draws.choose(&fit).name.clone())
    }

    /// The selected column: mostly the name of the row.
    fn shown(&mut self, t: usize) -> Option<Term> {
        let name = self.column(t, |c| c == Content::Name);
        let column = match name {
            Some(name) if self.draws.chance(0.7) => name,
            _ => self.column(t, |c| !matches!(c, Content::Id | Content::Key(_)))?,
        };
        self.set_word("c", &column);
        Some(Term::Column(column))
    }

    fn aggregate(&mut self, t: usize) -> Option<Term> {
        let column = self.column(t, Content::is_number)?;
        let function = *self.draws.choose(&Aggregate::ALL);
        self.set_word("d", &column);
        self.set_word(
            "agg",
            match function {
                Aggregate::Max => "largest",
                Aggregate::Min => "smallest",
                Aggregate::Avg => "average",
            },
        );
        Some(Term::Aggregate(function, column))
    }

    fn order(&mut self, t: usize) -> Option<(Term, bool)> {
        let column = self.column(t, Content::is_number)?;
        let down = self.draws.chance(0.5);
        self.set_word("d", &column);
        self.set_word("ext", if down { "largest" } else { "smallest" });
        Some((Term::Column(column), down))
    }

    /// `age > ( select avg( age ) from singers )`
    fn beyond(&mut self, t: usize) -> Option<Condition> {
        let column = self.column(t, Content::is_number)?;
        let above = self.draws.chance(0.5);
        self.set_word("d", &column);
        self.set_word("side", if above { "above" } else { "below" });
        let average = Term::Aggregate(Aggregate::Avg, column.clone());
        let inner = Query::select(vec![average], &self.table(t).name);
        let op = if above { Comparison::Greater } else { Comparison::Less };
        Some(Condition::CompareQuery(column, op, Box::new(inner)))
    }

    /// A condition on a column of `t`, expressed in the slot `slot`.
    fn condition(&mut self, t: usize, slot: &'static str) -> Option<Condition> {
        let columns = &self.database.schema.tables[t].columns;
        let usable = |&i: &usize| !matches!(columns[i].content, Content::Id | Content::Key(_));
        let usable: Vec<usize> = (0..columns.len()).filter(usable).collect();
        let place = *self.draws.choose(&usable);
        let column = &columns[place];
        let (op, value) = match column.content {
            Content::Integer(low, high) => self.threshold(low, high, Cell::Integer),
            Content::Tenths(low, high) => self.threshold(low, high, Cell::Tenths),
            _ => (Comparison::Equal, self.text(t, place)?),
        };
        let value = value.sql();
        let side = match op {
            Comparison::Greater => "above ",
            Comparison::Less => "below ",
            Comparison::Equal | Comparison::NotEqual => "",
        };
        let phrase = match self.draws.below(2) {
            0 => format!("with {} {side}{value}", column.name),
            _ => format!("whose {} is {side}{value}", column.name),
        };
        self.set_word(slot, &phrase);
        Some(Condition::Compare(column.name.clone(), op, value))
    }

    /// A number within the column's bounds that belongs to the split.
    fn threshold(&mut self, low: i64, high: i64, cell: fn(i64) -> Cell) -> (Comparison, Cell) {
        let op = if self.draws.chance(0.5) { Comparison::Greater } else { Comparison::Less };
        loop {
            let number = self.draws.between(low, high);
            let whole = matches!(cell(number), Cell::Tenths(n) if n % 10 == 0);
            if calc::is_reserved(number) == self.reserved && !whole {
                return (op, cell(number));
            }
        }
    }

    /// A text of the column that belongs to the split.
    fn text(&mut self, t: usize, place: usize) -> Option<Cell> {
        let fits = |cell: &&Cell| match cell {
            Cell::Text(text) => names::is_reserved(text) == self.reserved,
            _ => false,
        };
        let cells: Vec<&Cell> =
            self.database.rows[t].iter().map(|row| &row[place]).filter(fits).collect();
        (!cells.is_empty()).then(|| (*self.draws.choose(&cells)).clone())
    }
}
