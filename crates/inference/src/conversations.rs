//! What has been said in each conversation, so that its next prompt grows by tokens.
//!
//! A rollout's calls arrive as separate requests that share nothing but the name of their
//! conversation. Under that name lies a [`History`]: the ids that were prompted and sampled.
//! The memory is bounded; the conversation that was used the longest ago is forgotten first,
//! and one that comes back after that is tokenised anew, which costs it its cache and its
//! prefix but is never wrong.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leyden_core::Message;
use leyden_text::{History, Prompt};
use lru::LruCache;

/// Histories by conversation.
pub(crate) struct Conversations(Mutex<Known>);

struct Known {
    by_name: LruCache<String, Conversation>,
    /// Of all histories together.
    tokens: usize,
    limit: usize,
    next_key: u64,
}

/// One conversation: what the engine knows it by, and what has been said.
#[derive(Clone)]
pub(crate) struct Conversation {
    pub key: u64,
    pub history: Arc<History>,
    tokens: usize,
}

impl Conversations {
    /// Keeps at most `limit` tokens, prompts and responses of all calls counted.
    pub fn new(limit: usize) -> Self {
        let by_name = LruCache::unbounded();
        Self(Mutex::new(Known { by_name, tokens: 0, limit, next_key: 0 }))
    }

    /// A key that no conversation has.
    pub fn fresh_key(&self) -> u64 {
        self.lock().fresh_key()
    }

    /// The conversation of this name, begun where there is none.
    pub fn get(&self, name: &str) -> Conversation {
        let mut known = self.lock();
        if let Some(conversation) = known.by_name.get(name) {
            return conversation.clone();
        }
        known.begin(name)
    }

    /// Adds a call to a conversation. Returns the keys of those that had to be forgotten.
    pub fn push(&self, name: &str, prompt: Prompt, response: Vec<u32>, reply: Message) -> Vec<u64> {
        let added = prompt.ids.len() + response.len();
        let mut known = self.lock();
        if known.by_name.get(name).is_none() {
            known.begin(name);
        }
        if let Some(conversation) = known.by_name.get_mut(name) {
            // Copies the history only while a prompt is being made from it.
            Arc::make_mut(&mut conversation.history).push(prompt, response, reply);
            conversation.tokens += added;
            known.tokens += added;
        }
        known.evict()
    }

    /// Forgets a conversation; returns its key.
    pub fn forget(&self, name: &str) -> Option<u64> {
        let mut known = self.lock();
        let conversation = known.by_name.pop(name)?;
        known.tokens -= conversation.tokens;
        Some(conversation.key)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
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

    /// Forgets the least recently used until the limits hold.
    fn evict(&mut self) -> Vec<u64> {
        let mut keys = Vec::new();
        while self.tokens > self.limit || self.by_name.len() > MOST_CONVERSATIONS {
            let Some((_, oldest)) = self.by_name.pop_lru() else { break };
            self.tokens -= oldest.tokens;
            keys.push(oldest.key);
        }
        keys
    }
}

/// Even empty conversations take memory: whoever talks to the server chooses their names.
const MOST_CONVERSATIONS: usize = 65_536;

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
    fn what_was_used_the_longest_ago_is_forgotten_first() {
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
        assert!(conversations.get("b").history.is_empty(), "it begins anew");
        assert_ne!(conversations.get("b").key, keys[1]);
        assert_eq!(conversations.forget("a"), Some(keys[0]));
        assert_eq!(conversations.forget("a"), None);
        assert!(push("d").is_empty());
    }

    #[test]
    fn a_conversation_beyond_all_bounds_is_forgotten_itself() {
        let prompt = prompt();
        let conversations = Conversations::new(prompt.ids.len());
        let key = conversations.get("a").key;
        let reply = Message::assistant("b");
        assert_eq!(conversations.push("a", prompt, vec![1], reply), [key]);
        assert!(conversations.get("a").history.is_empty());
    }
}
