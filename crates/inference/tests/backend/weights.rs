//! Weight updates between requests.

use std::sync::Arc;
use std::time::Duration;

use leyden_inference::Options;
use leyden_lm::model::Weights;
use leyden_serve::backend::{Ask, Backend, Event, Failure};
use tch::Tensor;

use crate::common::{Collected, answer, ask, backend, failure, options, seeded, weights, with};

/// The model's weights with `value` in every element of the last norm.
fn with_norm(value: f64) -> Weights {
    let weights = weights(&seeded(2));
    let norm = Tensor::full_like(&weights.norm, value);
    Weights { norm, ..weights }
}

#[test]
fn every_answer_carries_its_policy_version() {
    let backend = backend();
    // Made beforehand, and an answer long enough that it still runs when they arrive: nothing but
    // its end then wakes the engine for the exchange.
    let others = weights(&seeded(2));
    let long = || Ask { ignore_eos: true, ..ask("a", 200) };
    let before = answer(&backend, long());
    let mut running = backend.submit(Ask { stream: true, ..long() });
    let begun = running.blocking_recv();
    assert!(matches!(begun, Some(Event::Started { policy_version: 0, .. })), "{begun:?}");
    backend.set_weights(others, 5);
    let running = Collected::all(running).answer.unwrap();
    assert_eq!((before.policy_version, running.policy_version), (0, 0));
    assert_eq!(running.tokens, before.tokens, "it finished with the weights it started with");
    let after = answer(&backend, long());
    assert_eq!(after.policy_version, 5);
    assert_ne!(after.tokens, before.tokens);
    assert_eq!(after.cached_tokens, 0, "keys and values of other weights are not reused");
    assert_eq!(backend.stats().policy_version, 5);
}

#[test]
fn requests_wait_during_a_weight_update_and_none_is_lost() {
    let backend = Arc::new(backend());
    backend.pause();
    let waiting: Vec<_> = (0..6).map(|i| backend.submit(ask(&format!("{i}"), 8))).collect();
    assert_eq!((backend.stats().waiting, backend.stats().running), (6, 0));
    backend.set_weights(weights(&seeded(3)), 1);
    for events in waiting {
        assert_eq!(Collected::all(events).answer.unwrap().policy_version, 1);
    }
    backend.pause();
    let one = backend.submit(ask("x", 8));
    backend.resume();
    assert_eq!(Collected::all(one).answer.unwrap().policy_version, 1, "the weights stayed");
}

#[test]
fn a_request_that_waits_too_long_for_weights_is_rejected_as_busy() {
    let backend = with(Options { update_wait: Duration::ZERO, ..options() });
    backend.pause();
    let Failure::Busy { retry_after_seconds, message } = failure(&backend, ask("a", 8)) else {
        panic!("it was answered")
    };
    assert!(retry_after_seconds > 0 && message.contains("weights"), "{message}");
    backend.resume();
    assert!(!answer(&backend, ask("a", 8)).tokens.is_empty());
}

/// Weights with non-finite values fail the running requests; after a further update the engine
/// works again.
#[test]
fn a_failed_engine_recovers() {
    let backend = backend();
    backend.set_weights(with_norm(f64::NAN), 1);
    let failed: Vec<_> =
        (0..3).map(|_| backend.submit(Ask { stream: true, ..ask("a", 8) })).collect();
    for events in failed {
        match Collected::all(events).failure {
            Some(Failure::Internal(message)) => assert!(message.contains("finite"), "{message}"),
            other => panic!("{other:?}"),
        }
    }
    backend.set_weights(weights(&seeded(1)), 2);
    assert_eq!(answer(&backend, ask("a", 8)).policy_version, 2);
}
