//! Schedules, deadlines and failure handling.

mod common;

use std::sync::Mutex;
use std::time::Duration;

use common::{Letters, Scripted, model, parts, task};
use futures::channel::oneshot;
use leyden_core::{
    Agent, AgentError, AgentOutput, ChatRequest, Episode, Message, Outcome, Rollout, Sampling,
    SeedTree, Task, async_trait,
};
use leyden_train::rounds::{
    Deadlines, Job, OnFailure, RoundOptions, RoundOutput, Schedule, run_rollouts,
};

const BOTH: [Schedule; 2] = [Schedule::Lockstep, Schedule::Continuous];

fn options(schedule: Schedule) -> RoundOptions {
    let sampling = Sampling { max_tokens: 6, ..Sampling::default() };
    RoundOptions { schedule, ..RoundOptions::new(sampling, 1) }
}

fn play(agent: &dyn Agent, scripts: &[&str], options: &RoundOptions) -> RoundOutput {
    let model = model();
    let (_, _, mut engine) = parts(&model, 0.0);
    let tasks: Vec<Task> = scripts.iter().enumerate().map(|(i, s)| task(i, s)).collect();
    let jobs = tasks.iter().enumerate().map(|(id, task)| Job {
        id,
        group: id,
        task,
        seed: SeedTree::new(5).index(id as u64),
        played: &[],
    });
    let jobs = jobs.collect();
    run_rollouts(jobs, agent, &Letters, &model.format, &mut engine, options, &()).unwrap()
}

fn why(rollout: &Rollout) -> &str {
    match &rollout.outcome {
        Outcome::Missing(why) => why,
        Outcome::Reward(reward) => panic!("{}: reward {reward}", rollout.task_id),
    }
}

/// An agent that waits for events other than its model, and may fail in its first attempts.
#[derive(Default)]
struct Waiting {
    /// Kept alive, so that their receivers are never woken.
    kept: Mutex<Vec<oneshot::Sender<()>>>,
}

#[async_trait]
impl Agent for Waiting {
    fn name(&self) -> &str {
        "waiting"
    }

    fn roles(&self) -> &[&str] {
        &[]
    }

    async fn run(&self, task: &Task, episode: &Episode<'_>) -> Result<AgentOutput, AgentError> {
        let (done, waited) = oneshot::channel();
        let attempt = episode.place().attempt;
        let failed = |what: &str| AgentError::Task { task: task.id.clone(), what: what.to_owned() };
        let lost = || AgentError::Lost { task: task.id.clone(), what: "its machine".to_owned() };
        let script = task.label("script").unwrap_or_default();
        match script {
            // A tool that runs on another thread.
            "tool" => {
                std::thread::spawn(move || done.send(()));
                waited.await.map_err(|_| failed("its tool is gone"))?;
            }
            "hangs" => {
                self.kept.lock().unwrap().push(done);
                waited.await.map_err(|_| failed("its tool is gone"))?;
            }
            "queues" => {
                episode.clock().queue();
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(400));
                    done.send(())
                });
                waited.await.map_err(|_| failed("its place is gone"))?;
                episode.clock().restart();
            }
            "fails first" if attempt == 0 => return Err(failed("a bad day")),
            "fails" => return Err(failed("a bad day")),
            "lost once" if attempt == 0 => return Err(lost()),
            "lost" => return Err(lost()),
            "own reward" => return Ok(AgentOutput { answer: None, reward: Some(0.25) }),
            "no number" => return Ok(AgentOutput { answer: None, reward: Some(f64::NAN) }),
            _ => {}
        }
        let messages = vec![Message::user(task.question.clone())];
        let request = ChatRequest { messages, report_tokens: true, ..ChatRequest::default() };
        let reply = episode.chat(request).await?;
        let tokens = reply.tokens.expect("asked for");
        assert_eq!(tokens.response_ids.len(), tokens.logprobs.len());
        assert_eq!(tokens.response_ids.len(), tokens.bytes.len());
        assert_eq!(tokens.content, reply.message.content);
        Ok(AgentOutput::of(Some(reply.message.content)))
    }
}

