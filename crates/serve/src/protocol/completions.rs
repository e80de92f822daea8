//! OpenAI's `/v1/completions`: text or token ids in, text and token ids out, no template.

use leyden_core::FinishReason;
use serde_json::{Map, Value, json};

use super::error::{ApiError, Shape};
use super::fields::{Fields, wrong};
use super::logprobs::{self, TokenText};
use super::options::{self, MOST_ALTERNATIVES, MOST_CHOICES, Model};
use super::plan::{Plan, Writer};
use super::sse::Sse;
use super::usage::Usage;
use super::{ids, neutral};
use crate::backend::{Answer, Ask, Prompt, Token};
use crate::call::CallContext;

/// Tokens of a response where neither the request nor the server says otherwise; OpenAI's.
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
        let why = "must equal `n`: every response is returned, none is chosen";
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
        id: ids::fresh("cmpl-"),
        created: options::now(),
        model: model.name,
        logprobs: (top.is_some() || overrides.logprobs).then_some(TokenText { as_ids }),
        top: top.unwrap_or(0),
        token_ids,
        include_usage,
        per_prompt: n,
        policy_version: 0,
        choices: (0..choices).map(|_| Choice::default()).collect(),
    };
    Ok(Plan { asks, stream, writer: Box::new(writer) })
}

/// `prompt`: a text, token ids, or a list of either.
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
    let expected = "a text or a list of token ids";
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
        Prompt::Text(text) if text.is_empty() => {
            Err(wrong(path, "a text with something in it", value))
        }
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

struct CompletionWriter {
    id: String,
    created: u64,
    model: String,
    /// `None` where log-probabilities are not reported.
    logprobs: Option<TokenText>,
    top: usize,
    token_ids: bool,
    include_usage: bool,
    per_prompt: usize,
    policy_version: u64,
    choices: Vec<Choice>,
}

/// What has been streamed of a choice.
#[derive(Default)]
struct Choice {
    /// Prompt ids that no chunk has carried yet.
    prompt: Option<Vec<u32>>,
    /// Tokens that wait for the next chunk.
    tokens: Vec<Token>,
    /// Characters before the next token.
    offset: usize,
}

impl CompletionWriter {
    fn head(&self) -> Map<String, Value> {
        Map::from_iter([
            ("id".to_owned(), self.id.as_str().into()),
            ("object".to_owned(), "text_completion".into()),
            ("created".to_owned(), self.created.into()),
            ("model".to_owned(), self.model.as_str().into()),
            ("system_fingerprint".to_owned(), format!("policy-{}", self.policy_version).into()),
        ])
    }

    /// A chunk with one choice, which takes what waits.
    fn chunk(&mut self, index: usize, text: &str, finish: Option<&str>) -> Map<String, Value> {
        let choice = &mut self.choices[index];
        let tokens = std::mem::take(&mut choice.tokens);
        let logprobs = self
            .logprobs
            .filter(|_| !tokens.is_empty())
            .map(|form| form.completion(&tokens, self.top, &mut choice.offset));
        let mut said = json!({
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish,
        });
        if self.token_ids {
            said["token_ids"] = logprobs::ids(&tokens).into();
            if let Some(prompt) = choice.prompt.take() {
                said["prompt_token_ids"] = prompt.into();
            }
        }
        let mut chunk = self.head();
        chunk.insert("choices".to_owned(), json!([said]));
        if self.include_usage {
            chunk.insert("usage".to_owned(), Value::Null);
        }
        chunk
    }

    fn choice(&self, index: usize, answer: &Answer) -> Value {
        let form = |form: TokenText| form.completion(&answer.tokens, self.top, &mut 0);
        let mut choice = json!({
            "index": index,
            "text": answer.content,
            "logprobs": self.logprobs.map(form),
            "finish_reason": finish_reason(answer),
        });
        if self.token_ids {
            choice["token_ids"] = logprobs::ids(&answer.tokens).into();
            choice["prompt_token_ids"] = answer.prompt_ids.as_slice().into();
        }
        choice
    }
}

impl Writer for CompletionWriter {
    fn begun(&mut self, index: usize, prompt_ids: &[u32], policy_version: u64, _: &mut Sse) {
        self.policy_version = policy_version;
        self.choices[index].prompt = Some(prompt_ids.to_vec());
    }

    fn text(&mut self, index: usize, text: &str, tokens: Vec<Token>, out: &mut Sse) {
        self.choices[index].tokens.extend(tokens);
        if !text.is_empty() {
            out.data(&self.chunk(index, text, None));
        }
    }

    /// Calls are not offered here, and so there are none.
    fn call(&mut self, _: usize, _: &leyden_core::ToolCall, _: Vec<Token>, _: &mut Sse) {}

    fn whole(&mut self, answers: &[Answer]) -> Value {
        if let Some(first) = answers.first() {
            self.policy_version = first.policy_version;
        }
        let numbered = answers.iter().enumerate();
        let choices: Vec<Value> = numbered.map(|(i, answer)| self.choice(i, answer)).collect();
        let mut body = self.head();
        body.insert("choices".to_owned(), choices.into());
        body.insert("usage".to_owned(), Usage::of(answers, self.per_prompt).completions());
        body.into()
    }

    fn close(&mut self, answers: &[Answer], body: &Value, out: &mut Sse) {
        for (index, answer) in answers.iter().enumerate() {
            out.data(&self.chunk(index, "", Some(finish_reason(answer))));
        }
        if self.include_usage {
            let mut chunk = self.head();
            chunk.insert("choices".to_owned(), json!([]));
            chunk.insert("usage".to_owned(), body["usage"].clone());
            out.data(&chunk);
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
