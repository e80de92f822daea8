//! SQL in SQLite's dialect, parsed by sqlparser within bounds.
//!
//! Visitors traverse a parsed query recursively, so its tree must be shallow. The parser bounds its
//! own nesting; a chain of operators, which becomes an equally deep tree, is bounded by the number
//! of words.

use sqlparser::ast::{Query, Statement};
use sqlparser::dialect::SQLiteDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, Tokenizer};

/// SQLite's keywords and quotes.
pub(crate) const DIALECT: SQLiteDialect = SQLiteDialect {};

/// Maximum nesting of parentheses. On failure the parser retries the contents of some of them, so
/// its work may double with each level.
pub const DEEPEST: usize = 16;
/// Recursion limit of the parser.
const DEEPEST_RULES: usize = 100;
/// Maximum number of names, keywords and operators. Spider's longest query has fewer than a
/// hundred.
pub const MOST_WORDS: usize = 1_000;
/// Maximum number of periods in a qualified name (schema, table, column). The parser's work would
/// also double with each further one.
const MOST_POINTS: usize = 2;

/// Why a text could not be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    #[error("more than {DEEPEST} levels of parentheses")]
    Deep,
    #[error("more than {MOST_WORDS} names, keywords and operators")]
    Long,
    /// It may still be valid in SQLite.
    #[error("no statement that this parser knows")]
    Unknown,
    #[error("not one query")]
    NotAQuery,
}

/// Parses the statements of a text.
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

/// Parses a text that is a single query.
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
