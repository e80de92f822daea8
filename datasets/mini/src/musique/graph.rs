//! The entities of a world and their relations.
//!
//! There are two realms without common names: one for training questions, and one of a third of
//! its size for test questions. No relation connects them. Within a realm some books, companies
//! and rivers have the name of a person or a city, so that a name alone does not identify an
//! entity.

use leyden_core::SeedTree;

use super::relations::{Kind, RELATIONS, Relation};
use crate::draws::Draws;
use crate::names::Supply;

/// An entity, its names and its facts.
#[derive(Debug, Clone)]
pub(super) struct Entity {
    pub kind: Kind,
    pub name: String,
    /// A second name, which occurs only in the entity's own passages.
    pub alias: Option<String>,
    /// Whether it belongs to the test realm.
    pub reserved: bool,
    /// A decorative detail: a person's job or a company's product.
    pub word: &'static str,
    /// One fact per relation of its kind, in the order of [`RELATIONS`]; objects are entity
    /// numbers.
    pub facts: Vec<(&'static Relation, usize)>,
}

impl Entity {
    /// The object of `relation`.
    pub fn object(&self, relation: &Relation) -> Option<usize> {
        self.facts.iter().find(|(known, _)| *known == relation).map(|&(_, object)| object)
    }
}

/// Number of entities per kind in the training realm and in the test realm.
const SIZES: [(Kind, usize, usize); 8] = [
    (Kind::Person, 320, 104),
    (Kind::City, 180, 60),
    (Kind::Company, 130, 42),
    (Kind::Book, 180, 60),
    (Kind::River, 60, 20),
    (Kind::Country, 30, 10),
    (Kind::Lake, 24, 8),
    (Kind::Language, 30, 10),
];

const JOBS: &[&str] =
    &["actor", "baker", "doctor", "farmer", "judge", "lawyer", "painter", "pilot", "singer"];
const GOODS: &[&str] = &["boats", "clocks", "lamps", "paper", "shoes", "toys", "wine"];

/// Probability that an entity has a second name.
const ALIAS: f64 = 0.1;
/// Probability that a book, company or river has the name of a person or a city.
const NAMESAKE: f64 = 0.15;

/// All entities of a world.
pub(super) fn draw(seed: SeedTree) -> Vec<Entity> {
    let mut names = Supply::new(seed.child("names"));
    let mut draws = Draws::new(seed.child("entities"));
    let mut entities = Vec::new();
    for reserved in [false, true] {
        let first = entities.len();
        for (kind, training, test) in SIZES {
            let number = if reserved { test } else { training };
            for _ in 0..number {
                let name = match kind {
                    Kind::Book | Kind::Company | Kind::River if draws.chance(NAMESAKE) => {
                        namesake(&entities[first..], &mut draws)
                    }
                    _ => names.next(reserved),
                };
                let aliased = matches!(kind, Kind::Person | Kind::City | Kind::Company);
                let alias = (aliased && draws.chance(ALIAS)).then(|| names.next(reserved));
                let word = *draws.choose(if kind == Kind::Person { JOBS } else { GOODS });
                let facts = Vec::new();
                entities.push(Entity { kind, name, alias, reserved, word, facts });
            }
        }
        relate(&mut entities, first, &mut draws);
    }
    entities
}

/// The name of a person or a city of this realm that no other entity has yet.
fn namesake(realm: &[Entity], draws: &mut Draws) -> String {
    let alone = |e: &&Entity| realm.iter().filter(|other| other.name == e.name).count() == 1;
    let fit: Vec<&Entity> = realm
        .iter()
        .filter(|e| matches!(e.kind, Kind::Person | Kind::City))
        .filter(alone)
        .collect();
    draws.choose(&fit).name.clone()
}

/// Draws the facts of the realm that begins at entity number `first`. The objects of an entity
/// have distinct names that differ from its own; otherwise a wrong span could be correct by chance.
fn relate(entities: &mut [Entity], first: usize, draws: &mut Draws) {
    let of_kind = |kind: Kind| -> Vec<usize> {
        (first..entities.len()).filter(|&i| entities[i].kind == kind).collect()
    };
    let pools: Vec<Vec<usize>> =
        RELATIONS.iter().map(|relation| of_kind(relation.object)).collect();
    for i in first..entities.len() {
        for (relation, pool) in RELATIONS.iter().zip(&pools) {
            if relation.subject != entities[i].kind || relation.keyword == "capital" {
                continue;
            }
            let taken = |name: &str| {
                name == entities[i].name
                    || entities[i].facts.iter().any(|&(_, o)| entities[o].name == name)
            };
            let object = loop {
                let object = *draws.choose(pool);
                if !taken(&entities[object].name) {
                    break object;
                }
            };
            entities[i].facts.push((relation, object));
        }
    }
    assign_capitals(entities, first, draws);
}

/// Gives every country a capital within it; a country without a city gets one.
fn assign_capitals(entities: &mut [Entity], first: usize, draws: &mut Draws) {
    let of_kind = |entities: &[Entity], kind| -> Vec<usize> {
        (first..entities.len()).filter(|&i| entities[i].kind == kind).collect()
    };
    let relation = |keyword| RELATIONS.iter().find(|r| r.keyword == keyword);
    let (Some(capital), Some(land)) = (relation("capital"), relation("land")) else { return };
    let cities = of_kind(entities, Kind::City);
    for country in of_kind(entities, Kind::Country) {
        let inside: Vec<usize> = cities
            .iter()
            .copied()
            .filter(|&city| entities[city].object(land) == Some(country))
            .collect();
        let city = if inside.is_empty() { *draws.choose(&cities) } else { *draws.choose(&inside) };
        if inside.is_empty() {
            for fact in entities[city].facts.iter_mut().filter(|(r, _)| *r == land) {
                fact.1 = country;
            }
        }
        entities[country].facts.insert(0, (capital, city));
    }
}
