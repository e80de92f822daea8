//! mini-calc: word problems in the format of Calc-X.
//!
//! A problem consists of a template (a wording of an expression), words for its slots and numbers
//! for its operands. The language is compositional: a fixed set of phrases expresses the
//! operations, and templates combine them, so that a held-out template is a new sentence of known
//! parts. Some templates mention their numbers in another order than the expression uses them, so
//! that copying from left to right is not enough.
//!
//! Training and test are disjoint in two ways: a fifth of all numbers occurs in test questions
//! only, and about a fifth of the templates of every expression is held out.

mod export;
mod expression;
mod noise;
mod numbers;
mod retelling;
mod template;
mod templates;
mod words;

use leyden_core::{SeedTree, Task};
use serde_json::{Map, json};

use crate::draws::Draws;

pub use crate::files::ExportError;
pub use expression::{Expression, Operator, Value};
pub use noise::{Noise, NotMiniCalc};
pub use numbers::{LARGEST, SMALLEST, is_reserved};
pub use retelling::Paraphrase;
use template::SlotWords;
pub use template::Template;
pub use words::CUES;

/// Number of test tasks of the default test split.
pub const TEST_TASKS: usize = 256;

/// Operations of twenty consecutive problems: nine with one, seven with two, four with three.
const OPERATIONS: [usize; 20] = [1, 2, 1, 3, 2, 1, 1, 2, 1, 3, 1, 2, 1, 2, 3, 1, 2, 1, 2, 3];

/// The world of one seed. Tasks can be accessed in any order: seed, split and index determine the
/// task.
#[derive(Debug, Clone)]
pub struct MiniCalc {
    root: SeedTree,
    templates: Vec<Template>,
}

impl MiniCalc {
    pub fn new(seed: u64) -> Self {
        Self { root: SeedTree::new(seed).child("mini-calc"), templates: template::all() }
    }

    /// All templates, including held-out ones.
    pub fn templates(&self) -> &[Template] {
        &self.templates
    }

    /// Training task number `index` of an endless stream.
    pub fn train(&self, index: u64) -> Task {
        let mut draws = Draws::new(self.root.child("train").index(index));
        let operations = *draws.choose(&OPERATIONS);
        self.task(format!("mini-calc/train/{index}"), operations, false, false, &mut draws)
    }

    /// The first `n` test tasks ([`TEST_TASKS`] by default). They alternate between training
    /// templates and held-out templates; all their numbers are reserved for test.
    pub fn test(&self, n: usize) -> Vec<Task> {
        (0..n).map(|i| self.test_task(i)).collect()
    }

    fn test_task(&self, i: usize) -> Task {
        let mut draws = Draws::new(self.root.child("test").index(i as u64));
        let operations = OPERATIONS[i / 2 % OPERATIONS.len()];
        self.task(format!("mini-calc/test/{i:04}"), operations, i % 2 == 1, true, &mut draws)
    }

    /// `n` training questions for training a tokenizer, independent of the training tasks.
    pub fn corpus(&self, n: usize) -> Vec<String> {
        let node = self.root.child("corpus");
        let question = |i| {
            let mut draws = Draws::new(node.index(i as u64));
            let operations = *draws.choose(&OPERATIONS);
            self.task(String::new(), operations, false, false, &mut draws).question
        };
        (0..n).map(question).collect()
    }

    fn task(
        &self,
        id: String,
        operations: usize,
        held_out: bool,
        reserved: bool,
        draws: &mut Draws,
    ) -> Task {
        let fits = |t: &&Template| t.operations == operations && t.held_out == held_out;
        let choices: Vec<&Template> = self.templates.iter().filter(fits).collect();
        let template = *draws.choose(&choices);
        let (numbers, answer) = numbers::draw(&template.expression, reserved, draws);
        let expression = template.expression.with_numbers(&numbers);
        let mut fields = Map::new();
        fields.insert("chain".into(), json!(chain(&expression, answer)));
        fields.insert("expression".into(), json!(expression));
        fields.insert("template".into(), json!(template.id));
        fields.insert("shape".into(), json!(template.shape));
        fields.insert("source".into(), json!("mini-calc"));
        Task {
            id,
            question: template.render(&numbers, &SlotWords::draw(draws)),
            gold: answer.to_string(),
            labels: labels(template),
            fields,
        }
    }
}

fn labels(template: &Template) -> Vec<(String, String)> {
    let seen = if template.held_out { "held_out" } else { "seen" };
    let order = if template.mentions().is_sorted() { "in_order" } else { "reordered" };
    [
        ("operations", template.operations.to_string()),
        ("template", seen.to_string()),
        ("mention", order.to_string()),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .to_vec()
}

/// The solution in Calc-X's markup: one call of the calculator, its output, the result.
fn chain(expression: &str, answer: i64) -> String {
    let output = grouped(answer);
    format!(
        "<gadget id=\"calculator\">{expression}</gadget>\n<output>{output}</output>\n\n\
         <result>{output}</result>"
    )
}

/// An integer in the output format of the Calc-X calculator: `_` between thousands.
fn grouped(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut text = if n < 0 { "-".to_string() } else { String::new() };
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}
