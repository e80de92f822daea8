//! Parses lists of seeds: `1..5`, `1,2,7`, or both.

use crate::error::SweepError;

/// Maximum number of seeds of a sweep, as a safeguard against typing errors.
const MOST: usize = 1000;

/// Parses seeds: numbers and inclusive ranges, separated by commas: `1..5` is five seeds.
///
/// # Errors
/// [`SweepError::Seeds`] if a part is neither number nor range, a range runs backwards, a seed
/// occurs twice, or there are none or far too many.
pub fn parse_seeds(text: &str) -> Result<Vec<u64>, SweepError> {
    let refuse = |what: String| SweepError::Seeds { text: text.to_owned(), what };
    let number = |part: &str| {
        let part = part.trim();
        part.parse::<u64>()
            .ok()
            .filter(|seed| i64::try_from(*seed).is_ok())
            .ok_or_else(|| refuse(format!("`{part}` is not a seed; use 1..5 or 1,2,7")))
    };
    let mut seeds = Vec::new();
    for part in text.split(',') {
        match part.split_once("..") {
            None => seeds.push(number(part)?),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(refuse(format!("the range {first}..{last} runs backwards")));
                }
                if last - first >= MOST as u64 {
                    return Err(refuse(format!("more than {MOST} seeds")));
                }
                seeds.extend(first..=last);
            }
        }
    }
    distinct(&seeds).map_err(refuse)?;
    Ok(seeds)
}

/// Rejects duplicate seeds: they would be the same run, not independent evidence.
pub(crate) fn distinct(seeds: &[u64]) -> Result<(), String> {
    let mut seen = std::collections::HashSet::new();
    if seeds.is_empty() {
        return Err("there is no seed".to_owned());
    }
    if seeds.len() > MOST {
        return Err(format!("more than {MOST} seeds"));
    }
    match seeds.iter().find(|seed| !seen.insert(**seed)) {
        Some(seed) => Err(format!("duplicate seed {seed}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::parse_seeds;

    #[test]
    fn ranges_are_inclusive() {
        assert_eq!(parse_seeds("1..5").unwrap(), [1, 2, 3, 4, 5]);
        assert_eq!(parse_seeds(" 7, 2..3 ").unwrap(), [7, 2, 3]);
        assert_eq!(parse_seeds("0..0").unwrap(), [0]);
    }

    #[test]
    fn invalid_lists_of_seeds_are_rejected() {
        for (text, named) in [
            ("", "`` is not a seed"),
            ("1..x", "`x`"),
            ("-1", "`-1`"),
            ("5..1", "backwards"),
            ("1,2,1", "duplicate seed 1"),
            ("1..3,2", "duplicate seed 2"),
            ("0..99999999999", "more than"),
            ("18446744073709551615", "not a seed"),
            ("1..2..3", "`2..3`"),
        ] {
            let error = parse_seeds(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_rejected(text in "[0-9., x-]{0,20}") {
            if let Ok(seeds) = parse_seeds(&text) {
                let unique: std::collections::HashSet<_> = seeds.iter().collect();
                prop_assert!(!seeds.is_empty() && unique.len() == seeds.len());
            }
        }
    }
}
