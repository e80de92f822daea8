//! The corpus: one or two short passages about every entity, and visits.
//!
//! A passage states two to four facts, so that the answer span has distractors next to it; the
//! order of the facts varies, so that the position does not reveal the answer. Passages about
//! visits combine names that no question asks about, as distractors for the search. Every name
//! follows a space, even at the beginning of a passage, so that it has a single tokenization.

use super::graph::Entity;
use super::relations::{Kind, Relation};
use crate::draws::Draws;
use crate::fill::fill;

/// A passage of the corpus.
#[derive(Debug, Clone, PartialEq)]
pub struct Passage {
    /// `mini-0007`.
    pub id: String,
    /// The name of the subject, or the event.
    pub title: String,
    pub text: String,
    /// The name of the entity that its facts are about; `None` for visits.
    pub subject: Option<String>,
    /// Its facts: relations with the names of their objects.
    pub facts: Vec<(&'static Relation, String)>,
    /// All distinct names of the text in order, second names included.
    pub names: Vec<String>,
    /// Whether it belongs to the test realm.
    pub reserved: bool,
}

impl Passage {
    /// The object of the first fact of a relation, whatever the subject.
    pub fn fact(&self, relation: &Relation) -> Option<&str> {
        self.facts.iter().find(|(known, _)| *known == relation).map(|(_, name)| name.as_str())
    }

    /// The name of the object of `relation` for `subject`, if the passage states it.
    pub fn object(&self, subject: &str, relation: &Relation) -> Option<&str> {
        if self.subject.as_deref() != Some(subject) {
            return None;
        }
        self.fact(relation)
    }
}

/// The texts about one kind: variants of the same facts. A slot is a relation's keyword, `{x}` for
/// the entity's name, or `{word}` for its word.
struct Texts {
    kind: Kind,
    variants: &'static [&'static str],
}

/// Each fact is the keyword followed directly by the name. A tiny model reads by copying the token
/// after an earlier occurrence of a word; a varying distance would require a grammar beyond its
/// capacity.
const TEXTS: &[Texts] = &[
    Texts {
        kind: Kind::Person,
        variants: &[
            "the {word} {x} has the birthplace {birthplace} and the home {home}. as a child {x} had the teacher {teacher}.",
            "as a child the {word} {x} had the teacher {teacher}. {x} has the home {home} and the birthplace {birthplace}.",
        ],
    },
    Texts {
        kind: Kind::Person,
        variants: &[
            "the {word} {x} works for the employer {employer}. {x} spends free days with the friend {friend}.",
            "the {word} {x} spends free days with the friend {friend}. {x} works for the employer {employer}.",
        ],
    },
    Texts {
        kind: Kind::City,
        variants: &[
            "the city {x} is in the land {land} on the stream {stream}. {x} has the mayor {mayor}.",
            "the city {x} has the mayor {mayor}. {x} is on the stream {stream} in the land {land}.",
        ],
    },
    Texts {
        kind: Kind::Company,
        variants: &[
            "the company {x} makes {word} and has the seat {seat}. {x} had the founder {founder} and has the leader {leader}.",
            "the company {x} has the leader {leader} and had the founder {founder}. {x} makes {word} and has the seat {seat}.",
        ],
    },
    Texts {
        kind: Kind::Book,
        variants: &[
            "the book {x} is by the writer {writer} and from the publisher {publisher}. {x} has the scene {scene}.",
            "the book {x} has the scene {scene}. {x} is from the publisher {publisher} and by the writer {writer}.",
        ],
    },
    Texts {
        kind: Kind::River,
        variants: &[
            "the river {x} has the source {source}. then {x} runs to the mouth {mouth}.",
            "the river {x} runs to the mouth {mouth}. {x} has the source {source}.",
        ],
    },
    Texts {
        kind: Kind::Country,
        variants: &[
            "the country {x} has the capital {capital}. people in {x} have the tongue {tongue}.",
            "people in the country {x} have the tongue {tongue}. {x} has the capital {capital}.",
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

/// The variants of each text about entities of a kind.
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

/// The passage about an entity in the wording `variant`.
pub(super) fn about(entity: &Entity, entities: &[Entity], variant: &str) -> Passage {
    let mut facts = Vec::new();
    let mut names: Vec<String> = Vec::new();
    // The first mention includes the second name.
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
