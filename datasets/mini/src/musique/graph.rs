//! The entities of a world and what relates them.
//!
//! There are two realms that share no name: one that training asks about, and one, a third of
//! its size, that test asks about. No relation leads from one to the other. Inside a realm
//! some books, companies and rivers are called like a person or a city, so that a name alone
//! does not say which entity is meant.

use leyden_core::SeedTree;

use super::relations::{Kind, RELATIONS, Relation};
use crate::draws::Draws;
use crate::names::Supply;

/// An entity, its names and its facts.
#[derive(Debug, Clone)]
pub(super) struct Entity {
    pub kind: Kind,
    pub name: String,
    /// A second name, which only its own passages mention.
    pub alias: Option<String>,
    /// Whether it belongs to the realm of test.
    pub reserved: bool,
    /// A word for colour: what a person does, what a company makes.
    pub word: &'static str,
    /// One per relation of its kind, in the order of [`RELATIONS`]; by entity number.
    pub facts: Vec<(&'static Relation, usize)>,
}

impl Entity {
    /// The entity that `relation` leads to.
    pub fn object(&self, relation: &Relation) -> Option<usize> {
        self.facts.iter().find(|(known, _)| *known == relation).map(|&(_, object)| object)
    }
}

/// Entities of a kind: in training's realm, and in test's.
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

/// One entity in so many has a second name.
const ALIAS: f64 = 0.1;
/// One book, company or river in so many is called like a person or a city.
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

/// The name of a person or a city of this realm that nothing else is called by yet.
fn namesake(realm: &[Entity], draws: &mut Draws) -> String {
    let alone = |e: &&Entity| realm.iter().filter(|other| other.name == e.name).count() == 1;
    let fit: Vec<&Entity> = realm
        .iter()
        .filter(|e| matches!(e.kind, Kind::Person | Kind::City))
        .filter(alone)
        .collect();
    draws.choose(&fit).name.clone()
}

/// Draws the facts of the realm that begins at entity number `first`. The facts of an entity
/// lead to different names, none of them its own, or a wrong span could be right by chance.
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
    crown(entities, first, draws);
}

/// Gives every country a capital that lies in it; a country without a city gets one.
fn crown(entities: &mut [Entity], first: usize, draws: &mut Draws) {
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
