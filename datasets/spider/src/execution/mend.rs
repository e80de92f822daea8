//! What the evaluator changes in a query before it runs.
//!
//! Split comparisons are mended, DISTINCT is dropped, only the first statement is kept, and
//! MySQL's way to ask for this year becomes 2020. Words are found with the rules of the
//! splitter that the evaluator uses (`sqlparse`): nothing inside texts, quoted names and
//! comments is touched, and a backslash escapes a quote, which SQLite itself does not know.

/// The query as it is run. Empty where there is none.
pub fn mend(sql: &str) -> String {
    let joined = sql.replace("> =", ">=").replace("< =", "<=").replace("! =", "!=");
    first_statement_without_distinct(&joined)
}

/// `YEAR(CURDATE())` becomes `2020`, wherever it stands and however it is spaced.
pub fn fix_year(sql: &str) -> String {
    const PIECES: [&str; 6] = ["year", "(", "curdate", "(", ")", ")"];
    let lower = sql.to_ascii_lowercase();
    let mut fixed = String::new();
    let mut from = 0;
    while let Some(offset) = lower[from..].find("year") {
        let start = from + offset;
        let mut end = start;
        let matched = PIECES.iter().all(|piece| {
            let here = lower[end..].starts_with(piece);
            if here {
                end += piece.len();
                end += lower[end..].len() - lower[end..].trim_start().len();
            }
            here
        });
        if matched {
            fixed.push_str(&sql[from..start]);
            fixed.push_str("2020");
            from = end;
        } else {
            fixed.push_str(&sql[from..start + 1]);
            from = start + 1;
        }
    }
    fixed + &sql[from..]
}

fn first_statement_without_distinct(sql: &str) -> String {
    let mut kept = String::with_capacity(sql.len());
    let mut depth = 0i64;
    let mut rest = sql;
    let mut previous = None;
    // Behind the last end of a comment none begins; without this, a text of beginnings would
    // be searched to its end once for each.
    let comments = sql.rfind("*/").unwrap_or(0);
    while let Some(c) = rest.chars().next() {
        let in_comments = sql.len() - rest.len() < comments;
        let length = token(rest, c, previous, in_comments);
        let (token, after) = rest.split_at(length);
        if !token.eq_ignore_ascii_case("distinct") {
            kept.push_str(token);
        }
        match token {
            "(" => depth += 1,
            ")" => depth -= 1,
            ";" if depth <= 0 => break,
            _ => {}
        }
        previous = token.chars().next_back();
        rest = after;
    }
    kept
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length in bytes of the token that `rest` begins with; `first` is its first character and
/// `previous` the one before it; `in_comments` says whether a comment could end behind it.
fn token(rest: &str, first: char, previous: Option<char>, in_comments: bool) -> usize {
    let line = || rest.find(['\r', '\n']).unwrap_or(rest.len());
    let after_word = previous.is_some_and(is_word);
    let one = first.len_utf8();
    match first {
        '\'' | '"' => quoted(rest, first as u8, true).unwrap_or(one),
        '`' => quoted(rest, b'`', false).unwrap_or(one),
        '[' if !after_word && !matches!(previous, Some(']' | ')')) => {
            let end = rest[1..].find(['[', ']']).map(|at| at + 1);
            end.filter(|&at| at > 1 && rest[at..].starts_with(']')).map_or(one, |at| at + 1)
        }
        '-' if rest.starts_with("--") => line(),
        '#' if rest.starts_with("# ") => line(),
        '/' if in_comments && rest.starts_with("/*") => {
            rest[2..].find("*/").map_or(one, |at| at + 4)
        }
        ':' | '$' | '?' if !after_word => one + word(&rest[one..]),
        _ if is_word(first) => word(rest),
        _ => one,
    }
}

fn word(text: &str) -> usize {
    text.find(|c| !is_word(c) && c != '$' && c != '#').unwrap_or(text.len())
}

/// Length of the quoted text that `rest` begins with. A doubled quote goes on and, with
/// `escapes`, one after a backslash does too; where no end follows, the last place that
/// could have been one is.
fn quoted(rest: &str, quote: u8, escapes: bool) -> Option<usize> {
    let bytes = rest.as_bytes();
    let mut possible = None;
    let mut at = 1;
    while at < bytes.len() {
        let doubled = bytes[at] == quote && bytes.get(at + 1) == Some(&quote);
        let escaped = escapes && bytes[at] == b'\\' && bytes.get(at + 1) == Some(&quote);
        if doubled || escaped {
            possible = Some(at + 1 + usize::from(escaped));
            at += 2;
        } else if bytes[at] == quote {
            return Some(at + 1);
        } else {
            at += 1;
        }
    }
    possible
}

#[cfg(test)]
mod tests {
    use super::{fix_year, mend};

    #[test]
    fn distinct_goes_as_a_word_and_nowhere_else() {
        for (sql, mended) in [
            ("SELECT DISTINCT a FROM t", "SELECT  a FROM t"),
            ("SELECT count(distinct a) FROM t", "SELECT count( a) FROM t"),
            ("SELECT 'DISTINCT' , \"distinct\"", "SELECT 'DISTINCT' , \"distinct\""),
            ("SELECT a -- distinct\n, distinct b", "SELECT a -- distinct\n,  b"),
            ("SELECT /* distinct */ a", "SELECT /* distinct */ a"),
            (
                "SELECT `distinct`, [distinct], distinct_id",
                "SELECT `distinct`, [distinct], distinct_id",
            ),
            ("SELECT 'it''s distinct', DISTINCT b", "SELECT 'it''s distinct',  b"),
            ("SELECT 'a\\' distinct b' FROM t", "SELECT 'a\\' distinct b' FROM t"),
            ("a > = 1 AND b ! = 2 AND c < = 3", "a >= 1 AND b != 2 AND c <= 3"),
        ] {
            assert_eq!(mend(sql), mended);
        }
    }

    #[test]
    fn only_the_first_statement_is_kept() {
        assert_eq!(mend("SELECT 1; DROP TABLE t"), "SELECT 1;");
        assert_eq!(mend("SELECT ';' FROM t; SELECT 2"), "SELECT ';' FROM t;");
        assert_eq!(mend("SELECT (1; 2); 3"), "SELECT (1; 2);");
        assert_eq!(mend(""), "");
    }

    #[test]
    fn an_unclosed_quote_hides_nothing() {
        assert_eq!(mend("SELECT ' DISTINCT a"), "SELECT '  a");
        assert_eq!(mend("SELECT 'a'' DISTINCT"), "SELECT 'a'' ");
    }

    #[test]
    fn this_year_is_2020() {
        assert_eq!(fix_year("SELECT YEAR( CURDATE ( ) ) - a"), "SELECT 2020- a");
        assert_eq!(fix_year("year, yearly, year(curdate())"), "year, yearly, 2020");
        assert_eq!(fix_year("year(date)"), "year(date)");
    }
}
