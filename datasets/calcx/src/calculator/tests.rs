use proptest::prelude::*;

use super::*;

#[test]
fn whole_numbers_are_grouped_and_fractions_carry_an_approximation() {
    assert_eq!(calculate("12345 * 1000"), "12_345_000");
    assert_eq!(calculate("-1_000"), "-1_000");
    assert_eq!(calculate("3 / 7"), "3/7 = around 0.428571");
    assert_eq!(calculate("-(5/6)"), "-5/6 = around -0.833333");
    assert_eq!(calculate("6/3"), "2");
    assert_eq!(calculate("1 / (3 * 10**8)"), "1/300_000_000 = around 0");
}

#[test]
fn a_point_or_an_exponent_makes_a_decimal() {
    assert_eq!(calculate("3.0"), "3");
    assert_eq!(calculate("1.0 / 7"), "0.142857");
    assert_eq!(calculate("2e3 + 1"), "2_001");
    assert_eq!(calculate("-1e-9"), "-0");
    assert_eq!(calculate("1e400"), "inf");
}

/// Rounding of the last printed digits; expected values from SymPy 1.14.
#[test]
fn decimals_are_rounded_like_the_original() {
    // Stored with 24 digits, hence the double nearest to 10^23.
    assert_eq!(calculate("1e23"), "99_999_999_999_999_991_611_392");
    // Repeated squaring with truncated guard bits.
    assert_eq!(calculate("1.1**1000"), "246_993_291_800_602_563_115_535_632_698_991_953_575_936");
    assert_eq!(calculate("123456789.123456789*3"), "370_370_367.37037");
    assert_eq!(calculate("1e400/1e399"), "10");
}

#[test]
fn a_decimal_zero_becomes_exact_but_a_written_one_does_not() {
    assert_eq!(calculate("(2.5 - 2.5) + 1/3"), "1/3 = around 0.333333");
    assert_eq!(calculate("0.0 + 1/3"), "0.333333");
    assert_eq!(calculate("(5.0 % 2.5) + 1/3"), "0.333333");
}

#[test]
fn grammar_is_pythons() {
    assert_eq!(calculate("-5**2"), "-25");
    assert_eq!(calculate("2**-1"), "1/2 = around 0.5");
    assert_eq!(calculate("2**3**2"), "512");
    assert_eq!(calculate("2^3^1"), "0");
    assert_eq!(calculate("~5 + (7 & 3) + (1 << 4)"), "13");
    assert_eq!(calculate("--5 - +3"), "2");
    assert_eq!(calculate("2**3!"), "64");
    assert_eq!(calculate("7!!"), "105");
    assert_eq!(calculate("0x1F + 0b11 + 0o7"), "41");
    assert_eq!(calculate("(2\n + 3)"), "5");
    assert_eq!(calculate(" 2 + 3 # five "), "5");
    assert_eq!(calculate("-7 // 2"), "-4");
    assert_eq!(calculate("-7 % 3"), "2");
    assert_eq!(calculate("7.5 % 2"), "1.5");
}

#[test]
fn functions_are_exact_where_the_result_is() {
    assert_eq!(calculate("sqrt(4/9)"), "2/3 = around 0.666667");
    assert_eq!(calculate("8**(2/3)"), "4");
    assert_eq!(calculate("sqrt(3)"), "1.732051");
    assert_eq!(calculate("max(1/3, 0.3)"), "1/3 = around 0.333333");
    assert_eq!(calculate("round(3.5) + round(4.5)"), "8");
    assert_eq!(calculate("floor(-2.5) + ceiling(7/2)"), "1");
    assert_eq!(calculate("log(8, 2)"), "3");
    assert_eq!(calculate("factorial(20)"), "2_432_902_008_176_640_000");
    assert_eq!(calculate("abs(-2.5)"), "2.5");
}

#[test]
fn a_division_by_zero_can_vanish_again() {
    assert_eq!(calculate("5 / (1/0)"), "0");
    assert_eq!(calculate("(1/0) ** 0"), "1");
    assert_eq!(calculate("0 / 0"), "nan = around nan");
    assert_eq!(calculate("1/0 - 1/0"), "nan = around nan");
    for error in ["1/0", "(3-3.0)**-1", "1/0 + 5", "5 // 0", "5 % 0", "1/(2-2.0)", "0.0/0.0"] {
        assert_eq!(calculate(error), "ERROR: division by zero", "{error}");
    }
}

