//! Parsing of a model's reply: a query, a verdict.

/// The verdicts with which a check must end; see the templates.
const CORRECT: &str = "VERDICT: CORRECT";
const INCORRECT: &str = "VERDICT: INCORRECT";

/// Whether a check accepts the query: its last verdict is `CORRECT`.
pub fn is_correct_verdict(text: &str) -> bool {
    // `None` is less than any position.
    text.rfind(CORRECT).is_some_and(|at| Some(at) > text.rfind(INCORRECT))
}

/// The content of the last fenced block, trimmed; `None` without one, or if it is empty. A block
/// begins with three backticks and at most one word, and ends with a line of backticks.
pub fn last_block(text: &str) -> Option<&str> {
    let mut last = None;
    let mut rest = text;
    while let Some((_, opened)) = rest.split_once("```") {
        rest = opened;
        let Some((info, body)) = opened.split_once('\n') else { break };
        if !info.trim_end().chars().all(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let end = if body.starts_with("```") { Some(0) } else { body.find("\n```") };
        let Some(end) = end else { break };
        last = Some(body[..end].trim());
        rest = body[end..].trim_start().trim_start_matches('`');
    }
    last.filter(|block| !block.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{is_correct_verdict, last_block};

    #[test]
    fn the_last_block_is_used() {
        let text = "First:\n```sql\nSELECT 1\n```\nno, better:\n```sql\n SELECT 2\nFROM t\n```\n.";
        assert_eq!(last_block(text), Some("SELECT 2\nFROM t"));
        assert_eq!(last_block("```\nSELECT 1\n```"), Some("SELECT 1"));
        assert_eq!(last_block("```SQLite \r\nSELECT 1\r\n```"), Some("SELECT 1"));
    }

    #[test]
    fn text_without_a_complete_block_gives_none() {
        for text in
            ["SELECT 1", "```SELECT 1```", "```sql\nSELECT 1", "```sql\n```", "```\n\n```", ""]
        {
            assert_eq!(last_block(text), None, "{text:?}");
        }
        assert_eq!(last_block("`a` ```sql\nSELECT 1\n``` ```sql\nSELECT"), Some("SELECT 1"));
    }

    #[test]
    fn the_last_verdict_is_used() {
        assert!(is_correct_verdict("Fine. VERDICT: CORRECT"));
        assert!(is_correct_verdict("VERDICT: INCORRECT? No.\nVERDICT: CORRECT"));
        assert!(!is_correct_verdict("VERDICT: CORRECT\nno, VERDICT: INCORRECT"));
        assert!(!is_correct_verdict("VERDICT: INCORRECT"));
        assert!(!is_correct_verdict("The query is correct."));
    }
}
