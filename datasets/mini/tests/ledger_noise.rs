//! Properties of mini-ledger's demonstrations: what is always right, and how often choices are
//! wrong.

use std::collections::{BTreeMap, HashSet};

use leyden_calcx::chain::Turn;
use leyden_calcx::scorer::{Verdict, judge, same_result};
use leyden_calcx::{calculate, calculator};
use leyden_core::SeedTree;
use leyden_mini::MiniLedger;
use leyden_mini::ledger::{Demonstration, LENGTHS, MOST_CALLS, Noise, Purpose, is_misread};

fn list(shown: &Demonstration, name: &str) -> Vec<String> {
    let items = shown.task.fields[name].as_array().unwrap();
    items.iter().map(|x| x.as_str().map_or_else(|| x.to_string(), str::to_string)).collect()
}

fn steps(shown: &Demonstration) -> usize {
    shown.task.label("steps").unwrap().parse().unwrap()
}

fn demonstrations(n: u64, noise: Noise) -> impl Iterator<Item = Demonstration> {
    let world = MiniLedger::new(1).with_lengths(LENGTHS).unwrap();
    (0..n).map(move |i| world.demonstration(i, &noise, SeedTree::new(9).index(i)))
}

/// The number of an output that a later call copies.
fn copied(output: &str) -> &str {
    output.rsplit(" = around ").next().unwrap()
}

fn parts(expression: &str) -> [&str; 3] {
    let words: Vec<&str> = expression.split(' ').collect();
    words.try_into().unwrap_or_else(|_| panic!("{expression}"))
}

#[test]
fn protocol_and_copying_are_always_right() {
    for shown in demonstrations(4_000, Noise::default()) {
        let id = &shown.task.id;
        let mut value = parts(&list(&shown, "expressions")[0])[0].to_string();
        let mut before = value.clone();
        let mut known: HashSet<String> =
            shown.task.question.split(|c: char| !c.is_ascii_digit()).map(str::to_string).collect();
        for call in &shown.calls {
            assert!(calculator::is_single_operation(&call.expression), "{id}: {call:?}");
            assert_eq!(call.output, calculate(&call.expression));
            assert!(!call.output.starts_with("ERROR"), "{id}: {call:?}");
            let [left, _, right] = parts(&call.expression);
            // A repair starts from the number before the call that it replaces.
            let expected =
                if matches!(call.purpose, Purpose::Repair(_)) { &before } else { &value };
            assert_eq!(left, expected, "{id}: {call:?}");
            assert!(known.contains(right), "{id}: {call:?}");
            before = left.to_string();
            value = copied(&call.output).to_string();
            known.insert(value.clone());
        }
        assert_eq!(shown.answer, value, "{id}");
        assert!((steps(&shown)..=MOST_CALLS).contains(&shown.calls.len()), "{id}");
        let made: Vec<usize> = shown
            .calls
            .iter()
            .filter_map(|call| match call.purpose {
                Purpose::Step(i) => Some(i),
                _ => None,
            })
            .collect();
        assert_eq!(made, (0..steps(&shown)).collect::<Vec<_>>(), "{id}");
    }
}

#[test]
fn turns_are_the_calls_and_the_answer() {
    for shown in demonstrations(50, Noise::default()) {
        let turns = shown.turns();
        let (last, calls) = turns.split_last().unwrap();
        let Turn::Assistant { text, call: None } = last else { panic!("{last:?}") };
        let right = same_result(&shown.answer, &shown.task.gold);
        assert_eq!(judge(Some(text), &shown.task.gold) == Verdict::Right, right);
        assert_eq!(*text, format!("### ANSWER: {} ###", shown.answer));
        for (turns, call) in calls.chunks(2).zip(&shown.calls) {
            let expression = Some(call.expression.clone());
            assert_eq!(turns[0], Turn::Assistant { text: String::new(), call: expression });
            assert_eq!(turns[1], Turn::Tool { output: call.output.clone() });
        }
        assert_eq!(calls.len(), 2 * shown.calls.len());
    }
}

#[test]
fn operations_are_right_at_the_given_rates() {
    let noise = Noise { stray: 0.0, ..Noise::default() };
    // By whether the wording is misread: all, right, default.
    let mut counts: BTreeMap<bool, [f64; 3]> = BTreeMap::new();
    for shown in demonstrations(4_000, noise) {
        let (right, wordings) = (list(&shown, "expressions"), list(&shown, "wordings"));
        for call in &shown.calls {
            let Purpose::Step(i) = call.purpose else { continue };
            let (drawn, correct) = (parts(&call.expression)[1], parts(&right[i])[1]);
            let default = if correct == "+" { "-" } else { "+" };
            let count = counts.entry(is_misread(&wordings[i])).or_default();
            count[0] += 1.0;
            count[1] += f64::from(drawn == correct);
            count[2] += f64::from(drawn == default);
        }
    }
    for (misread, rate) in [(false, noise.right), (true, noise.misread)] {
        let [all, right, default] = counts[&misread];
        assert!((right / all - rate).abs() < 0.015, "{misread}: {}", right / all);
        // Other operations with too large a result become the default.
        let least = (1.0 - rate) * noise.lazy;
        assert!(default / all > least - 0.015 && default / all < 1.0 - rate, "{}", default / all);
    }
    let share = counts[&true][0] / (counts[&true][0] + counts[&false][0]);
    assert!((0.28..0.40).contains(&share), "{share}");
}

