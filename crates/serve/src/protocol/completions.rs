//! OpenAI's `/v1/completions`: text or token ids in, text and token ids out, without a template.

use leyden_core::FinishReason;
use serde::Serialize;
use serde_json::{Map, Value};

use super::bodies::{Body, Head};
use super::error::{ApiError, Shape};
use super::fields::{Fields, wrong};
use super::logprobs::{CompletionLogprobs, Ids, TokenText};
use super::neutral;
use super::options::{self, MOST_ALTERNATIVES, MOST_CHOICES, Model};
use super::plan::{Plan, Writer};
use super::sse::Sse;
use super::usage::Usage;
use crate::backend::{Answer, Ask, Prompt, Token};
use crate::call::{CallContext, Written};

/// Token limit if neither the request nor the server sets one; OpenAI's default.
const DEFAULT_TOKENS: usize = 16;

pub(super) fn read(body: &Map<String, Value>, context: &CallContext) -> Result<Plan, ApiError> {
    let fields = &mut Fields::root(body);
    let overrides = &context.overrides;
    let model = Model::read(fields, context)?;
    let prompts = prompts(fields)?;
    let asked = fields.whole("max_tokens", 1..=u64::MAX)?;
    let default = overrides.default_max_tokens.unwrap_or(DEFAULT_TOKENS) as u64;
    let limit = model.limit(asked.or(Some(default)), overrides);
    let sampling = options::sampling(fields, overrides, limit)?;
    let stop = options::stop(fields, "stop")?;
    let n = fields.whole("n", 1..=MOST_CHOICES)?.unwrap_or(1) as usize;
    if n * prompts.len() > MOST_CHOICES as usize {
        let all = n * prompts.len();
        let rule = format!("times the prompts makes {all} choices, more than {MOST_CHOICES}");
        return Err(fields.error("n", rule));
    }
    if let Some(best) = fields.whole("best_of", 1..=u64::MAX)?
        && best != n as u64
    {
        let why = "must equal `n`: all responses are returned";
        return Err(fields.error("best_of", why));
    }
    let top = alternatives(fields)?;
    let as_ids = fields.flag("return_tokens_as_token_ids")?.unwrap_or(false);
    let token_ids = fields.flag("return_token_ids")?.unwrap_or(false) || overrides.token_ids;
    let stream = fields.flag("stream")?.unwrap_or(false);
    let include_usage = options::include_usage(fields)?;
    let ask = Ask {
        prompt: Prompt::Ids(Vec::new()),
        sampling,
        stop,
        seed: options::seed(fields)?,
        top_logprobs: top.unwrap_or(0),
        conversation: context.conversation.clone(),
        call_prefix: String::new(),
        ignore_eos: fields.flag("ignore_eos")?.unwrap_or(false),
        stream,
    };
    neutral::openai(fields)?;
    fields.finish()?;
    let choices = n * prompts.len();
    let asks = prompts
        .into_iter()
        .flat_map(|prompt| options::repeated(&Ask { prompt, ..ask.clone() }, n).collect::<Vec<_>>())
        .collect();
    let writer = CompletionWriter {
        head: Head::new("cmpl-", model.name),
        logprobs: (top.is_some() || overrides.logprobs).then_some(TokenText { as_ids }),
        top: top.unwrap_or(0),
        token_ids,
        include_usage,
        per_prompt: n,
        choices: (0..choices).map(|_| Streamed::default()).collect(),
    };
    Ok(Plan { asks, stream, writer: Box::new(writer) })
}

/// `prompt`: a string, token ids, or a list of either.
fn prompts(fields: &mut Fields) -> Result<Vec<Prompt>, ApiError> {
    let path = fields.path("prompt");
    let Some(value) = fields.value("prompt") else {
        return Err(fields.error("prompt", "is missing"));
    };
    match value {
        Value::Array(values) if !values.first().is_some_and(Value::is_number) => {
            if values.is_empty() {
                return Err(fields.error("prompt", "is empty"));
            }
            let numbered = values.iter().enumerate();
            numbered.map(|(i, value)| prompt(value, format!("{path}[{i}]"))).collect()
        }
        one => Ok(vec![prompt(one, path)?]),
    }
}

fn prompt(value: &Value, path: String) -> Result<Prompt, ApiError> {
    let expected = "a string or a list of token ids";
    let prompt = match value {
        Value::String(text) => Prompt::Text(text.clone()),
        Value::Array(ids) => {
            let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
            match ids.iter().map(id).collect::<Option<Vec<u32>>>() {
                Some(ids) => Prompt::Ids(ids),
                None => return Err(wrong(path, expected, value)),
            }
        }
        other => return Err(wrong(path, expected, other)),
    };
    match &prompt {
        Prompt::Text(text) if text.is_empty() => Err(wrong(path, "a non-empty string", value)),
        Prompt::Ids(ids) if ids.is_empty() => Err(wrong(path, expected, value)),
        _ => Ok(prompt),
    }
}

