//! The event feed of a run for its live page.
//!
//! The run writes to a [`Feed`] and never waits for a reader. There are no per-reader queues that
//! a slow reader could fill: each reader keeps the number of the last event it received and
//! requests the later ones. The latest [`HISTORY`] events are kept; a reader that is further
//! behind, or new, gets a snapshot of everything. The state of rollouts in flight changes many
//! times a second, so only its latest value is sent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use leyden_core::record::{Flight, FlightState, InFlight, Record, Timing};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::curve::{Curve, Point};

/// Events kept for readers that reconnect.
pub const HISTORY: usize = 512;

/// Maximum rollouts in flight that are listed individually; the others are only counted.
pub const MOST_IN_FLIGHT: usize = 200;

/// The page's description of the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RunCard {
    pub name: String,
    /// Total steps of the run; 0 if unlimited, as in a server.
    pub steps: u64,
    /// Further name–value lines: agent, model, seed, folder.
    pub facts: Vec<(String, String)>,
}

/// The state of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(tag = "state", content = "message", rename_all = "snake_case")]
pub enum Status {
    /// Nothing has been recorded yet.
    #[default]
    Starting,
    Running,
    Finished,
    /// With the reason, as a sentence.
    Failed(String),
}

impl Status {
    /// Whether the run has ended.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Finished | Self::Failed(_))
    }
}

/// The event feed of a run. Cheap to clone; all clones share one feed.
#[derive(Clone)]
pub struct Feed {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    /// Distinguishes the events of this process from those of an earlier one.
    epoch: u64,
}

struct State {
    card: RunCard,
    status: Status,
    train: Curve,
    /// By mode, `greedy` or `sampled`.
    evals: BTreeMap<String, Curve>,
    flight: Option<Flight>,
    /// Number of changes of `flight`.
    flights: u64,
    /// Number of the event before `history`, and the events kept.
    evicted: u64,
    history: VecDeque<(&'static str, String)>,
    started: SystemTime,
    /// Time of the latest record, or of the feed's start: the time between two records is
    /// attributed to the later one.
    latest: Instant,
    /// The step after which this process began.
    first_step: u64,
    step: u64,
    closed: bool,
}

/// A reader's position in the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Number of the latest event received; `None` before the first.
    event: Option<u64>,
    flights: u64,
}

/// One event for the page.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    pub name: &'static str,
    /// The reader's position after this event; flight states have none, because they are not kept.
    pub id: Option<String>,
    /// JSON on one line.
    pub data: String,
}

/// Events that a reader has not received yet.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    pub notices: Vec<Notice>,
    /// No events follow these.
    pub last: bool,
}

impl Feed {
    pub fn new(card: RunCard) -> Self {
        let now = SystemTime::now();
        let epoch = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let state = State {
            card,
            status: Status::Starting,
            train: Curve::default(),
            evals: BTreeMap::new(),
            flight: None,
            flights: 0,
            evicted: 0,
            history: VecDeque::new(),
            started: now,
            latest: Instant::now(),
            first_step: 0,
            step: 0,
            closed: false,
        };
        let (changes, _) = watch::channel(0);
        Self { inner: Arc::new(Inner { state: Mutex::new(state), changes, epoch }) }
    }

    /// Adds a record; its duration is the time since the previous one.
    pub fn record(&self, record: &Record) {
        let seconds = self.lock().latest.elapsed().as_secs_f64();
        self.record_timed(record, Some(seconds));
    }

    /// Adds a record with its duration in seconds, if known.
    pub fn record_timed(&self, record: &Record, seconds: Option<f64>) {
        self.change(|state| state.record(record, seconds));
    }

    /// Adds the records kept from an earlier process when a run resumes, with their known
    /// durations.
    pub fn resumed(&self, kept: &[Record], timings: &[Timing]) {
        let seconds: BTreeMap<u64, f64> = timings
            .iter()
            .filter(|timing| timing.phase == "step")
            .map(|timing| (timing.step, timing.seconds.values().sum()))
            .collect();
        self.change(|state| {
            for record in kept {
                let known = match record {
                    Record::Step(step) => seconds.get(&step.step).copied(),
                    Record::Eval(_) => None,
                };
                state.record(record, known);
            }
            state.first_step = state.step;
        });
    }

    /// Sets the state of the rollouts in flight. May be called often: readers get only the latest.
    pub fn flight(&self, flight: &Flight) {
        // Serialised by the reader, to keep the cost off the run.
        let flight = flight.clone();
        self.change(|state| {
            state.flight = Some(flight);
            state.flights += 1;
            state.begin();
        });
    }

    /// Marks the run as complete.
    pub fn finished(&self) {
        self.change(|state| state.end(Status::Finished));
    }

    /// Marks the run as failed; `why` is a sentence.
    pub fn failed(&self, why: &str) {
        self.change(|state| state.end(Status::Failed(why.to_owned())));
    }

