//! Arithmetic expressions over numbered operands.
//!
//! A template has its expression as a shape such as `(a + b) * c`; a task fills in numbers. Both
//! are the same tree, printed with letters or with numbers. Values are exact fractions, because a
//! wrong expression may divide with a remainder.

use num_rational::Ratio;
use num_traits::Zero;

/// An exact value. Four operands of five digits cannot overflow 128 bits.
pub type Value = Ratio<i128>;

/// The four operators of the calculator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Operator {
    pub const ALL: [Self; 4] = [Self::Add, Self::Subtract, Self::Multiply, Self::Divide];

    pub fn symbol(self) -> char {
        match self {
            Self::Add => '+',
            Self::Subtract => '-',
            Self::Multiply => '*',
            Self::Divide => '/',
        }
    }

    fn of(symbol: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.symbol() as u8 == symbol)
    }

    fn precedence(self) -> u8 {
        match self {
            Self::Add | Self::Subtract => 1,
            Self::Multiply | Self::Divide => 2,
        }
    }

    /// `None` if the divisor is 0.
    pub fn apply(self, left: Value, right: Value) -> Option<Value> {
        match self {
            Self::Add => Some(left + right),
            Self::Subtract => Some(left - right),
            Self::Multiply => Some(left * right),
            Self::Divide => (!right.is_zero()).then(|| left / right),
        }
    }
}

/// A tree of operators over operands; a leaf is an index into a list of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    Leaf(usize),
    Node(Operator, Box<Expression>, Box<Expression>),
}

impl Expression {
    pub fn node(op: Operator, left: Self, right: Self) -> Self {
        Self::Node(op, Box::new(left), Box::new(right))
    }

    /// Parses a shape: single letters from `a`, the four operators, parentheses. `None` for any
    /// other text.
    pub fn parse_shape(text: &str) -> Option<Self> {
        let bytes: Vec<u8> = text.bytes().filter(|b| *b != b' ').collect();
        let mut at = 0;
        let tree = parse_level(&bytes, &mut at, 1)?;
        (at == bytes.len()).then_some(tree)
    }

    /// Number of operators.
    pub fn operations(&self) -> usize {
        match self {
            Self::Leaf(_) => 0,
            Self::Node(_, left, right) => 1 + left.operations() + right.operations(),
        }
    }

    /// The exact value over `numbers`; `None` if a divisor is 0.
    pub fn value(&self, numbers: &[i64]) -> Option<Value> {
        match self {
            Self::Leaf(i) => Some(Value::from(i128::from(numbers[*i]))),
            Self::Node(op, left, right) => op.apply(left.value(numbers)?, right.value(numbers)?),
        }
    }

    /// The expression with letters: `(a + b) * c`.
    pub fn shape(&self) -> String {
        self.print(&|i| char::from(b'a' + i as u8).to_string())
    }

    /// The expression with numbers as calculator input: spaces around operators, parentheses only
    /// where the tree needs them.
    pub fn with_numbers(&self, numbers: &[i64]) -> String {
        self.print(&|i| numbers[i].to_string())
    }

    fn print(&self, leaf: &dyn Fn(usize) -> String) -> String {
        match self {
            Self::Leaf(i) => leaf(*i),
            Self::Node(op, left, right) => {
                let side = |child: &Self, right_hand: bool| {
                    let text = child.print(leaf);
                    if child.needs_parentheses(*op, right_hand) {
                        format!("({text})")
                    } else {
                        text
                    }
                };
                format!("{} {} {}", side(left, false), op.symbol(), side(right, true))
            }
        }
    }

    fn needs_parentheses(&self, parent: Operator, right_hand: bool) -> bool {
        let Self::Node(op, ..) = self else { return false };
        let (inner, outer) = (op.precedence(), parent.precedence());
        // a + (b + c) and a * (b * c) keep their value without parentheses; a - (b + c),
        // a / (b * c) and a * (b / c) would be another tree.
        let associative = *op == parent && matches!(op, Operator::Add | Operator::Multiply);
        inner < outer || (right_hand && inner == outer && !associative)
    }

