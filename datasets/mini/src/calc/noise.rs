//! Demonstrations in which each choice is correct with a given probability.
//!
//! A base model for reinforcement learning has to know the language, how to copy numbers and how
//! to call the calculator, but not which expression answers which question; the rewards train
//! that. Its demonstrations have the correct operands under operators that are each correct with a
//! given probability and otherwise mostly a default, plus. Noise on whole expressions did not
//! work: with one correct demonstration in eight a small model learned nothing about longer
//! problems, and reinforcement learning had no signal.

use leyden_core::{SeedTree, Task};

use super::expression::{Expression, Operator};
use crate::draws::Draws;

/// Error rates of demonstrations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// Probability that an operator is correct.
    pub right: f64,
    /// Share of wrong operators that are the default: plus, or minus where plus is correct. The
    /// others are uniform over the two remaining operators.
    pub lazy: f64,
    /// Probability that the operands of one operator are swapped.
    pub swapped: f64,
}

impl Noise {
    /// The noise for problems with `operations` operations. The operators of longer problems are
    /// correct more often, because all of them have to be correct at once.
    pub fn of(operations: usize) -> Self {
        let right = match operations {
            1 => 0.14,
            2 => 0.37,
            _ => 0.44,
        };
        Self { right, lazy: 0.75, swapped: 0.2 }
    }

    /// No noise: the correct expression.
    pub fn none() -> Self {
        Self { right: 1.0, lazy: 0.0, swapped: 0.0 }
    }

    /// Draws an expression for `task`, as calculator input.
    ///
    /// # Errors
    /// If the task lacks the fields `shape` and `expression` of this world.
    pub fn draw(&self, task: &Task, seed: SeedTree) -> Result<String, NotMiniCalc> {
        let field = |name: &'static str| {
            let text = task.fields.get(name).and_then(|x| x.as_str());
            text.ok_or_else(|| NotMiniCalc { id: task.id.clone(), field: name })
        };
        let shape = Expression::parse_shape(field("shape")?);
        let shape = shape.ok_or_else(|| NotMiniCalc { id: task.id.clone(), field: "shape" })?;
        // The expression has the shape's operands in the shape's order.
        let operand_values = numbers_in(field("expression")?);
        let letters = operands(&shape);
        if operand_values.len() != letters.len() {
            return Err(NotMiniCalc { id: task.id.clone(), field: "expression" });
        }
        let mut numbers = vec![0; letters.iter().max().map_or(0, |&last| last + 1)];
        for (&letter, &number) in letters.iter().zip(&operand_values) {
            numbers[letter] = number;
        }
        let mut draws = Draws::new(seed.child("noise"));
        let swapped = (draws.uniform() < self.swapped).then(|| draws.below(shape.operations()));
        let mut node = 0;
        Ok(self.disturb(&shape, swapped, &mut node, &mut draws).with_numbers(&numbers))
    }

    /// A copy with drawn operators, with the operands of node number `swapped` exchanged.
    fn disturb(
        &self,
        tree: &Expression,
        swapped: Option<usize>,
        node: &mut usize,
        draws: &mut Draws,
    ) -> Expression {
        let Expression::Node(op, left, right) = tree else { return tree.clone() };
        let swap = swapped == Some(*node);
        *node += 1;
        let op = self.operator(*op, draws);
        let left = self.disturb(left, swapped, node, draws);
        let right = self.disturb(right, swapped, node, draws);
        if swap { Expression::node(op, right, left) } else { Expression::node(op, left, right) }
    }

    fn operator(&self, right: Operator, draws: &mut Draws) -> Operator {
        if draws.uniform() < self.right {
            return right;
        }
        let lazy = if right == Operator::Add { Operator::Subtract } else { Operator::Add };
        if draws.uniform() < self.lazy {
            return lazy;
        }
        let others: Vec<Operator> =
            Operator::ALL.into_iter().filter(|&op| op != right && op != lazy).collect();
        *draws.choose(&others)
    }
}

/// The task does not belong to this world.
#[derive(Debug, thiserror::Error)]
#[error("task {id} is not a mini-calc task: its field `{field}` is missing or malformed")]
pub struct NotMiniCalc {
    id: String,
    field: &'static str,
}

/// The leaves from left to right.
fn operands(tree: &Expression) -> Vec<usize> {
    match tree {
        Expression::Leaf(index) => vec![*index],
        Expression::Node(_, left, right) => [operands(left), operands(right)].concat(),
    }
}

fn numbers_in(text: &str) -> Vec<i64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|run| run.parse().ok()).collect()
}