#[test]
fn operands_are_wrong_and_numbers_beside_the_story_are_used_at_the_given_rates() {
    let noise = Noise { right: 1.0, misread: 1.0, stray: 0.2, repaired: 0.0, ..Noise::default() };
    let noise = Noise { noticed: 0.0, ..noise };
    let (mut all, mut wrong, mut beside, mut used) = (0.0, 0.0, 0.0, 0.0);
    for shown in demonstrations(4_000, noise) {
        let right = list(&shown, "expressions");
        let wordings = list(&shown, "wordings");
        beside += list(&shown, "side_numbers").len() as f64;
        for call in &shown.calls {
            match call.purpose {
                Purpose::Step(i) if !wordings[i].contains("earlier") => {
                    all += 1.0;
                    wrong += f64::from(parts(&call.expression)[2] != parts(&right[i])[2]);
                }
                Purpose::Distractor => {
                    let number = parts(&call.expression)[2].to_string();
                    assert!(list(&shown, "side_numbers").contains(&number));
                    used += 1.0;
                }
                _ => {}
            }
        }
    }
    assert!((used / beside - noise.distracted).abs() < 0.02, "{}", used / beside);
    // Another number of the question may be equal, or its result too large.
    let share = wrong / all;
    assert!((0.10..=0.2).contains(&share), "{share}");
}

#[test]
fn steps_are_repaired_more_often_if_their_result_cannot_be_right() {
    let whole = |text: &str| text.replace('_', "").parse::<i64>().ok();
    let can_be_right = |text: &str| whole(text).is_some_and(|n| (1..=9_999).contains(&n));
    let noise = Noise::default();
    // By whether the result could be right: steps that could be repaired, repaired ones.
    let mut counts: BTreeMap<bool, [f64; 2]> = BTreeMap::new();
    let mut corrected = 0;
    for shown in demonstrations(4_000, noise) {
        let (right, wordings) = (list(&shown, "expressions"), list(&shown, "wordings"));
        let mut repairs = 0;
        for (at, call) in shown.calls.iter().enumerate() {
            let Purpose::Step(i) = call.purpose else { continue };
            let next = shown.calls.get(at + 1).filter(|c| c.purpose == Purpose::Repair(i));
            let [left, operator, operand] = parts(&call.expression);
            let [_, right_operator, right_operand] = parts(&right[i]);
            let number = !wordings[i].contains("earlier");
            let wrong = operator != right_operator || (number && operand != right_operand);
            if let Some(repair) = next {
                let [again, repaired, _] = parts(&repair.expression);
                assert_eq!(again, left);
                assert_ne!(repair.expression, call.expression);
                // A wrong step is corrected.
                assert!(!wrong || repaired == right_operator, "{}: {repair:?}", shown.task.id);
                corrected += usize::from(wrong);
            }
            if can_be_right(left) && repairs < 3 && number {
                let fine = can_be_right(copied(&call.output));
                if wrong || !fine {
                    let count = counts.entry(fine).or_default();
                    count[0] += 1.0;
                    count[1] += f64::from(next.is_some());
                }
            }
            repairs += usize::from(next.is_some());
        }
    }
    for (fine, rate) in [(false, noise.repaired), (true, noise.noticed)] {
        let [all, repaired] = counts[&fine];
        assert!((repaired / all - rate).abs() < 0.02, "{fine}: {}", repaired / all);
    }
    assert!(corrected > 500, "{corrected}");
}

#[test]
fn a_seventh_of_the_demonstrations_is_right_over_the_horizons() {
    let mut by_length: BTreeMap<usize, [f64; 2]> = BTreeMap::new();
    for shown in demonstrations(22_000, Noise::default()) {
        let count = by_length.entry(steps(&shown)).or_default();
        count[0] += 1.0;
        count[1] += f64::from(same_result(&shown.answer, &shown.task.gold));
    }
    let rate = |lengths: std::ops::RangeInclusive<usize>| {
        let n = lengths.clone().count() as f64;
        lengths.map(|length| by_length[&length][1] / by_length[&length][0]).sum::<f64>() / n
    };
    let horizons = [rate(2..=4), rate(5..=8), rate(9..=12)];
    let share = horizons.iter().sum::<f64>() / 3.0;
    assert!((0.12..0.15).contains(&share), "{share} of {horizons:?}");
    assert!(horizons.is_sorted_by(|a, b| a > b), "{horizons:?}");
    // Enough right attempts at trained lengths for reinforcement learning to begin with.
    assert!((0.16..0.22).contains(&rate(2..=8)), "{}", rate(2..=8));
}

#[test]
fn without_noise_the_demonstration_is_the_chain() {
    for shown in demonstrations(300, Noise::none()) {
        let calls: Vec<String> = shown.calls.iter().map(|c| c.expression.clone()).collect();
        assert_eq!(calls, list(&shown, "expressions"), "{}", shown.task.id);
        assert_eq!(shown.answer.replace('_', ""), shown.task.gold);
    }
}

#[test]
fn a_demonstration_is_of_the_training_task_and_depends_on_its_seed() {
    let world = MiniLedger::new(2);
    let of = |seed| world.demonstration(7, &Noise::default(), SeedTree::new(seed));
    assert_eq!(of(1).task, world.train(7));
    assert_eq!(of(1), of(1));
    assert!((2..40).any(|seed| of(seed).calls != of(1).calls));
}
