//! Demonstrations that are mostly wrong.
//!
//! A base model for reinforcement learning has to know the language, how to copy numbers and
//! how to call the calculator, but not which expression answers which question: that is what
//! the rewards teach. So it is trained on expressions over the right numbers of which only a
//! known share is right.

use leyden_core::{SeedTree, Task};

use super::draws::Draws;
use super::expression::{Expression, Operator, Value, accepted};

/// The distribution of demonstrated expressions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DistractorMix {
    /// Share of right expressions. All others are wrong by the Calc-X rule, so this is the
    /// reward of a model that has learned the demonstrations and nothing else.
    pub p_right: f64,
    /// Share of lazy ones: the sum of all numbers in the order of mention. Where that is the
    /// answer, a random wrong expression takes its place.
    pub p_lazy: f64,
    /// The rest are random: operators, order of operands and parentheses uniform over all
    /// trees. Each leaves out one operand with this probability, if it has more than two.
    pub p_drop: f64,
}

impl Default for DistractorMix {
    fn default() -> Self {
        Self { p_right: 0.12, p_lazy: 0.4, p_drop: 0.15 }
    }
}

/// How a demonstrated expression came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DistractorKind {
    Right,
    Lazy,
    Random,
}

/// One demonstrated expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Distractor {
    /// As one types it into the calculator.
    pub expression: String,
    /// Its exact value; `None` if it divides by zero.
    pub value: Option<Value>,
    pub kind: DistractorKind,
}

/// The task is not one of this world.
#[derive(Debug, thiserror::Error)]
#[error("task {id} is not a mini-calc task: it has no {missing}; generate it with MiniCalc")]
pub struct NotMiniCalc {
    id: String,
    missing: &'static str,
}

impl DistractorMix {
    /// The expression that `seed` draws for `task`.
    ///
    /// # Errors
    /// If the task lacks an integer answer, two numbers in its question or the field
    /// `expression`.
    pub fn draw(&self, task: &Task, seed: SeedTree) -> Result<Distractor, NotMiniCalc> {
        let lacks = |missing| NotMiniCalc { id: task.id.clone(), missing };
        let gold: i64 = task.gold.parse().map_err(|_| lacks("integer answer"))?;
        let gold = Value::from(i128::from(gold));
        let right = task.fields.get("expression").and_then(|x| x.as_str());
        let right = right.ok_or_else(|| lacks("field `expression`"))?;
        let numbers = numbers_in(&task.question);
        if !(2..=4).contains(&numbers.len()) {
            return Err(lacks("two to four numbers in its question"));
        }
        let mut draws = Draws::new(seed.child("distractor"));
        let share = draws.uniform();
        if share < self.p_right {
            let expression = right.to_string();
            return Ok(Distractor { expression, value: Some(gold), kind: DistractorKind::Right });
        }
        if share < self.p_right + self.p_lazy
            && let Some(lazy) = wrong(&lazy(numbers.len()), &numbers, gold, DistractorKind::Lazy)
        {
            return Ok(lazy);
        }
        loop {
            let tree = self.random_expression(numbers.len(), &mut draws);
            if let Some(random) = wrong(&tree, &numbers, gold, DistractorKind::Random) {
                return Ok(random);
            }
        }
    }

    fn random_expression(&self, operands: usize, draws: &mut Draws) -> Expression {
        let mut leaves: Vec<usize> = (0..operands).collect();
        draws.shuffle(&mut leaves);
        if operands > 2 && draws.uniform() < self.p_drop {
            leaves.pop();
        }
        random_tree(&leaves, draws)
    }
}

/// The expression over `numbers`, unless its value passes for the answer.
fn wrong(
    tree: &Expression,
    numbers: &[i64],
    gold: Value,
    kind: DistractorKind,
) -> Option<Distractor> {
    let value = tree.value(numbers);
    if value.is_some_and(|value| accepted(value, gold)) {
        return None;
    }
    Some(Distractor { expression: tree.with_numbers(numbers), value, kind })
}

fn lazy(operands: usize) -> Expression {
    let first = Expression::Leaf(0);
    (1..operands).fold(first, |sum, i| Expression::node(Operator::Add, sum, Expression::Leaf(i)))
}

/// A tree over `leaves` in this order, uniform over all binary trees and operators.
fn random_tree(leaves: &[usize], draws: &mut Draws) -> Expression {
    if let [leaf] = leaves {
        return Expression::Leaf(*leaf);
    }
    // Catalan numbers count the trees on either side of a split.
    const TREES: [f64; 5] = [0.0, 1.0, 1.0, 2.0, 5.0];
    let n = leaves.len();
    let splits: Vec<f64> = (1..n).map(|left| TREES[left] * TREES[n - left]).collect();
    let (left, right) = leaves.split_at(draws.weighted(&splits) + 1);
    let op = *draws.choose(&Operator::ALL);
    Expression::node(op, random_tree(left, draws), random_tree(right, draws))
}

/// The numbers of a question in the order of mention.
fn numbers_in(question: &str) -> Vec<i64> {
    question.split(|c: char| !c.is_ascii_digit()).filter_map(|run| run.parse().ok()).collect()
}
