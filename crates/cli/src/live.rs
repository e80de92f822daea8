//! `--live`: serves a live page of a run.
//!
//! The page is an observer of the run and reads finished rollouts from the run's store. Errors of
//! the page never affect the run.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Result;
use leyden_core::record::{Flight, Record, Timing};
use leyden_report::export::{
    Call, Decode, ExportError, Filter, Line, Place, PromptText, Rollout, RunStore, Signal, prompts,
};
use leyden_serve::live::rollouts::{
    CallDetail, Detail, Key, Listing, Query, SignalDetail, Summary, Unreadable,
};
use leyden_serve::live::{self, Feed, Guard, Handle, LiveError, Rollouts, RunCard};
use leyden_train::{Experiment, Finish, Observer};

/// Port if `--live` has no value; a free one if it is in use.
const USUAL_PORT: u16 = 8088;

/// Environment variable with the key of a page that is open to other machines.
const KEY: &str = "LEYDEN_LIVE_KEY";

/// Rollouts per listing.
const ROWS: u64 = 100;

/// Longest text shown, in characters.
const LONG: usize = 20_000;

/// Decodes token ids to text, from any thread.
pub type SharedDecode = Arc<dyn Fn(&[u32]) -> String + Send + Sync>;

/// The address that the page is served on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    address: SocketAddr,
    /// Whether this is the default port, which may be replaced by a free one.
    usual: bool,
}

impl Default for At {
    fn default() -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, USUAL_PORT).into(), usual: true }
    }
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = match (text.parse::<u16>(), text.parse::<SocketAddr>()) {
            _ if text.is_empty() => return Ok(Self::default()),
            (Ok(port), _) => (Ipv4Addr::LOCALHOST, port).into(),
            (_, Ok(address)) => address,
            _ => {
                return Err(format!(
                    "`{text}` is neither a port nor an address such as 0.0.0.0:80"
                ));
            }
        };
        Ok(Self { address, usual: false })
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// The live page of one run. Dropping it reports the end of the run to open pages and stops the
/// server.
pub struct LivePage {
    feed: Feed,
    folder: PathBuf,
    /// Stops the server on drop.
    _handle: Handle,
    ended: bool,
}

impl LivePage {
    /// Serves the page of the run in `folder` and prints its URL to standard error. `decode`
    /// decodes training prompts, which the store has only as ids.
    ///
    /// # Errors
    /// An address that cannot be served.
    pub fn open(
        at: At,
        experiment: &Experiment,
        folder: &Path,
        decode: Option<SharedDecode>,
    ) -> Result<Self> {
        let fact = |name: &str, value: String| (name.to_owned(), value);
        let feed = Feed::new(RunCard {
            name: experiment.name.clone(),
            steps: experiment.train.steps,
            facts: vec![
                fact("agent", experiment.agent.name.clone()),
                fact("model", experiment.model.source.clone()),
                fact("seed", experiment.seed.to_string()),
                fact("folder", folder.display().to_string()),
            ],
        });
        let guard = match std::env::var(KEY) {
            Ok(key) if !key.is_empty() => Guard::key(&key),
            _ => Guard::loopback(),
        };
        let kept: Arc<dyn Rollouts> = Arc::new(Kept { folder: folder.to_owned(), decode });
        let serve = |address| live::serve(address, guard.clone(), feed.clone(), Arc::clone(&kept));
        let handle = match serve(at.address) {
            Err(LiveError::Address { .. }) if at.usual => {
                serve(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))?
            }
            Err(error @ LiveError::KeyNeeded(_)) => {
                return Err(anyhow::Error::new(error).context(format!("--live: set {KEY}")));
            }
            served => served?,
        };
        let with_key = if guard.has_key() { format!("?key=<{KEY}>") } else { String::new() };
        eprintln!("live page: {}{with_key}", handle.url());
        Ok(Self { feed, folder: folder.to_owned(), _handle: handle, ended: false })
    }

    /// Reports the result of the run to open pages and stops the server.
    pub fn end(mut self, result: &Result<Finish>) {
        self.ended = true;
        match result {
            Ok(_) => self.feed.finished(),
            Err(error) => self.feed.failed(&format!("{error:#}")),
        }
    }
}

impl Drop for LivePage {
    fn drop(&mut self) {
        if !self.ended {
            self.feed.failed("the run ended early; see its terminal for the error");
        }
    }
}

impl Observer for LivePage {
    fn record(&mut self, record: &Record) {
        self.feed.record(record);
    }

    fn resumed(&mut self, kept: &[Record]) {
        self.feed.resumed(kept, &timings(&self.folder));
    }

    fn wants_progress(&self) -> bool {
        true
    }

    fn flight(&mut self, flight: &Flight) {
        self.feed.flight(flight);
    }
}

/// Two observers of the same run.
pub struct Both<A, B>(pub A, pub B);

impl<A: Observer, B: Observer> Observer for Both<A, B> {
    fn record(&mut self, record: &Record) {
        self.0.record(record);
        self.1.record(record);
    }

    fn resumed(&mut self, kept: &[Record]) {
        self.0.resumed(kept);
        self.1.resumed(kept);
    }

    fn wants_progress(&self) -> bool {
        self.0.wants_progress() || self.1.wants_progress()
    }

    fn flight(&mut self, flight: &Flight) {
        self.0.flight(flight);
        self.1.flight(flight);
    }
}