    /// Sends the remaining events to the readers and ends their streams.
    pub fn close(&self) {
        self.change(|state| state.closed = true);
    }

    /// A counter that changes with the feed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// The position after the event with this id; the beginning without an id, or with the id of
    /// another process's event.
    pub fn cursor(&self, last_event_id: Option<&str>) -> Cursor {
        let event = last_event_id.and_then(|id| {
            let (epoch, number) = id.split_once('.')?;
            let own = u64::from_str_radix(epoch, 16).ok()? == self.inner.epoch;
            own.then(|| number.parse().ok()).flatten()
        });
        Cursor { event, flights: 0 }
    }

    /// All events after `cursor`; advances it.
    pub fn news(&self, cursor: &mut Cursor) -> News {
        let state = self.lock();
        let newest = state.evicted + state.history.len() as u64;
        let id = |number: u64| Some(format!("{:x}.{number}", self.inner.epoch));
        let mut notices = Vec::new();
        match cursor.event {
            // A number beyond the newest is invalid, whatever its epoch.
            Some(seen) if (state.evicted..=newest).contains(&seen) => {
                let skip = (seen - state.evicted) as usize;
                for (number, (name, data)) in state.history.iter().enumerate().skip(skip) {
                    let id = id(state.evicted + number as u64 + 1);
                    notices.push(Notice { name, id, data: data.clone() });
                }
            }
            _ => {
                // The snapshot includes the flight.
                cursor.flights = state.flights;
                let data = state.snapshot().to_string();
                notices.push(Notice { name: "snapshot", id: id(newest), data });
            }
        }
        cursor.event = Some(newest);
        if cursor.flights != state.flights {
            cursor.flights = state.flights;
            let data = state.flight.as_ref().map_or(Value::Null, view).to_string();
            notices.push(Notice { name: "flight", id: None, data });
        }
        News { notices, last: state.closed }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.inner.changes.send_modify(|number| *number += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Updates of the state do not panic midway; a poisoned state is still consistent.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn record(&mut self, record: &Record, seconds: Option<f64>) {
        self.latest = Instant::now();
        self.begin();
        match record {
            Record::Step(step) => {
                let point = Point::of_step(step, seconds);
                self.step = step.step;
                self.publish("step", json!({ "point": &point }));
                self.train.push(point);
            }
            Record::Eval(eval) => {
                let point = Point::of_eval(eval);
                self.step = self.step.max(eval.step);
                self.publish("eval", json!({ "mode": eval.mode, "point": &point }));
                self.evals.entry(eval.mode.clone()).or_default().push(point);
            }
        }
        if self.flight.take().is_some() {
            self.flights += 1;
        }
    }

    fn begin(&mut self) {
        if self.status == Status::Starting {
            self.set(Status::Running);
        }
    }

    fn end(&mut self, status: Status) {
        if self.flight.take().is_some() {
            self.flights += 1;
        }
        self.set(status);
    }

    fn set(&mut self, status: Status) {
        self.status = status;
        self.publish("status", json!(self.status));
    }

    fn publish(&mut self, name: &'static str, data: Value) {
        self.history.push_back((name, data.to_string()));
        if self.history.len() > HISTORY {
            self.history.pop_front();
            self.evicted += 1;
        }
    }

    fn snapshot(&self) -> Value {
        let started = self.started.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        json!({
            "run": self.card,
            "status": self.status,
            "train": self.train,
            "evals": self.evals,
            "flight": self.flight.as_ref().map(view),
            "started_ms": started,
            "now_ms": SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64),
            "first_step": self.first_step,
            "step": self.step,
        })
    }
}

/// A flight as the page shows it: counts of all rollouts, and up to [`MOST_IN_FLIGHT`] individual
/// ones, unfinished first.
fn view(flight: &Flight) -> Value {
    let count = |state| flight.rollouts.iter().filter(|r| r.state == state).count();
    let (running, ended): (Vec<&InFlight>, Vec<&InFlight>) =
        flight.rollouts.iter().partition(|rollout| rollout.state != FlightState::Ended);
    let rows: Vec<&InFlight> = running.into_iter().chain(ended).take(MOST_IN_FLIGHT).collect();
    let rate = flight.generated_tokens as f64 / flight.seconds;
    json!({
        "step": flight.step,
        "phase": flight.phase,
        "seconds": flight.seconds,
        "generated_tokens": flight.generated_tokens,
        "tokens_per_second": rate.is_finite().then_some(rate),
        "rollouts": flight.rollouts.len(),
        "agent": count(FlightState::Agent),
        "queued": count(FlightState::Queued),
        "generating": count(FlightState::Generating),
        "ended": count(FlightState::Ended),
        "rows": rows,
    })
}

#[cfg(test)]
mod tests {
    use leyden_core::record::StepRecord;

    use super::*;

