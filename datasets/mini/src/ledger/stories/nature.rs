//! Stories outdoors: a tank, a flock.

use super::{Story, Wordings};
use crate::calc::Operator::{Add, Divide, Multiply, Subtract};

pub(super) const STORIES: &[Story] = &[
    Story {
        name: "tank",
        openings: &[
            "a tank of {p} holds {n} litres of water.",
            "there are {n} litres of water in a tank.",
        ],
        steps: &[
            Wordings {
                operator: Add,
                earlier: false,
                training: &[
                    "{p} pours in {n} litres.",
                    "rain adds {n} litres.",
                    "a pipe brings {n} more litres.",
                    "{n} litres flow into the tank.",
                ],
                held_out: &["{p} pours {n} more litres into the tank."],
            },
            Wordings {
                operator: Subtract,
                earlier: false,
                training: &[
                    "{p} pours out {n} litres.",
                    "{n} litres leak out.",
                    "the plants get {n} litres from the tank.",
                    "{n} litres flow out of the tank.",
                ],
                held_out: &["{p} takes {n} litres out of the tank."],
            },
            Wordings {
                operator: Multiply,
                earlier: false,
                training: &[
                    "rain fills the tank to {n} times as much.",
                    "soon the tank holds {n} times as much water.",
                    "the water grows to {n} times its amount.",
                    "the amount of water is multiplied by {n}.",
                ],
                held_out: &["rain multiplies the amount of water by {n}."],
            },
            Wordings {
                operator: Divide,
                earlier: false,
                training: &[
                    "the water is split into {n} equal parts and one stays.",
                    "only one in {n} litres stays.",
                    "the water shrinks to one of {n} equal parts.",
                    "the amount of water is divided by {n}.",
                ],
                held_out: &["{p} divides the amount of water by {n}."],
            },
            Wordings {
                operator: Add,
                earlier: true,
                training: &[
                    "{p} pours in as much as there was at {time}.",
                    "rain adds as much water as there was at {time}.",
                    "as much flows into the tank as it held at {time}.",
                ],
                held_out: &["a pipe brings as much water as there was at {time}."],
            },
            Wordings {
                operator: Subtract,
                earlier: true,
                training: &[
                    "{p} pours out as much as there was at {time}.",
                    "the plants get as much as the tank held at {time}.",
                    "as much leaks out as the tank held at {time}.",
                ],
                held_out: &["as much flows out of the tank as it held at {time}."],
            },
        ],
        questions: &[
            "how many litres are in the tank now?",
            "how many litres does the tank hold in the end?",
        ],
    },
    Story {
        name: "flock",
        openings: &["{n} birds sit on the lake.", "there are {n} birds on the lake."],
        steps: &[
            Wordings {
                operator: Add,
                earlier: false,
                training: &[
                    "{n} more birds land.",
                    "{n} young birds hatch.",
                    "a flock of {n} birds arrives.",
                    "{n} birds fly to the lake.",
                ],
                held_out: &["a flock of {n} young birds arrives."],
            },
            Wordings {
                operator: Subtract,
                earlier: false,
                training: &[
                    "{n} birds fly away.",
                    "a flock of {n} birds leaves.",
                    "a dog scares off {n} birds.",
                    "{n} of the birds leave the lake.",
                ],
                held_out: &["{n} of the birds fly away."],
            },
            Wordings {
                operator: Multiply,
                earlier: false,
                training: &[
                    "after a year there are {n} times as many birds.",
                    "the birds on the lake become {n} times as many.",
                    "the number of birds is multiplied by {n}.",
                    "the flock grows to {n} times its size.",
                ],
                held_out: &["soon there are {n} times as many birds."],
            },
            Wordings {
                operator: Divide,
                earlier: false,
                training: &[
                    "only one in {n} birds stays.",
                    "the birds form {n} equal flocks and one stays.",
                    "the number of birds is divided by {n}.",
                    "the flock shrinks to one of {n} equal parts.",
                ],
                held_out: &["the birds are split into {n} equal flocks and one stays."],
            },
            Wordings {
                operator: Add,
                earlier: true,
                training: &[
                    "as many birds land as there were at {time}.",
                    "a flock arrives with as many birds as sat there at {time}.",
                    "as many young birds hatch as there were at {time}.",
                ],
                held_out: &["as many more birds land as sat there at {time}."],
            },
            Wordings {
                operator: Subtract,
                earlier: true,
                training: &[
                    "as many birds fly away as there were at {time}.",
                    "a dog scares off as many birds as sat there at {time}.",
                    "as many birds leave the lake as there were at {time}.",
                ],
                held_out: &["as many birds leave as sat there at {time}."],
            },
        ],
        questions: &["how many birds are on the lake now?", "how many birds sit there in the end?"],
    },
];
