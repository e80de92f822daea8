//! Stories of goods: a stock, a purse, a recipe.

use super::{Story, Wordings};
use crate::calc::Operator::{Add, Divide, Multiply, Subtract};

pub(super) const STORIES: &[Story] = &[
    Story {
        name: "stock",
        openings: &["the {place} has {n} {items}.", "there are {n} {items} in the {place}."],
        steps: &[
            Wordings {
                operator: Add,
                earlier: false,
                training: &[
                    "{p} brings {n} more {items}.",
                    "a cart arrives with {n} {items}.",
                    "the {place} buys {n} {items}.",
                    "then {n} {items} are added.",
                ],
                held_out: &["a cart brings {n} more {items}."],
            },
            Wordings {
                operator: Subtract,
                earlier: false,
                training: &[
                    "{n} {items} are sold.",
                    "{p} takes away {n} {items}.",
                    "a cart leaves with {n} {items}.",
                    "{n} of the {items} break.",
                ],
                held_out: &["{p} sells {n} of the {items}."],
            },
            Wordings {
                operator: Multiply,
                earlier: false,
                training: &[
                    "soon there are {n} times as many {items}.",
                    "the stock grows to {n} times its size.",
                    "{p} multiplies the number of {items} by {n}.",
                    "the {place} now has {n} times as many {items}.",
                ],
                held_out: &["the number of {items} grows to {n} times its size."],
            },
            Wordings {
                operator: Divide,
                earlier: false,
                training: &[
                    "the {items} are split into {n} equal parts and one stays.",
                    "only one in {n} {items} stays.",
                    "{p} divides the number of {items} by {n}.",
                    "the stock shrinks to one of {n} equal parts.",
                ],
                held_out: &["the stock is split into {n} equal parts and one stays."],
            },
            Wordings {
                operator: Add,
                earlier: true,
                training: &[
                    "{p} brings as many {items} as there were at {time}.",
                    "a cart arrives with as many {items} as there were at {time}.",
                    "the {place} buys as many {items} as it had at {time}.",
                ],
                held_out: &["a cart brings as many {items} as the {place} had at {time}."],
            },
            Wordings {
                operator: Subtract,
                earlier: true,
                training: &[
                    "as many {items} are sold as there were at {time}.",
                    "{p} takes away as many {items} as the {place} had at {time}.",
                    "a cart leaves with as many {items} as there were at {time}.",
                ],
                held_out: &["{p} sells as many {items} as there were at {time}."],
            },
        ],
        questions: &[
            "how many {items} are in the {place} now?",
            "how many {items} does the {place} have in the end?",
        ],
    },
    Story {
        name: "purse",
        openings: &["{p} has {n} coins in a purse.", "there are {n} coins in the purse of {p}."],
        steps: &[
            Wordings {
                operator: Add,
                earlier: false,
                training: &[
                    "{p} earns {n} coins.",
                    "{q} gives {p} {n} coins.",
                    "{p} finds {n} more coins.",
                    "{p} sells a lamp for {n} coins.",
                ],
                held_out: &["{p} gets {n} coins from {q}."],
            },
            Wordings {
                operator: Subtract,
                earlier: false,
                training: &[
                    "{p} spends {n} coins.",
                    "{p} gives {q} {n} coins.",
                    "{p} loses {n} coins.",
                    "{p} buys a lamp for {n} coins.",
                ],
                held_out: &["{q} gets {n} coins from {p}."],
            },
            Wordings {
                operator: Multiply,
                earlier: false,
                training: &[
                    "{p} wins and now has {n} times as many coins.",
                    "the coins in the purse become {n} times as many.",
                    "{q} multiplies the coins of {p} by {n}.",
                    "{p} swaps each of the coins for {n} coins.",
                ],
                held_out: &["soon {p} has {n} times as many coins."],
            },
            Wordings {
                operator: Divide,
                earlier: false,
                training: &[
                    "{p} keeps only one in {n} coins.",
                    "{p} splits the coins into {n} equal parts and keeps one.",
                    "{p} swaps every {n} coins for one.",
                    "{n} friends share the coins equally and {p} gets one share.",
                ],
                held_out: &["the coins are split into {n} equal parts and {p} keeps one."],
            },
            Wordings {
                operator: Add,
                earlier: true,
                training: &[
                    "{p} earns as many coins as {p} had at {time}.",
                    "{q} gives {p} as many coins as {p} had at {time}.",
                    "{p} finds as many coins as there were at {time}.",
                ],
                held_out: &["{p} gets as many coins from {q} as there were at {time}."],
            },
            Wordings {
                operator: Subtract,
                earlier: true,
                training: &[
                    "{p} spends as many coins as {p} had at {time}.",
                    "{p} loses as many coins as there were at {time}.",
                    "{p} gives {q} as many coins as {p} had at {time}.",
                ],
                held_out: &["{q} gets as many coins from {p} as there were at {time}."],
            },
        ],
        questions: &[
            "how many coins does {p} have now?",
            "how many coins are in the purse in the end?",
        ],
    },
    Story {
        name: "recipe",
        openings: &[
            "a recipe of {p} needs {n} grams of rice.",
            "{p} plans with {n} grams of rice.",
        ],
        steps: &[
            Wordings {
                operator: Add,
                earlier: false,
                training: &[
                    "{p} adds {n} grams.",
                    "{n} more grams of rice go in.",
                    "{q} wants {n} grams more.",
                    "the recipe gets {n} extra grams.",
                ],
                held_out: &["{q} adds {n} extra grams."],
            },
            Wordings {
                operator: Subtract,
                earlier: false,
                training: &[
                    "{p} leaves out {n} grams.",
                    "{p} takes {n} grams away.",
                    "{q} wants {n} grams less.",
                    "{n} grams of rice go back.",
                ],
                held_out: &["{q} takes {n} grams of rice out."],
            },
            Wordings {
                operator: Multiply,
                earlier: false,
                training: &[
                    "{p} cooks for {n} times as many guests.",
                    "the recipe is made {n} times as large.",
                    "the amount of rice is multiplied by {n}.",
                    "{p} cooks the recipe {n} times at once.",
                ],
                held_out: &["{q} makes the recipe {n} times as large."],
            },
            Wordings {
                operator: Divide,
                earlier: false,
                training: &[
                    "the recipe is split into {n} equal parts and one is made.",
                    "{p} cooks only one of {n} equal parts.",
                    "the amount of rice is divided by {n}.",
                    "{p} makes the recipe {n} times as small.",
                ],
                held_out: &["{q} divides the amount of rice by {n}."],
            },
            Wordings {
                operator: Add,
                earlier: true,
                training: &[
                    "{p} adds as much as there was at {time}.",
                    "as much rice goes in as the recipe had at {time}.",
                    "{q} wants as much more as there was at {time}.",
                ],
                held_out: &["{q} adds as much rice as the recipe had at {time}."],
            },
            Wordings {
                operator: Subtract,
                earlier: true,
                training: &[
                    "{p} leaves out as much as there was at {time}.",
                    "{p} takes as much away as the recipe had at {time}.",
                    "as much rice goes back as there was at {time}.",
                ],
                held_out: &["{q} leaves out as much rice as the recipe had at {time}."],
            },
        ],
        questions: &[
            "how many grams does {p} need now?",
            "how many grams of rice are cooked in the end?",
        ],
    },
];
