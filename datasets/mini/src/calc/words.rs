//! The words for the slots of templates, and the phrases that express operations.
//!
//! Every word has one form, lower case, anywhere in a sentence, so that a byte-pair tokenizer gives
//! it one token and a small model sees it often. Nouns appear in the plural only.

/// `{p}` and `{q}`.
pub const PEOPLE: &[&str] = &[
    "anna", "ben", "carla", "david", "emma", "felix", "grace", "hugo", "ida", "jonas", "karin",
    "leo", "maria", "nils", "olga", "paul", "rosa", "simon", "tara", "victor",
];

/// `{items}` and `{others}`.
pub const ITEMS: &[&str] = &[
    "apples", "beads", "books", "bottles", "bricks", "buttons", "candles", "cards", "coins",
    "cups", "eggs", "flowers", "lamps", "lemons", "marbles", "nails", "pencils", "plates",
    "shells", "spoons", "stamps", "stones", "tickets", "toys",
];

/// `{boxes}` and `{sacks}`.
pub const CONTAINERS: &[&str] = &[
    "bags", "baskets", "boxes", "buckets", "carts", "crates", "drawers", "jars", "sacks", "trays",
];

/// `{group}`.
pub const GROUPS: &[&str] =
    &["children", "families", "farmers", "friends", "players", "students", "teams", "workers"];

/// `{place}`.
pub const PLACES: &[&str] = &[
    "attic", "factory", "garden", "hall", "kitchen", "library", "market", "museum", "office",
    "school", "shop", "station",
];

/// Phrases that express an operation, in the form of a normalised template (see
/// `Template::normalised`: `#` is a number, `{p}` any person). Templates combine them; every
/// phrase of a held-out template also occurs in several training templates.
pub const CUES: &[(char, &str)] = &[
    ('+', "buys # more {items}"),
    ('+', "finds # more {items}"),
    ('+', "another # {items} arrive"),
    ('+', "adds # {items}"),
    ('+', "gets # {items} from {p}"),
    ('+', "has # {items} and {p} has # {items}"),
    ('+', "and # {items} on friday"),
    ('+', "# {items} and # {items}"),
    ('-', "gives away #"),
    ('-', "loses # {items}"),
    ('-', "sells # {items}"),
    ('-', "# of the # {items} in the {place}"),
    ('-', "uses up #"),
    ('-', "takes # {items}"),
    ('-', "are taken away"),
    ('-', "break"),
    ('-', "how many more {items} does"),
    ('-', "how many more dollars does"),
    ('-', "fewer {items} than"),
    ('-', "before that"),
    ('*', "# {boxes} with # {items} in each"),
    ('*', "buys # {boxes} of # {items} each"),
    ('*', "times as many {items}"),
    ('*', "# {items} every day for # days"),
    ('*', "cost # dollars each"),
    ('*', "each of the # {group}"),
    ('*', "hold # {items} each"),
    ('*', "for # dollars each"),
    ('/', "equally among # {group}"),
    ('/', "split into # equal groups"),
    ('/', "into {boxes} of # {items} each"),
    ('/', "evenly over # {boxes}"),
    ('/', "the same number in each"),
    ('/', "# {group} share"),
];
