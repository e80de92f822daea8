//! Round trips through the store.

use leyden_serve::store::{Filter, NewEvent, Repeated, RolloutState, StatusPatch, StoreError};

use super::fixtures::{call, create, event, temporary, to};

#[tokio::test]
async fn events_round_trip_in_order() {
    let store = temporary();
    create(&store, "r").await;
    let texts: Vec<String> = (0..50).map(|i| format!(r#"{{ "spaces" : "{i} é 𝄞" }}"#)).collect();
    for text in &texts {
        store.append(event("r", "0", text)).await.expect("an append");
    }
    let events = store.events("r", None).await.expect("events");
    assert_eq!(events.iter().map(|e| e.data.clone()).collect::<Vec<_>>(), texts);
    assert!(events.is_sorted_by_key(|event| event.seq));
    assert!(events.is_sorted_by(|a, b| a.timestamp <= b.timestamp));
}

#[tokio::test]
async fn ids_and_log_probabilities_round_trip_bit_exactly() {
    let store = temporary();
    create(&store, "r").await;
    let ids: Vec<u32> = (0..1000).map(|i| i * 4_294_967).collect();
    let new = call("r", "0", ids);
    store.append(new.clone()).await.expect("an append");
    let calls = store.calls("r").await.expect("calls");
    let answer = &new.call.expect("a call").answers[0];
    assert_eq!(calls.len(), 1);
    assert_eq!(&calls[0].answer, answer);
    assert_eq!(calls[0].role.as_deref(), Some("solver"));
    let found = store.recorded("r", "0", Repeated::Body([7; 16])).await.expect("a call");
    assert_eq!(found[0].answers.as_slice(), std::slice::from_ref(answer));
    assert_eq!(found[0].body, Some([7; 16]));
    let none = store.recorded("r", "0", Repeated::Body([8; 16])).await.expect("no call");
    assert_eq!(none, []);
}

#[tokio::test]
async fn only_the_current_attempt_is_read() {
    let store = temporary();
    create(&store, "r").await;
    for attempt in ["0", "1", "0"] {
        store.append(event("r", attempt, "{}")).await.expect("an append");
        store.append(call("r", attempt, vec![1])).await.expect("an append");
    }
    assert_eq!(store.events("r", None).await.expect("events").len(), 4);
    assert_eq!(store.calls("r").await.expect("calls").len(), 2);
    let patch = StatusPatch { last_attempt_id: Some(Some("1".into())), ..StatusPatch::default() };
    store.patch("r", patch).await.expect("a rollout");
    assert_eq!(store.events("r", None).await.expect("events").len(), 2);
    assert_eq!(store.events("r", Some("note")).await.expect("events").len(), 1);
    assert_eq!(store.calls("r").await.expect("calls").len(), 1);
    assert_eq!(store.attempts("r").await.expect("attempts"), ["0", "1"]);
}

#[tokio::test]
async fn events_with_the_same_key_are_stored_once() {
    let store = temporary();
    create(&store, "a").await;
    create(&store, "b").await;
    let keyed = |id: &str| NewEvent { key: Some(vec![1, 2]), ..event(id, "0", "{}") };
    let first = store.append(keyed("a")).await.expect("an append");
    let again = store.append(keyed("a")).await.expect("an append");
    assert!(!first.duplicate && again.duplicate);
    assert_eq!((first.seq, first.timestamp), (again.seq, again.timestamp));
    assert!(!store.append(keyed("b")).await.expect("an append").duplicate);
}

/// The in-memory index matches the file, also within one group.
#[tokio::test]
async fn the_index_follows_the_file() {
    let store = temporary();
    assert_eq!(store.brief("r"), None);
    // Not awaited one by one, so that they share a group.
    let writes = [
        futures::future::Either::Left(async {
            drop(store.create(vec![super::fixtures::new("r")]).await)
        }),
        futures::future::Either::Right(async {
            drop(store.patch("r", to(RolloutState::Running)).await);
        }),
    ];
    futures::future::join_all(writes).await;
    let brief = store.brief("r").expect("a rollout");
    assert_eq!(brief.state, RolloutState::Running);
    assert_eq!(store.states(), [0, 1, 0, 0]);
    store.delete("r").await.expect("a store");
    assert_eq!(store.brief("r"), None);
    let appended = store.append(event("r", "0", "{}")).await;
    assert!(matches!(appended, Err(StoreError::UnknownRollout(_))));
}

/// An id that was deleted and created again is another rollout.
#[tokio::test]
async fn a_deleted_rollout_leaves_nothing_behind() {
    let store = temporary();
    create(&store, "r").await;
    store.append(call("r", "0", vec![1])).await.expect("an append");
    store.patch("r", to(RolloutState::Failed)).await.expect("a rollout");
    store.delete("r").await.expect("a store");
    create(&store, "r").await;
    assert_eq!(store.events("r", None).await.expect("events"), []);
    assert_eq!(store.calls("r").await.expect("calls"), []);
    let page = store.terminal(0, 10).await.expect("a log");
    assert_eq!((page.items, page.next_after, page.total), (vec![], 1, 1));
    let all = store.rollouts(Filter::default()).await.expect("rollouts");
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].status.state, RolloutState::Queuing);
}

#[tokio::test]
async fn a_write_whose_future_is_dropped_is_still_done() {
    let store = temporary();
    create(&store, "r").await;
    {
        let mut append = std::pin::pin!(store.append(event("r", "0", "{}")));
        let _ = futures::poll!(append.as_mut());
    }
    // A later write in the same queue.
    store.append(event("r", "0", "{}")).await.expect("an append");
    assert_eq!(store.events("r", None).await.expect("events").len(), 2);
}
