//! Properties of mini-calc: templates, the two separations of training and test, answers, labels,
//! demonstrations.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use leyden_core::{SeedTree, Task};
use leyden_mini::calc::{CUES, LARGEST, SMALLEST, TEST_TASKS, Template, is_reserved};
use leyden_mini::{MiniCalc, Noise, Paraphrase};
use sha2::{Digest, Sha256};

fn numbers(text: &str) -> Vec<i64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|run| run.parse().ok()).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| " .,?".contains(c)).filter(|word| !word.is_empty())
}

fn field<'a>(task: &'a Task, name: &str) -> &'a str {
    task.fields[name].as_str().unwrap_or_else(|| panic!("{} has no {name}", task.id))
}

/// An independent evaluator in floating point: splits at the last operator of the lowest
/// precedence outside parentheses.
fn evaluate(text: &str) -> f64 {
    let text = text.trim();
    for operators in [['+', '-'], ['*', '/']] {
        let mut depth = 0;
        for (i, c) in text.char_indices().rev() {
            match c {
                ')' => depth += 1,
                '(' => depth -= 1,
                c if depth == 0 && operators.contains(&c) => {
                    let (left, right) = (evaluate(&text[..i]), evaluate(&text[i + 1..]));
                    return match c {
                        '+' => left + right,
                        '-' => left - right,
                        '*' => left * right,
                        _ => left / right,
                    };
                }
                _ => {}
            }
        }
    }
    match text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => evaluate(inner),
        None => text.parse().unwrap_or_else(|_| panic!("not a number: {text:?}")),
    }
}

fn split(world: &MiniCalc) -> (Vec<&Template>, Vec<&Template>) {
    world.templates().iter().partition(|template| !template.held_out)
}

#[test]
fn the_tables_are_large_and_a_fifth_of_every_shape_is_held_out() {
    let world = MiniCalc::new(1);
    let mut by_operations = BTreeMap::new();
    let mut by_shape: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for template in world.templates() {
        *by_operations.entry(template.operations).or_insert(0) += 1;
        let (training, held_out) = by_shape.entry(&template.shape).or_default();
        *(if template.held_out { held_out } else { training }) += 1;
    }
    assert!(by_operations[&1] >= 40 && by_operations[&2] >= 45 && by_operations[&3] >= 30);
    for (shape, (training, held_out)) in by_shape {
        let share = held_out as f64 / (training + held_out) as f64;
        assert!((0.14..0.26).contains(&share), "{shape}: {held_out} of {}", training + held_out);
    }
}

#[test]
fn templates_differ_in_more_than_their_slots() {
    let world = MiniCalc::new(1);
    let mut ids = HashSet::new();
    let mut texts = HashSet::new();
    for template in world.templates() {
        assert!(ids.insert(&template.id), "two templates are called {}", template.id);
        let text = template.normalised();
        assert!(texts.insert(text.clone()), "{} repeats another template: {text}", template.id);
        let operands: BTreeSet<usize> = template.mentions().into_iter().collect();
        assert_eq!(operands, (0..=template.operations).collect(), "{}", template.id);
        assert_eq!(template.mentions().len(), operands.len(), "{}", template.id);
        assert!(template.text.ends_with('?') && !template.text.contains("  "));
        let literal = template.normalised().replace(['#', '{', '}'], "");
        let plain = |c: char| c.is_ascii_lowercase() || " .,?".contains(c);
        assert!(literal.chars().all(plain), "{} is not plain lower case", template.id);
    }
}

#[test]
fn held_out_templates_consist_of_known_parts() {
    let world = MiniCalc::new(1);
    let (training, held_out) = split(&world);
    let training: Vec<String> = training.iter().map(|t| t.normalised()).collect();
    let known: HashSet<&str> = training.iter().flat_map(|text| words(text)).collect();
    for template in held_out {
        let text = template.normalised();
        for word in words(&text) {
            assert!(known.contains(word), "{} alone has the word {word:?}", template.id);
        }
        let cues: Vec<_> = CUES.iter().filter(|(_, cue)| text.contains(cue)).collect();
        assert!(!cues.is_empty(), "{} has no phrase of the inventory: {text}", template.id);
        for (_, cue) in cues {
            let others = training.iter().filter(|text| text.contains(cue)).count();
            assert!(others >= 3, "{}: {cue:?} is in {others} training templates", template.id);
        }
    }
}

