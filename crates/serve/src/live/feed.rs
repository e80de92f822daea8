//! What a run tells whoever watches it.
//!
//! The run writes into a [`Feed`] and never waits for a reader. Readers do not have queues
//! that a slow one could fill: each remembers the number of the last event it was sent, and
//! asks for what came after it. Events are kept for a while ([`HISTORY`]); whoever was away for
//! longer, or comes for the first time, is sent a snapshot of everything. Where the rollouts
//! stand changes many times a second, and only the latest state of it is worth sending.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use leyden_core::record::{Flight, FlightState, InFlight, Record, Timing};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::curve::{Curve, Point};

/// Events that a reader who was away can be sent one by one.
pub const HISTORY: usize = 512;

/// Rollouts in flight that are listed one by one; of all others there is the count.
pub const MOST_IN_FLIGHT: usize = 200;

/// What the page says about the run as such.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RunCard {
    pub name: String,
    /// Steps of the whole run; 0 where there is no end, as in a server.
    pub steps: u64,
    /// Further lines, as name and value: agent, model, seed, folder.
    pub facts: Vec<(String, String)>,
}

/// How a run stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(tag = "state", content = "message", rename_all = "snake_case")]
pub enum Status {
    /// Nothing was recorded yet.
    #[default]
    Starting,
    Running,
    Finished,
    /// With the sentence that says why.
    Failed(String),
}

impl Status {
    /// Whether nothing more is to come.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Finished | Self::Failed(_))
    }
}

/// Where a run is watched. Cheap to clone; all clones are one feed.
#[derive(Clone)]
pub struct Feed {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    /// Tells the events of this process from those of an earlier one.
    epoch: u64,
}

struct State {
    card: RunCard,
    status: Status,
    train: Curve,
    /// By mode, `greedy` or `sampled`.
    evals: BTreeMap<String, Curve>,
    flight: Option<Flight>,
    /// Counts the states that `flight` has had.
    flights: u64,
    /// Number of the event before `history`, and those kept.
    forgotten: u64,
    history: VecDeque<(&'static str, String)>,
    started: SystemTime,
    /// When the latest record came, or the feed began: what lies between two records is the
    /// time of the later one.
    latest: Instant,
    /// Step behind which this process began.
    first_step: u64,
    step: u64,
    closed: bool,
}

/// How much of a feed a reader has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Number of its latest event; `None` before the first.
    event: Option<u64>,
    flights: u64,
}

/// One event for the page.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    pub name: &'static str,
    /// The reader's place in the feed after this event; states in flight have none, because
    /// they are not kept.
    pub id: Option<String>,
    /// JSON on one line.
    pub data: String,
}

/// What a reader has not seen yet.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    pub notices: Vec<Notice>,
    /// Nothing will come after these.
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
            forgotten: 0,
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

    /// A record was written; it took the time since the one before it.
    pub fn record(&self, record: &Record) {
        let seconds = self.lock().latest.elapsed().as_secs_f64();
        self.record_timed(record, Some(seconds));
    }

    /// A record was written that took so many seconds, if that is known.
    pub fn record_timed(&self, record: &Record, seconds: Option<f64>) {
        self.change(|state| state.record(record, seconds));
    }

    /// The run goes on from here: these records were kept of an earlier process, and what is
    /// known of their times.
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

    /// Where the rollouts stand now. May be called often: readers are sent the latest only.
    pub fn flight(&self, flight: &Flight) {
        // Made into JSON where it is read: the run has better things to do.
        let flight = flight.clone();
        self.change(|state| {
            state.flight = Some(flight);
            state.flights += 1;
            state.begin();
        });
    }

    /// The run is complete.
    pub fn finished(&self) {
        self.change(|state| state.end(Status::Finished));
    }

    /// The run cannot go on; `why` is a sentence.
    pub fn failed(&self, why: &str) {
        self.change(|state| state.end(Status::Failed(why.to_owned())));
    }

    /// Sends what is left to whoever reads, and ends their streams.
    pub fn close(&self) {
        self.change(|state| state.closed = true);
    }

    /// A number that changes with the feed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// The place of a reader whose latest event had this id; the beginning for one without, or
    /// with the id of another process's event.
    pub fn cursor(&self, last_event_id: Option<&str>) -> Cursor {
        let event = last_event_id.and_then(|id| {
            let (epoch, number) = id.split_once('.')?;
            let own = u64::from_str_radix(epoch, 16).ok()? == self.inner.epoch;
            own.then(|| number.parse().ok()).flatten()
        });
        Cursor { event, flights: 0 }
    }

    /// Everything after `cursor`, which moves on.
    pub fn news(&self, cursor: &mut Cursor) -> News {
        let state = self.lock();
        let newest = state.forgotten + state.history.len() as u64;
        let id = |number: u64| Some(format!("{:x}.{number}", self.inner.epoch));
        let mut notices = Vec::new();
        match cursor.event {
            // A number beyond the newest is not ours, whatever its epoch says.
            Some(seen) if (state.forgotten..=newest).contains(&seen) => {
                let skip = (seen - state.forgotten) as usize;
                for (number, (name, data)) in state.history.iter().enumerate().skip(skip) {
                    let id = id(state.forgotten + number as u64 + 1);
                    notices.push(Notice { name, id, data: data.clone() });
                }
            }
            _ => {
                // With where the rollouts stand.
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
        // State is written in whole steps that do not panic; a poisoned one is still whole.
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
            self.forgotten += 1;
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

/// A flight as the page shows it: counts of all rollouts, and those that matter one by one,
/// the unfinished first.
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
    fn a_new_reader_is_sent_everything_and_then_what_is_new() {
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
    fn a_reader_who_was_away_goes_on_where_it_was() {
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
    fn ids_that_are_forgotten_foreign_or_wrong_give_a_snapshot() {
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
    fn resumed_steps_have_the_times_that_were_kept() {
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
