//! Properties of mini-ledger: wordings, the separation of training and test, chains, labels,
//! lengths.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use leyden_calcx::chain::{Turn, demonstration};
use leyden_calcx::scorer::same_result;
use leyden_calcx::{CalcxScorer, calculator, loader};
use leyden_core::{Scorer, Task};
use leyden_mini::MiniLedger;
use leyden_mini::calc::is_reserved;
use leyden_mini::ledger::{LARGEST_RESULT, LENGTHS, SMALLEST_RESERVABLE, TEST_TASKS};
use sha2::{Digest, Sha256};

fn numbers(text: &str) -> Vec<i64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|run| run.parse().ok()).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| " .,?".contains(c)).filter(|word| !word.is_empty())
}

/// A list of texts or numbers of a task.
fn list(task: &Task, name: &str) -> Vec<String> {
    let items = task.fields[name].as_array().unwrap_or_else(|| panic!("{} has no {name}", task.id));
    items.iter().map(|x| x.as_str().map_or_else(|| x.to_string(), str::to_string)).collect()
}

fn label(task: &Task, name: &str) -> usize {
    task.label(name).and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{}: {name}", task.id))
}

/// Left operand, operator, right operand of an expression.
fn parts(expression: &str) -> (i64, char, i64) {
    let words: Vec<&str> = expression.split(' ').collect();
    let [left, operator, right] = words.as_slice() else { panic!("{expression}") };
    let number = |text: &str| text.replace('_', "").parse().unwrap();
    (number(left), operator.parse().unwrap(), number(right))
}

fn apply(operator: char, left: f64, right: f64) -> f64 {
    match operator {
        '+' => left + right,
        '-' => left - right,
        '*' => left * right,
        _ => left / right,
    }
}

fn training(n: u64) -> Vec<Task> {
    let world = MiniLedger::new(3).with_lengths(LENGTHS).unwrap();
    (0..n).map(|i| world.train(i)).collect()
}

/// Tasks of both splits and all lengths.
fn many_tasks() -> Vec<Task> {
    [training(2_000), MiniLedger::new(3).test(2_000)].concat()
}

#[test]
fn every_chain_leads_to_the_answer_with_one_operation_a_call() {
    for task in many_tasks() {
        // Checks each output against the calculator, and the result against the answer.
        let shown = demonstration(&task).unwrap_or_else(|flaw| panic!("{}: {flaw}", task.id));
        assert_eq!(shown.calls(), label(&task, "steps"), "{}", task.id);
        let mut last = None;
        let mut called = Vec::new();
        for turn in &shown.turns {
            match turn {
                Turn::Assistant { call: Some(expression), .. } => {
                    assert!(calculator::is_single_operation(expression), "{expression}");
                    if let Some(output) = last.take() {
                        assert!(expression.starts_with(&format!("{output} ")), "{expression}");
                    }
                    called.push(expression.clone());
                }
                Turn::Tool { output } => last = Some(output.clone()),
                Turn::Assistant { text, call: None } => {
                    assert_eq!(*text, format!("### ANSWER: {} ###", task.gold));
                }
            }
        }
        assert_eq!(last.unwrap().replace('_', ""), task.gold, "{}", task.id);
        assert_eq!(called, list(&task, "expressions"), "{}", task.id);
    }
}

#[test]
fn questions_tell_the_steps_of_the_chain_in_order() {
    for task in many_tasks() {
        let steps: Vec<_> = list(&task, "expressions").iter().map(|e| parts(e)).collect();
        let wordings = list(&task, "wordings");
        let mut told = vec![steps[0].0];
        let mut results: Vec<i64> = Vec::new();
        let mut recalls = 0;
        for (&(left, operator, right), wording) in steps.iter().zip(&wordings) {
            let (story, kind) = wording.split_once('/').unwrap();
            assert_eq!(Some(story), task.label("story"));
            assert!(kind.starts_with(operator), "{}: {wording} is {operator}", task.id);
            if kind.contains("earlier") {
                // The running result is not an earlier one.
                let earlier = results.split_last().map_or(&[][..], |(_, earlier)| earlier);
                assert!(earlier.contains(&right), "{}: {right} is no earlier result", task.id);
                recalls += 1;
            } else {
                told.push(right);
            }
            results.push(apply(operator, left as f64, right as f64) as i64);
        }
        assert_eq!(recalls, label(&task, "recalls"), "{}", task.id);
        assert_eq!(task.question.matches("now it is ").count(), recalls, "{}", task.id);
        let beside: Vec<i64> =
            list(&task, "side_numbers").iter().map(|n| n.parse().unwrap()).collect();
        let mut asked = numbers(&task.question);
        asked.retain(|n| !beside.contains(n));
        assert_eq!(asked, told, "{}: {}", task.id, task.question);
        assert!(!task.question.contains(['{', '}']), "{}: {}", task.id, task.question);
    }
}