#[test]
fn every_phrase_of_the_inventory_recurs_in_training() {
    let world = MiniCalc::new(1);
    let training: Vec<String> = split(&world).0.iter().map(|t| t.normalised()).collect();
    for (_, cue) in CUES {
        let templates = training.iter().filter(|text| text.contains(cue)).count();
        assert!(templates >= 3, "{cue:?} is in {templates} training templates");
    }
}

#[test]
fn every_pair_of_neighbouring_words_is_known_from_training() {
    let world = MiniCalc::new(1);
    let pairs = |template: &Template| {
        let text = template.normalised().replace(['.', ','], " .").replace('?', " ?");
        let words: Vec<String> = text.split_whitespace().map(str::to_string).collect();
        words.windows(2).map(|w| w.join(" ")).collect::<Vec<_>>()
    };
    let (training, held_out) = split(&world);
    let known: HashSet<String> = training.into_iter().flat_map(pairs).collect();
    let new: Vec<String> =
        held_out.into_iter().flat_map(pairs).filter(|p| !known.contains(p)).collect();
    assert!(new.is_empty(), "word pairs that only held-out templates have: {new:?}");
}

/// Thousands of tasks of either split, every template among them.
fn many_tasks() -> (Vec<Task>, Vec<Task>) {
    let world = MiniCalc::new(3);
    ((0..4_000).map(|i| world.train(i)).collect(), world.test(2_000))
}

#[test]
fn every_template_gives_questions_whose_expression_has_the_answer() {
    let (training, test) = many_tasks();
    let mut used = HashSet::new();
    for task in training.iter().chain(&test) {
        let expression = field(task, "expression");
        let gold: i64 = task.gold.parse().unwrap();
        assert!(gold >= 12, "{}: {gold}", task.id);
        // Doubles represent integers up to 2^53 and exact quotients exactly.
        assert_eq!(evaluate(expression), gold as f64, "{}: {expression}", task.id);
        let (mut asked, mut computed) = (numbers(&task.question), numbers(expression));
        if task.label("mention") == Some("in_order") {
            assert_eq!(asked, computed, "{}", task.id);
        } else {
            assert_ne!(asked, computed, "{}", task.id);
        }
        asked.sort_unstable();
        computed.sort_unstable();
        assert_eq!(asked, computed, "{}: {} / {expression}", task.id, task.question);
        assert!(asked.iter().all(|n| (SMALLEST..=LARGEST).contains(n)), "{}", task.id);
        assert!(!asked.contains(&gold), "{} shows its answer", task.id);
        assert!(!task.question.contains(['{', '}']), "{}: {}", task.id, task.question);
        used.insert(field(task, "template").to_string());
    }
    assert_eq!(used.len(), MiniCalc::new(3).templates().len());
}

#[test]
fn training_and_test_share_neither_numbers_nor_held_out_templates() {
    let (training, test) = many_tasks();
    let seen = |task: &Task| numbers(&task.question);
    assert!(training.iter().flat_map(seen).all(|n| !is_reserved(n)));
    assert!(test.iter().flat_map(seen).all(is_reserved));
    let templates = |tasks: &[Task], kind: &str| -> HashSet<String> {
        let of_kind = tasks.iter().filter(|t| t.label("template") == Some(kind));
        of_kind.map(|t| field(t, "template").to_string()).collect()
    };
    let known = templates(&training, "seen");
    assert!(templates(&training, "held_out").is_empty());
    assert!(templates(&test, "held_out").is_disjoint(&known));
    assert!(templates(&test, "seen").is_subset(&known));
    let questions: HashSet<&str> = test.iter().map(|t| t.question.as_str()).collect();
    assert_eq!(questions.len(), test.len(), "a test question occurs twice");
}

