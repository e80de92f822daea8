//! The evaluator's tokenizer.
//!
//! The evaluator splits SQL with a tokenizer for English text (NLTK's `word_tokenize`, a Penn
//! Treebank tokenizer after a sentence splitter). The consequences for SQL, which are reproduced
//! because they determine what parses:
//!
//! - `=` is not split off: `a=b` is one word, and the query is rejected;
//! - a comma before a digit is not split off: `1,2` is one word;
//! - a period is split off at the end of a sentence: `ORDER BY age.` is accepted;
//! - single and double quotes are equivalent, and their total number must be even: `"it's"` is
//!   rejected;
//! - a quoted text that touches a word belongs to it: `LIKE"a"` is one word.

/// Splits a query into lower-case words; quoted texts keep their case and are enclosed in double
/// quotes. `None` if the number of quotes is odd.
pub(super) fn tokenize(sql: &str) -> Option<Vec<String>> {
    let (text, values) = extract_values(sql)?;
    let words = split(&text).into_iter().map(|word| match index_of_value(&word) {
        Some(place) => values.get(place).cloned().unwrap_or(word),
        None => word,
    });
    Some(join_comparisons(words))
}

/// Replaces each quoted text by a placeholder, and lower-cases the rest.
fn extract_values(sql: &str) -> Option<(String, Vec<String>)> {
    let mut text = String::with_capacity(sql.len());
    let mut values = Vec::new();
    let mut rest = sql;
    let is_quote = |c: char| matches!(c, '\'' | '"');
    while let Some(start) = rest.find(is_quote) {
        let inside = &rest[start + 1..];
        let length = inside.find(is_quote)?;
        text.push_str(&rest[..start].to_lowercase());
        text.push_str(&format!("__val_{}__", values.len()));
        values.push(format!("\"{}\"", &inside[..length]));
        rest = &inside[length + 1..];
    }
    text.push_str(&rest.to_lowercase());
    Some((text, values))
}

/// The index of the value of a placeholder.
fn index_of_value(word: &str) -> Option<usize> {
    word.strip_prefix("__val_")?.strip_suffix("__")?.parse().ok()
}

/// Joins `! =`, `> =` and `< =` to one word, including `!=` and the others, which the tokenizer
/// has split.
fn join_comparisons(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    for word in words {
        match joined.last_mut() {
            Some(last) if word == "=" && matches!(last.as_str(), "!" | ">" | "<") => {
                last.push('=');
            }
            _ => joined.push(word),
        }
    }
    joined
}

/// Words that the tokenizer splits as contractions: `cannot` → `can`, `not`.
const CONTRACTIONS: [(&str, usize); 6] =
    [("cannot", 3), ("gimme", 3), ("gonna", 3), ("gotta", 3), ("lemme", 3), ("wanna", 3)];

fn split(text: &str) -> Vec<String> {
    let spaced = space_punctuation(text);
    let pieces: Vec<&str> = spaced.split_whitespace().collect();
    let mut words = Vec::with_capacity(pieces.len());
    for (at, &piece) in pieces.iter().enumerate() {
        match piece.strip_suffix('.') {
            Some(before) if ends_sentence(before, &pieces[at + 1..]) => {
                words.extend(contracted(before));
                words.push(".".to_owned());
            }
            _ => words.extend(contracted(piece)),
        }
    }
    words
}

/// Whether the period after `word` ends a sentence and is thus a separate word. After a number or
/// a single letter, which the sentence splitter takes for an ordinal or an initial, it does so only
/// if nothing but closing brackets follows.
fn ends_sentence(word: &str, following: &[&str]) -> bool {
    if word.is_empty() || word.ends_with('.') {
        return false;
    }
    let last = following.iter().all(|next| matches!(*next, ")" | "]" | "}" | ">"));
    let letter = word.chars().count() == 1 && word.starts_with(char::is_alphabetic);
    let number = word.starts_with(|c: char| c.is_ascii_digit() || c == '-')
        && word.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | '-'));
    last || !(letter || number)
}

