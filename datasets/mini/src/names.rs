//! Invented names of two syllables.
//!
//! Real names would let models answer from knowledge of the real world. These have no meaning, one
//! form, and two parts: a start and an end, which a byte-pair tokenizer learns as one token each,
//! so that copying a name is copying two tokens. There are fewer ends than vowel-consonant pairs
//! between start and end, so that a tokenizer of this language alone does not merge across the
//! boundary; one that is also trained on other text needs the boundary as a pattern
//! ([`start_pattern`]).
//!
//! A quarter of all names is permanently reserved for test, in every world and under every seed.
//! They consist of the same syllables as the others: a new name is a new pair of known syllables.

use std::sync::LazyLock;

use leyden_core::SeedTree;

use crate::draws::Draws;

const START_CONSONANTS: &str = "bdfghjklmnprstvw";
const START_VOWELS: &str = "aeou";
const END_CONSONANTS: &str = "bdklmnprstvz";
// No `e`: English has too many words like `name` and `lake`.
const END_VOWELS: &str = "aio";

/// A regular expression that matches the start of every name with the space before it. A tokenizer
/// that pre-splits by it has two tokens for each name, whatever the position of the name and the
/// rest of the vocabulary.
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

/// Whether a name is reserved for test. A fixed property of a quarter of all names.
pub fn is_reserved(name: &str) -> bool {
    SeedTree::new(0).child("reserved names").child(name).seed().is_multiple_of(4)
}

/// The names that are not reserved for test.
pub(crate) fn free() -> &'static [String] {
    static FREE: LazyLock<Vec<String>> =
        LazyLock::new(|| all().into_iter().filter(|name| !is_reserved(name)).collect());
    &FREE
}

/// Names in random order without repetition.
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

    /// The next name, a reserved one if `reserved`.
    ///
    /// # Panics
    /// If there is none left. The sizes of the worlds are fixed and covered by tests.
    pub fn next(&mut self, reserved: bool) -> String {
        let names = if reserved { &mut self.kept } else { &mut self.free };
        names.pop().expect("a world needs more names than there are")
    }
}

/// Number of names listed in a copying exercise.
const LISTED: usize = 8;

/// Number of draws from them.
const SAID: usize = 24;

/// Copying exercises: a list of names and many draws from it. No two of the names have the same
/// first syllable, so that the first syllable determines the second; the next name is
/// unpredictable. This trains copying by content instead of by position. The draws repeat, because
/// without repetition models learn to predict the remaining names instead.
#[derive(Debug, Clone)]
pub struct CopyingExercises {
    node: SeedTree,
}

impl CopyingExercises {
    pub fn new(seed: u64) -> Self {
        Self { node: SeedTree::new(seed).child("mini-musique").child("names") }
    }

    /// Exercise number `index` of an endless stream: the names, and the draws from them.
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
        let list = text(&listed);
        let drawn: Vec<&String> = (0..SAID).map(|_| *draws.choose(&listed)).collect();
        let drawn = text(&drawn);
        (list, drawn)
    }
}
