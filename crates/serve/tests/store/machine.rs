//! The store's state machine compared with a reference model.

use std::collections::HashMap;

use leyden_serve::store::{Filter, RolloutState, StoreError};
use proptest::prelude::*;

use super::fixtures::{create, event, temporary, to};

#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Move(u8, usize),
    Delete(u8),
    Append(u8),
    Claim(usize),
    Again(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..4_u8;
    prop_oneof![
        2 => id.clone().prop_map(Step::Create),
        6 => (id.clone(), 0..4_usize).prop_map(|(id, state)| Step::Move(id, state)),
        1 => id.clone().prop_map(Step::Delete),
        2 => id.clone().prop_map(Step::Append),
        1 => (0..3_usize).prop_map(Step::Claim),
        1 => id.prop_map(Step::Again),
    ]
}

/// The reference model.
#[derive(Default)]
struct Model {
    /// State, event count per attempt, current attempt, number of attempts.
    rollouts: HashMap<String, (RolloutState, HashMap<String, usize>, String, u32)>,
    /// In order of creation.
    order: Vec<String>,
    /// The completion log; deleted rollouts are `None`.
    log: Vec<Option<String>>,
}

fn may(from: RolloutState, to: RolloutState) -> bool {
    use RolloutState::{Failed, Queuing, Running, Succeeded};
    matches!((from, to), (Queuing, Running | Failed) | (Running, Succeeded | Failed))
}

async fn follow(steps: Vec<Step>) {
    let store = temporary();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Create(id) => {
                let id = format!("r{id}");
                create(&store, &id).await;
                if !model.rollouts.contains_key(&id) {
                    let new = (RolloutState::Queuing, HashMap::new(), "0".to_owned(), 0);
                    model.rollouts.insert(id.clone(), new);
                    model.order.push(id);
                }
            }
            Step::Move(id, state) => {
                let (id, state) = (format!("r{id}"), RolloutState::ALL[state]);
                let got = store.patch(&id, to(state)).await;
                match model.rollouts.get_mut(&id) {
                    None => assert!(matches!(got, Err(StoreError::UnknownRollout(_)))),
                    Some((from, ..)) if !may(*from, state) => {
                        assert!(matches!(got, Err(StoreError::Transition { .. })));
                    }
                    Some((from, ..)) => {
                        assert_eq!(got.expect("allowed").status.state, state);
                        *from = state;
                        if state.is_terminal() {
                            model.log.push(Some(id));
                        }
                    }
                }
            }
            Step::Delete(id) => {
                let id = format!("r{id}");
                store.delete(&id).await.expect("a store");
                model.rollouts.remove(&id);
                model.order.retain(|other| *other != id);
                for entry in &mut model.log {
                    if entry.as_ref() == Some(&id) {
                        *entry = None;
                    }
                }
            }
            Step::Append(id) => {
                let id = format!("r{id}");
                let attempt = store.brief(&id).map(|brief| brief.attempt().to_owned());
                let attempt = attempt.unwrap_or_default();
                let got = store.append(event(&id, &attempt, "{}")).await;
                match model.rollouts.get_mut(&id) {
                    None => assert!(matches!(got, Err(StoreError::UnknownRollout(_)))),
                    Some((_, events, current, _)) => {
                        got.expect("an append");
                        assert_eq!(attempt, *current);
                        *events.entry(attempt).or_default() += 1;
                    }
                }
            }
            Step::Claim(count) => {
                let got = store.claim("w", count, 60.0).await.expect("a store");
                let got: Vec<String> = got.into_iter().map(|claim| claim.rollout.id).collect();
                let queued = model.order.iter().filter(|id| {
                    model.rollouts.get(*id).is_some_and(|r| r.0 == RolloutState::Queuing)
                });
                let expected: Vec<String> = queued.take(count).cloned().collect();
                assert_eq!(got, expected);
                for id in got {
                    let (state, _, current, attempts) = model.rollouts.get_mut(&id).expect("known");
                    *state = RolloutState::Running;
                    *current = attempts.to_string();
                    *attempts += 1;
                }
            }
            Step::Again(id) => {
                let id = format!("r{id}");
                let got = store.next_attempt(&id, false).await;
                match model.rollouts.get_mut(&id) {
                    None => assert!(matches!(got, Err(StoreError::UnknownRollout(_)))),
                    Some((state, ..)) if state.is_terminal() => {
                        assert!(matches!(got, Err(StoreError::Transition { .. })));
                    }
                    Some((state, _, current, attempts)) => {
                        *attempts = (*attempts).max(1);
                        *current = attempts.to_string();
                        *attempts += 1;
                        *state = RolloutState::Running;
                        assert_eq!(got.expect("allowed"), *current);
                    }
                }
            }
        }
    }
    agrees(&store, &model).await;
}

async fn agrees(store: &leyden_serve::store::Store, model: &Model) {
    let all = store.rollouts(Filter::default()).await.expect("rollouts");
    let ids: Vec<&String> = all.iter().map(|rollout| &rollout.id).collect();
    assert_eq!(ids, model.order.iter().collect::<Vec<_>>());
    for rollout in &all {
        let (state, events, current, _) = &model.rollouts[&rollout.id];
        assert_eq!(rollout.status.state, *state);
        assert_eq!(rollout.status.attempt(), current);
        let brief = store.brief(&rollout.id).expect("in the index too");
        assert_eq!((brief.state, brief.attempt()), (*state, current.as_str()));
        let stored = store.events(&rollout.id, None).await.expect("events");
        assert_eq!(stored.len(), events.get(current).copied().unwrap_or(0));
    }
    let mut after = 0;
    let mut log = Vec::new();
    loop {
        let page = store.terminal(after, 2).await.expect("a log");
        assert_eq!(page.total, model.log.len() as u64);
        log.extend(page.items.into_iter().map(|item| item.rollout_id));
        if page.next_after == after {
            break;
        }
        after = page.next_after;
    }
    assert_eq!(after, model.log.len() as u64);
    assert_eq!(log, model.log.iter().flatten().cloned().collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_store_agrees_with_the_model(steps in prop::collection::vec(step(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(follow(steps));
    }
}
