//! Sentences whose number does not matter.

/// Training wordings and held-out wordings of sentences beside the story. They are about another
/// person or other things, and some of them have a verb that elsewhere says a step.
pub(in super::super) const SIDE: (&[&str], &[&str]) = (
    &[
        "{q} is {n} years old.",
        "the walk to the {place} takes {n} minutes.",
        "{q} reads {n} pages of a book.",
        "there are {n} chairs in the {place}.",
        "{q} also has {n} {others}.",
        "a ticket to the {place} costs {n} cents.",
        "{q} buys {n} {others} for the {place}.",
        "{q} lives in house number {n}.",
    ],
    &["{q} finds {n} {others} in the {place}.", "a book in the {place} has {n} pages."],
);
