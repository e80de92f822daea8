//! Two operations.

use super::Shape;

pub(super) const SHAPES: &[Shape] = &[
    Shape {
        expression: "a + b + c",
        training: &[
            "{p} sells {a} {items} on monday, {b} {items} on friday and {c} {items} on sunday. how many {items} does {p} sell in total?",
            "{p} has {a} {items}. {p} buys {b} more {items} and finds {c} more {items}. how many {items} does {p} have now?",
            "there are {a} {items} in the {place}. {p} adds {b} {items} and {q} adds {c} {items}. how many {items} are there altogether?",
            "{p} has {a} {items} and gets {b} {items} from {q}. then another {c} {items} arrive. how many {items} does {p} have now?",
        ],
        held_out: &[
            "{p} starts with {a} {items}. {p} gets {b} {items} from {q} and buys {c} more {items}. how many {items} does {p} have now?",
        ],
    },
    Shape {
        expression: "a + b - c",
        training: &[
            "{p} has {a} {items}. {p} buys {b} more {items} and gives away {c} {items}. how many {items} does {p} have now?",
            "there are {a} {items} in the {place}. another {b} {items} arrive and {c} {items} are taken away. how many {items} are left?",
            "{p} has {a} {items} and {q} has {b} {items}. together they sell {c} {items}. how many {items} do they have left?",
            "{p} starts with {a} {items}, finds {b} more {items} and loses {c} {items}. how many {items} does {p} have now?",
            "{p} uses up {c} {items}. before that there were {a} {items} in the {place} and {b} {items} at home. how many {items} are left?",
        ],
        held_out: &[
            "the {place} has {a} {items}. {p} adds {b} {items}. then {p} uses up {c} {items}. how many {items} are left?",
        ],
    },
    Shape {
        expression: "a - b + c",
        training: &[
            "{p} has {a} {items}. {p} loses {b} {items} and finds {c} more {items}. how many {items} does {p} have now?",
            "there are {a} {items} in the {place}. {b} {items} are taken away and another {c} {items} arrive. how many {items} are there now?",
            "{p} sells {b} of the {a} {items} in the {place}. then {q} adds {c} {items}. how many {items} are there now?",
            "{p} starts with {a} {items}. {p} sells {b} {items} and buys {c} more {items}. how many {items} does {p} have now?",
            "{q} has {b} fewer {items} than {p}. {p} has {a} {items}. then {q} finds {c} more {items}. how many {items} does {q} have now?",
        ],
        held_out: &[
            "the {place} has {a} {items}. {p} uses up {b} {items}. then another {c} {items} arrive. how many {items} are there now?",
        ],
    },
    Shape {
        expression: "a - b - c",
        training: &[
            "{p} has {a} {items}. {p} gives away {b} {items} and loses {c} {items}. how many {items} does {p} have left?",
            "there are {a} {items} in the {place}. {p} takes {b} {items} and {q} takes {c} {items}. how many {items} are left?",
            "{p} sells {b} {items} on monday and {c} {items} on friday. before that {p} had {a} {items}. how many {items} does {p} have left?",
            "the {place} has {a} {items}. {b} {items} break and {p} uses up {c} {items}. how many {items} are left?",
        ],
        held_out: &[
            "{p} starts with {a} {items}. {p} uses up {b} {items} and sells {c} {items}. how many {items} does {p} have left?",
        ],
    },
    Shape {
        expression: "a * b + c",
        training: &[
            "there are {a} {boxes} with {b} {items} in each. {p} buys {c} more {items}. how many {items} are there altogether?",
            "{p} packs {a} {items} every day for {b} days. then {p} packs {c} more {items}. how many {items} does {p} pack in total?",
            "{p} has {c} {items}. then {p} buys {a} {boxes} of {b} {items} each. how many {items} does {p} have now?",
            "{p} buys {a} {items} that cost {b} dollars each and pays {c} dollars for {others}. how many dollars does {p} pay in total?",
            "each of the {a} {group} brings {b} {items}. another {c} {items} arrive. how many {items} are there in total?",
            "{p} has {a} {items}. {q} has {b} times as many {items} and finds {c} more {items}. how many {items} does {q} have now?",
            "there are {c} {items} and {a} {boxes} with {b} {items} in each in the {place}. how many {items} are there altogether?",
        ],
        held_out: &[
            "{p} has {a} {boxes}. the {boxes} hold {b} {items} each. then {p} finds {c} more {items}. how many {items} does {p} have now?",
            "there are {c} {items} in the {place}. each of the {a} {group} brings {b} {items}. how many {items} are there now?",
        ],
    },
    Shape {
        expression: "a * b - c",
        training: &[
            "there are {a} {boxes} with {b} {items} in each. {p} takes {c} {items}. how many {items} are left?",
            "{p} buys {a} {boxes} of {b} {items} each and gives away {c} {items}. how many {items} does {p} have left?",
            "{p} packs {a} {items} every day for {b} days. {c} {items} break. how many {items} are left?",
            "{p} needs {a} {boxes} of {b} {items} each. so far {p} has {c} {items}. how many more {items} does {p} need?",
            "{p} has {c} dollars. {p} buys {a} {items} that cost {b} dollars each. how many more dollars does {p} need?",
            "each of the {a} {group} buys {b} {items}. {p} uses up {c} {items}. how many {items} are left?",
            "{p} has {a} {items}. {q} has {b} times as many {items} and loses {c} {items}. how many {items} does {q} have left?",
            "the {place} has {a} {boxes}. the {boxes} hold {b} {items} each. {c} {items} are taken away. how many {items} are left?",
        ],
        held_out: &[
            "the {place} has {a} {boxes} with {b} {items} in each. {p} sells {c} {items}. how many {items} are left?",
            "{p} loses {c} {items}. before that there were {a} {boxes} with {b} {items} in each. how many {items} are left?",
        ],
    },
    Shape {
        expression: "a - b * c",
        training: &[
            "{p} has {a} {items}. {p} fills {b} {boxes} and puts {c} {items} in each. how many {items} are left?",
            "{p} has {a} dollars. {p} buys {b} {items} that cost {c} dollars each. how many dollars does {p} have left?",
            "there are {a} {items} in the {place}. {p} uses up {b} {items} every day for {c} days. how many {items} are left?",
            "each of the {b} {group} gets {c} {items} from {p}. before that {p} had {a} {items}. how many {items} does {p} have left?",
            "the {place} has {a} {items}. each of the {b} {group} takes {c} {items}. how many {items} are left?",
        ],
        held_out: &[
            "{p} starts with {a} {items}. {p} sells {b} {items} every day for {c} days. how many {items} does {p} have left?",
        ],
    },
    Shape {
        expression: "(a + b) * c",
        training: &[
            "{p} has {a} {items} and buys {b} more {items}. {q} now has {c} times as many {items} as {p}. how many {items} does {q} have?",
            "there are {a} {items} and {b} {others} in each of the {c} {boxes}. how many things are there altogether?",
            "{p} buys {a} {items} and {b} {others}. they cost {c} dollars each. how many dollars does {p} pay in total?",
            "every day {p} packs {a} {items} and {q} packs {b} {items}. how many {items} do they pack in {c} days?",
            "each of the {c} {group} brings {a} {items} and {b} {others}. how many things are there altogether?",
        ],
        held_out: &[
            "{p} packs {a} {items} and {b} {others} every day for {c} days. how many things does {p} pack in total?",
        ],
    },
    Shape {
        expression: "(a - b) * c",
        training: &[
            "{p} has {a} {items} and gives away {b} {items}. {q} now has {c} times as many {items} as {p}. how many {items} does {q} have?",
            "{p} has {a} {items} and loses {b} {items}. then {p} sells the rest for {c} dollars each. how many dollars does {p} get?",
            "{b} of the {a} {items} in the {place} break. {p} sells the rest for {c} dollars each. how many dollars does {p} get?",
            "there are {c} {boxes} with {a} {items} in each. {p} takes {b} {items} from each. how many {items} are left?",
            "every day {p} packs {a} {items} and {q} takes {b} {items}. how many {items} are left after {c} days?",
            "{q} has {b} fewer {items} than {p}. {p} has {a} {items}. {q} sells the {items} for {c} dollars each. how many dollars does {q} get?",
        ],
        held_out: &[
            "{p} starts with {a} {items} and uses up {b} {items}. then {p} sells the rest for {c} dollars each. how many dollars does {p} get?",
        ],
    },
    Shape {
        expression: "(a + b) / c",
        training: &[
            "{p} has {a} {items} and buys {b} more {items}. {p} shares them equally among {c} {group}. how many {items} does each get?",
            "there are {a} {items} in the {place}. another {b} {items} arrive. {p} packs them into {boxes} of {c} {items} each. how many {boxes} does {p} need?",
            "{p} has {a} {items} and {q} has {b} {items}. together they fill {c} {boxes}, the same number in each. how many {items} are in each?",
            "{c} {group} share {a} {items} and {b} {others} equally. how many things does each get?",
            "{p} starts with {a} {items} and finds {b} more {items}. {p} divides them evenly over {c} {boxes}. how many {items} are in each?",
            "{q} has {b} more {items} than {p}. {p} has {a} {items}. {q} divides the {items} evenly over {c} {boxes}. how many {items} are in each?",
        ],
        held_out: &[
            "{p} has {a} {items} and gets {b} {items} from {q}. {p} divides them evenly over {c} {boxes}. how many {items} are in each?",
        ],
    },
    Shape {
        expression: "(a - b) / c",
        training: &[
            "{p} has {a} {items}. {p} gives away {b} {items} and shares the rest equally among {c} {group}. how many {items} does each get?",
            "there are {a} {items} in the {place}. {b} {items} break. {p} packs the rest into {boxes} of {c} {items} each. how many {boxes} does {p} need?",
            "{p} has {a} dollars and pays {b} dollars for {others}. the {items} cost {c} dollars each. how many {items} can {p} buy with the rest?",
            "{p} sells {b} of the {a} {items} in the {place}. the rest are split into {c} equal groups. how many {items} are in each?",
            "the {place} has {a} {items}. {p} takes {b} {items}. {c} {group} share the rest equally. how many {items} does each get?",
            "{p} starts with {a} {items} and uses up {b} {items}. then {p} divides the rest evenly over {c} {boxes}. how many {items} are in each?",
        ],
        held_out: &[
            "{p} starts with {a} {items} and loses {b} {items}. {p} divides the rest evenly over {c} {boxes}. how many {items} are in each?",
        ],
    },
    Shape {
        expression: "a / b + c",
        training: &[
            "{b} {group} share {a} {items} equally. then each buys {c} more {items}. how many {items} does each have now?",
            "{p} packs {a} {items} into {boxes} of {b} {items} each and buys {c} more {boxes}. how many {boxes} does {p} have now?",
            "{p} divides {a} {items} evenly over {b} {boxes}. then {p} adds {c} {items} to each. how many {items} are in each now?",
            "there are {a} {items} in {b} {boxes}, the same number in each. then {p} adds {c} {items} to each. how many {items} are in each now?",
            "{p} shares {a} {items} equally among {b} {group}. then each gets {c} {items} from {q}. how many {items} does each have now?",
        ],
        held_out: &[
            "{p} shares {a} {items} equally among {b} {group}. then each buys {c} more {items}. how many {items} does each have now?",
        ],
    },
    Shape {
        expression: "a / b - c",
        training: &[
            "{p} shares {a} {items} equally among {b} {group}. then each loses {c} {items}. how many {items} does each have left?",
            "{p} packs {a} {items} into {boxes} of {b} {items} each and sells {c} {boxes}. how many {boxes} does {p} have left?",
            "there are {a} {items} in {b} {boxes}, the same number in each. {p} takes {c} {items} from each. how many {items} are left in each?",
            "{b} {group} share {a} {items} equally. then each gives away {c} {items}. how many {items} does each have left?",
            "the {a} {items} in the {place} are split into {b} equal groups. then {p} takes {c} {items} from each. how many {items} are left in each?",
        ],
        held_out: &[
            "{p} divides {a} {items} evenly over {b} {boxes}. then {p} takes {c} {items} from each. how many {items} are left in each?",
        ],
    },
];