#[test]
fn numbers_that_do_not_matter_are_not_in_the_chain() {
    let mut counts = [0; 3];
    for task in many_tasks() {
        let beside: Vec<i64> =
            list(&task, "side_numbers").iter().map(|n| n.parse().unwrap()).collect();
        assert_eq!(beside.len(), label(&task, "distractors"), "{}", task.id);
        assert_eq!(list(&task, "side_wordings").len(), beside.len());
        let asked = numbers(&task.question);
        for number in &beside {
            assert!(asked.contains(number), "{}: {number}", task.id);
            for expression in list(&task, "expressions") {
                let (left, _, right) = parts(&expression);
                assert!(left != *number && right != *number, "{}: {expression}", task.id);
            }
        }
        counts[beside.len()] += 1;
    }
    assert!(counts.iter().all(|count| *count > 1_000), "{counts:?}");
}

#[test]
fn results_on_the_way_are_whole_and_in_range() {
    for task in training(5_000) {
        for expression in list(&task, "expressions") {
            let (left, operator, right) = parts(&expression);
            let result = apply(operator, left as f64, right as f64);
            let fits = (1.0..=LARGEST_RESULT as f64).contains(&result) && result.fract() == 0.0;
            assert!(fits, "{}: {expression}", task.id);
        }
        assert!(numbers(&task.question).iter().all(|n| (2..=199).contains(n)), "{}", task.id);
    }
}

/// A mistake in one step.
#[derive(Debug, Clone, Copy)]
enum Mistake {
    Operator(char),
    Operand(i64),
    Omission,
}

/// The answer with one mistake in step `at`; `None` if it depends on which of two equal results a
/// later step uses.
fn with_mistake(task: &Task, at: usize, mistake: Mistake) -> Option<f64> {
    let steps: Vec<_> = list(task, "expressions").iter().map(|e| parts(e)).collect();
    let wordings = list(task, "wordings");
    let mut value = steps[0].0 as f64;
    // Right results with those of the attempt.
    let mut results: Vec<(f64, f64)> = Vec::new();
    for (i, &(left, mut operator, right)) in steps.iter().enumerate() {
        let correct = apply(operator, left as f64, right as f64);
        let mut operand = right as f64;
        if wordings[i].contains("earlier") {
            let mut equal = results.iter().filter(|(correct, _)| *correct == operand);
            let (_, found) = *equal.next().unwrap();
            if equal.any(|(_, other)| *other != found) {
                return None;
            }
            operand = found;
        }
        match (i == at, mistake) {
            (true, Mistake::Operator(other)) => operator = other,
            (true, Mistake::Operand(other)) => operand = other as f64,
            _ => {}
        }
        if i != at || !matches!(mistake, Mistake::Omission) {
            value = apply(operator, value, operand);
        }
        results.push((correct, value));
    }
    Some(value)
}

#[test]
fn one_wrong_step_spoils_the_answer() {
    let mut tried = 0;
    for task in [training(300), MiniLedger::new(3).test(300)].concat() {
        let expressions = list(&task, "expressions");
        let beside: Vec<i64> =
            list(&task, "side_numbers").iter().map(|n| n.parse().unwrap()).collect();
        for (at, expression) in expressions.iter().enumerate() {
            let right = parts(expression).1;
            let others = "+-*/".chars().filter(|op| *op != right).map(Mistake::Operator);
            let operands = beside.iter().copied().map(Mistake::Operand);
            for mistake in others.chain(operands).chain([Mistake::Omission]) {
                let Some(value) = with_mistake(&task, at, mistake) else { continue };
                let accepted = same_result(&value.to_string(), &task.gold);
                assert!(!accepted, "{}: step {at}, {mistake:?}", task.id);
                tried += 1;
            }
        }
        // Nor is any number on the way the answer.
        let on_the_way = expressions.iter().map(|e| parts(e).0);
        for number in on_the_way.chain(numbers(&task.question)) {
            assert!(!same_result(&number.to_string(), &task.gold), "{}: {number}", task.id);
        }
        assert!(task.gold.parse::<i64>().unwrap() >= 10, "{}", task.id);
    }
    assert!(tried > 15_000, "{tried}");
}

