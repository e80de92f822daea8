//! What the evaluator changes in a query before it runs.
//!
//! Split comparisons are mended, DISTINCT is dropped, only the first statement is kept, and
//! MySQL's way to ask for this year becomes 2020. Words are sqlparser's tokens, so nothing
//! inside texts, quoted names and comments is touched. What cannot be split into tokens goes to
//! SQLite as it is, which refuses it.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use crate::sql::DIALECT;

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
    let Ok(tokens) = Tokenizer::new(&DIALECT, sql).tokenize_with_location() else {
        return sql.to_owned();
    };
    let (mut kept, mut depth) = (String::with_capacity(sql.len()), 0i64);
    let mut place = Place { at: Location::new(1, 1), rest: sql };
    for TokenWithSpan { token, span } in tokens {
        // Its own text, which the token does not have: `!=` is one with `<>`.
        kept.push_str(place.up_to(span.start));
        let text = place.up_to(span.end);
        match &token {
            Token::Word(word)
                if word.keyword == Keyword::DISTINCT && word.quote_style.is_none() => {}
            _ => kept.push_str(text),
        }
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::SemiColon if depth <= 0 => return kept,
            _ => {}
        }
    }
    kept + place.rest
}

/// A place in a text, which the tokenizer counts in lines and columns.
struct Place<'a> {
    at: Location,
    rest: &'a str,
}

impl<'a> Place<'a> {
    /// Goes on to a later place and returns what lies between.
    fn up_to(&mut self, end: Location) -> &'a str {
        let mut letters = self.rest.char_indices();
        let mut length = 0;
        while self.at < end {
            let Some((index, letter)) = letters.next() else { break };
            length = index + letter.len_utf8();
            self.at = match letter {
                '\n' => Location::new(self.at.line + 1, 1),
                _ => Location::new(self.at.line, self.at.column + 1),
            };
        }
        let (before, after) = self.rest.split_at(length);
        self.rest = after;
        before
    }
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
            ("a != 1 AND\n\tb == 2\n", "a != 1 AND\n\tb == 2\n"),
            ("SELECT 'é\nß', DISTINCT ü\r\nFROM t", "SELECT 'é\nß',  ü\r\nFROM t"),
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
    fn a_text_without_tokens_goes_through() {
        for sql in
            ["SELECT ' DISTINCT a", "SELECT 'a'' DISTINCT", "SELECT /* distinct", "a; \u{0}\""]
        {
            assert_eq!(mend(sql), sql);
        }
    }

    #[test]
    fn this_year_is_2020() {
        assert_eq!(fix_year("SELECT YEAR( CURDATE ( ) ) - a"), "SELECT 2020- a");
        assert_eq!(fix_year("year, yearly, year(curdate())"), "year, yearly, 2020");
        assert_eq!(fix_year("year(date)"), "year(date)");
    }
}
