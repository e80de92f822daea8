//! Forwards a program's HTTP requests from the server to the episode's model.

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use leyden_core::{AgentError, ChatReply, ChatRequest, Episode, ModelError, Speaker};
use leyden_serve::backend::{
    Answer, Ask, Backend, Delta, Event, Failure, ModelCard, Prompt, Token,
};
use tokio::sync::mpsc;

use super::options::Options;

/// A request with the channel for its events.
pub(super) struct Asked {
    pub ask: Ask,
    pub events: mpsc::UnboundedSender<Event>,
}

/// The backend of one rollout: forwards requests to the task that runs the rollout's episode.
pub(super) struct EpisodeBackend {
    asks: UnboundedSender<Asked>,
    model: String,
}

impl EpisodeBackend {
    pub fn new(model: &str) -> (Self, UnboundedReceiver<Asked>) {
        let (asks, receiver) = unbounded();
        (Self { asks, model: model.to_owned() }, receiver)
    }
}

impl Backend for EpisodeBackend {
    fn models(&self) -> Vec<ModelCard> {
        // The trainer limits prompts and responses; there is no limit here.
        vec![ModelCard { id: self.model.clone(), created: 0, context: u32::MAX as usize }]
    }

    fn submit(&self, ask: Ask) -> mpsc::UnboundedReceiver<Event> {
        let (events, receiver) = mpsc::unbounded_channel();
        if let Err(unsent) = self.asks.unbounded_send(Asked { ask, events }) {
            let gone =
                Failure::Gone("this rollout has ended; further calls are rejected".to_owned());
            let _ = unsent.into_inner().events.send(Event::Failed(gone));
        }
        receiver
    }
}

/// Calls the episode's model and sends the resulting events.
pub(super) async fn answer(asked: Asked, episode: &Episode<'_>, options: &Options) {
    let Asked { ask, events } = asked;
    let stream = ask.stream;
    let event = match request(ask, options) {
        Err(failure) => Event::Failed(failure),
        Ok(request) => {
            let (constrained, stops) = (request.is_constrained(), request.stop.clone());
            match episode.chat(request).await {
                Ok(reply) => Event::Finished(Box::new(whole(reply, constrained, &stops))),
                Err(error) => Event::Failed(failure(error)),
            }
        }
    };
    if let Event::Finished(answer) = &event {
        let (prompt_ids, policy_version) = (answer.prompt_ids.clone(), answer.policy_version);
        let _ = events.send(Event::Started { prompt_ids, policy_version });
        if stream {
            // The episode returns complete replies, so the stream has a single delta.
            let _ = events.send(Event::Delta(Delta {
                content: answer.content.clone(),
                tool_calls: answer.tool_calls.clone(),
                tokens: answer.tokens.clone(),
            }));
        }
    }
    let _ = events.send(event);
}

/// Converts a request for the trainer's model. Temperature and seed are set by the trainer.
fn request(ask: Ask, options: &Options) -> Result<ChatRequest, Failure> {
    let invalid = |param: &str, message: &str| Failure::Invalid {
        param: Some(param.to_owned()),
        message: message.to_owned(),
    };
    if ask.ignore_eos {
        let what = "training learns where answers end: omit ignore_eos";
        return Err(invalid("ignore_eos", what));
    }
    if ask.top_logprobs > 0 {
        let what = "training does not report alternative tokens: omit top_logprobs";
        return Err(invalid("top_logprobs", what));
    }
    let Prompt::Chat(mut request) = ask.prompt else {
        let what = "training supports only conversations: use chat/completions or responses";
        return Err(invalid("prompt", what));
    };
    if request.agent_role.is_empty() {
        request.agent_role = role(&request, options);
    }
    let limit = ask.sampling.max_tokens;
    request.max_tokens = Some(request.max_tokens.map_or(limit, |own| own.min(limit)));
    request.stop = ask.stop;
    request.call_prefix = Some(ask.call_prefix);
    request.report_tokens = true;
    Ok(request)
}

/// The role whose text the system prompt contains, or the default role.
fn role(request: &ChatRequest, options: &Options) -> String {
    let system = request.messages.iter().find(|message| message.role == Speaker::System);
    let named = system.and_then(|system| {
        options.roles.iter().find(|(_, text)| system.content.contains(text.as_str()))
    });
    named.map_or_else(|| options.default_role.clone(), |(role, _)| role.clone())
}

fn whole(reply: ChatReply, constrained: bool, stops: &[String]) -> Answer {
    let tokens = reply.tokens.map(|tokens| *tokens).unwrap_or_default();
    let text = tokens.bytes.concat();
    let text = String::from_utf8_lossy(&text);
    let stop_text = stops.iter().filter_map(|stop| Some((text.find(stop.as_str())?, stop)));
    let stop_text = stop_text.min_by_key(|(place, _)| *place).map(|(_, stop)| stop.clone());
    let parts = tokens.response_ids.iter().zip(&tokens.logprobs).zip(tokens.bytes);
    Answer {
        content: tokens.content,
        tool_calls: reply.message.tool_calls,
        malformed_call: reply.malformed_call,
        finish: reply.finish,
        stop_text,
        prompt_ids: tokens.prompt_ids,
        tokens: parts
            .map(|((&id, &logprob), bytes)| Token { id, logprob, bytes, top: Vec::new() })
            .collect(),
        cached_tokens: tokens.cached_tokens,
        policy_version: tokens.policy_version,
        constrained,
    }
}

fn failure(error: AgentError) -> Failure {
    match error {
        AgentError::Model(ModelError::PromptTooLong { tokens, limit }) => {
            Failure::ContextLength { tokens, limit }
        }
        AgentError::Model(ModelError::Template(what)) => {
            Failure::Invalid { param: Some("messages".to_owned()), message: what }
        }
        AgentError::Model(ModelError::Unavailable(what))
        | AgentError::Task { what, .. }
        | AgentError::Lost { what, .. } => Failure::Internal(what),
    }
}
