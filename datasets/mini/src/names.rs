//! Invented names of two syllables.
//!
//! Real names would bring knowledge of the real world into questions that are to be answered
//! from the world itself. These have no meaning, one form, and few parts: a start and an end,
//! which a byte-pair tokenizer learns as one token each, so that a name is two tokens to copy.
//! There are fewer ends than pairs of a vowel and a consonant between start and end, so that a
//! tokenizer of this language alone does not merge across the seam; one that learns others
//! beside it is told where the seam is ([`start_pattern`]).
//!
//! A quarter of all names belongs to test for good, in every world and under every seed. Its
//! syllables are those of the other names: a new name is a new pair, not a new sound.

use std::sync::LazyLock;

use leyden_core::SeedTree;

use crate::draws::Draws;

const START_CONSONANTS: &str = "bdfghjklmnprstvw";
const START_VOWELS: &str = "aeou";
const END_CONSONANTS: &str = "bdklmnprstvz";
// No `e`: English has too many words like `name` and `lake`.
const END_VOWELS: &str = "aio";

/// A regular expression that finds the start of every name, the space before it included: a
/// tokenizer that takes it for a word of its own has two tokens for each name, wherever the
/// name stands and whatever other words it knows.
pub fn start_pattern() -> String {
    format!(
        "(?: |(?<![A-Za-z ]))[{START_CONSONANTS}][{START_VOWELS}](?=[{END_CONSONANTS}][{END_VOWELS}](?![A-Za-z]))"
    )
}

/// All names in a fixed order: 64 starts by 36 ends, 2,304 in all.
pub fn all() -> Vec<String> {
    let pairs = |consonants: &'static str, vowels: &'static str| {
        consonants.chars().flat_map(move |c| vowels.chars().map(move |v| format!("{c}{v}")))
    };
    pairs(START_CONSONANTS, START_VOWELS)
        .flat_map(|start| pairs(END_CONSONANTS, END_VOWELS).map(move |end| format!("{start}{end}")))
        .collect()
}

/// Whether a name is kept for test. A fixed property of the name, a quarter of all.
pub fn is_reserved(name: &str) -> bool {
    SeedTree::new(0).child("reserved names").child(name).seed().is_multiple_of(4)
}

/// Those that are not kept for test.
pub(crate) fn free() -> &'static [String] {
    static FREE: LazyLock<Vec<String>> =
        LazyLock::new(|| all().into_iter().filter(|name| !is_reserved(name)).collect());
    &FREE
}

/// Names in a random order, each given out once.
pub(crate) struct Supply {
    free: Vec<String>,
    kept: Vec<String>,
}

impl Supply {
    pub fn new(seed: SeedTree) -> Self {
        let mut names = all();
        Draws::new(seed).shuffle(&mut names);
        let (kept, free) = names.into_iter().partition(|name| is_reserved(name));
        Self { free, kept }
    }

    /// The next name, of those kept for test if `reserved`.
    ///
    /// # Panics
    /// If there is none left: a world's size is fixed, and its tests build it.
    pub fn next(&mut self, reserved: bool) -> String {
        let names = if reserved { &mut self.kept } else { &mut self.free };
        names.pop().expect("a world needs more names than there are")
    }
}

/// Names of an exercise in copying.
const LISTED: usize = 8;

/// Names that are drawn from them and said.
const SAID: usize = 24;

/// Exercises in copying: names, and many draws from them. No two of the names begin alike, so
/// that the first syllable tells the second; which name comes next, nothing tells. Who can do
/// this copies a name by what it is and not by where it stands. The draws repeat: were each
/// name said once, then knowing which are still to come would be half the answer, and models
/// learn that instead.
#[derive(Debug, Clone)]
pub struct NamesAgain {
    node: SeedTree,
}

impl NamesAgain {
    pub fn new(seed: u64) -> Self {
        Self { node: SeedTree::new(seed).child("mini-musique").child("names") }
    }

    /// Exercise number `index` of an endless stream: the names, and what is drawn from them.
    pub fn exercise(&self, index: u64) -> (String, String) {
        let mut draws = Draws::new(self.node.index(index));
        let mut listed: Vec<&String> = Vec::new();
        while listed.len() < LISTED {
            let name = draws.choose(free());
            if listed.iter().all(|known| known[..2] != name[..2]) {
                listed.push(name);
            }
        }
        let text = |names: &[&String]| names.iter().map(|n| format!(" {n}")).collect::<String>();
        let told = text(&listed);
        let again: Vec<&String> = (0..SAID).map(|_| *draws.choose(&listed)).collect();
        let again = text(&again);
        (told, again)
    }
}
