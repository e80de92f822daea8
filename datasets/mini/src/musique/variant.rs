//! What differs between the worlds over one corpus.

use std::ops::RangeInclusive;

use super::{MiniMusique, PARAGRAPHS};

/// The questions of a world, apart from their templates.
#[derive(Debug, Clone)]
pub(super) struct Variant {
    pub name: &'static str,
    /// The part of the name in the ids of tasks.
    pub id: &'static str,
    /// Numbers of hops from which each training question draws one.
    pub trained: Vec<usize>,
    /// The cycle of the numbers of hops of test questions.
    pub tested: &'static [usize],
    /// Paragraphs of a question.
    pub paragraphs: usize,
    /// Whether tasks have the label `horizon`.
    pub labels_horizon: bool,
}

impl Variant {
    pub fn short() -> Self {
        const HOPS: &[usize] = &[2, 2, 3, 2, 3, 2, 2, 3, 2, 3];
        Self {
            name: "mini-musique",
            id: "mini",
            trained: HOPS.to_vec(),
            tested: HOPS,
            paragraphs: PARAGRAPHS,
            labels_horizon: false,
        }
    }
}

impl MiniMusique {
    /// The same world with training questions of `hops` hops, each number equally often, also
    /// among the texts for a tokenizer. Test questions do not change.
    ///
    /// # Errors
    /// If the range is empty or the world has no questions of one of these lengths.
    pub fn with_hops(mut self, hops: RangeInclusive<usize>) -> Result<Self, UnsupportedHops> {
        let tested = self.variant.tested;
        if hops.is_empty() || !hops.clone().all(|number| tested.contains(&number)) {
            let bound = |bound: Option<&usize>| bound.copied().unwrap_or_default();
            return Err(UnsupportedHops {
                world: self.variant.name,
                hops,
                least: bound(tested.iter().min()),
                most: bound(tested.iter().max()),
            });
        }
        self.variant.trained = hops.collect();
        Ok(self)
    }
}

/// A world has no questions of these numbers of hops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{world} has questions of {least} to {most} hops, not of {} to {}; set a range within these \
     bounds, the smaller number first",
    hops.start(), hops.end()
)]
pub struct UnsupportedHops {
    world: &'static str,
    hops: RangeInclusive<usize>,
    least: usize,
    most: usize,
}
