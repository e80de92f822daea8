//! Memoised tokenisation.
//!
//! The samples of a group share their prompt, and tools often return equal results: for a small
//! model, repeated tokenisation of the same text is a significant part of a rollout.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Maximum bytes of memoised text; beyond it the memo is cleared.
const BYTES: usize = 4 << 20;

/// Token ids by text.
#[derive(Debug, Default)]
pub(crate) struct Memo(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    ids: HashMap<String, Vec<u32>>,
    bytes: usize,
}

impl Memo {
    /// The ids of `text`, memoised or from `encode`.
    ///
    /// # Errors
    /// Those of `encode`, which are not memoised.
    pub fn ids<E>(
        &self,
        text: &str,
        encode: impl FnOnce(&str) -> Result<Vec<u32>, E>,
    ) -> Result<Vec<u32>, E> {
        if let Some(ids) = self.entries().ids.get(text) {
            return Ok(ids.clone());
        }
        // Outside the lock, so that other threads can tokenise meanwhile.
        let ids = encode(text)?;
        let mut entries = self.entries();
        if entries.bytes + text.len() > BYTES {
            *entries = Entries::default();
        }
        if text.len() <= BYTES && entries.ids.insert(text.to_owned(), ids.clone()).is_none() {
            entries.bytes += text.len();
        }
        Ok(ids)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{BYTES, Memo};

    #[test]
    fn a_text_is_tokenised_once_and_an_error_is_not_kept() {
        let memo = Memo::default();
        let calls = std::cell::Cell::new(0);
        let count = |text: &str| {
            calls.set(calls.get() + 1);
            if text.is_empty() { Err("empty") } else { Ok(vec![text.len() as u32]) }
        };
        for _ in 0..2 {
            assert_eq!(memo.ids("abc", count), Ok(vec![3]));
        }
        assert_eq!(calls.get(), 1);
        for _ in 0..2 {
            assert_eq!(memo.ids("", count), Err("empty"));
        }
        assert_eq!(calls.get(), 3);
    }

    #[test]
    fn memory_is_bounded() {
        let memo = Memo::default();
        let long = "x".repeat(BYTES / 3);
        for name in 'a'..='h' {
            let text = format!("{name}{long}");
            memo.ids(&text, |text| Ok::<_, ()>(vec![text.len() as u32])).unwrap();
            let entries = memo.entries();
            assert!(entries.bytes <= BYTES && entries.ids.contains_key(&text));
            assert_eq!(entries.bytes, entries.ids.keys().map(String::len).sum::<usize>());
        }
        let too_long = "x".repeat(BYTES + 1);
        assert_eq!(memo.ids(&too_long, |_| Ok::<_, ()>(vec![1])), Ok(vec![1]));
        assert!(!memo.entries().ids.contains_key(&too_long));
    }
}
