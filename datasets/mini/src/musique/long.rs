//! mini-musique-long: questions of two to six hops over the corpus of mini-musique.
//!
//! A policy is trained on questions of two to four hops by default and tested on all lengths, so
//! that the test shows both how credit is assigned along a rollout and whether the policy
//! continues beyond the longest rollouts of training.
//!
//! What is held out are pairs of successive relations, such as the home of the teacher. A chain
//! is held out if it contains one of these pairs. Chains that are held out as a whole would occur
//! in training as parts of longer ones; and a chain longer than all of training can still be
//! called seen: all its pairs occur in training.

use std::ops::RangeInclusive;

use leyden_core::SeedTree;

use super::MiniMusique;
use super::relations::Relation;
use super::templates::{self, Template};
use super::variant::Variant;

/// Numbers of hops of mini-musique-long.
pub const LONG_HOPS: RangeInclusive<usize> = 2..=6;

/// Paragraphs of a question of mini-musique-long, as in the real dataset.
pub const LONG_PARAGRAPHS: usize = 20;

/// Pairs of successive relations that are reserved for test. In training each of these relations
/// occurs with other neighbours. 9% of the chains of two hops contain a pair, 20% of three, 29% of
/// four, 36% of five and 42% of six.
const HELD_OUT: &[(&str, &str)] = &[
    ("teacher", "home"),
    ("friend", "employer"),
    ("mayor", "birthplace"),
    ("seat", "stream"),
    ("home", "land"),
];

impl MiniMusique {
    /// mini-musique-long: the entities and passages of [`MiniMusique::new`] with other questions.
    /// Training questions have two to four hops ([`MiniMusique::with_hops`] changes this), test
    /// questions two to six; each ten successive ones have each number of hops once with a
    /// training template and once with a held-out one. The label `horizon` groups the numbers of
    /// hops as `2-3`, `4-5` and `6`.
    pub fn long(seed: u64) -> Self {
        let root = SeedTree::new(seed).child("mini-musique");
        let variant = Variant {
            name: "mini-musique-long",
            id: "mini-musique-long",
            trained: vec![2, 3, 4],
            tested: &[2, 3, 4, 5, 6],
            paragraphs: LONG_PARAGRAPHS,
            labels_horizon: true,
        };
        Self::of(root, root.child("long"), variant, all())
    }
}

/// The label of questions of `hops` hops.
pub(super) fn horizon(hops: usize) -> &'static str {
    match hops {
        ..=3 => "2-3",
        4 | 5 => "4-5",
        _ => "6",
    }
}

/// All templates, in a fixed order.
fn all() -> Vec<Template> {
    LONG_HOPS.flat_map(templates::chains).flat_map(|chain| wordings(&chain)).collect()
}

/// Only the first hop may use a phrase that continues after its subject, such as "the city where
/// {x} was born": several of them within each other are hard to read.
fn wordings(chain: &[&'static Relation]) -> Vec<Template> {
    let is_readable = |hop: usize, phrase: &str| hop == 0 || phrase.ends_with("{x}");
    let held_out =
        chain.windows(2).any(|pair| HELD_OUT.contains(&(pair[0].keyword, pair[1].keyword)));
    let texts = templates::texts(chain, is_readable).into_iter().enumerate();
    texts.map(|(number, text)| Template::new(chain, number, text, held_out)).collect()
}
