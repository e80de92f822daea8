//! Lockstep rounds: working and failing agents, and the records of their rollouts.

mod common;

use common::{CONTEXT, Letters, Scripted, model, parts, task};
use leyden_core::{Call, FinishReason, Outcome, Rollout, Sampling, SeedTree, SignalKind, Task};
use leyden_lm::policy::forest::{Row, pack};
use leyden_train::rounds::{
    CONTEXT_OVERFLOW, Job, PromptCounts, RoundOptions, RoundOutput, run_rollouts, signal_counts,
};

const MAX_TOKENS: usize = 6;

/// One rollout for each script, with a fresh engine.
fn roll(scripts: &[&str]) -> (Vec<Rollout>, PromptCounts) {
    let tasks: Vec<Task> = scripts.iter().enumerate().map(|(i, s)| task(i, s)).collect();
    let played = play(tasks.iter().enumerate().map(|(id, task)| job(id, task, &[])).collect());
    (played.rollouts, played.prompts)
}

fn play(jobs: Vec<Job<'_>>) -> RoundOutput {
    let model = model();
    let (_, _, mut engine) = parts(&model, 0.0);
    let sampling = Sampling { max_tokens: MAX_TOKENS, ..Sampling::default() };
    let options = RoundOptions::new(sampling, 7);
    run_rollouts(jobs, &Scripted, &Letters, &model.format, &mut engine, &options, &()).unwrap()
}

fn job<'a>(id: usize, task: &'a Task, played: &'a [Call]) -> Job<'a> {
    Job { id, group: id, task, seed: SeedTree::new(5).index(id as u64), played }
}

fn why(rollout: &Rollout) -> &str {
    match &rollout.outcome {
        Outcome::Missing(why) => why,
        Outcome::Reward(reward) => panic!("{}: reward {reward}", rollout.task_id),
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let scripts = ["twice", "once", "brief", "twice", "stops", "once", "fails", "twice"];
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| roll(&scripts))
    };
    let (rollouts, counts) = with(1);
    assert_eq!((rollouts.clone(), counts), with(4));
    let ids: Vec<usize> = rollouts.iter().map(|r| r.id).collect();
    assert_eq!(ids, (0..scripts.len()).collect::<Vec<_>>());
}

#[test]
fn every_call_is_recorded_as_it_was_generated() {
    let (rollouts, _) = roll(&["once", "twice", "brief", "stops"]);
    let calls: Vec<usize> = rollouts.iter().map(|r| r.calls.len()).collect();
    assert_eq!(calls, [1, 2, 1, 1]);
    for call in rollouts.iter().flat_map(|r| &r.calls) {
        assert_eq!(call.response_ids.len(), call.logprobs.len());
        assert!(call.logprobs.iter().all(|&l| l < 0.0), "{:?}", call.logprobs);
        assert_eq!(call.policy_version, 7);
    }
    let first = |index: usize| &rollouts[index].calls[0];
    assert_eq!((first(0).response_ids.len(), first(0).finish), (MAX_TOKENS, FinishReason::Length));
    assert_eq!((first(2).response_ids.len(), first(2).finish), (2, FinishReason::Length));
    let roles: Vec<&str> = rollouts[1].calls.iter().map(|c| c.agent_role.as_str()).collect();
    assert_eq!(roles, ["first", "second"]);
    for rollout in &rollouts {
        assert_eq!(rollout.answer.as_deref(), rollout.calls.last().map(|c| c.text.as_str()));
    }
}

#[test]
fn a_stop_text_ends_a_response_where_it_first_occurs() {
    let (rollouts, _) = roll(&["stops"; 8]);
    let format = model().format;
    let letters = |text: &str| text.chars().any(|c| c.is_ascii_lowercase());
    let mut stopped = 0;
    for call in rollouts.iter().map(|r| &r.calls[0]) {
        let before = &call.response_ids[..call.response_ids.len() - 1];
        assert!(!letters(&format.tokenizer().decode(before, true)), "{call:?}");
        // The stop string was sampled, but is not part of the answer.
        if letters(&format.tokenizer().decode(&call.response_ids, true)) {
            assert_eq!(call.finish, FinishReason::Stop);
            assert!(!letters(&call.text), "{call:?}");
            stopped += 1;
        }
    }
    assert!(stopped > 0, "a good part of the vocabulary has a letter");
}

#[test]
fn a_second_turn_continues_the_tokens_of_the_first() {
    let (rollouts, counts) = roll(&["twice", "once", "twice"]);
    assert_eq!(counts, PromptCounts { fresh: 3, extended: 2, rewritten: 0 });
    for rollout in [&rollouts[0], &rollouts[2]] {
        let [first, second] = rollout.calls.as_slice() else { panic!("{rollout:?}") };
        let before = [first.prompt_ids.as_slice(), &first.response_ids].concat();
        assert!(second.prompt_ids.starts_with(&before));
        assert!(second.prompt_ids.len() > before.len());
    }
}