#[test]
fn invalid_expressions_have_error_messages() {
    let cases = [
        ("", "ERROR: the expression ends where a number is expected"),
        ("1,000", "ERROR: the comma at position 1 does not separate arguments of a function"),
        ("2(3)", "ERROR: an operator is missing at position 1"),
        ("3 x 4", "ERROR: an operator is missing at position 2"),
        ("30% * 10", "ERROR: a number is missing at position 4"),
        ("((2)", "ERROR: a parenthesis is not closed"),
        ("2)", "ERROR: the parenthesis closed at position 1 was never opened"),
        ("007", "ERROR: an operator is missing at position 2"),
        ("1 + x", "ERROR: the name x has no value"),
        ("f(2)", "ERROR: the function f is not known"),
        ("min()", "ERROR: min cannot be called with 0 arguments"),
        ("(-8)**(1/3)", "ERROR: the result is not a real number"),
        ("log(-1)", "ERROR: the result is not a real number"),
        ("1\0", "ERROR: the character '\\0' at position 1 cannot be used in an expression"),
        ("3 × 4", "ERROR: the character '×' at position 2 cannot be used in an expression"),
        ("2\n+3", "ERROR: the character '\\n' at position 1 cannot be used in an expression"),
    ];
    for (expression, error) in cases {
        assert_eq!(calculate(expression), error, "{expression}");
    }
}

/// Inputs that would exhaust stack, memory or time: without limits each would run for hours or
/// abort the process.
#[test]
fn hostile_expressions_end_in_errors() {
    let mut cases = vec![
        "(".repeat(10_000) + "1" + &")".repeat(10_000),
        "(".repeat(1_000_000),
        "sqrt(".repeat(3_000),
        "-".repeat(30_000) + "1",
        "9".repeat(1_000_000),
        "9".repeat(5_000),
        "9**9**9**9".to_owned(),
        "2**(10**30)".to_owned(),
        "1.5**(10**30)".to_owned(),
        "(1/3)**-99999999".to_owned(),
        "1e999999999999999999999".to_owned(),
        "1e-999999999".to_owned(),
        "factorial(10**9)".to_owned(),
        "10**9!".to_owned(),
        "1 << 10**12".to_owned(),
        "5!!!".to_owned(),
        "\0".repeat(10_000),
        "é".repeat(5_000),
        "(1/3+".repeat(199),
        vec!["(7**20000/3**12000)"; 900].join("+"),
        vec!["4999!"; 3000].join("+"),
        vec!["1.1**999999"; 1500].join("*") + "*x",
    ];
    cases.push("*".repeat(19_000));
    for case in cases {
        let start: String = case.chars().take(20).collect();
        let answer = calculate(&case);
        assert!(answer.starts_with("ERROR: "), "{start}: {answer:.60}");
        assert!(answer.len() < 200, "{start}");
    }
}

#[test]
fn long_valid_expressions_are_evaluated() {
    assert_eq!(calculate(&vec!["1"; 9_000].join("+")), "9_000");
    assert_eq!(calculate(&("-".repeat(10_000) + "1")), "1");
    assert_eq!(calculate(&("(".repeat(200) + "1" + &")".repeat(200))), "1");
    assert_eq!(calculate("10**5000 / 10**4999"), "10");
    assert_eq!(calculate(&"9".repeat(4_300)).len(), 4_300 + 1_433);
}

proptest! {
    #[test]
    fn any_text_gets_a_response(text in ".{0,60}") {
        let answer = calculate(&text);
        prop_assert!(!answer.is_empty());
    }

    #[test]
    fn any_tokens_get_a_response(
        tokens in prop::collection::vec(
            prop::sample::select(vec![
                "1", "20", ".5", "1e9", "0", "(", ")", "+", "-", "*", "/", "**", "//", "%", "!",
                "sqrt(", "min(", ",", "^", "<<", "~", " ", "pi", "factorial(",
            ]),
            0..40,
        ),
    ) {
        let answer = calculate(&tokens.concat());
        prop_assert!(!answer.is_empty());
    }

    /// Compares integers with 128-bit arithmetic.
    #[test]
    fn whole_arithmetic_is_exact(a in -1_000_000_000i64.., b in 1..1_000_000_000i64, c: i32) {
        let expected = (i128::from(a) * i128::from(b) - i128::from(c)).to_string();
        let text = calculate(&format!("{a} * {b} - ({c})"));
        prop_assert_eq!(text.replace('_', ""), expected);
    }

    /// Compares decimals with `f64`, which rounds equally at up to 15 digits.
    #[test]
    fn decimal_arithmetic_is_that_of_doubles(a in 1u32..1_000_000, b in 1u32..1_000_000) {
        let (x, y) = (f64::from(a) / 1000.0, f64::from(b) / 1000.0);
        for (op, expected) in [('+', x + y), ('-', x - y), ('*', x * y), ('/', x / y)] {
            let value = evaluate(&format!("{a}e-3 {op} {b}e-3")).unwrap();
            prop_assert_eq!(value.to_f64(), Some(expected));
        }
    }
}
