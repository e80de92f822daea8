//! Equations in prefix notation, which MAWPS has instead of chains.
//!
//! `* number0 + number1 2.0` with the numbers of the question becomes `12 * (3 + 2)`.

use leyden_core::Task;
use serde_json::Value;

/// An expression with its precedence: a sum needs parentheses as an operand of `*` and `/`, and
/// either kind to the right of `-` and `/`.
struct Part {
    text: String,
    rank: u8,
}

const SUM: u8 = 1;
const PRODUCT: u8 = 2;
const NUMBER: u8 = 3;

/// The expression of a task with the fields `prefix_equation` and `numbers`; `None` if they are
/// missing or inconsistent.
pub fn infix(task: &Task) -> Option<String> {
    let equation = task.fields.get("prefix_equation")?.as_str()?;
    let numbers = task.fields.get("numbers").and_then(Value::as_array);
    let mut stack: Vec<Part> = Vec::new();
    for token in equation.split_whitespace().rev() {
        let part = match token {
            "+" | "-" => join(token, SUM, stack.pop()?, stack.pop()?),
            "*" | "/" => join(token, PRODUCT, stack.pop()?, stack.pop()?),
            _ => match token.strip_prefix("number") {
                Some(index) => number(numbers?.get(index.parse::<usize>().ok()?)?.as_str()?)?,
                None => number(token)?,
            },
        };
        stack.push(part);
    }
    let whole = stack.pop()?;
    stack.is_empty().then_some(whole.text)
}

fn join(op: &str, rank: u8, left: Part, right: Part) -> Part {
    let bracketed = |part: Part, needed: bool| {
        if needed { format!("({})", part.text) } else { part.text }
    };
    // `a - (b - c)` and `a / (b * c)` keep their parentheses; `a + b + c` needs none.
    let from_left = matches!(op, "-" | "/");
    let left_needs = left.rank < rank;
    let right_needs = right.rank < rank || (right.rank == rank && from_left);
    let (left, right) = (bracketed(left, left_needs), bracketed(right, right_needs));
    Part { text: format!("{left} {op} {right}"), rank }
}

/// A number in its usual form: `56.0` is `56`; negative ones are in parentheses.
fn number(text: &str) -> Option<Part> {
    let value: f64 = text.parse().ok()?;
    let short = text.strip_suffix(".0").unwrap_or(text);
    let negative = value.is_sign_negative();
    let text = if negative { format!("({short})") } else { short.to_owned() };
    value.is_finite().then_some(Part { text, rank: NUMBER })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(equation: &str, numbers: &[&str]) -> Option<String> {
        let mut fields = serde_json::Map::new();
        fields.insert("prefix_equation".into(), equation.into());
        fields.insert("numbers".into(), numbers.to_vec().into());
        infix(&Task {
            id: "t".into(),
            question: "?".into(),
            gold: "1".into(),
            labels: vec![],
            fields,
        })
    }

    #[test]
    fn prefix_becomes_infix_with_the_parentheses_it_needs() {
        let numbers = ["7.0", "2.5", "3.0"];
        let cases = [
            ("* number0 number1", "7 * 2.5"),
            ("- number0 * number1 number2", "7 - 2.5 * 3"),
            ("* - number0 number1 number2", "(7 - 2.5) * 3"),
            ("- number0 - number1 number2", "7 - (2.5 - 3)"),
            ("- - number0 number1 number2", "7 - 2.5 - 3"),
            ("/ number0 * number1 0.01", "7 / (2.5 * 0.01)"),
            ("+ number0 + number1 number2", "7 + 2.5 + 3"),
            ("* number2 -2.0", "3 * (-2)"),
            ("number2", "3"),
        ];
        for (prefix, infix) in cases {
            assert_eq!(of(prefix, &numbers).as_deref(), Some(infix), "{prefix}");
        }
    }

    #[test]
    fn invalid_equations_are_none() {
        for prefix in ["", "+ number0", "number0 number1", "+ number0 number9", "+ 1 x", "+ 1 nan"]
        {
            assert_eq!(of(prefix, &["1.0", "2.0"]), None, "{prefix}");
        }
    }
}
