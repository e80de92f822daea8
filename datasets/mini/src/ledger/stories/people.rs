//! Stories among people: a queue, a debt, a game.

use super::{Story, Wordings};
use crate::calc::Operator::{Add, Divide, Multiply, Subtract};

pub(super) const STORIES: &[Story] = &[
    Story {
        name: "queue",
        openings: &[
            "{n} people wait at the {place}.",
            "there are {n} people in a queue at the {place}.",
        ],
        steps: &[
            Wordings {
                operator: Add,
                earlier: false,
                training: &[
                    "{n} more people join the queue.",
                    "a bus brings {n} more people.",
                    "{n} friends of {p} come too.",
                    "{n} people come to the end of the queue.",
                ],
                held_out: &["a bus arrives and {n} people join the queue."],
            },
            Wordings {
                operator: Subtract,
                earlier: false,
                training: &[
                    "{n} people go home.",
                    "{n} people enter the {place}.",
                    "{p} lets {n} people in.",
                    "a bus leaves with {n} of the people.",
                ],
                held_out: &["{n} of the people enter the {place}."],
            },
            Wordings {
                operator: Multiply,
                earlier: false,
                training: &[
                    "soon {n} times as many people wait.",
                    "the queue grows to {n} times its size.",
                    "the number of people is multiplied by {n}.",
                    "the queue becomes {n} times as long.",
                ],
                held_out: &["soon the queue is {n} times as long."],
            },
            Wordings {
                operator: Divide,
                earlier: false,
                training: &[
                    "only one in {n} people stays.",
                    "the queue shrinks to one of {n} equal parts.",
                    "the people form {n} equal queues and one stays.",
                    "the number of people is divided by {n}.",
                ],
                held_out: &["the queue is split into {n} equal parts and one stays."],
            },
            Wordings {
                operator: Add,
                earlier: true,
                training: &[
                    "as many people join as there were at {time}.",
                    "a bus brings as many people as there were at {time}.",
                    "as many more people come as waited at {time}.",
                ],
                held_out: &["as many people join the queue as waited at {time}."],
            },
            Wordings {
                operator: Subtract,
                earlier: true,
                training: &[
                    "as many people go home as waited at {time}.",
                    "{p} lets as many people in as there were at {time}.",
                    "as many people enter the {place} as there were at {time}.",
                ],
                held_out: &["a bus leaves with as many people as waited at {time}."],
            },
        ],
        questions: &["how many people wait now?", "how many people are in the queue in the end?"],
    },
    Story {
        name: "debt",
        openings: &["{p} owes the bank {n} dollars.", "{p} has a debt of {n} dollars."],
        steps: &[
            Wordings {
                operator: Add,
                earlier: false,
                training: &[
                    "{p} borrows {n} more dollars.",
                    "the bank adds a fee of {n} dollars.",
                    "{q} passes on a debt of {n} dollars to {p}.",
                    "the debt rises by {n} dollars.",
                ],
                held_out: &["{q} adds {n} dollars to the debt."],
            },
            Wordings {
                operator: Subtract,
                earlier: false,
                training: &[
                    "{p} pays back {n} dollars.",
                    "{q} pays {n} dollars of the debt.",
                    "the debt falls by {n} dollars.",
                    "the bank takes {n} dollars off the debt.",
                ],
                held_out: &["{q} takes {n} dollars of the debt off {p}."],
            },
            Wordings {
                operator: Multiply,
                earlier: false,
                training: &[
                    "the debt grows to {n} times its size.",
                    "after a bad year {p} owes {n} times as much.",
                    "the debt is multiplied by {n}.",
                    "soon the debt is {n} times as large.",
                ],
                held_out: &["soon {p} owes {n} times as much."],
            },
            Wordings {
                operator: Divide,
                earlier: false,
                training: &[
                    "{n} friends share the debt equally and {p} keeps one share.",
                    "the debt is split into {n} equal parts and one stays.",
                    "the debt is divided by {n}.",
                    "the bank cuts the debt to one of {n} equal parts.",
                ],
                held_out: &["the bank divides the debt by {n}."],
            },
            Wordings {
                operator: Add,
                earlier: true,
                training: &[
                    "{p} borrows as much as {p} owed at {time}.",
                    "the debt rises by as much as it was at {time}.",
                    "the bank adds as much as {p} owed at {time}.",
                ],
                held_out: &["{p} borrows as much as the debt was at {time}."],
            },
            Wordings {
                operator: Subtract,
                earlier: true,
                training: &[
                    "{p} pays back as much as {p} owed at {time}.",
                    "the debt falls by as much as it was at {time}.",
                    "{q} pays as much as {p} owed at {time}.",
                ],
                held_out: &["{q} pays back as much as the debt was at {time}."],
            },
        ],
        questions: &["how many dollars does {p} owe now?", "how large is the debt in the end?"],
    },
    Story {
        name: "game",
        openings: &["{p} starts a game with {n} points.", "{p} has {n} points in a game."],
        steps: &[
            Wordings {
                operator: Add,
                earlier: false,
                training: &[
                    "{p} scores {n} points.",
                    "{p} wins {n} points from {q}.",
                    "a lucky card adds {n} points.",
                    "{q} hands {p} {n} points.",
                ],
                held_out: &["{p} gets {n} points from {q}."],
            },
            Wordings {
                operator: Subtract,
                earlier: false,
                training: &[
                    "{p} loses {n} points.",
                    "{q} wins {n} points from {p}.",
                    "a bad card takes {n} points.",
                    "{p} hands {q} {n} points.",
                ],
                held_out: &["{q} takes {n} points from {p}."],
            },
            Wordings {
                operator: Multiply,
                earlier: false,
                training: &[
                    "a lucky card multiplies the points by {n}.",
                    "{p} now has {n} times as many points.",
                    "the points of {p} count {n} times.",
                    "the score grows to {n} times its size.",
                ],
                held_out: &["soon the score is {n} times as large."],
            },
            Wordings {
                operator: Divide,
                earlier: false,
                training: &[
                    "a bad card divides the points by {n}.",
                    "{p} keeps only one in {n} points.",
                    "{n} friends share the points equally and {p} gets one share.",
                    "the score shrinks to one of {n} equal parts.",
                ],
                held_out: &["a bad card splits the points into {n} equal parts and one stays."],
            },
            Wordings {
                operator: Add,
                earlier: true,
                training: &[
                    "{p} scores as many points as {p} had at {time}.",
                    "a lucky card adds as many points as there were at {time}.",
                    "{q} hands {p} as many points as {p} had at {time}.",
                ],
                held_out: &["{p} wins as many points from {q} as there were at {time}."],
            },
            Wordings {
                operator: Subtract,
                earlier: true,
                training: &[
                    "{p} loses as many points as {p} had at {time}.",
                    "a bad card takes as many points as there were at {time}.",
                    "{p} hands {q} as many points as {p} had at {time}.",
                ],
                held_out: &["{q} wins as many points from {p} as there were at {time}."],
            },
        ],
        questions: &[
            "how many points does {p} have now?",
            "how many points does {p} have in the end?",
        ],
    },
];