#[test]
fn training_and_test_share_neither_longer_numbers_nor_held_out_wordings() {
    let (training, test) = (training(3_000), MiniLedger::new(3).test(2_000));
    let long = |task: &Task| -> Vec<i64> {
        numbers(&task.question).into_iter().filter(|n| *n >= SMALLEST_RESERVABLE).collect()
    };
    assert!(training.iter().flat_map(long).all(|n| !is_reserved(n)));
    assert!(test.iter().flat_map(long).all(is_reserved));
    assert!(test.iter().all(|task| !long(task).is_empty()));
    let used = |task: &Task| [list(task, "wordings"), list(task, "side_wordings")].concat();
    let mut seen = BTreeSet::new();
    for task in &training {
        assert_eq!(task.label("template"), Some("seen"));
        seen.extend(used(task));
    }
    assert!(seen.iter().all(|id| !id.contains("held")));
    let mut held_out = BTreeSet::new();
    for task in &test {
        let (new, known): (Vec<_>, Vec<_>) =
            used(task).into_iter().partition(|id| id.contains("held"));
        let expected = if new.is_empty() { "seen" } else { "held_out" };
        assert_eq!(task.label("template"), Some(expected), "{}", task.id);
        assert!(known.iter().all(|id| seen.contains(id)), "{}", task.id);
        held_out.extend(new);
    }
    // Every wording of the tables is used.
    let all: BTreeSet<String> =
        MiniLedger::new(1).wordings().into_iter().map(|wording| wording.id).collect();
    assert_eq!(seen.union(&held_out).cloned().collect::<BTreeSet<_>>(), all);
    let questions: HashSet<&str> = test.iter().map(|t| t.question.as_str()).collect();
    assert_eq!(questions.len(), test.len(), "a test question occurs twice");
}

#[test]
fn the_first_test_tasks_are_balanced_whatever_their_number() {
    let test = MiniLedger::new(7).test(TEST_TASKS);
    let mut horizons = BTreeMap::from([("2-4", 0), ("5-8", 0), ("9-12", 0)]);
    for task in &test {
        let steps = label(task, "steps");
        let horizon = match steps {
            2..=4 => "2-4",
            5..=8 => "5-8",
            _ => "9-12",
        };
        assert_eq!(task.label("horizon"), Some(horizon), "{}", task.id);
        *horizons.get_mut(horizon).unwrap() += 1;
        let (least, most) = (horizons.values().min().unwrap(), horizons.values().max().unwrap());
        assert!(most - least <= 1, "{}: {horizons:?}", task.id);
    }
    let mut cells: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for task in &test {
        *cells.entry((label(task, "steps"), task.label("template").unwrap())).or_default() += 1;
    }
    assert_eq!(cells.len(), 2 * LENGTHS.count());
    for ((steps, template), count) in cells {
        let expected = if steps <= 4 { 28..=31 } else { 21..=23 };
        assert!(expected.contains(&count), "{steps} steps, {template}: {count}");
    }
}

#[test]
fn training_lengths_are_configurable_and_test_does_not_depend_on_them() {
    let world = MiniLedger::new(1);
    let lengths = |world: &MiniLedger| -> BTreeSet<usize> {
        (0..300).map(|i| label(&world.train(i), "steps")).collect()
    };
    assert_eq!(lengths(&world), (2..=8).collect());
    let longer = world.clone().with_lengths(9..=12).unwrap();
    assert_eq!(lengths(&longer), (9..=12).collect());
    assert_eq!(longer.test(20), world.test(20));
    let single = world.clone().with_lengths(5..=5).unwrap();
    assert_eq!(lengths(&single), BTreeSet::from([5]));
    #[expect(clippy::reversed_empty_ranges, reason = "an empty range is an error")]
    for wrong in [1..=4, 2..=13, 6..=5, 0..=0] {
        let error = world.clone().with_lengths(wrong).unwrap_err().to_string();
        assert!(error.contains("2 to 12"), "{error}");
    }
}

#[test]
fn the_wordings_are_many_and_a_fifth_is_held_out() {
    let all = MiniLedger::new(1).wordings();
    let ids: HashSet<&str> = all.iter().map(|wording| wording.id.as_str()).collect();
    assert_eq!(ids.len(), all.len());
    let held_out = all.iter().filter(|wording| wording.held_out).count() as f64;
    assert!((0.18..0.23).contains(&(held_out / all.len() as f64)));
    let mut by_kind: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for wording in &all {
        let kind = by_kind.entry(wording.id.split('#').next().unwrap()).or_default();
        *(if wording.held_out { &mut kind.1 } else { &mut kind.0 }) += 1;
        // A step has one number or one earlier result.
        let slots = [wording.text.matches("{n}").count(), wording.text.matches("{time}").count()];
        let expected = if wording.id.contains("earlier") { [0, 1] } else { [1, 0] };
        assert_eq!(slots, expected, "{}", wording.id);
        assert!(wording.text.ends_with('.') && words(wording.text).count() <= 14, "{}", wording.id);
    }
    // Eight stories with six kinds of steps, and the sentences beside the story.
    assert_eq!(by_kind.len(), 8 * 6 + 1);
    assert!(by_kind.values().all(|(training, held_out)| *training >= 3 && *held_out >= 1));
}

