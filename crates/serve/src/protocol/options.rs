//! Options common to the endpoints: model, sampling, stop conditions.

use leyden_core::{Sampling, SeedTree};
use serde_json::Value;

use super::error::ApiError;
use super::fields::{Fields, texts, whole, wrong};
use super::ids;
use crate::backend::Ask;
use crate::call::{CallContext, Overrides};

/// Maximum choices per request.
pub(super) const MOST_CHOICES: u64 = 128;

/// Maximum alternatives reported per token.
pub(super) const MOST_ALTERNATIVES: u64 = 20;

/// Maximum stop strings. OpenAI accepts 4; agents written for other servers use more.
const MAX_STOPS: usize = 64;

/// The model that answers.
pub(super) struct Model {
    /// As named in the request, because clients compare it with the response's.
    pub name: String,
    /// Context length (prompt plus response), in tokens.
    pub context: usize,
}

impl Model {
    pub fn read(fields: &mut Fields, context: &CallContext) -> Result<Self, ApiError> {
        let asked = fields.text("model")?;
        let cards = context.backend.models();
        let card = match asked {
            Some(name) => cards.iter().find(|card| card.id == name),
            None => None,
        };
        let card = card.or_else(|| cards.first().filter(|_| context.overrides.any_model));
        match (asked, card) {
            (name, Some(card)) => {
                Ok(Self { name: name.unwrap_or(&card.id).to_owned(), context: card.context })
            }
            (Some(name), None) => Err(ApiError::unknown_model(name)),
            (None, None) => Err(fields.error("model", "is missing")),
        }
    }

    /// The token limit of a response: the requested one, at most the context.
    pub fn limit(&self, asked: Option<u64>, overrides: &Overrides) -> usize {
        let asked = asked.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        asked.or(overrides.default_max_tokens).unwrap_or(usize::MAX).min(self.context).max(1)
    }
}

/// Reads temperature, top-p and top-k; `max_tokens` is the caller's.
pub(super) fn sampling(
    fields: &mut Fields,
    overrides: &Overrides,
    max_tokens: usize,
) -> Result<Sampling, ApiError> {
    let temperature = fields.number("temperature", 0.0..=2.0)?;
    let top_p = fields.number("top_p", 0.0..=1.0)?;
    if top_p == Some(0.0) {
        return Err(fields.error("top_p", "must be above 0; `temperature` 0 is greedy"));
    }
    let top_k = top_k(fields)?;
    Ok(Sampling {
        temperature: overrides.temperature.or(temperature).unwrap_or(1.0),
        top_p: overrides.top_p.or(top_p).unwrap_or(1.0),
        top_k: if overrides.top_p.is_some() { 0 } else { top_k },
        max_tokens,
    })
}

/// 0 and -1 disable it.
fn top_k(fields: &mut Fields) -> Result<usize, ApiError> {
    match fields.value("top_k") {
        None => Ok(0),
        Some(value) if value.as_i64() == Some(-1) => Ok(0),
        Some(value) => whole(value)
            .and_then(|k| usize::try_from(k).ok())
            .ok_or_else(|| wrong(fields.path("top_k"), "a whole number of at least -1", value)),
    }
}

/// One stop string or several.
pub(super) fn stop(fields: &mut Fields, name: &'static str) -> Result<Vec<String>, ApiError> {
    let path = fields.path(name);
    let stop = match fields.value(name) {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(values)) => texts(values, &path)?,
        Some(other) => return Err(wrong(path, "a string or a list of strings", other)),
    };
    if stop.len() > MAX_STOPS {
        return Err(fields.error(name, format_args!("has more than {MAX_STOPS} strings")));
    }
    if stop.iter().any(String::is_empty) {
        return Err(fields.error(name, "contains an empty string, which would stop immediately"));
    }
    Ok(stop)
}

/// Any integer; a negative one is cast to unsigned.
pub(super) fn seed(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.value("seed") else { return Ok(None) };
    let signed = value.as_i64().map(i64::cast_unsigned);
    let seed = signed.or_else(|| whole(value));
    seed.map(Some).ok_or_else(|| wrong(fields.path("seed"), "a whole number", value))
}

/// `n` copies of a request, each with its own seed and call ids. The first keeps the seed, so that
/// requesting more choices does not change it.
pub(super) fn repeated(ask: &Ask, n: usize) -> impl Iterator<Item = Ask> + '_ {
    (0..n).map(move |i| Ask {
        seed: ask.seed.map(|seed| derived(seed, i)),
        call_prefix: ids::fresh("call_"),
        ..ask.clone()
    })
}

fn derived(seed: u64, choice: usize) -> u64 {
    if choice == 0 { seed } else { SeedTree::new(seed).index(choice as u64).seed() }
}

/// Whether usage is streamed. The other options concern padding and are ignored.
pub(super) fn include_usage(fields: &mut Fields) -> Result<bool, ApiError> {
    let Some(mut options) = fields.object("stream_options")? else { return Ok(false) };
    let usage = options.flag("include_usage")?;
    options.flag("include_obfuscation")?;
    options.neutral(
        "continuous_usage_stats",
        |value| value == false,
        "usage is reported once, at the end",
    )?;
    options.finish()?;
    Ok(usage.unwrap_or(false))
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs())
}
