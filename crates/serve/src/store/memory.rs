//! Conversations of `/v1/responses`, kept in the store.

use async_trait::async_trait;
use serde_json::Value;

use super::{Store, jobs, read};
use crate::call::ResponseMemory;

#[async_trait]
impl ResponseMemory for Store {
    async fn keep(&self, id: &str, items: Vec<Value>) {
        let (id, items, most) =
            (id.to_owned(), Value::Array(items).to_string(), self.inner.limits.max_responses);
        // A conversation that could not be stored is unknown later, and its client gets an error
        // then; the current answer is unaffected.
        let _ = self.write(move |writing| jobs::keep_response(writing, &id, &items, most)).await;
    }

    async fn recall(&self, id: &str) -> Option<Vec<Value>> {
        let id = id.to_owned();
        let items = self.read(move |db| read::response(db, &id)).await.ok().flatten()?;
        serde_json::from_str(&items).ok()
    }
}