/// `logprobs` counts alternatives; agent-lightning sends `true`, which is one.
fn alternatives(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    match fields.value("logprobs") {
        Some(Value::Bool(wanted)) => Ok(wanted.then_some(1)),
        _ => Ok(fields.whole("logprobs", 0..=MOST_ALTERNATIVES)?.map(|n| n as usize)),
    }
}

const OBJECT: &str = "text_completion";

struct CompletionWriter {
    head: Head,
    /// `None` if log-probabilities are not reported.
    logprobs: Option<TokenText>,
    top: usize,
    token_ids: bool,
    include_usage: bool,
    per_prompt: usize,
    choices: Vec<Streamed>,
}

/// The streaming state of a choice.
#[derive(Default)]
struct Streamed {
    /// Prompt ids not sent in a chunk yet.
    prompt: Option<Vec<u32>>,
    /// Tokens held back until the next chunk.
    tokens: Vec<Token>,
    /// Text offset of the next token, in characters.
    offset: usize,
}

/// A choice as serialised.
#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    text: &'a str,
    logprobs: Option<CompletionLogprobs<'a>>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Ids<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<&'a [u32]>,
}

impl CompletionWriter {
    /// Writes a chunk with one choice, including what was held back.
    fn chunk(&mut self, index: usize, text: &str, finish: Option<&'static str>, out: &mut Sse) {
        let streamed = &mut self.choices[index];
        let tokens = std::mem::take(&mut streamed.tokens);
        let prompt = if self.token_ids { streamed.prompt.take() } else { None };
        let form = self.logprobs.filter(|_| !tokens.is_empty());
        let choices = [Choice {
            index,
            text,
            logprobs: form.map(|form| form.completion(&tokens, self.top, &mut streamed.offset)),
            finish_reason: finish,
            token_ids: self.token_ids.then_some(Ids(&tokens)),
            prompt_token_ids: prompt.as_deref(),
        }];
        let usage = self.include_usage.then_some(&Value::Null);
        out.data(&Body { usage, ..self.head.body(OBJECT, &choices) });
    }

    fn choice<'a>(&self, index: usize, answer: &'a Answer) -> Choice<'a> {
        let form = |form: TokenText| form.completion(&answer.tokens, self.top, &mut 0);
        Choice {
            index,
            text: &answer.content,
            logprobs: self.logprobs.map(form),
            finish_reason: Some(finish_reason(answer)),
            token_ids: self.token_ids.then_some(Ids(&answer.tokens)),
            prompt_token_ids: self.token_ids.then_some(&answer.prompt_ids),
        }
    }
}

impl Writer for CompletionWriter {
    fn begun(&mut self, index: usize, prompt_ids: &[u32], policy_version: u64, _: &mut Sse) {
        self.head.policy_version = policy_version;
        self.choices[index].prompt = Some(prompt_ids.to_vec());
    }

    fn text(&mut self, index: usize, text: &str, tokens: Vec<Token>, out: &mut Sse) {
        self.choices[index].tokens.extend(tokens);
        if !text.is_empty() {
            self.chunk(index, text, None, out);
        }
    }

    /// Tools are not offered here, so there are no calls.
    fn call(&mut self, _: usize, _: &leyden_core::ToolCall, _: Vec<Token>, _: &mut Sse) {}

    fn whole(&mut self, answers: &[Answer]) -> Written {
        if let Some(first) = answers.first() {
            self.head.policy_version = first.policy_version;
        }
        let numbered = answers.iter().enumerate();
        let choices: Vec<Choice> = numbered.map(|(i, answer)| self.choice(i, answer)).collect();
        let usage = Usage::of(answers, self.per_prompt).completions();
        let text = Body { usage: Some(&usage), ..self.head.body(OBJECT, &choices) }.text();
        let finish_reason = answers.first().map(|answer| finish_reason(answer).to_owned());
        Written { text, usage, finish_reason }
    }

    fn close(&mut self, answers: &[Answer], body: &Written, out: &mut Sse) {
        for (index, answer) in answers.iter().enumerate() {
            self.chunk(index, "", Some(finish_reason(answer)), out);
        }
        if self.include_usage {
            let none: [Choice; 0] = [];
            out.data(&Body { usage: Some(&body.usage), ..self.head.body(OBJECT, &none) });
        }
        out.done();
    }

    fn failed(&mut self, error: &ApiError, out: &mut Sse) {
        out.data(&error.body(Shape::OpenAi));
        out.done();
    }
}

fn finish_reason(answer: &Answer) -> &'static str {
    match answer.finish {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}