#[test]
fn held_out_wordings_are_new_sentences_of_known_words() {
    let all = MiniLedger::new(1).wordings();
    let (held_out, training): (Vec<_>, Vec<_>) = all.iter().partition(|w| w.held_out);
    let known: HashSet<&str> = training.iter().flat_map(|w| words(w.text)).collect();
    for wording in held_out {
        let same = training.iter().find(|other| other.text == wording.text);
        assert!(same.is_none(), "{} repeats {}", wording.id, same.unwrap().id);
        for word in words(wording.text) {
            assert!(known.contains(word), "{} alone has the word {word:?}", wording.id);
        }
    }
}

#[test]
fn the_language_is_small_and_long_problems_stay_short() {
    let mut vocabulary = BTreeSet::new();
    for task in many_tasks() {
        let length = words(&task.question).count();
        assert!(length <= 170, "{}: {length} words", task.id);
        let word = |w: &&str| !w.starts_with(|c: char| c.is_ascii_digit());
        vocabulary.extend(words(&task.question).filter(word).map(str::to_string));
    }
    assert!(vocabulary.len() <= 240, "{} words", vocabulary.len());
    let plain = |word: &String| word.chars().all(|c| c.is_ascii_lowercase());
    assert!(vocabulary.iter().all(plain));
    let corpus = MiniLedger::new(1).corpus(3_000);
    let told: HashSet<&str> = corpus.iter().flat_map(|question| words(question)).collect();
    // A tokenizer trained on the corpus knows every word of the test split.
    assert!(vocabulary.iter().all(|word| told.contains(word.as_str())));
    assert!(corpus.iter().flat_map(|q| numbers(q)).all(|n| n < 10 || !is_reserved(n)));
}

#[test]
fn tasks_do_not_depend_on_the_order_of_access_and_differ_between_seeds() {
    let world = MiniLedger::new(5);
    let late = world.train(1_000_000);
    assert_eq!(MiniLedger::new(5).train(1_000_000), late);
    assert_ne!(MiniLedger::new(6).train(1_000_000).question, late.question);
    assert_eq!(world.test(10), world.test(40)[..10]);
    assert_eq!(world.test(18)[17].id, "mini-ledger/test/0017");
    assert_eq!(world.corpus(3), MiniLedger::new(5).corpus(3));
}

/// Models trained on this world stay comparable only if it does not change.
#[test]
fn the_first_hundred_tasks_are_pinned() {
    let world = MiniLedger::new(1);
    let mut hash = Sha256::new();
    for task in (0..100).map(|i| world.train(i)).chain(world.test(100)) {
        hash.update(serde_json::to_vec(&task).unwrap());
    }
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, "e569e7da7f79ff7e");
}

#[test]
fn the_loader_and_the_scorer_of_calc_x_accept_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let world = MiniLedger::new(4);
    world.write_jsonl(&folder.path().join("new"), 40, 66).unwrap();
    let read = |name: &str| loader::from_file(folder.path().join("new").join(name)).unwrap();
    let training = (0..40).map(|i| world.train(i)).collect();
    for (name, expected) in [("train.jsonl", training), ("test.jsonl", world.test(66))] {
        let loaded = read(name);
        assert!(loaded.rejected.is_empty());
        assert_eq!(loaded.tasks.len(), expected.len());
        for (read, original) in loaded.tasks.iter().zip(&expected) {
            assert_eq!(
                (&read.id, &read.question, &read.gold),
                (&original.id, &original.question, &original.gold)
            );
            assert_eq!(read.label("source"), Some("mini-ledger"));
            for (name, value) in &original.labels {
                assert_eq!(read.label(name), Some(value.as_str()), "{}", read.id);
            }
            assert_eq!(read.fields["chain"], original.fields["chain"]);
            let shown = demonstration(read).unwrap();
            let Some(Turn::Assistant { text, call: None }) = shown.turns.last() else {
                panic!("{}: no final message", read.id)
            };
            let score = CalcxScorer.score(read, Some(text)).unwrap();
            assert_eq!((score.reward, score.parts["format"]), (1.0, 1.0), "{}", read.id);
        }
    }
}
