//! Token history of each conversation, so that its next prompt grows by tokens.
//!
//! A rollout's calls arrive as separate requests that share only the name of their conversation.
//! Under that name a [`History`] is stored: the prompt ids and the sampled ids. The memory is
//! bounded: the least recently used conversation is evicted first. A conversation that returns
//! after eviction is tokenised again, so it loses its cache entries and its shared prefix, but
//! remains correct.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leyden_core::Message;
use leyden_text::{History, Prompt};
use lru::LruCache;

/// Histories by conversation name.
pub(crate) struct Conversations(Mutex<Entries>);

struct Entries {
    by_name: LruCache<String, Conversation>,
    /// Total over all histories.
    tokens: usize,
    limit: usize,
    next_key: u64,
}

/// One conversation: its key in the engine, and its history.
#[derive(Clone)]
pub(crate) struct Conversation {
    pub key: u64,
    pub history: Arc<History>,
    tokens: usize,
}

impl Conversations {
    /// Keeps at most `limit` tokens, counting prompts and responses of all calls.
    pub fn new(limit: usize) -> Self {
        let by_name = LruCache::unbounded();
        Self(Mutex::new(Entries { by_name, tokens: 0, limit, next_key: 0 }))
    }

    /// A key that no conversation uses.
    pub fn fresh_key(&self) -> u64 {
        self.lock().fresh_key()
    }

    /// The conversation of this name, created if it does not exist.
    pub fn get(&self, name: &str) -> Conversation {
        let mut entries = self.lock();
        if let Some(conversation) = entries.by_name.get(name) {
            return conversation.clone();
        }
        entries.begin(name)
    }

    /// Adds a call to a conversation. Returns the keys of evicted conversations.
    pub fn push(&self, name: &str, prompt: Prompt, response: Vec<u32>, reply: Message) -> Vec<u64> {
        let added = prompt.ids.len() + response.len();
        let mut entries = self.lock();
        if entries.by_name.get(name).is_none() {
            entries.begin(name);
        }
        if let Some(conversation) = entries.by_name.get_mut(name) {
            // Copies the history only while a prompt is being built from it.
            Arc::make_mut(&mut conversation.history).push(prompt, response, reply);
            conversation.tokens += added;
            entries.tokens += added;
        }
        entries.evict()
    }

    /// Forgets a conversation; returns its key.
    pub fn forget(&self, name: &str) -> Option<u64> {
        let mut entries = self.lock();
        let conversation = entries.by_name.pop(name)?;
        entries.tokens -= conversation.tokens;
        Some(conversation.key)
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn fresh_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    fn begin(&mut self, name: &str) -> Conversation {
        let key = self.fresh_key();
        let conversation = Conversation { key, history: Arc::default(), tokens: 0 };
        self.by_name.put(name.to_owned(), conversation.clone());
        conversation
    }

    /// Evicts the least recently used conversations until the limits hold.
    fn evict(&mut self) -> Vec<u64> {
        let mut keys = Vec::new();
        while self.tokens > self.limit || self.by_name.len() > MAX_CONVERSATIONS {
            let Some((_, oldest)) = self.by_name.pop_lru() else { break };
            self.tokens -= oldest.tokens;
            keys.push(oldest.key);
        }
        keys
    }
}

/// Empty conversations take memory as well, and clients choose the names.
const MAX_CONVERSATIONS: usize = 65_536;

#[cfg(test)]
mod tests {
    use leyden_core::{ChatRequest, Message};
    use leyden_text::{History, Prompt};

    use super::Conversations;
    use crate::testing;

    fn prompt() -> Prompt {
        let request = ChatRequest { messages: vec![Message::user("a")], ..Default::default() };
        testing::model().format.prompt(&History::new(), &request).unwrap()
    }

    #[test]
    fn the_least_recently_used_conversation_is_evicted_first() {
        let prompt = prompt();
        let one = prompt.ids.len() + 1;
        let conversations = Conversations::new(2 * one);
        let push =
            |name: &str| conversations.push(name, prompt.clone(), vec![1], Message::assistant("b"));
        let keys = ["a", "b"].map(|name| {
            assert!(push(name).is_empty());
            conversations.get(name).key
        });
        assert_eq!(conversations.get("a").history.len(), 1);
        assert_eq!(push("c"), [keys[1]], "a was used after b");
        assert_eq!(conversations.get("a").key, keys[0]);
        assert!(conversations.get("b").history.is_empty(), "it starts empty");
        assert_ne!(conversations.get("b").key, keys[1]);
        assert_eq!(conversations.forget("a"), Some(keys[0]));
        assert_eq!(conversations.forget("a"), None);
        assert!(push("d").is_empty());
    }

    #[test]
    fn a_conversation_larger_than_the_limit_is_evicted() {
        let prompt = prompt();
        let conversations = Conversations::new(prompt.ids.len());
        let key = conversations.get("a").key;
        let reply = Message::assistant("b");
        assert_eq!(conversations.push("a", prompt, vec![1], reply), [key]);
        assert!(conversations.get("a").history.is_empty());
    }
}
