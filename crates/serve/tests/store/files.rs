//! The database file: reopened, rejected, read concurrently with a server.

use std::path::Path;

use leyden_serve::store::{
    FILE, Filter, Limits, ModelServer, Reading, RolloutState, SCHEMA, Store, StoreError,
};

use super::fixtures::{call, create, event, to};

fn open(folder: &Path) -> Result<Store, StoreError> {
    Store::open(folder, Limits::default())
}

fn refusal(folder: &Path) -> String {
    open(folder).err().expect("a refusal").to_string()
}

#[tokio::test]
async fn a_reopened_store_has_its_contents() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).expect("a store");
    create(&store, "a").await;
    create(&store, "b").await;
    store.append(call("a", "0", vec![1, 2])).await.expect("an append");
    store.patch("b", to(RolloutState::Failed)).await.expect("a rollout");
    let server = ModelServer { model: "m".into(), endpoint: "http://h/v1".into(), version: 2 };
    store.put_models(vec![server.clone()]).await.expect("a store");
    let before = store.rollouts(Filter::default()).await.expect("rollouts");
    let calls = store.calls("a").await.expect("calls");
    store.close();
    let store = open(folder.path()).expect("the same store");
    assert_eq!(store.rollouts(Filter::default()).await.expect("rollouts"), before);
    assert_eq!(store.calls("a").await.expect("calls"), calls);
    assert_eq!(store.models().await.expect("servers"), [server]);
    assert_eq!(store.states(), [1, 0, 0, 1]);
    assert_eq!(store.terminal(0, 9).await.expect("a log").total, 1);
    store.append(event("a", "0", "{}")).await.expect("an append");
}

#[tokio::test]
async fn one_process_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).expect("a store");
    let other = tempfile::tempdir().expect("a folder");
    // The lock belongs to the file handle, so a second handle in this process acts as another
    // process.
    let holder = format!("another server is using this store: process {}", std::process::id());
    assert!(refusal(folder.path()).contains(&holder), "{}", refusal(folder.path()));
    open(other.path()).expect("another folder is free");
    store.close();
    open(folder.path()).expect("a closed store is free");
}

#[tokio::test]
async fn a_reader_sees_acknowledged_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).expect("a store");
    create(&store, "r").await;
    store.append(call("r", "0", vec![1])).await.expect("an append");
    for value in ["1", "0.5", "\"text\""] {
        let mut reward = event("r", "0", &format!(r#"{{"value":{value}}}"#));
        reward.event_type = "reward".into();
        store.append(reward).await.expect("an append");
    }
    let reading = Reading::open(&folder.path().join(FILE)).expect("a file");
    let all = reading.rollouts(&Filter::default()).expect("rollouts");
    assert_eq!(all.len(), 1);
    assert_eq!(reading.calls("r").expect("calls").len(), 1);
    assert_eq!(reading.reward("r").expect("a reward"), Some(0.5), "the last number");
    assert_eq!(
        reading.event_counts("r").expect("counts"),
        [("0".into(), "model_request".into(), 1), ("0".into(), "reward".into(), 3)]
    );
    create(&store, "later").await;
    let filter = Filter { states: vec![RolloutState::Queuing], limit: Some(1), is_train: None };
    assert_eq!(reading.rollouts(&filter).expect("rollouts")[0].id, "r");
    assert!(reading.rollout("later").expect("a file").is_some());
    assert!(reading.calls("none").is_err());
}

#[test]
fn a_foreign_file_is_refused_with_a_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(FILE);
    std::fs::write(&path, "not a database at all, but long enough to be taken for one".repeat(99))
        .expect("a file");
    assert!(refusal(folder.path()).contains("not an SQLite file"), "{}", refusal(folder.path()));
    std::fs::remove_file(&path).expect("a file");
    let db = rusqlite::Connection::open(&path).expect("a file");
    db.execute_batch("CREATE TABLE theirs (x)").expect("a table");
    drop(db);
    assert!(refusal(folder.path()).contains("another program's database"));
    let missing = Reading::open(&folder.path().join("none")).expect_err("a refusal").to_string();
    assert!(missing.contains("no such file"), "{missing}");
}

#[test]
fn another_schema_version_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    open(folder.path()).expect("a store").close();
    let db = rusqlite::Connection::open(folder.path().join(FILE)).expect("a file");
    db.pragma_update(None, "user_version", SCHEMA + 1).expect("a pragma");
    drop(db);
    let refused = refusal(folder.path());
    assert!(refused.contains(&format!("schema {}", SCHEMA + 1)), "{refused}");
}

#[tokio::test]
async fn a_corrupt_file_is_refused_with_a_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).expect("a store");
    for i in 0..200 {
        create(&store, &format!("r{i}")).await;
    }
    store.close();
    drop(store);
    let path = folder.path().join(FILE);
    let mut bytes = std::fs::read(&path).expect("a file");
    let length = bytes.len();
    // All pages but the schema's.
    bytes[8192..length].fill(0xa5);
    std::fs::write(&path, bytes).expect("a file");
    assert!(refusal(folder.path()).contains("damaged"), "{}", refusal(folder.path()));
}