    fn step(number: u64) -> Record {
        Record::Step(Box::new(StepRecord {
            step: number,
            rollouts: 8,
            reward_mean: 0.5,
            calls: 16,
            response_length: 10.0,
            ..StepRecord::default()
        }))
    }

    fn names(news: &News) -> Vec<&str> {
        news.notices.iter().map(|notice| notice.name).collect()
    }

    fn data(notice: &Notice) -> Value {
        serde_json::from_str(&notice.data).unwrap()
    }

    #[test]
    fn a_new_reader_gets_a_snapshot_and_then_new_events() {
        let feed = Feed::new(RunCard { name: "r".to_owned(), steps: 9, facts: Vec::new() });
        feed.record_timed(&step(1), Some(2.0));
        let mut cursor = feed.cursor(None);
        let first = feed.news(&mut cursor);
        assert_eq!(names(&first), ["snapshot"]);
        let snapshot = data(&first.notices[0]);
        assert_eq!(snapshot["status"]["state"], "running");
        assert_eq!(snapshot["train"]["points"][0]["tokens_per_second"], 80.0);
        assert_eq!(snapshot["train"]["points"][0]["rollouts_per_second"], 4.0);
        assert_eq!(names(&feed.news(&mut cursor)), Vec::<&str>::new());
        feed.record_timed(&step(2), None);
        feed.finished();
        let second = feed.news(&mut cursor);
        assert_eq!(names(&second), ["step", "status"]);
        assert_eq!(data(&second.notices[0])["point"]["to"], 2);
        assert!(!second.last);
        feed.close();
        assert!(feed.news(&mut cursor).last);
    }

    #[test]
    fn a_reconnecting_reader_resumes_at_its_position() {
        let feed = Feed::new(RunCard::default());
        feed.record(&step(1));
        let mut cursor = feed.cursor(None);
        let id = feed.news(&mut cursor).notices[0].id.clone().unwrap();
        feed.record(&step(2));
        let again = feed.news(&mut feed.cursor(Some(&id)));
        assert_eq!(names(&again), ["step"]);
        assert_ne!(again.notices[0].id.as_deref(), Some(id.as_str()));
    }

    #[test]
    fn evicted_foreign_or_invalid_ids_give_a_snapshot() {
        let feed = Feed::new(RunCard::default());
        let id = feed.news(&mut feed.cursor(None)).notices[0].id.clone().unwrap();
        for number in 0..=HISTORY as u64 {
            feed.record(&step(number));
        }
        let epoch = id.split_once('.').unwrap().0;
        let beyond = format!("{epoch}.999999999");
        for id in [id.as_str(), &beyond, "1.1", "", ".", "x.y", "é.1"] {
            assert_eq!(names(&feed.news(&mut feed.cursor(Some(id)))), ["snapshot"], "{id}");
        }
    }

    #[test]
    fn only_the_latest_flight_is_sent_and_the_unfinished_come_first() {
        let feed = Feed::new(RunCard::default());
        let mut cursor = feed.cursor(None);
        feed.news(&mut cursor);
        let mut flight =
            Flight { step: 1, seconds: 2.0, generated_tokens: 50, ..Flight::default() };
        for id in 0..1000 {
            let state = if id < 990 { FlightState::Ended } else { FlightState::Queued };
            flight.rollouts.push(InFlight { id, state, ..InFlight::default() });
        }
        feed.flight(&Flight::default());
        feed.flight(&flight);
        let news = feed.news(&mut cursor);
        assert_eq!(names(&news), ["status", "flight"]);
        assert_eq!(news.notices[1].id, None);
        let view = data(&news.notices[1]);
        assert_eq!(view["rows"].as_array().unwrap().len(), MOST_IN_FLIGHT);
        assert_eq!(view["rows"][0]["id"], 990);
        assert_eq!((view["queued"].clone(), view["ended"].clone()), (json!(10), json!(990)));
        assert_eq!(view["tokens_per_second"], 25.0);
        feed.record(&step(1));
        let news = feed.news(&mut cursor);
        assert_eq!(names(&news), ["step", "flight"]);
        assert_eq!(news.notices[1].data, "null");
    }

    #[test]
    fn resumed_steps_have_their_recorded_times() {
        let feed = Feed::new(RunCard::default());
        let seconds = BTreeMap::from([("rollouts".to_owned(), 1.0), ("update".to_owned(), 3.0)]);
        let timing = Timing { step: 1, phase: "step".to_owned(), seconds, ..Timing::default() };
        feed.resumed(&[step(1), step(2)], &[timing]);
        let snapshot = data(&feed.news(&mut feed.cursor(None)).notices[0]);
        assert_eq!(snapshot["train"]["points"][0]["rollouts_per_second"], 2.0);
        assert_eq!(snapshot["train"]["points"][1]["rollouts_per_second"], Value::Null);
        assert_eq!(snapshot["first_step"], 2);
    }
}