/// A rollout that fills its context gave no answer, with the reward of that; a first prompt that
/// does not fit is the task's.
#[test]
fn a_conversation_beyond_the_context_is_scored_as_no_answer() {
    let (rollouts, _) = roll(&["overflows", "long"]);
    let overflowed = &rollouts[0];
    assert_eq!(overflowed.outcome, Outcome::Reward(0.0));
    assert_eq!((overflowed.calls.len(), &overflowed.answer), (1, &None));
    let kind = SignalKind::Other(CONTEXT_OVERFLOW.to_owned());
    let signal = overflowed.signals.iter().find(|signal| signal.kind == kind).unwrap();
    assert_eq!(signal.call, 0);
    assert!(signal.detail.contains("160"), "{}", signal.detail);
    assert!(rollouts[1].outcome.reward().is_none() && !rollouts[1].has_signal(&kind));
}

#[test]
fn a_failed_rollout_has_a_reason_and_the_others_continue() {
    let scripts =
        ["once", "fails", "twice", "unscorable", "long", "waits", "infinite", "asks two at once"];
    let (rollouts, _) = roll(&scripts);
    for (index, words) in [
        (1, &["task-1", "its tool has gone"][..]),
        (3, &["task-3", "its gold is empty"]),
        (4, &["tokens", &CONTEXT.to_string()]),
        (5, &["task-5", "waits for something"]),
        (6, &["inf"]),
    ] {
        let why = why(&rollouts[index]);
        assert!(words.iter().all(|word| why.contains(word)), "{}: {why}", scripts[index]);
    }
    // Calls before the failure are recorded; a request whose agent no longer waits is not
    // generated.
    let calls: Vec<usize> = rollouts.iter().map(|r| r.calls.len()).collect();
    assert_eq!(calls, [1, 1, 2, 1, 0, 1, 1, 2]);

    // Concurrent questions are separate calls with separate random draws.
    let [one, other] = rollouts[7].calls.as_slice() else { panic!("{:?}", rollouts[7]) };
    assert_eq!(one.prompt_ids, other.prompt_ids);
    assert_ne!(one.response_ids, other.response_ids);
    assert!(rollouts[7].outcome.reward().is_some());

    let (alone, _) = roll(&["once", "silent", "twice"]);
    for index in [0, 2] {
        let (with, without) = (&rollouts[index], &alone[index]);
        assert!(with.outcome.reward().is_some(), "{:?}", with.outcome);
        assert_eq!((&with.answer, &with.outcome), (&without.answer, &without.outcome));
    }
    // No answer is scored as wrong, not as a missing reward.
    assert_eq!(alone[1].outcome, Outcome::Reward(0.0));
}

#[test]
fn a_rollout_continues_from_any_call_of_another() {
    let task = task(0, "twice");
    let whole = play(vec![job(3, &task, &[])]).rollouts.remove(0);
    let [first, second] = whole.calls.as_slice() else { panic!("{whole:?}") };
    // With new random draws from the continued call on, and none before.
    let other = |played| Job { seed: SeedTree::new(6), ..job(3, &task, played) };
    let continued = play(vec![other(&whole.calls[..1])]).rollouts.remove(0);
    assert_eq!(continued.calls[0], *first);
    assert_eq!(continued.calls[1].prompt_ids, second.prompt_ids);
    assert_ne!(continued.calls[1].response_ids, second.response_ids);
    assert_eq!(continued.signals, whole.signals);
    assert_eq!(play(vec![other(&whole.calls)]).rollouts.remove(0), whole);
    // Calls of another task's rollout do not match this agent's prompts.
    let strange = common::task(1, "twice");
    let lost = play(vec![job(0, &strange, &whole.calls[..1])]).rollouts.remove(0);
    assert!(why(&lost).contains("its prompt of call 0 differs"), "{lost:?}");
}

#[test]
fn drafts_have_the_index_of_their_call() {
    let tasks = [task(0, "once"), task(1, "twice")];
    let played = play(tasks.iter().enumerate().map(|(id, task)| job(id, task, &[])).collect());
    assert!(played.drafts[0].is_empty());
    let [draft] = played.drafts[1].as_slice() else { panic!("{:?}", played.drafts) };
    assert_eq!((draft.call, &draft.answer), (0, &played.rollouts[1].calls[0].text));
}

#[test]
fn signals_have_the_index_of_their_call() {
    let (rollouts, _) = roll(&["once", "twice", "twice"]);
    assert!(rollouts[0].signals.is_empty());
    let signal = &rollouts[1].signals[0];
    assert_eq!((signal.call, signal.detail.as_str()), (0, "one call is made"));
    let counts = signal_counts(&rollouts);
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("halfway".to_owned(), 2)]);
}

#[test]
fn recorded_log_probabilities_are_the_policy_s() {
    let (rollouts, _) = roll(&["once", "twice", "twice"]);
    let (policy, _, _) = parts(&model(), 0.0);
    for call in rollouts.iter().flat_map(|r| &r.calls) {
        let row = Row::call(&call.prompt_ids, &call.response_ids);
        let packed = pack(&[row], &[0], 4096).unwrap().remove(0);
        let recomputed = packed.gather(&policy.evaluate(&packed, 1.0).unwrap().logp).concat();
        for (ours, &sampled) in recomputed.iter().zip(&call.logprobs) {
            assert!((ours - f64::from(sampled)).abs() < 1e-4, "{ours} and {sampled}");
        }
    }
}
