//! Three operations.

use super::Shape;

pub(super) const SHAPES: &[Shape] = &[
    Shape {
        expression: "a - b + c - d",
        training: &[
            "{p} has {a} {items}. {p} loses {b} {items}, finds {c} more {items} and gives away {d} {items}. how many {items} does {p} have now?",
            "there are {a} {items} in the {place}. {b} {items} are taken away, another {c} {items} arrive and {d} {items} break. how many {items} are left?",
            "{p} starts with {a} {items}. {p} sells {b} {items}, buys {c} more {items} and uses up {d} {items}. how many {items} does {p} have left?",
            "{p} sells {b} of the {a} {items} in the {place}. then {q} adds {c} {items} and {p} takes {d} {items}. how many {items} are left?",
        ],
        held_out: &[
            "{p} has {a} {items}. {p} gives away {b} {items}, gets {c} {items} from {q} and sells {d} {items}. how many {items} does {p} have left?",
        ],
    },
    Shape {
        expression: "a * b + c * d",
        training: &[
            "{p} has {a} {boxes} with {b} {items} in each and {c} {sacks} with {d} {items} in each. how many {items} does {p} have altogether?",
            "{p} buys {a} {items} that cost {b} dollars each and {c} {others} that cost {d} dollars each. how many dollars does {p} pay in total?",
            "{p} packs {a} {items} every day for {b} days and {q} packs {c} {items} every day for {d} days. how many {items} do they pack in total?",
            "each of the {a} {group} brings {b} {items}. {p} buys {c} {boxes} of {d} {items} each. how many {items} are there altogether?",
            "the {place} has {a} {boxes}. the {boxes} hold {b} {items} each. then {p} buys {c} {sacks} of {d} {items} each. how many {items} are there now?",
        ],
        held_out: &[
            "{p} buys {a} {boxes} of {b} {items} each and {c} {sacks} of {d} {items} each. how many {items} does {p} have altogether?",
        ],
    },
    Shape {
        expression: "a * b - c * d",
        training: &[
            "{p} buys {a} {boxes} of {b} {items} each. each of the {c} {group} takes {d} {items}. how many {items} are left?",
            "there are {a} {boxes} with {b} {items} in each. {p} uses up {c} {items} every day for {d} days. how many {items} are left?",
            "{p} packs {a} {items} every day for {b} days. {p} sells {c} {boxes} of {d} {items} each. how many {items} are left?",
            "{p} has {a} {boxes} with {b} {items} in each and {q} has {c} {sacks} with {d} {items} in each. how many more {items} does {p} have than {q}?",
            "each of the {c} {group} gets {d} {items} from {p}. before that there were {a} {boxes} with {b} {items} in each. how many {items} are left?",
        ],
        held_out: &[
            "each of the {a} {group} brings {b} {items}. {p} uses up {c} {items} every day for {d} days. how many {items} are left?",
        ],
    },
    Shape {
        expression: "(a + b) * c - d",
        training: &[
            "every day {p} packs {a} {items} and {q} packs {b} {items}. after {c} days they sell {d} {items}. how many {items} do they have left?",
            "{p} has {a} {items} and buys {b} more {items}. {q} now has {c} times as many {items} as {p} and loses {d} {items}. how many {items} does {q} have left?",
            "there are {a} {items} and {b} {others} in each of the {c} {boxes}. {p} takes {d} things. how many things are left?",
            "{p} has {d} dollars. {p} buys {a} {items} and {b} {others}. they cost {c} dollars each. how many more dollars does {p} need?",
            "{p} gives away {d} things. before that there were {a} {items} and {b} {others} in each of the {c} {boxes}. how many things are left?",
        ],
        held_out: &[
            "each of the {c} {group} brings {a} {items} and {b} {others}. {p} gives away {d} things. how many things are left?",
        ],
    },
    Shape {
        expression: "(a - b) * c + d",
        training: &[
            "{p} has {a} {items} and gives away {b} {items}. {q} now has {c} times as many {items} as {p} and finds {d} more {items}. how many {items} does {q} have now?",
            "{p} has {a} {items} and loses {b} {items}. then {p} sells the rest for {c} dollars each and gets {d} dollars from {q}. how many dollars does {p} get in total?",
            "there are {c} {boxes} with {a} {items} in each. {p} takes {b} {items} from each. then another {d} {items} arrive. how many {items} are there now?",
            "every day {p} packs {a} {items} and {q} takes {b} {items}. after {c} days {p} finds {d} more {items}. how many {items} are there now?",
            "{b} of the {a} {items} in the {place} break. {p} sells the rest for {c} dollars each and gets {d} dollars from {q}. how many dollars does {p} get in total?",
        ],
        held_out: &[
            "{p} starts with {a} {items} and uses up {b} {items}. then {p} sells the rest for {c} dollars each and gets {d} dollars from {q}. how many dollars does {p} get in total?",
        ],
    },
    Shape {
        expression: "(a + b - c) / d",
        training: &[
            "{p} has {a} {items}, buys {b} more {items} and gives away {c} {items}. {p} shares the rest equally among {d} {group}. how many {items} does each get?",
            "there are {a} {items} in the {place}. another {b} {items} arrive and {c} {items} break. {p} packs the rest into {boxes} of {d} {items} each. how many {boxes} does {p} need?",
            "{p} has {a} {items} and {q} has {b} {items}. together they sell {c} {items} and divide the rest evenly over {d} {boxes}. how many {items} are in each?",
            "{p} starts with {a} {items}, gets {b} {items} from {q} and loses {c} {items}. {d} {group} share the rest equally. how many {items} does each get?",
            "{p} uses up {c} {items}. before that {p} had {a} {items} and {q} had {b} {items}. the rest are split into {d} equal groups. how many {items} are in each?",
        ],
        held_out: &[
            "the {place} has {a} {items}. {p} adds {b} {items} and {q} takes {c} {items}. the rest are split into {d} equal groups. how many {items} are in each?",
        ],
    },
    Shape {
        expression: "(a * b + c) / d",
        training: &[
            "{p} has {a} {boxes} with {b} {items} in each and finds {c} more {items}. {p} shares them equally among {d} {group}. how many {items} does each get?",
            "each of the {a} {group} brings {b} {items}. another {c} {items} arrive. {p} packs them into {boxes} of {d} {items} each. how many {boxes} does {p} need?",
            "{p} packs {a} {items} every day for {b} days and gets {c} {items} from {q}. {p} divides them evenly over {d} {boxes}. how many {items} are in each?",
            "{p} has {c} {items} and buys {a} {boxes} of {b} {items} each. {d} {group} share them equally. how many {items} does each get?",
            "there are {a} {boxes} with {b} {items} in each. {p} adds {c} {items}. they are split into {d} equal groups. how many {items} are in each?",
        ],
        held_out: &[
            "{p} buys {a} {boxes} of {b} {items} each and finds {c} more {items}. {p} divides them evenly over {d} {sacks}. how many {items} are in each?",
        ],
    },
    Shape {
        expression: "(a * b - c) / d",
        training: &[
            "{p} has {a} {boxes} with {b} {items} in each and loses {c} {items}. {p} shares the rest equally among {d} {group}. how many {items} does each get?",
            "{p} buys {a} {boxes} of {b} {items} each. {c} {items} break. {p} packs the rest into {sacks} of {d} {items} each. how many {sacks} does {p} need?",
            "each of the {a} {group} brings {b} {items}. {p} uses up {c} {items} and divides the rest evenly over {d} {boxes}. how many {items} are in each?",
            "{p} packs {a} {items} every day for {b} days and gives away {c} {items}. {d} {group} share the rest equally. how many {items} does each get?",
            "there are {a} {boxes} with {b} {items} in each. {p} takes {c} {items}. the rest are split into {d} equal groups. how many {items} are in each?",
        ],
        held_out: &[
            "{p} packs {a} {items} every day for {b} days. {c} {items} break. {p} divides the rest evenly over {d} {boxes}. how many {items} are in each?",
        ],
    },
];
