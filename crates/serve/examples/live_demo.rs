//! A live page without a run: `cargo run -p leyden-serve --example live_demo`.
//!
//! A simulated run of 400 steps that takes a minute and a half, for viewing and developing the
//! page.

use std::sync::Arc;
use std::time::Duration;

use leyden_core::record::{EvalRecord, Flight, FlightState, InFlight, Record, StepRecord};
use leyden_serve::live::rollouts::{
    CallDetail, Detail, Key, Listing, Query, SignalDetail, Summary, Unreadable,
};
use leyden_serve::live::{Feed, Guard, Rollouts, RunCard, serve};

const STEPS: u64 = 400;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).map_or(Ok(8088), |port| port.parse())?;
    let feed = Feed::new(RunCard {
        name: "calculator demonstration".to_owned(),
        steps: STEPS,
        facts: vec![("agent".to_owned(), "calc".to_owned()), ("seed".to_owned(), "7".to_owned())],
    });
    let handle =
        serve(([127, 0, 0, 1], port).into(), Guard::loopback(), feed.clone(), Arc::new(Simulated))?;
    println!("{}", handle.url());
    for step in 0..=STEPS {
        if step > 0 {
            publish_flight(&feed, step);
            feed.record(&Record::Step(Box::new(StepRecord {
                step,
                rollouts: 32,
                rollouts_without_reward: (step % 3) as usize,
                reward_mean: reward(step) + noise(step) * 0.08,
                calls: 64,
                response_length: 40.0 - 10.0 * reward(step),
                ..StepRecord::default()
            })));
        }
        if step % 40 == 0 {
            for (mode, gain) in [("sampled", 0.0), ("greedy", 0.06)] {
                feed.record(&Record::Eval(Box::new(EvalRecord {
                    step,
                    mode: mode.to_owned(),
                    tasks: 200,
                    reward_mean: reward(step) + gain,
                    ..EvalRecord::default()
                })));
            }
        }
    }
    feed.finished();
    Ok(())
}

/// A simulated learning curve.
fn reward(step: u64) -> f64 {
    0.1 + 0.75 / (1.0 + (-(step as f64 - 130.0) / 40.0).exp())
}

/// Deterministic noise between -1 and 1.
fn noise(step: u64) -> f64 {
    (step as f64 * 12.9898).sin() * (step as f64 * 0.37).cos()
}

/// Publishes the rollouts in flight of one step.
fn publish_flight(feed: &Feed, step: u64) {
    for tick in 0..4_u64 {
        let rollout = |id: usize| InFlight {
            id,
            task_id: format!("mini-calc/{}", (step as usize * 4 + id / 8) % 1000),
            state: match (id as u64 * 7 + step + tick * 5) % 12 {
                0..=2 => FlightState::Queued,
                3..=6 => FlightState::Generating,
                7 => FlightState::Agent,
                _ => FlightState::Ended,
            },
            calls: (tick as usize + id) % 3,
        };
        feed.flight(&Flight {
            step,
            phase: "train".to_owned(),
            seconds: 0.055 * (tick + 1) as f64,
            generated_tokens: 600 * (tick + 1),
            rollouts: (0..32).map(rollout).collect(),
        });
        std::thread::sleep(Duration::from_millis(55));
    }
}

/// Simulated finished rollouts of any step.
struct Simulated;

impl Rollouts for Simulated {
    fn list(&self, query: &Query) -> Result<Listing, Unreadable> {
        let step = query.step.unwrap_or(STEPS);
        let row = |id: u64| Summary {
            id,
            task_id: format!("mini-calc/{}", id / 8),
            group: id / 8,
            reward: (id % 7 != 3).then_some(f64::from(u8::from(!(id + step).is_multiple_of(3)))),
            missing: (id % 7 == 3).then(|| "the tool ran past its limit".to_owned()),
            answer: Some(format!("{}", id * 17)),
            calls: 2,
            signals: u64::from(id.is_multiple_of(5)),
        };
        Ok(Listing {
            step: Some(step),
            phase: Some(query.phase.clone().unwrap_or_else(|| "train".to_owned())),
            phases: ["train", "sampled", "greedy"].map(str::to_owned).into(),
            earlier: step.checked_sub(1),
            later: (step < STEPS).then_some(step + 1),
            total: 32,
            rows: (0..32).map(row).collect(),
        })
    }

    fn show(&self, key: &Key) -> Result<Option<Detail>, Unreadable> {
        let call = |number: u64| CallDetail {
            role: "solver".to_owned(),
            prompt: Some(match number {
                0 => "<|user|>\nSolve with the calculator: (12 + 5) × 3".to_owned(),
                _ => "\n<|tool|>\n51".to_owned(),
            }),
            continues: number > 0,
            prompt_tokens: 118 + 40 * number,
            text: match number {
                0 => "<script>document.title = 'hostile'</script>\n<tool_call>{\"expression\": \
                      \"(12 + 5) * 3\"}</tool_call>"
                    .to_owned(),
                _ => "The answer is 51.".to_owned(),
            },
            response_tokens: 24,
            finish: "stop".to_owned(),
            policy_version: key.step,
            credit: (key.phase == "train").then_some(0.5 + number as f64 / 2.0),
            advantage: (key.phase == "train").then_some(1.2 * number as f64 - 0.4),
        };
        Ok((key.id < 32).then(|| Detail {
            step: key.step,
            phase: key.phase.clone(),
            id: key.id,
            task_id: format!("mini-calc/{}", key.id / 8),
            group: key.id / 8,
            question: "What is (12 + 5) × 3?".to_owned(),
            gold: "51".to_owned(),
            answer: Some("51".to_owned()),
            reward: Some(1.0),
            missing: None,
            calls: (0..2).map(call).collect(),
            signals: vec![SignalDetail {
                call: 0,
                kind: "tool_error".to_owned(),
                detail: "unexpected character at 3".to_owned(),
            }],
        }))
    }
}
