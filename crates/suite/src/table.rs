//! Plain-text tables with aligned columns.

/// Alignment of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// Formats `rows` as columns, two spaces apart, one line each. `sides` are the alignments of the
/// columns; further columns are left-aligned.
pub fn aligned(rows: &[Vec<String>], sides: &[Side]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let fill = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            if column > 0 {
                line.push_str("  ");
            }
            match sides.get(column) {
                Some(Side::Right) => line.push_str(&(fill + cell)),
                _ => line.push_str(&(cell.clone() + &fill)),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Indents every line of `text` by two spaces.
pub fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// `text` on one line, at most `longest` characters.
pub fn shortened(text: &str, longest: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= longest {
        return line;
    }
    line.chars().take(longest.saturating_sub(1)).chain(['…']).collect()
}

/// `1 row`, `2 rows`.
pub fn counted(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::{Side, aligned, counted, indented, shortened};

    #[test]
    fn columns_are_as_wide_as_their_longest_text() {
        let rows = [("a", "10"), ("größer", "7")]
            .map(|(name, number)| vec![name.to_owned(), number.to_owned()]);
        let text = aligned(&rows, &[Side::Left, Side::Right]);
        assert_eq!(text, "a       10\ngrößer   7\n");
        assert_eq!(indented(&text), "  a       10\n  größer   7\n");
        assert_eq!(aligned(&[], &[]), "");
    }

    #[test]
    fn long_texts_are_cut_to_one_line() {
        assert_eq!(shortened("a\n  b", 10), "a b");
        assert_eq!(shortened("abcdef", 4), "abc…");
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(counted(0, "row"), "0 rows");
    }
}