/// Timings of the steps before this process; unreadable lines are skipped.
fn timings(folder: &Path) -> Vec<Timing> {
    let text = std::fs::read_to_string(folder.join("timings.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The finished rollouts of a run folder. Each query opens the store: the run creates it, and
/// readers must not block it.
struct Kept {
    folder: PathBuf,
    decode: Option<SharedDecode>,
}

impl Kept {
    /// `None` before the run has created its store.
    fn store(&self) -> Result<Option<RunStore>, ExportError> {
        match RunStore::open(&self.folder) {
            Ok(store) => Ok(Some(store)),
            // It is being created at the moment.
            Err(ExportError::NoFolder(_) | ExportError::NoStore(_) | ExportError::NotAStore(_)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Rollouts for Kept {
    fn list(&self, query: &Query) -> Result<Listing, Unreadable> {
        let list = || {
            let Some(store) = self.store()? else { return Ok(Listing::default()) };
            listing(&store, query)
        };
        list().map_err(unreadable)
    }

    fn show(&self, key: &Key) -> Result<Option<Detail>, Unreadable> {
        let show = || -> Result<_, ExportError> {
            let Some(store) = self.store()? else { return Ok(None) };
            store.rollout(&format!("{}/{}/{}", key.step, key.phase, key.id))
        };
        let found = show().map_err(unreadable)?;
        let decode = self.decode.as_deref().map(|decode| decode as Decode<'_>);
        Ok(found.map(|rollout| detail(key, rollout, decode)))
    }
}

fn unreadable(error: ExportError) -> Unreadable {
    Unreadable(error.to_string())
}

fn listing(store: &RunStore, query: &Query) -> Result<Listing, ExportError> {
    let places = store.places()?;
    let of_phase = |place: &&Place| query.phase.as_ref().is_none_or(|phase| place.phase == *phase);
    let latest = places.iter().rev().find(of_phase).or(places.last());
    let Some(latest) = latest else { return Ok(Listing::default()) };
    let phase = query.phase.clone().unwrap_or_else(|| latest.phase.clone());
    let step = query.step.unwrap_or(latest.step);
    let mut phases: Vec<String> = Vec::new();
    for place in &places {
        if !phases.contains(&place.phase) {
            phases.push(place.phase.clone());
        }
    }
    let steps = || places.iter().filter(|place| place.phase == phase).map(|place| place.step);
    let filter = Filter { step: Some(step), phase: Some(phase.clone()), ..Filter::default() };
    let total = store.count(&filter)?;
    let page = Filter { offset: query.offset, limit: Some(ROWS), ..filter };
    Ok(Listing {
        step: Some(step),
        phases,
        earlier: steps().filter(|&s| s < step).max(),
        later: steps().filter(|&s| s > step).min(),
        phase: Some(phase),
        total,
        rows: store.list(&page)?.into_iter().map(summary).collect(),
    })
}

/// The last part of a rollout's address, which is unique within its step and phase.
fn number(address: &str) -> u64 {
    address.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

fn summary(line: Line) -> Summary {
    Summary {
        id: number(&line.id),
        task_id: line.task_id,
        group: number(&line.group),
        reward: line.reward,
        missing: line.missing,
        answer: line.answer.map(|answer| cut(answer, 200)),
        calls: line.calls,
        signals: line.signals,
    }
}

fn detail(key: &Key, rollout: Rollout, decode: Option<Decode<'_>>) -> Detail {
    let prompts = prompts(&rollout.calls, decode);
    let call = |(call, prompt): (Call, Option<PromptText>)| CallDetail {
        role: call.role,
        continues: prompt.as_ref().is_some_and(|prompt| prompt.continues),
        prompt: prompt.map(|prompt| cut(prompt.text, LONG)),
        prompt_tokens: call.prompt_ids.len() as u64,
        text: cut(call.text, LONG),
        response_tokens: call.response_ids.len() as u64,
        finish: call.finish,
        policy_version: call.policy_version,
        credit: call.credit,
        advantage: call.advantage,
    };
    let signal = |signal: Signal| SignalDetail {
        call: signal.call,
        kind: signal.kind,
        detail: cut(signal.detail, LONG),
    };
    Detail {
        step: key.step,
        phase: key.phase.clone(),
        id: key.id,
        task_id: rollout.task_id,
        group: number(&rollout.group),
        question: cut(rollout.question, LONG),
        gold: cut(rollout.gold.unwrap_or_default(), LONG),
        answer: rollout.answer.map(|answer| cut(answer, LONG)),
        reward: rollout.reward,
        missing: rollout.missing,
        calls: rollout.calls.into_iter().zip(prompts).map(call).collect(),
        signals: rollout.signals.into_iter().map(signal).collect(),
    }
}

/// Truncates long text and states how much was removed.
fn cut(text: String, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        None => text,
        Some((end, _)) => {
            let rest = text[end..].chars().count();
            format!("{} … ({rest} more characters)", &text[..end])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_parsed_from_a_port_or_an_address() {
        assert_eq!("".parse(), Ok(At::default()));
        assert_eq!("9000".parse::<At>().unwrap().to_string(), "127.0.0.1:9000");
        assert_eq!("0.0.0.0:80".parse::<At>().unwrap().to_string(), "0.0.0.0:80");
        assert_eq!("[::1]:80".parse::<At>().unwrap().to_string(), "[::1]:80");
        for wrong in ["x", "70000", "localhost", "0.0.0.0"] {
            assert!(wrong.parse::<At>().unwrap_err().contains(wrong));
        }
    }
}
