//! Kinds of entities, their relations, and the phrases that express relations.
//!
//! Questions are compositional: the phrases of the first hops are nested in the question of the
//! last, "who is the mayor of" + "the city where {x} was born". A held-out wording is thus a new
//! combination of phrases that occur individually in training.

/// Kind of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Person,
    City,
    Company,
    Book,
    River,
    Country,
    Lake,
    Language,
}

impl Kind {
    /// The noun before a name of this kind: "the book kalo". Persons have none.
    pub fn noun(self) -> Option<&'static str> {
        match self {
            Self::Person => None,
            Self::City => Some("city"),
            Self::Company => Some("company"),
            Self::Book => Some("book"),
            Self::River => Some("river"),
            Self::Country => Some("country"),
            Self::Lake => Some("lake"),
            Self::Language => Some("language"),
        }
    }
}

/// A relation between two entities.
#[derive(Debug, PartialEq, Eq)]
pub struct Relation {
    /// The word before the object in the passage that states the relation; also the relation's name
    /// and the search term.
    pub keyword: &'static str,
    pub subject: Kind,
    pub object: Kind,
    /// Descriptions of the object by its subject `{x}`; empty if no question continues from it.
    pub phrases: &'static [&'static str],
    /// Questions for the object of `{x}`; empty if no hop leads to a subject.
    pub asks: &'static [&'static str],
}

impl Relation {
    /// The query that finds the object of `name`: the name, then the keyword, in the order of the
    /// passages. A keyword implies the kind of its subject, so that ambiguous names need no noun.
    pub fn query(&self, name: &str) -> String {
        format!("{name} {}", self.keyword)
    }
}

/// The relation with this keyword.
pub fn by_keyword(keyword: &str) -> Option<&'static Relation> {
    RELATIONS.iter().find(|relation| relation.keyword == keyword)
}

/// All relations. Keywords are unique.
pub const RELATIONS: &[Relation] = &[
    Relation {
        keyword: "birthplace",
        subject: Kind::Person,
        object: Kind::City,
        phrases: &["the city where {x} was born", "the birthplace of {x}"],
        asks: &["where was {x} born?", "what is the birthplace of {x}?"],
    },
    Relation {
        keyword: "home",
        subject: Kind::Person,
        object: Kind::City,
        phrases: &["the city where {x} lives", "the home of {x}"],
        asks: &["what is the city where {x} lives?", "what is the home of {x}?"],
    },
    Relation {
        keyword: "teacher",
        subject: Kind::Person,
        object: Kind::Person,
        phrases: &["the person who taught {x}", "the teacher of {x}"],
        asks: &["who taught {x}?", "who is the teacher of {x}?"],
    },
    Relation {
        keyword: "employer",
        subject: Kind::Person,
        object: Kind::Company,
        phrases: &["the company where {x} works", "the employer of {x}"],
        asks: &["what is the company where {x} works?", "what is the employer of {x}?"],
    },
    Relation {
        keyword: "friend",
        subject: Kind::Person,
        object: Kind::Person,
        phrases: &["the best friend of {x}", "the person who {x} likes best"],
        asks: &["who is the best friend of {x}?", "who does {x} like best?"],
    },
    Relation {
        keyword: "founder",
        subject: Kind::Company,
        object: Kind::Person,
        phrases: &["the person who founded {x}", "the founder of {x}"],
        asks: &["who founded {x}?", "who is the founder of {x}?"],
    },
    Relation {
        keyword: "leader",
        subject: Kind::Company,
        object: Kind::Person,
        phrases: &["the person who leads {x}", "the leader of {x}"],
        asks: &["who leads {x}?", "who is the leader of {x}?"],
    },
    Relation {
        keyword: "seat",
        subject: Kind::Company,
        object: Kind::City,
        phrases: &["the city where {x} has its seat", "the seat of {x}"],
        asks: &["where does {x} have its seat?", "what is the seat of {x}?"],
    },
    Relation {
        keyword: "writer",
        subject: Kind::Book,
        object: Kind::Person,
        phrases: &["the person who wrote {x}", "the writer of {x}"],
        asks: &[],
    },
    Relation {
        keyword: "publisher",
        subject: Kind::Book,
        object: Kind::Company,
        phrases: &["the company that published {x}", "the publisher of {x}"],
        asks: &[],
    },
    Relation {
        keyword: "scene",
        subject: Kind::Book,
        object: Kind::City,
        phrases: &["the city where {x} plays", "the scene of {x}"],
        asks: &[],
    },
    Relation {
        keyword: "land",
        subject: Kind::City,
        object: Kind::Country,
        phrases: &["the country where {x} lies", "the country of {x}"],
        asks: &["what is the country where {x} lies?", "what is the country of {x}?"],
    },
    Relation {
        keyword: "stream",
        subject: Kind::City,
        object: Kind::River,
        phrases: &["the river that runs through {x}", "the river of {x}"],
        asks: &["what river runs through {x}?", "what is the river of {x}?"],
    },
    Relation {
        keyword: "mayor",
        subject: Kind::City,
        object: Kind::Person,
        phrases: &["the mayor of {x}", "the person who is mayor of {x}"],
        asks: &["who is the mayor of {x}?", "who is mayor of {x}?"],
    },
    Relation {
        keyword: "source",
        subject: Kind::River,
        object: Kind::Country,
        phrases: &["the country where {x} rises", "the source of {x}"],
        asks: &["what is the country where {x} rises?", "what is the source of {x}?"],
    },
    Relation {
        keyword: "mouth",
        subject: Kind::River,
        object: Kind::Lake,
        phrases: &[],
        asks: &["what is the lake where {x} ends?", "what lake does {x} end in?"],
    },
    Relation {
        keyword: "capital",
        subject: Kind::Country,
        object: Kind::City,
        phrases: &["the capital of {x}", "the city that is capital of {x}"],
        asks: &["what is the capital of {x}?", "what city is capital of {x}?"],
    },
    Relation {
        keyword: "tongue",
        subject: Kind::Country,
        object: Kind::Language,
        phrases: &[],
        asks: &["what language do people speak in {x}?", "what is the language of {x}?"],
    },
];
