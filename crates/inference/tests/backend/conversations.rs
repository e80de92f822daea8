//! Calls of one conversation grow by tokens and reuse the cache.

use leyden_core::Message;
use leyden_serve::backend::{Answer, Ask, Backend};

use crate::common::{Collected, answer, ask, backend, chat, options, with};

fn named(name: &str, ask: Ask) -> Ask {
    Ask { conversation: Some(name.to_owned()), ..ask }
}

/// The second turn of a conversation whose first answer was `first`.
fn second(name: &str, first: &Answer) -> Ask {
    let messages = vec![
        Message::user("first"),
        Message::assistant(first.content.clone()),
        Message::user("second"),
    ];
    named(name, chat(messages, 12))
}

fn ids(answer: &Answer) -> Vec<u32> {
    answer.tokens.iter().map(|token| token.id).collect()
}

#[test]
fn a_second_turn_grows_by_tokens_and_reuses_the_cache() {
    let backend = backend();
    let first = answer(&backend, named("r/0", ask("first", 12)));
    assert_eq!(first.cached_tokens, 0);
    let next = answer(&backend, second("r/0", &first));
    let before = [first.prompt_ids.clone(), ids(&first)].concat();
    assert!(next.prompt_ids.starts_with(&before), "{:?} {before:?}", next.prompt_ids);
    // The last sampled token has not been computed.
    assert!(next.cached_tokens >= before.len() - 1, "{} of {}", next.cached_tokens, before.len());
    assert_eq!(backend.stats().extended_prompts, 1);
}

#[test]
fn conversations_do_not_see_each_other() {
    let backend = backend();
    let first = answer(&backend, named("a", ask("first", 12)));
    answer(&backend, second("b", &first));
    assert_eq!(backend.stats().extended_prompts, 0);
    backend.forget("a");
    answer(&backend, second("a", &first));
    assert_eq!(backend.stats().extended_prompts, 0, "a was forgotten");
}

#[test]
fn an_evicted_conversation_starts_fresh() {
    let backend = with(leyden_inference::Options { history_tokens: 60, ..options() });
    let first = answer(&backend, named("a", ask("first", 12)));
    for i in 0..4 {
        answer(&backend, named(&format!("b{i}"), ask("other", 12)));
    }
    let next = answer(&backend, second("a", &first));
    assert_eq!(backend.stats().extended_prompts, 0);
    assert!(!next.tokens.is_empty());
}

/// An agent may send its model several requests at once.
#[test]
fn calls_of_one_conversation_may_overlap() {
    let backend = backend();
    let pending: Vec<_> =
        (0..5).map(|i| backend.submit(named("r/0", ask(&format!("question {i}"), 10)))).collect();
    let answers: Vec<_> =
        pending.into_iter().map(|events| Collected::all(events).answer.unwrap()).collect();
    for answer in &answers {
        assert!(!answer.tokens.is_empty());
    }
    let messages = vec![
        Message::user("question 3"),
        Message::assistant(answers[3].content.clone()),
        Message::user("more"),
    ];
    let next = answer(&backend, named("r/0", chat(messages, 5)));
    let before = [answers[3].prompt_ids.clone(), ids(&answers[3])].concat();
    assert!(next.prompt_ids.starts_with(&before));
}
