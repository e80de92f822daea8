//! The numbers of a problem.
//!
//! Every positive integer belongs permanently to training or to test, so that no test question
//! repeats a number from training. Within its class, a problem's numbers are drawn until the
//! answer is a positive integer, divisions have no remainder, and no near miss is accepted as the
//! answer: the Calc-X rule tolerates 1 %, so an operand too small to matter would reward an
//! expression that omits it.

use leyden_core::SeedTree;
use num_traits::ToPrimitive;

use super::expression::{Expression, Operator, Value, accepted};
use crate::draws::Draws;

/// Smallest and largest number of a question.
pub const SMALLEST: i64 = 12;
pub const LARGEST: i64 = 99_999;
/// Lower bound of intermediate results, below which no calculator is needed.
const SMALLEST_RESULT: i128 = 12;

/// Whether `n` is reserved for test questions. A fixed property of a fifth of all numbers.
pub fn is_reserved(n: i64) -> bool {
    SeedTree::new(0).child("mini-calc reserved").index(n.unsigned_abs()).seed().is_multiple_of(5)
}

/// Numbers for the operands `a`, `b`, … of `shape`, and the answer.
pub(super) fn draw(shape: &Expression, reserved: bool, draws: &mut Draws) -> (Vec<i64>, i64) {
    let mut digits = vec![&SUMMANDS[..]; shape.operations() + 1];
    assign_digits(shape, &mut digits);
    // Every shape of the tables succeeds within some thousand attempts; the tests draw thousands
    // of each.
    loop {
        let mut numbers: Vec<i64> = digits.iter().map(|d| of_class(d, reserved, draws)).collect();
        if contains_division(shape) {
            even_out(shape, &mut numbers);
        }
        if let Some(answer) = answer_if_fit(shape, &numbers, reserved) {
            return (numbers, answer);
        }
    }
}

/// Shares of numbers with 2, 3, 4 and 5 digits, by role.
const SUMMANDS: [f64; 4] = [0.0, 0.45, 0.4, 0.15];
const FACTORS: [f64; 4] = [0.5, 0.45, 0.05, 0.0];
const SECOND_FACTORS: [f64; 4] = [0.7, 0.3, 0.0, 0.0];
const DIVIDENDS: [f64; 4] = [0.0, 0.3, 0.5, 0.2];
const DIVISORS: [f64; 4] = [0.85, 0.15, 0.0, 0.0];

fn assign_digits(shape: &Expression, digits: &mut [&[f64]]) {
    let Expression::Node(op, left, right) = shape else { return };
    let roles = match op {
        Operator::Multiply => Some((&FACTORS, &SECOND_FACTORS)),
        Operator::Divide => Some((&DIVIDENDS, &DIVISORS)),
        Operator::Add | Operator::Subtract => None,
    };
    for (child, role) in [(left, roles.map(|r| r.0)), (right, roles.map(|r| r.1))] {
        match (child.as_ref(), role) {
            (Expression::Leaf(i), Some(role)) => digits[*i] = role,
            _ => assign_digits(child, digits),
        }
    }
}

/// A number of the class, with its length drawn from `shares`.
fn of_class(shares: &[f64], reserved: bool, draws: &mut Draws) -> i64 {
    let low = 10_i64.pow(draws.weighted(shares) as u32 + 1);
    loop {
        let n = draws.between(low.max(SMALLEST), 10 * low - 1);
        if is_reserved(n) == reserved {
            return n;
        }
    }
}

fn contains_division(shape: &Expression) -> bool {
    match shape {
        Expression::Leaf(_) => false,
        Expression::Node(op, left, right) => {
            *op == Operator::Divide || contains_division(left) || contains_division(right)
        }
    }
}

/// Increments the first operand, which is in the dividend, until the division has no remainder.
fn even_out(shape: &Expression, numbers: &mut [i64]) {
    for n in numbers[0]..(numbers[0] + 1000).min(LARGEST) {
        numbers[0] = n;
        if shape.value(numbers).is_some_and(|value| value.is_integer()) {
            return;
        }
    }
}

/// The answer, if the numbers give a suitable problem.
fn answer_if_fit(shape: &Expression, numbers: &[i64], reserved: bool) -> Option<i64> {
    let distinct = numbers.iter().enumerate().all(|(i, n)| !numbers[..i].contains(n));
    let in_class = numbers.iter().all(|n| is_reserved(*n) == reserved);
    if !distinct || !in_class || !steps_fit(shape, numbers) {
        return None;
    }
    let gold = shape.value(numbers)?;
    let near_miss = |x: &Expression| x.value(numbers).is_some_and(|value| accepted(value, gold));
    let shown = numbers.iter().any(|n| accepted(Value::from(i128::from(*n)), gold));
    if shown || shape.neighbours().iter().any(|x| near_miss(x) && !equivalent(x, shape)) {
        return None;
    }
    gold.to_integer().to_i64()
}

/// Whether every intermediate result is an integer and not too small.
fn steps_fit(shape: &Expression, numbers: &[i64]) -> bool {
    let Expression::Node(_, left, right) = shape else { return true };
    let fit = |value: Value| value.is_integer() && value >= Value::from(SMALLEST_RESULT);
    steps_fit(left, numbers) && steps_fit(right, numbers) && shape.value(numbers).is_some_and(fit)
}

/// Whether two expressions are equal for all numbers (`b + a` and `a + b`), tested on numbers
/// without a common structure.
fn equivalent(one: &Expression, other: &Expression) -> bool {
    [[1_009, 89, 31, 7], [523, 8_017, 61, 401]].iter().all(|n| one.value(n) == other.value(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_numbers_is_reserved_at_every_length() {
        for (low, high) in [(12, 99), (100, 999), (1_000, 9_999), (10_000, 99_999)] {
            let share =
                (low..=high).filter(|n| is_reserved(*n)).count() as f64 / (high - low + 1) as f64;
            assert!((0.1..0.3).contains(&share), "{low}..{high}: {share}");
        }
    }

    #[test]
    fn a_negligible_operand_is_rejected() {
        let shape = Expression::parse_shape("a * b + c").unwrap();
        let fit = |c: i64| answer_if_fit(&shape, &[905, 88, c], is_reserved(905));
        let of_class = |low: i64| (low..).find(|n| is_reserved(*n) == is_reserved(905)).unwrap();
        assert_eq!(is_reserved(905), is_reserved(88));
        // 905 * 88 is 79,640: the scorer distinguishes 4,000 more, but not 400 more.
        assert!(fit(of_class(4_000)).is_some());
        assert_eq!(fit(of_class(400)), None);
    }
}