#[test]
fn both_schedules_generate_the_same_tokens() {
    let scripts = ["twice", "once", "brief", "twice", "stops", "fails", "asks two at once"];
    let [one, other] = BOTH.map(|schedule| play(&Scripted, &scripts, &options(schedule)));
    assert_eq!(one.prompts, other.prompts);
    for (a, b) in one.rollouts.iter().zip(&other.rollouts) {
        assert_eq!((&a.outcome, &a.answer, &a.signals), (&b.outcome, &b.answer, &b.signals));
        let ids = |rollout: &Rollout| -> Vec<(Vec<u32>, Vec<u32>)> {
            let calls = rollout.calls.iter();
            let mut ids: Vec<_> =
                calls.map(|c| (c.prompt_ids.clone(), c.response_ids.clone())).collect();
            // Concurrent calls end in any order.
            ids.sort();
            ids
        };
        assert_eq!(ids(a), ids(b), "{}", a.task_id);
    }
}

#[test]
fn an_agent_may_wait_for_events_other_than_its_model() {
    for schedule in BOTH {
        let played = play(&Waiting::default(), &["tool", "plain", "tool"], &options(schedule));
        for rollout in &played.rollouts {
            assert!(rollout.outcome.reward().is_some(), "{schedule:?}: {rollout:?}");
            assert_eq!(rollout.calls.len(), 1);
        }
    }
}

#[test]
fn late_rollouts_are_named_and_the_others_continue() {
    let short = Some(Duration::from_millis(100));
    let cases = [
        (Deadlines { turn: short, ..Deadlines::default() }, "its first question"),
        (Deadlines { rollout: short, ..Deadlines::default() }, "in total"),
        (Deadlines { step: short, ..Deadlines::default() }, "the step"),
    ];
    for schedule in BOTH {
        for (deadlines, named) in &cases {
            let options = RoundOptions { deadlines: *deadlines, ..options(schedule) };
            let agent = Waiting::default();
            let played = play(&agent, &["own reward", "hangs"], &options);
            assert_eq!(played.rollouts[0].outcome, Outcome::Reward(0.25));
            let why = why(&played.rollouts[1]);
            let words = ["task-1", "rollout 1 (attempt 0)", named];
            assert!(words.iter().all(|word| why.contains(word)), "{why}");
        }
    }
}

#[test]
fn an_agent_that_queues_is_not_late() {
    let deadlines = Deadlines { turn: Some(Duration::from_millis(100)), ..Deadlines::default() };
    for schedule in BOTH {
        let options = RoundOptions { deadlines, ..options(schedule) };
        let played = play(&Waiting::default(), &["queues"], &options);
        assert!(played.rollouts[0].outcome.reward().is_some(), "{:?}", played.rollouts);
    }
}

#[test]
fn a_failed_rollout_is_dropped_counted_as_zero_or_retried() {
    let scripts = ["fails first", "fails", "own reward", "no number"];
    for schedule in BOTH {
        let with = |on_failure, retries| {
            let options = RoundOptions { on_failure, retries, ..options(schedule) };
            play(&Waiting::default(), &scripts, &options).rollouts
        };
        let dropped = with(OnFailure::Drop, 1);
        assert!(why(&dropped[0]).contains("a bad day") && why(&dropped[1]).contains("a bad day"));
        assert_eq!(dropped[2].outcome, Outcome::Reward(0.25));
        assert!(why(&dropped[3]).contains("NaN"), "{}", why(&dropped[3]));

        let zero = with(OnFailure::Zero, 1);
        assert_eq!(zero[1].outcome, Outcome::Reward(0.0));
        assert!(zero[1].signals[0].detail.contains("a bad day"), "{:?}", zero[1].signals);
        assert!(why(&zero[3]).contains("NaN"), "no reward is not a failure of the agent");

        let again = with(OnFailure::Retry, 1);
        assert!(again[0].outcome.reward().is_some(), "{:?}", again[0]);
        assert!(why(&again[1]).contains("a bad day"));
    }
}

#[test]
fn a_rollout_whose_machine_is_lost_restarts() {
    for schedule in BOTH {
        let played = play(&Waiting::default(), &["lost once", "lost"], &options(schedule));
        assert!(played.rollouts[0].outcome.reward().is_some(), "{:?}", played.rollouts[0]);
        assert!(why(&played.rollouts[1]).contains("its machine"));
    }
}
