//! Requests that cannot be answered, and clients that disconnect.

use std::time::Duration;

use leyden_core::{FinishReason, Message, Sampling};
use leyden_inference::Options;
use leyden_serve::backend::{Ask, Backend, Event, Failure, Prompt};

use crate::common::{CONTEXT, Collected, answer, ask, backend, chat, failure, options, with};

#[test]
fn prompts_beyond_the_context_are_rejected_and_answers_end_at_it() {
    let backend = backend();
    let long = chat(vec![Message::user("x".repeat(3 * CONTEXT))], 10);
    let Failure::ContextLength { tokens, limit } = failure(&backend, long) else {
        panic!("not refused for its length")
    };
    assert!(tokens > limit && limit == CONTEXT);
    let full = |tokens: usize| Ask { prompt: Prompt::Ids(vec![40; tokens]), ..ask("", usize::MAX) };
    assert_eq!(
        failure(&backend, full(CONTEXT)),
        Failure::ContextLength { tokens: CONTEXT, limit: CONTEXT }
    );
    let last = answer(&backend, full(CONTEXT - 1));
    assert_eq!(last.tokens.len(), 1, "there is room for one token");
    // Without a token limit an answer may fill the context.
    let all = answer(&backend, Ask { seed: Some(11), ..full(CONTEXT - 40) });
    assert!(all.finish == FinishReason::Stop || all.tokens.len() == 40);
}

#[test]
fn invalid_requests_are_rejected_with_the_parameter_name() {
    let backend = backend();
    let empty = Ask { prompt: Prompt::Ids(Vec::new()), ..ask("", 5) };
    let unknown = Ask { prompt: Prompt::Ids(vec![5, 1_000_000]), ..ask("", 5) };
    let of = |sampling: Sampling| Ask { sampling, ..ask("x", 5) };
    let cold = of(Sampling { temperature: -1.0, ..Sampling::default() });
    let no_token = of(Sampling { top_p: 0.0, ..Sampling::default() });
    for (ask, word) in
        [(empty, "empty"), (unknown, "1000000"), (cold, "temperature"), (no_token, "top_p")]
    {
        match failure(&backend, ask) {
            Failure::Invalid { message, .. } => assert!(message.contains(word), "{message}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(!answer(&backend, ask("x", 5)).tokens.is_empty(), "other requests continue");
}

/// A client that disconnects frees its slot and its cache.
#[test]
fn a_client_that_disconnects_frees_its_slot() {
    let backend = with(Options { max_requests: 2, ..options() });
    for round in 0..3 {
        let mut listened = backend.submit(Ask { stream: true, ..ask("a", 200) });
        let other = backend.submit(ask("b", 200));
        let Failure::Busy { retry_after_seconds, .. } = failure(&backend, ask("c", 1)) else {
            panic!("a third request was accepted in round {round}")
        };
        assert!(retry_after_seconds > 0);
        // The client disconnects during its answer, or, in the first round, before it starts.
        if round > 0 {
            while listened.blocking_recv().is_some_and(|e| !matches!(e, Event::Delta(_))) {}
        }
        drop(listened);
        assert!(Collected::all(other).answer.is_some(), "the other request continues");
        // The slot is free at the latest when the next answer has arrived.
        let mut tries = 0;
        while backend.stats().waiting + backend.stats().running > 0 {
            tries += 1;
            assert!(tries < 10_000, "{:?}", backend.stats());
            let _ = Collected::all(backend.submit(ask("d", 1)));
        }
    }
}

#[test]
fn a_missed_deadline_is_reported() {
    let backend = with(Options { deadline: Duration::ZERO, ..options() });
    let Failure::Late(message) = failure(&backend, ask("a", 200)) else {
        panic!("the deadline did not take effect")
    };
    assert!(message.contains("deadline"), "{message}");
}

#[test]
fn shutdown_answers_open_requests_and_rejects_new_ones() {
    let backend = backend();
    let open: Vec<_> = (0..4).map(|i| backend.submit(ask(&format!("{i}"), 30))).collect();
    backend.shut_down(Duration::from_secs(600));
    for events in open {
        assert!(Collected::all(events).answer.is_some());
    }
    assert_eq!(failure(&backend, ask("late", 1)), Failure::ShuttingDown);
    backend.shut_down(Duration::ZERO);
}

#[test]
fn immediate_shutdown_fails_open_requests() {
    let backend = backend();
    let open: Vec<_> = (0..4).map(|_| backend.submit(ask("x", usize::MAX))).collect();
    backend.shut_down(Duration::ZERO);
    for events in open {
        let collected = Collected::all(events);
        assert!(collected.answer.is_some() || collected.failure == Some(Failure::ShuttingDown));
    }
}
