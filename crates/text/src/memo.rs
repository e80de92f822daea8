//! What was tokenised before.
//!
//! The samples of a group ask the same question, and a tool answers many calls alike: where a
//! model is small, tokenising the same text again and again is a good part of a rollout.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most bytes of text that are remembered; then all is forgotten and it begins anew.
const BYTES: usize = 4 << 20;

/// Token ids by text.
#[derive(Debug, Default)]
pub(crate) struct Memo(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    ids: HashMap<String, Vec<u32>>,
    bytes: usize,
}

impl Memo {
    /// The ids of `text`: as remembered, or as `encode` finds them.
    ///
    /// # Errors
    /// Those of `encode`, which are not remembered.
    pub fn ids<E>(
        &self,
        text: &str,
        encode: impl FnOnce(&str) -> Result<Vec<u32>, E>,
    ) -> Result<Vec<u32>, E> {
        if let Some(ids) = self.known().ids.get(text) {
            return Ok(ids.clone());
        }
        // Not under the lock: others tokenise meanwhile.
        let ids = encode(text)?;
        let mut known = self.known();
        if known.bytes + text.len() > BYTES {
            *known = Known::default();
        }
        if text.len() <= BYTES && known.ids.insert(text.to_owned(), ids.clone()).is_none() {
            known.bytes += text.len();
        }
        Ok(ids)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{BYTES, Memo};

    #[test]
    fn a_text_is_tokenised_once_and_an_error_is_not_kept() {
        let memo = Memo::default();
        let asked = std::cell::Cell::new(0);
        let count = |text: &str| {
            asked.set(asked.get() + 1);
            if text.is_empty() { Err("empty") } else { Ok(vec![text.len() as u32]) }
        };
        for _ in 0..2 {
            assert_eq!(memo.ids("abc", count), Ok(vec![3]));
        }
        assert_eq!(asked.get(), 1);
        for _ in 0..2 {
            assert_eq!(memo.ids("", count), Err("empty"));
        }
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn memory_is_bounded() {
        let memo = Memo::default();
        let long = "x".repeat(BYTES / 3);
        for name in 'a'..='h' {
            let text = format!("{name}{long}");
            memo.ids(&text, |text| Ok::<_, ()>(vec![text.len() as u32])).unwrap();
            let known = memo.known();
            assert!(known.bytes <= BYTES && known.ids.contains_key(&text));
            assert_eq!(known.bytes, known.ids.keys().map(String::len).sum::<usize>());
        }
        let too_long = "x".repeat(BYTES + 1);
        assert_eq!(memo.ids(&too_long, |_| Ok::<_, ()>(vec![1])), Ok(vec![1]));
        assert!(!memo.known().ids.contains_key(&too_long));
    }
}