#[test]
fn labels_have_the_stated_shares() {
    let (training, test) = many_tasks();
    let share = |tasks: &[Task], name: &str, value: &str| {
        tasks.iter().filter(|t| t.label(name) == Some(value)).count() as f64 / tasks.len() as f64
    };
    for (operations, stated) in [("1", 0.45), ("2", 0.35), ("3", 0.20)] {
        let drawn = share(&training, "operations", operations);
        assert!((drawn - stated).abs() < 0.03, "{operations} operations: {drawn}");
        assert!((share(&test, "operations", operations) - stated).abs() < 1e-9);
    }
    assert_eq!(share(&test, "template", "held_out"), 0.5);
    assert!((0.1..0.4).contains(&share(&training, "mention", "reordered")));
    for task in test.iter().chain(&training) {
        let symbols =
            |text: &str| text.chars().filter(|c| "+-*/()".contains(*c)).collect::<String>();
        let shape = field(task, "shape");
        assert_eq!(symbols(shape), symbols(field(task, "expression")), "{}", task.id);
        assert_eq!(
            task.label("operations").unwrap().parse(),
            Ok(numbers(field(task, "expression")).len() - 1)
        );
    }
}

#[test]
fn tasks_do_not_depend_on_the_order_of_access_and_differ_between_seeds() {
    let world = MiniCalc::new(5);
    let late = world.train(1_000_000);
    assert_eq!(MiniCalc::new(5).train(1_000_000), late);
    assert_ne!(MiniCalc::new(6).train(1_000_000).question, late.question);
    assert_eq!(world.test(10), world.test(TEST_TASKS)[..10]);
    assert_eq!(world.test(18)[17].id, "mini-calc/test/0017");
    assert_eq!(world.corpus(3), MiniCalc::new(5).corpus(3));
}

/// The committed base model is pretrained on this world, which must not change.
#[test]
fn the_first_hundred_tasks_are_pinned() {
    let world = MiniCalc::new(1);
    let mut hash = Sha256::new();
    for task in (0..100).map(|i| world.train(i)).chain(world.test(100)) {
        hash.update(serde_json::to_vec(&task).unwrap());
    }
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, "b712002124b351d3");
}

#[test]
fn chains_are_in_the_format_of_calc_x() {
    let world = MiniCalc::new(1);
    for task in world.test(TEST_TASKS) {
        let call = format!("<gadget id=\"calculator\">{}</gadget>\n", field(&task, "expression"));
        let rest = field(&task, "chain").strip_prefix(&call).expect("begins with the call");
        let output = rest.strip_prefix("<output>").unwrap().split_once("</output>\n\n<result>");
        let (output, result) = output.expect("an output, then a result");
        assert_eq!(result.strip_suffix("</result>"), Some(output));
        assert_eq!(output.replace('_', ""), task.gold);
        let mut groups = output.split('_');
        assert!((1..=3).contains(&groups.next().unwrap().len()), "{output}");
        assert!(groups.all(|group| group.len() == 3), "{output}");
    }
}

/// Whether the Calc-X rule accepts the value of an expression.
fn is_right(task: &Task, expression: &str) -> bool {
    let (value, gold) = (evaluate(expression), task.gold.parse::<f64>().unwrap());
    (value - gold).abs() <= 0.01 * value.abs().max(gold.abs())
}