    /// Every expression with a single mistake: one operator replaced, the operands of one operator
    /// swapped, or one operand of an operator omitted.
    pub fn neighbours(&self) -> Vec<Self> {
        let Self::Node(op, left, right) = self else { return Vec::new() };
        let (op, l, r) = (*op, left.as_ref(), right.as_ref());
        let mut all = vec![l.clone(), r.clone(), Self::node(op, r.clone(), l.clone())];
        for other in Operator::ALL.into_iter().filter(|other| *other != op) {
            all.push(Self::node(other, l.clone(), r.clone()));
        }
        all.extend(l.neighbours().into_iter().map(|x| Self::node(op, x, r.clone())));
        all.extend(r.neighbours().into_iter().map(|x| Self::node(op, l.clone(), x)));
        all
    }
}

/// Left-associative operators of precedence `level` over operands of the next level.
fn parse_level(bytes: &[u8], at: &mut usize, level: u8) -> Option<Expression> {
    if level > 2 {
        return parse_operand(bytes, at);
    }
    let mut tree = parse_level(bytes, at, level + 1)?;
    while let Some(op) = bytes.get(*at).and_then(|b| Operator::of(*b)) {
        if op.precedence() != level {
            break;
        }
        *at += 1;
        tree = Expression::node(op, tree, parse_level(bytes, at, level + 1)?);
    }
    Some(tree)
}

fn parse_operand(bytes: &[u8], at: &mut usize) -> Option<Expression> {
    let first = *bytes.get(*at)?;
    *at += 1;
    match first {
        b'a'..=b'z' => Some(Expression::Leaf(usize::from(first - b'a'))),
        b'(' => {
            let tree = parse_level(bytes, at, 1)?;
            (bytes.get(*at) == Some(&b')')).then(|| *at += 1)?;
            Some(tree)
        }
        _ => None,
    }
}

/// Whether the Calc-X rule accepts `value` for `gold`: a relative difference of at most 1 %.
pub fn accepted(value: Value, gold: Value) -> bool {
    let abs = |x: Value| if x < Value::zero() { -x } else { x };
    abs(value - gold) * Value::from(100) <= abs(value).max(abs(gold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_round_trip() {
        for shape in ["a - b", "a / (b - c)", "(a + b) * c - d", "a - (b - c)", "a * (b / c)"] {
            assert_eq!(Expression::parse_shape(shape).unwrap().shape(), shape);
        }
        assert_eq!(Expression::parse_shape("a + (b + c)").unwrap().shape(), "a + b + c");
        assert_eq!(Expression::parse_shape("(a * b) - c").unwrap().shape(), "a * b - c");
        for bad in ["", "a +", "(a", "a b", "a ? b", "a)", "1 + a"] {
            assert!(Expression::parse_shape(bad).is_none(), "{bad:?} was parsed");
        }
    }

    #[test]
    fn values_are_exact_and_division_by_zero_has_none() {
        let value = |shape: &str| Expression::parse_shape(shape).unwrap().value(&[7, 2, 9, 7]);
        assert_eq!(value("a / b - c"), Some(Value::new(-11, 2)));
        assert_eq!(value("a - b - c"), Some(Value::from(-4)));
        assert_eq!(value("c / (a - d)"), None);
    }

    #[test]
    fn neighbours_of_a_single_operator() {
        let expression = Expression::parse_shape("a - b").unwrap();
        let shapes: Vec<_> = expression.neighbours().iter().map(Expression::shape).collect();
        assert_eq!(shapes, ["a", "b", "b - a", "a + b", "a * b", "a / b"]);
    }

    #[test]
    fn the_tolerance_is_one_per_cent_of_the_larger() {
        let int = |n: i128| Value::from(n);
        assert!(accepted(int(99), int(100)) && accepted(int(-100), int(-99)));
        assert!(!accepted(int(98), int(100)) && !accepted(int(-100), int(100)));
    }
}
