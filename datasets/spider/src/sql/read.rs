//! SQL as SQLite understands it, read by sqlparser within bounds.
//!
//! What walks through a query that it has read does so by recursion, so a query must be
//! shallow. Its nesting the parser itself bounds; a chain of operators, which it reads into as
//! deep a tree, is bounded by the number of words.

use sqlparser::ast::{Query, Statement};
use sqlparser::dialect::SQLiteDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, Tokenizer};

/// SQLite's words and quotes.
pub(crate) const DIALECT: SQLiteDialect = SQLiteDialect {};

/// Most parentheses within parentheses. Where a text fails, the parser tries what is in some of
/// them a second time, so its work may double with each.
pub const DEEPEST: usize = 16;
/// Deepest nesting of the parser's own rules.
const DEEPEST_RULES: usize = 100;
/// Most names, keywords and operators. Spider's longest query has fewer than a hundred.
pub const MOST_WORDS: usize = 1_000;
/// Most names joined by points: schema, table, column. Of more the parser's work would double too.
const MOST_POINTS: usize = 2;

/// Why a text was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    #[error("more than {DEEPEST} levels of parentheses")]
    Deep,
    #[error("more than {MOST_WORDS} names, keywords and operators")]
    Long,
    /// It may be one of SQLite all the same.
    #[error("no statement that this parser knows")]
    Unknown,
    #[error("not one query")]
    NotAQuery,
}

/// Reads the statements of a text.
///
/// # Errors
/// [`Unread`]; never [`Unread::NotAQuery`].
pub fn statements(sql: &str) -> Result<Vec<Statement>, Unread> {
    let tokens =
        Tokenizer::new(&DIALECT, sql).tokenize_with_location().map_err(|_| Unread::Unknown)?;
    let (mut words, mut depth, mut points, mut after_point) = (0, 0usize, 0, false);
    for token in tokens.iter().map(|token| &token.token) {
        match token {
            Token::Whitespace(_) => continue,
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Comma | Token::Number(..) | Token::SingleQuotedString(_) | Token::Period => {}
            _ => words += 1,
        }
        let point = *token == Token::Period;
        points = if point {
            points + 1
        } else if after_point {
            points
        } else {
            0
        };
        after_point = point;
        if words > MOST_WORDS {
            return Err(Unread::Long);
        }
        if depth > DEEPEST {
            return Err(Unread::Deep);
        }
        if points > MOST_POINTS {
            return Err(Unread::Unknown);
        }
    }
    let mut parser = Parser::new(&DIALECT)
        .with_recursion_limit(DEEPEST_RULES)
        .with_tokens_with_locations(tokens);
    parser.parse_statements().map_err(|error| match error {
        ParserError::RecursionLimitExceeded => Unread::Deep,
        _ => Unread::Unknown,
    })
}

/// Reads a text that is one query.
///
/// # Errors
/// [`Unread`].
pub fn query(sql: &str) -> Result<Query, Unread> {
    let mut statements = statements(sql)?.into_iter();
    match (statements.next(), statements.next()) {
        (Some(Statement::Query(query)), None) => Ok(*query),
        _ => Err(Unread::NotAQuery),
    }
}
