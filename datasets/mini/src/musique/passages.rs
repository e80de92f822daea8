//! The corpus: one or two short passages about every entity, and visits.
//!
//! A passage tells two to four facts, so that the span that answers has neighbours that do
//! not; the order of the facts varies, so that its place does not give it away. Passages
//! about visits bring names together that no question asks about: they are what a search
//! should not stop at. Every name follows a space, even at the beginning of a passage, so
//! that it has one form for a tokenizer.

use super::graph::Entity;
use super::relations::{Kind, Relation};
use crate::draws::Draws;
use crate::fill::fill;

/// A passage of the corpus.
#[derive(Debug, Clone, PartialEq)]
pub struct Passage {
    /// `mini-0007`.
    pub id: String,
    /// The name of what it is about, or what happened.
    pub title: String,
    pub text: String,
    /// The name of the entity that it tells facts about; none for visits.
    pub subject: Option<String>,
    /// Its facts: a relation and the name that it leads to.
    pub facts: Vec<(&'static Relation, String)>,
    /// All names of the text in their order, each once, second names included.
    pub names: Vec<String>,
    /// Whether it belongs to the realm of test.
    pub reserved: bool,
}

impl Passage {
    /// The name that `relation` leads to from `subject`, if the passage tells it.
    pub fn object(&self, subject: &str, relation: &Relation) -> Option<&str> {
        if self.subject.as_deref() != Some(subject) {
            return None;
        }
        self.facts.iter().find(|(known, _)| *known == relation).map(|(_, name)| name.as_str())
    }
}

/// The texts about one kind: variants of the same facts. A slot is a relation's keyword, or
/// `{x}` for the name, `{word}` for its word.
struct Texts {
    kind: Kind,
    variants: &'static [&'static str],
}

const TEXTS: &[Texts] = &[
    Texts {
        kind: Kind::Person,
        variants: &[
            "the {word} {x} was born in {born} and now lives in {lives}. as a child {x} was taught by {taught}.",
            "as a child the {word} {x} was taught by {taught}. {x} now lives in {lives} and was born in {born}.",
        ],
    },
    Texts {
        kind: Kind::Person,
        variants: &[
            "the {word} {x} works for the company {works}. the best friend of {x} is {friend}.",
            "the best friend of the {word} {x} is {friend}. {x} works for the company {works}.",
        ],
    },
    Texts {
        kind: Kind::City,
        variants: &[
            "the city {x} lies in the country {lies} on the bank of the river {bank}. the mayor of {x} is {mayor}.",
            "the mayor of the city {x} is {mayor}. {x} lies in the country {lies} on the bank of the river {bank}.",
        ],
    },
    Texts {
        kind: Kind::Company,
        variants: &[
            "the company {x} makes {word} and has its seat in {seat}. {x} was founded by {founded} and is led by {led}.",
            "the company {x} is led by {led} and was founded by {founded}. {x} makes {word} and has its seat in {seat}.",
        ],
    },
    Texts {
        kind: Kind::Book,
        variants: &[
            "the book {x} was written by {written} and published by the company {published}. the story of {x} plays in {plays}.",
            "the story of the book {x} plays in {plays}. {x} was published by the company {published} and written by {written}.",
        ],
    },
    Texts {
        kind: Kind::River,
        variants: &[
            "the river {x} rises in the country {rises}. then {x} flows into the lake {flows}.",
            "the river {x} flows into the lake {flows}. {x} rises in the country {rises}.",
        ],
    },
    Texts {
        kind: Kind::Country,
        variants: &[
            "the capital of the country {x} is {capital}. people in {x} speak the language {speak}.",
            "people in the country {x} speak the language {speak}. the capital of {x} is {capital}.",
        ],
    },
];

/// A visit: `{x}` and `{y}` are persons, `{z}` is a city.
const VISITS: &[&str] = &[
    "in {month} the {word} {x} came to {z} with {y}. they went to the market and then to the river.",
    "the {word} {x} met {y} in {z} in {month}. they had a long talk about the city and its people.",
];
const MONTHS: &[&str] = &["january", "march", "may", "june", "october"];

/// Visits per hundred persons.
const VISITS_PER_HUNDRED: usize = 55;

/// The texts about entities of a kind: for each, its variants.
pub(super) fn of_kind(kind: Kind) -> Vec<&'static [&'static str]> {
    TEXTS.iter().filter(|texts| texts.kind == kind).map(|texts| texts.variants).collect()
}

/// The whole corpus, in random order.
pub(super) fn write(entities: &[Entity], draws: &mut Draws) -> Vec<Passage> {
    let mut passages = Vec::new();
    for entity in entities {
        for texts in TEXTS.iter().filter(|texts| texts.kind == entity.kind) {
            let variant = *draws.choose(texts.variants);
            passages.push(about(entity, entities, variant));
        }
    }
    for reserved in [false, true] {
        let of_kind = |kind| -> Vec<&Entity> {
            entities.iter().filter(|e| e.kind == kind && e.reserved == reserved).collect()
        };
        let (persons, cities) = (of_kind(Kind::Person), of_kind(Kind::City));
        for _ in 0..persons.len() * VISITS_PER_HUNDRED / 100 {
            let city = *draws.choose(&cities);
            passages.push(visit(&persons, city, draws));
        }
    }
    draws.shuffle(&mut passages);
    for (number, passage) in passages.iter_mut().enumerate() {
        passage.id = format!("mini-{number:04}");
    }
    passages
}

/// What `variant` tells of an entity.
pub(super) fn about(entity: &Entity, entities: &[Entity], variant: &str) -> Passage {
    let mut facts = Vec::new();
    let mut names: Vec<String> = Vec::new();
    // The first mention tells the second name as well.
    let mut alias = entity.alias.as_ref();
    let text = fill(variant, |slot| match slot {
        "word" => entity.word.to_string(),
        "x" => {
            if !names.contains(&entity.name) {
                names.push(entity.name.clone());
            }
            let Some(other) = alias.take() else { return entity.name.clone() };
            names.push(other.clone());
            format!("{} or {other}", entity.name)
        }
        keyword => {
            let fact = entity.facts.iter().find(|(r, _)| r.keyword == keyword);
            let Some(&(relation, object)) = fact else {
                panic!("a text has an unknown slot {{{keyword}}}")
            };
            let name = &entities[object].name;
            facts.push((relation, name.clone()));
            names.push(name.clone());
            name.clone()
        }
    });
    Passage {
        id: String::new(),
        title: entity.name.clone(),
        text,
        subject: Some(entity.name.clone()),
        facts,
        names,
        reserved: entity.reserved,
    }
}

fn visit(persons: &[&Entity], city: &Entity, draws: &mut Draws) -> Passage {
    let x = draws.choose(persons);
    let y = loop {
        let y = draws.choose(persons);
        if y.name != x.name {
            break y;
        }
    };
    let month = *draws.choose(MONTHS);
    let text = *draws.choose(VISITS);
    let text = fill(text, |slot| match slot {
        "x" => x.name.clone(),
        "y" => y.name.clone(),
        "z" => city.name.clone(),
        "word" => x.word.to_string(),
        _ => month.to_string(),
    });
    let mut names = vec![x.name.clone(), y.name.clone(), city.name.clone()];
    names.sort_by_key(|name| text.find(&format!(" {name}")));
    Passage {
        id: String::new(),
        title: format!("visit of {}", x.name),
        text,
        subject: None,
        facts: Vec::new(),
        names,
        reserved: x.reserved,
    }
}