#[test]
fn operators_of_demonstrations_are_correct_at_the_given_rate() {
    let world = MiniCalc::new(1);
    let operators = |text: &str| text.chars().filter(|c| "+-*/".contains(*c)).collect::<Vec<_>>();
    for (noise, operations) in [1, 2, 3].map(|n| (Noise { swapped: 0.0, ..Noise::of(n) }, n)) {
        let (mut right, mut lazy, mut all) = (0, 0, 0);
        for i in 0..20_000 {
            let task = world.train(i);
            if task.label("operations") != Some(operations.to_string().as_str()) {
                continue;
            }
            let correct = field(&task, "expression");
            let drawn = noise.draw(&task, SeedTree::new(9).index(i)).unwrap();
            assert_eq!(numbers(&drawn), numbers(correct), "{}", task.id);
            for (operator, drawn) in operators(correct).into_iter().zip(operators(&drawn)) {
                all += 1;
                right += usize::from(operator == drawn);
                let easy = if operator == '+' { '-' } else { '+' };
                lazy += usize::from(drawn == easy);
            }
        }
        let share = |count: usize| count as f64 / all as f64;
        assert!((share(right) - noise.right).abs() < 0.02, "{operations}: {}", share(right));
        let expected = (1.0 - noise.right) * noise.lazy;
        assert!((share(lazy) - expected).abs() < 0.02, "{operations}: {}", share(lazy));
    }
}

#[test]
fn less_than_three_of_twenty_demonstrations_have_the_correct_answer() {
    let world = MiniCalc::new(1);
    let n = 20_000;
    let right = (0..n)
        .filter(|&i| {
            let task = world.train(i);
            let operations = task.label("operations").unwrap().parse().unwrap();
            let drawn = Noise::of(operations).draw(&task, SeedTree::new(3).index(i)).unwrap();
            is_right(&task, &drawn)
        })
        .count();
    let share = right as f64 / n as f64;
    assert!((0.10..0.15).contains(&share), "{share}");
}

#[test]
fn retellings_keep_the_numbers_and_use_only_training_material() {
    let world = MiniCalc::new(3);
    let mut changed = 0;
    for index in 0..2_000 {
        let Paraphrase { original, paraphrase } = world.retelling(index);
        assert_eq!(
            world.retelling(index).original,
            original,
            "retelling {index} is not reproducible"
        );
        let sorted = |text: &str| {
            let mut all = numbers(text);
            all.sort_unstable();
            all
        };
        assert_eq!(sorted(&original), sorted(&paraphrase), "{original} / {paraphrase}");
        assert!(!numbers(&original).iter().any(|&n| is_reserved(n)), "{original}");
        for text in [&original, &paraphrase] {
            assert!(!text.contains(['*', '/', '=']), "an expression is shown: {text}");
        }
        changed += usize::from(original != paraphrase);
    }
    // A few shapes have a single training wording.
    assert!(changed > 1_800, "{changed}");
}

#[test]
fn noise_can_be_none_and_a_foreign_task_is_rejected() {
    let world = MiniCalc::new(2);
    let none = Noise { right: 1.0, lazy: 0.0, swapped: 0.0 };
    for i in 0..200 {
        let task = world.train(i);
        assert_eq!(none.draw(&task, SeedTree::new(4)).unwrap(), field(&task, "expression"));
    }
    let mut foreign = world.train(0);
    foreign.fields.clear();
    let error = none.draw(&foreign, SeedTree::new(4)).unwrap_err().to_string();
    assert!(error.contains("mini-calc/train/0") && error.contains("shape"), "{error}");
}

#[test]
fn files_contain_the_tasks_in_the_format_of_calc_x() {
    let folder = tempfile::tempdir().unwrap();
    let world = MiniCalc::new(1);
    world.write_jsonl(&folder.path().join("new"), 20, 10).unwrap();
    let text = std::fs::read_to_string(folder.path().join("new/train.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 20);
    for (i, row) in rows.iter().enumerate() {
        let task = world.train(i as u64);
        assert_eq!(row["id"], task.id);
        assert_eq!(row["question"], task.question);
        assert_eq!(row["result"], task.gold);
        assert_eq!(row["chain"], task.fields["chain"]);
        assert_eq!(row["labels"]["mention"], task.label("mention").unwrap());
    }
    let error = world.write_jsonl(&folder.path().join("new/train.jsonl"), 1, 1).unwrap_err();
    assert!(error.to_string().contains("train.jsonl"), "{error}");
}
