//! A simulated run: feed events and rollouts whose every text is hostile.

use leyden_core::record::{EvalRecord, Flight, FlightState, InFlight, Record, StepRecord};
use leyden_serve::live::rollouts::{
    CallDetail, Detail, Key, Listing, Query, SignalDetail, Summary, Unreadable,
};
use leyden_serve::live::{Feed, Rollouts, RunCard};

/// Markup that must be shown as plain text.
pub const HOSTILE: &str =
    "</pre><script>window.hacked = 1</script><img src=x onerror=\"window.hacked = 2\">&amp;";

pub fn feed() -> Feed {
    let fact = |name: &str| (name.to_owned(), HOSTILE.to_owned());
    Feed::new(RunCard {
        name: format!("run {HOSTILE}"),
        steps: 5000,
        facts: vec![fact("agent"), fact("model")],
    })
}

pub fn step(step: u64, reward: f64) -> Record {
    Record::Step(Box::new(StepRecord {
        step,
        rollouts: 8,
        reward_mean: reward,
        calls: 16,
        response_length: 20.0,
        ..StepRecord::default()
    }))
}

pub fn eval(step: u64, mode: &str, reward: f64) -> Record {
    Record::Eval(Box::new(EvalRecord {
        step,
        mode: mode.to_owned(),
        tasks: 50,
        reward_mean: reward,
        ..EvalRecord::default()
    }))
}

/// Four rollouts, one in each state.
pub fn flight(step: u64) -> Flight {
    use FlightState::{Agent, Ended, Generating, Queued};
    let rollout = |(id, state)| InFlight { id, task_id: HOSTILE.to_owned(), state, calls: id };
    Flight {
        step,
        phase: "train".to_owned(),
        seconds: 2.0,
        generated_tokens: 500,
        rollouts: [Agent, Queued, Generating, Ended].into_iter().enumerate().map(rollout).collect(),
    }
}

/// Rollouts of steps 1 to 3, three per step; the last one has no reward.
pub struct TestRollouts;

impl Rollouts for TestRollouts {
    fn list(&self, query: &Query) -> Result<Listing, Unreadable> {
        let step = query.step.unwrap_or(3);
        if step == 99 {
            return Err(Unreadable("rollouts.sqlite is damaged".to_owned()));
        }
        let row = |id: u64| Summary {
            id,
            task_id: HOSTILE.to_owned(),
            group: id / 2,
            reward: (id < 2).then_some(id as f64),
            missing: (id == 2).then(|| HOSTILE.to_owned()),
            answer: Some(HOSTILE.to_owned()),
            calls: 1,
            signals: 1,
        };
        Ok(Listing {
            step: Some(step),
            phase: Some(query.phase.clone().unwrap_or_else(|| "train".to_owned())),
            phases: vec!["train".to_owned(), "sampled".to_owned()],
            earlier: step.checked_sub(1).filter(|&step| step > 0),
            later: (step < 3).then_some(step + 1),
            total: 3,
            rows: (0..3).map(row).collect(),
        })
    }

    fn show(&self, key: &Key) -> Result<Option<Detail>, Unreadable> {
        let text = || HOSTILE.to_owned();
        let call = |number: u64| CallDetail {
            role: text(),
            prompt: Some(text()),
            continues: number > 0,
            prompt_tokens: 7,
            text: format!("response {number} {HOSTILE}"),
            response_tokens: 3,
            finish: text(),
            policy_version: 2,
            credit: Some(0.5),
            advantage: Some(number as f64 - 0.25),
        };
        Ok((key.id < 3).then(|| Detail {
            step: key.step,
            phase: key.phase.clone(),
            id: key.id,
            task_id: text(),
            group: 0,
            question: text(),
            gold: text(),
            answer: Some(text()),
            reward: (key.id < 2).then_some(key.id as f64),
            missing: (key.id == 2).then(text),
            calls: (0..2).map(call).collect(),
            signals: vec![SignalDetail { call: 1, kind: text(), detail: text() }],
        }))
    }
}
