//! The sentences of mini-spider.
//!
//! A row is one wording with slots: `{t}` the table of the question, `{p}` the table that its key
//! refers to, `{c}` the selected column, `{d}` a numeric column, `{where}` and `{where2}`
//! conditions, `{con}` "and" or "or", `{agg}` and `{ext}` the words for max, min and avg and for
//! the direction of an order, `{n}` a number of rows. The rows under `held_out` never occur in
//! training: they combine known phrases in a new way.

use super::kinds::Kind;

/// A wording of one kind of question.
#[derive(Debug, Clone)]
pub struct Template {
    /// The kind and a number: `count-where#2`, or `count-where#held1` for a held-out template.
    pub id: String,
    /// The sentence with its slots.
    pub text: &'static str,
    /// Whether the template is reserved for test.
    pub held_out: bool,
    pub(super) kind: Kind,
}

/// All templates, in the order of the table.
pub(super) fn all() -> Vec<Template> {
    let mut list = Vec::new();
    for (kind, training, held_out) in TEMPLATES {
        for (texts, held_out, mark) in [(training, false, ""), (held_out, true, "held")] {
            for (i, text) in texts.iter().enumerate() {
                let id = format!("{}#{mark}{}", kind.name(), i + 1);
                list.push(Template { id, text, held_out, kind: *kind });
            }
        }
    }
    list
}

type Row = (Kind, &'static [&'static str], &'static [&'static str]);

const TEMPLATES: &[Row] = &[
    (
        Kind::Count,
        &["how many {t} are there?", "count all {t}.", "what is the number of {t}?"],
        &["what is the number of all {t}?"],
    ),
    (
        Kind::CountWhere,
        &[
            "how many {t} are there {where}?",
            "count all {t} {where}.",
            "what is the number of {t} {where}?",
        ],
        &["what is the number of all {t} {where}?"],
    ),
    (
        Kind::ListWhere,
        &[
            "show the {c} of all {t} {where}.",
            "what is the {c} of the {t} {where}?",
            "find the {c} of the {t} {where}.",
        ],
        &["find the {c} of all {t} {where}."],
    ),
    (
        Kind::Aggregate,
        &[
            "what is the {agg} {d} of the {t}?",
            "show the {agg} {d} of all {t}.",
            "find the {agg} {d} of the {t}.",
        ],
        &["what is the {agg} {d} of all {t}?"],
    ),
    (
        Kind::AggregateWhere,
        &[
            "what is the {agg} {d} of the {t} {where}?",
            "show the {agg} {d} of all {t} {where}.",
            "find the {agg} {d} of the {t} {where}.",
        ],
        &["find the {agg} {d} of all {t} {where}."],
    ),
    (
        Kind::Order,
        &[
            "show the {c} of all {t}, {ext} {d} first.",
            "find the {c} of all {t}, from {ext} {d} on.",
            "what is the {c} of the {t}, {ext} {d} first?",
        ],
        &["show the {c} of the {t}, from {ext} {d} on."],
    ),
    (
        Kind::Top,
        &[
            "which {c} of the {t} has the {ext} {d}?",
            "show the one {c} of the {t} with the {ext} {d}.",
            "find the one {c} of the {t} with the {ext} {d}.",
        ],
        &["what is the one {c} of the {t} with the {ext} {d}?"],
    ),
    (
        Kind::TopMany,
        &[
            "show the {c} of the {n} {t} with the {ext} {d}.",
            "find the {c} of the {n} {t} with the {ext} {d}.",
            "which {n} {t} have the {ext} {d}? show the {c}.",
        ],
        &["what is the {c} of the {n} {t} with the {ext} {d}?"],
    ),
    (
        Kind::Group,
        &[
            "how many {t} are there for each {c}?",
            "show each {c} and the number of {t}.",
            "count all {t} for each {c}.",
        ],
        &["what is the number of {t} for each {c}?"],
    ),
    (
        Kind::GroupAggregate,
        &[
            "what is the {agg} {d} of the {t} for each {c}?",
            "show each {c} and the {agg} {d} of the {t}.",
            "find the {agg} {d} of all {t} for each {c}.",
        ],
        &["show the {agg} {d} of the {t} for each {c}."],
    ),
    (
        Kind::CountTwo,
        &[
            "how many {t} are there {where} {con} {where2}?",
            "count all {t} {where} {con} {where2}.",
            "what is the number of {t} {where} {con} {where2}?",
        ],
        &["what is the number of all {t} {where} {con} {where2}?"],
    ),
    (
        Kind::ListTwo,
        &[
            "show the {c} of all {t} {where} {con} {where2}.",
            "what is the {c} of the {t} {where} {con} {where2}?",
            "find the {c} of the {t} {where} {con} {where2}.",
        ],
        &["find the {c} of all {t} {where} {con} {where2}."],
    ),
    (
        Kind::JoinList,
        &[
            "show the {c} of all {t} of the {p} {where}.",
            "what is the {c} of the {t} of the {p} {where}?",
            "find the {c} of the {t} of the {p} {where}.",
        ],
        &["find the {c} of all {t} of the {p} {where}."],
    ),
    (
        Kind::JoinCount,
        &[
            "how many {t} of the {p} {where} are there?",
            "count all {t} of the {p} {where}.",
            "what is the number of {t} of the {p} {where}?",
        ],
        &["what is the number of all {t} of the {p} {where}?"],
    ),
    (
        Kind::JoinAggregate,
        &[
            "what is the {agg} {d} of the {t} of the {p} {where}?",
            "show the {agg} {d} of all {t} of the {p} {where}.",
            "find the {agg} {d} of the {t} of the {p} {where}.",
        ],
        &["find the {agg} {d} of all {t} of the {p} {where}."],
    ),
    (
        Kind::JoinGroup,
        &[
            "how many {t} are there for each {c} of the {p}?",
            "show each {c} of the {p} and the number of {t}.",
            "count all {t} for each {c} of the {p}.",
        ],
        &["what is the number of {t} for each {c} of the {p}?"],
    ),
    (
        Kind::Without,
        &[
            "show the {c} of all {p} without {t}.",
            "what is the {c} of the {p} without {t}?",
            "find the {c} of the {p} without {t}.",
        ],
        &["find the {c} of all {p} without {t}."],
    ),
    (
        Kind::CountWithout,
        &[
            "how many {p} are there without {t}?",
            "count all {p} without {t}.",
            "what is the number of {p} without {t}?",
        ],
        &["what is the number of all {p} without {t}?"],
    ),
    (
        Kind::Having,
        &[
            "show the {c} of all {p} that have {t} {where}.",
            "what is the {c} of the {p} that have {t} {where}?",
            "find the {c} of the {p} that have {t} {where}.",
        ],
        &["find the {c} of all {p} that have {t} {where}."],
    ),
    (
        Kind::Beyond,
        &[
            "show the {c} of all {t} with {d} {side} the average.",
            "what is the {c} of the {t} whose {d} is {side} the average?",
            "find the {c} of the {t} with {d} {side} the average.",
        ],
        &["find the {c} of all {t} whose {d} is {side} the average."],
    ),
    (
        Kind::JoinTop,
        &[
            "which {c} of the {p} has the {t} with the {ext} {d}?",
            "show the one {c} of the {p} that have the {t} with the {ext} {d}.",
            "find the one {c} of the {p} that have the {t} with the {ext} {d}.",
        ],
        &["what is the one {c} of the {p} that have the {t} with the {ext} {d}?"],
    ),
];
