//! Leases of rollouts to workers.

use leyden_serve::store::{FILE, Limits, RolloutState, Store, StoreError};

use super::fixtures::{create, event, set_clock_back, temporary, to};

#[tokio::test]
async fn an_expired_lease_is_a_new_attempt() {
    let store = temporary();
    create(&store, "r").await;
    let claims = store.claim("w1", 5, -1.0).await.expect("a store");
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].attempt_id, "0");
    let requeued = store.requeue_expired().await.expect("a store");
    assert_eq!(requeued.len(), 1);
    assert_eq!((requeued[0].attempt_id.as_str(), requeued[0].worker.as_str()), ("0", "w1"));
    assert_eq!(store.requeue_expired().await.expect("a store"), []);
    assert_eq!(store.brief("r").expect("a rollout").state, RolloutState::Queuing);
    let lost = store.heartbeat("w1", "r", "0", 60.0).await;
    assert!(matches!(lost, Err(StoreError::NotLeased { .. })));
    let claims = store.claim("w2", 5, 60.0).await.expect("a store");
    assert_eq!(claims[0].attempt_id, "1");
    store.heartbeat("w2", "r", "1", 60.0).await.expect("a lease");
    for (worker, attempt) in [("w1", "1"), ("w2", "0"), ("w1", "0")] {
        let lost = store.heartbeat(worker, "r", attempt, 60.0).await;
        assert!(matches!(lost, Err(StoreError::NotLeased { .. })));
        let lost = store.end_lease(worker, "r", attempt, to(RolloutState::Succeeded)).await;
        assert!(matches!(lost, Err(StoreError::NotLeased { .. })));
    }
    store.end_lease("w2", "r", "1", to(RolloutState::Succeeded)).await.expect("a lease");
    assert_eq!(store.brief("r").expect("a rollout").state, RolloutState::Succeeded);
}

#[tokio::test]
async fn a_hosted_rollout_outlives_its_lease() {
    let store = temporary();
    let hosted = leyden_serve::store::NewRollout { hosted: true, ..super::fixtures::new("r") };
    store.create(vec![hosted]).await.expect("a store");
    store.claim("w", 1, 60.0).await.expect("a store");
    store.end_lease("w", "r", "0", to(RolloutState::Failed)).await.expect("a lease");
    assert_eq!(store.brief("r").expect("a rollout").state, RolloutState::Running);
    let lost = store.end_lease("w", "r", "0", to(RolloutState::Failed)).await;
    assert!(matches!(lost, Err(StoreError::NotLeased { .. })));
    assert_eq!(store.next_attempt("r", true).await.expect("a rollout"), "");
    assert_eq!(store.claim("w", 1, 60.0).await.expect("a store")[0].attempt_id, "1");
}

#[tokio::test]
async fn many_workers_share_without_overlap() {
    let store = temporary();
    let all = (0..200).map(|i| super::fixtures::new(&format!("r{i}"))).collect();
    store.create(all).await.expect("a store");
    let workers = (0..16).map(|worker| {
        let store = store.clone();
        async move {
            let mut mine = Vec::new();
            loop {
                let name = format!("w{worker}");
                let claims = store.claim(&name, 3, 60.0).await.expect("a store");
                if claims.is_empty() {
                    return mine;
                }
                mine.extend(claims.into_iter().map(|claim| claim.rollout.id));
            }
        }
    });
    let mut ids: Vec<String> = futures::future::join_all(workers).await.concat();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 200);
}

/// The lease of a dead worker expires although the system's clock was set back by a day.
#[tokio::test]
async fn a_lease_expires_after_the_clock_was_set_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || Store::open(folder.path(), Limits::default()).expect("a store");
    let store = open();
    create(&store, "dead").await;
    create(&store, "live").await;
    store.claim("w", 2, 60.0).await.expect("a store");
    // Its last heartbeat was for no time at all.
    store.heartbeat("w", "dead", "0", 0.0).await.expect("a lease");
    let before = store.append(event("live", "0", "{}")).await.expect("an append").timestamp;
    assert!(store.now() >= before);
    store.close();
    drop(store);
    set_clock_back(&folder.path().join(FILE), 86_400.0);
    let store = open();
    let requeued = store.requeue_expired().await.expect("a store");
    let ids: Vec<&str> = requeued.iter().map(|lost| lost.rollout_id.as_str()).collect();
    assert_eq!(ids, ["dead"], "the other lease has not expired");
    store.heartbeat("w", "live", "0", 60.0).await.expect("a lease");
    let after = store.append(event("live", "0", "{}")).await.expect("an append").timestamp;
    assert!(after > before + 86_400.0, "times in the file never decrease");
}
