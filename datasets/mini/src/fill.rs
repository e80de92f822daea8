//! Texts with slots in braces, such as `{p} has {a} {items}`.

/// The names of the slots in the order of the text.
pub(crate) fn slots(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(slot, _)| slot)
}

/// The text with every slot replaced by the result of `word` for its name.
pub(crate) fn fill(text: &str, mut word: impl FnMut(&str) -> String) -> String {
    let mut parts = text.split('{');
    let mut filled = parts.next().unwrap_or_default().to_string();
    for part in parts {
        match part.split_once('}') {
            Some((slot, rest)) => {
                filled.push_str(&word(slot));
                filled.push_str(rest);
            }
            None => filled.push_str(part),
        }
    }
    filled
}