fn contracted(word: &str) -> impl Iterator<Item = String> {
    let cut = CONTRACTIONS.iter().find(|(whole, _)| *whole == word).map_or(word.len(), |c| c.1);
    let (first, second) = word.split_at(cut);
    [first, second].into_iter().filter(|part| !part.is_empty()).map(str::to_owned)
}

/// Puts spaces around the tokenizer's punctuation.
fn space_punctuation(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len() + 16);
    let mut characters = text.chars().peekable();
    // Set if the comma rule has consumed the character as the one after a comma.
    let mut used = false;
    while let Some(c) = characters.next() {
        let next = characters.peek().copied();
        match c {
            ',' | ':' if !used && next.is_none_or(|next| !next.is_ascii_digit()) => {
                push_word(&mut spaced, &[c]);
                used = true;
                continue;
            }
            '-' if next == Some('-') => {
                characters.next();
                push_word(&mut spaced, &['-', '-']);
            }
            '.' if next == Some('.') => {
                spaced.push_str(" .");
                while characters.next_if_eq(&'.').is_some() {
                    spaced.push('.');
                }
                spaced.push(' ');
            }
            '`' if next == Some('`') => {
                characters.next();
                push_word(&mut spaced, &['`', '`']);
            }
            ';' | '@' | '#' | '$' | '%' | '&' | '?' | '!' | '*' | '(' | ')' | '[' | ']' | '{'
            | '}' | '<' | '>' | '`' | '«' | '“' | '‘' | '„' | '»' | '”' | '’' => {
                push_word(&mut spaced, &[c]);
            }
            _ => spaced.push(c),
        }
        used = false;
    }
    spaced
}

fn push_word(spaced: &mut String, word: &[char]) {
    spaced.push(' ');
    spaced.extend(word);
    spaced.push(' ');
}

#[cfg(test)]
mod tests {
    use super::tokenize;

    fn words(sql: &str) -> Vec<String> {
        tokenize(sql).unwrap()
    }

    #[test]
    fn words_are_lower_case_and_values_are_not() {
        assert_eq!(
            words("SELECT T1.Name FROM t AS T1 WHERE a = 'New York'"),
            ["select", "t1.name", "from", "t", "as", "t1", "where", "a", "=", "\"New York\""]
        );
        assert_eq!(words("count(DISTINCT a)"), ["count", "(", "distinct", "a", ")"]);
    }

    #[test]
    fn comparisons_become_one_word() {
        assert_eq!(words("a != 1"), ["a", "!=", "1"]);
        assert_eq!(words("a > = 1"), ["a", ">=", "1"]);
        assert_eq!(words("a<=1"), ["a", "<", "=1"]);
        assert_eq!(words("a <> 1"), ["a", "<", ">", "1"]);
        assert_eq!(words("a=1"), ["a=1"]);
    }

    #[test]
    fn commas_before_digits_are_not_split_off() {
        assert_eq!(words("a,b , c"), ["a", ",", "b", ",", "c"]);
        assert_eq!(words("(1,2)"), ["(", "1,2", ")"]);
        assert_eq!(words("1,"), ["1", ","]);
        assert_eq!(words(",,a"), [",", ",a"]);
    }

    #[test]
    fn quotes_of_both_kinds_pair_with_each_other() {
        assert_eq!(tokenize("a = \"it's\""), None);
        assert_eq!(words("a = \"x'"), ["a", "=", "\"x\""]);
        assert_eq!(words("like'a'"), ["like__val_0__"]);
        assert_eq!(words("('a','b')"), ["(", "\"a\"", ",", "\"b\"", ")"]);
    }

    #[test]
    fn a_period_at_the_end_is_split_off() {
        assert_eq!(words("order by age."), ["order", "by", "age", "."]);
        assert_eq!(words("limit 3."), ["limit", "3", "."]);
        assert_eq!(words("a > 3. and b"), ["a", ">", "3.", "and", "b"]);
        assert_eq!(words("by age. limit 1"), ["by", "age", ".", "limit", "1"]);
    }
}
