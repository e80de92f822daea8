//! Retention and size limits.

use leyden_serve::store::{Limits, RolloutState, Store, StoreError};

use super::fixtures::{create, event, to};

async fn ended(store: &Store, id: &str) {
    create(store, id).await;
    store.append(event(id, "0", "{}")).await.expect("an append");
    store.patch(id, to(RolloutState::Failed)).await.expect("a rollout");
}

async fn remaining(store: &Store) -> Vec<String> {
    let all = store.rollouts(Default::default()).await.expect("rollouts");
    all.into_iter().map(|rollout| rollout.id).collect()
}

#[tokio::test]
async fn the_latest_and_the_running_rollouts_are_kept() {
    let limits = Limits { keep_last: Some(100), ..Limits::default() };
    let store = Store::temporary(limits).expect("a folder");
    create(&store, "running").await;
    for i in 0..250 {
        ended(&store, &format!("r{i}")).await;
    }
    assert_eq!(store.expire().await.expect("a store"), 150);
    let remaining = remaining(&store).await;
    assert_eq!(remaining.len(), 101);
    assert_eq!((remaining[0].as_str(), remaining[1].as_str()), ("running", "r150"));
    assert_eq!(store.expire().await.expect("a store"), 0);
    let page = store.terminal(0, 1000).await.expect("a log");
    assert_eq!((page.items.len(), page.next_after), (100, 250));
}

#[tokio::test]
async fn old_finished_rollouts_are_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Limits::default()).expect("a store");
    ended(&store, "old").await;
    create(&store, "old but running").await;
    store.close();
    let path = folder.path().join(leyden_serve::store::FILE);
    let db = rusqlite::Connection::open(path).expect("a file");
    db.execute("UPDATE rollouts SET updated_at = updated_at - 2 * 86400", []).expect("rows");
    drop(db);
    let limits = Limits { keep_days: Some(1.0), ..Limits::default() };
    let store = Store::open(folder.path(), limits).expect("a store");
    ended(&store, "new").await;
    assert_eq!(store.expire().await.expect("a store"), 1);
    assert_eq!(remaining(&store).await, ["old but running", "new"]);
}

#[tokio::test]
async fn events_and_rollouts_have_a_limit() {
    let limits = Limits { max_event_bytes: 100, max_rollout_bytes: 250, ..Limits::default() };
    let store = Store::temporary(limits).expect("a folder");
    create(&store, "r").await;
    let long = store.append(event("r", "0", &"x".repeat(101))).await;
    assert!(matches!(long, Err(StoreError::EventTooLarge { bytes: 101, limit: 100 })));
    for _ in 0..2 {
        store.append(event("r", "0", &"x".repeat(100))).await.expect("an append");
    }
    let full = store.append(event("r", "0", &"x".repeat(51))).await;
    assert!(matches!(full, Err(StoreError::RolloutTooLarge { bytes: 251, limit: 250, .. })));
    store.append(event("r", "0", &"x".repeat(50))).await.expect("an append");
    // The limit is per rollout.
    create(&store, "s").await;
    store.append(event("s", "0", &"x".repeat(100))).await.expect("an append");
}

#[tokio::test]
async fn conversations_are_bounded() {
    use leyden_serve::call::ResponseMemory;
    let limits = Limits { max_responses: 3, ..Limits::default() };
    let store = Store::temporary(limits).expect("a folder");
    for i in 0..5 {
        store.keep(&format!("resp_{i}"), vec![i.into()]).await;
    }
    assert_eq!(store.recall("resp_0").await, None);
    assert_eq!(store.recall("resp_1").await, None);
    assert_eq!(store.recall("resp_2").await, Some(vec![2.into()]));
    assert_eq!(store.recall("resp_4").await, Some(vec![4.into()]));
}
