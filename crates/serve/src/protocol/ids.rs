//! Ids of responses, items and tool calls.
//!
//! A client may hold tool calls of many responses in one history, so ids must be unique per
//! server; and a response's id gives access to its conversation (`previous_response_id`), so it
//! must not be guessable. Ids are therefore hashes of a per-process secret and a counter.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

/// Two 128-bit SipHash keys, seeded by the standard library from the system.
static SECRET: LazyLock<[u64; 4]> = LazyLock::new(|| {
    let states = [RandomState::new(), RandomState::new()];
    std::array::from_fn(|i| states[i % 2].hash_one(i))
});

static NEXT: AtomicU64 = AtomicU64::new(0);

/// `prefix` and 24 hexadecimal digits that no other id of this process has.
pub(super) fn fresh(prefix: &str) -> String {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut hash = Sha256::new();
    for part in *SECRET {
        hash.update(part.to_le_bytes());
    }
    hash.update(number.to_le_bytes());
    let mut id = String::with_capacity(prefix.len() + 24);
    id.push_str(prefix);
    for byte in &hash.finalize()[..12] {
        for digit in [byte >> 4, byte & 15] {
            id.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    id
}
