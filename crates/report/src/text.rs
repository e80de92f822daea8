//! Formatting of numbers and untrusted text for pages and charts.

/// Four significant digits at most.
pub(crate) fn significant(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    if value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e6) {
        return format!("{value:.2e}");
    }
    let digits = if value.abs() >= 100.0 { 1 } else { 3 };
    let text = format!("{value:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Estimated width of text in pixels; the reader's font is unknown.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    let ems: f64 = text
        .chars()
        .map(|letter| match letter {
            'i' | 'j' | 'l' | 't' | 'f' | 'r' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | '('
            | ')' | '[' | ']' | ' ' => 0.34,
            'm' | 'w' | 'M' | 'W' | '%' => 0.88,
            'A'..='Z' => 0.68,
            _ if letter.is_ascii() => 0.57,
            _ => 0.9,
        })
        .sum();
    ems * size
}

/// Truncates text with an ellipsis to fit into `width` pixels.
pub(crate) fn fit(text: &str, size: f64, width: f64) -> String {
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let available = width - text_width("…", size);
    let mut kept = String::new();
    let mut used = 0.0;
    for letter in text.chars() {
        used += text_width(letter.encode_utf8(&mut [0; 4]), size);
        if used > available {
            break;
        }
        kept.push(letter);
    }
    kept + "…"
}

/// Text for XML attributes and elements on one line: markup is escaped; characters that XML
/// forbids or that would hide or reorder others are replaced.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(' '),
            letter if hides(letter) => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

/// Shows characters that would hide or reorder others as their code points. Markup is escaped by
/// the template.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if hides(letter) && !matches!(letter, '\n' | '\t') {
            out.push_str(&format!("⟨U+{:04X}⟩", u32::from(letter)));
        } else {
            out.push(letter);
        }
    }
    out
}

/// Control characters, directional marks, zero-width characters, and non-characters.
fn hides(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_shown() {
        assert_eq!(visible("a\u{202e}b\u{0}\n"), "a⟨U+202E⟩b⟨U+0000⟩\n");
        assert_eq!(
            escape("<a b='\u{1}\n\u{2066}\">&"),
            "&lt;a b=&#39;\u{fffd} \u{fffd}&quot;&gt;&amp;"
        );
    }

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.78, "0.78"),
            (0.123_456, "0.123"),
            (1234.56, "1234.6"),
            (3.2e-9, "3.20e-9"),
            (-0.5, "-0.5"),
            (100.0, "100"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(significant(value), expected);
        }
    }
}
