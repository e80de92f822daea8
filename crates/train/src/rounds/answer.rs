//! Converts an agent's question to an engine request, and the engine's tokens to a reply.

use std::sync::Arc;

use leyden_core::{Call, ChatReply, ChatRequest, ModelError, ReplyTokens};
use leyden_lm::LmError;
use leyden_lm::generate::{Completion, Request};
use leyden_text::{ChatFormat, Growth, Prompt, ReplyEnd, ReplyStream, StopTexts};

use crate::rounds::job::PromptCounts;
use crate::rounds::live::{Answer, Live, Question};
use crate::rounds::options::RoundOptions;

/// Shared context for answering the questions of a step.
pub(super) struct Answering<'a> {
    pub format: &'a Arc<ChatFormat>,
    pub options: &'a RoundOptions,
    pub stop_ids: Arc<[u32]>,
}

/// A question that is being processed by the engine.
pub(super) struct Waiting {
    request: ChatRequest,
    prompt: Prompt,
    /// The attempt that asked the question.
    attempt: usize,
    pub answer: Answer,
}

impl<'a> Answering<'a> {
    pub fn new(format: &'a Arc<ChatFormat>, options: &'a RoundOptions) -> Self {
        Self { format, options, stop_ids: format.stop_ids().iter().copied().collect() }
    }

    /// The engine request for `question`. `None` if it was answered immediately: with an error if
    /// the prompt cannot be rendered, or with a replayed call of another rollout.
    pub fn ask(
        &self,
        live: &mut Live<'_>,
        question: Question,
        counts: &mut PromptCounts,
    ) -> Option<(Request, Waiting)> {
        let Question { request, answer } = question;
        match self.prepare(live, &request, counts) {
            Ok(Prepared::Reply(reply)) => {
                let _ = answer.send(Ok(reply));
                None
            }
            Ok(Prepared::Request(engine_request, prompt)) => {
                live.submitted();
                let attempt = live.attempt();
                Some((*engine_request, Waiting { request, prompt, attempt, answer }))
            }
            Err(error) => {
                live.note_overflow(&error);
                let _ = answer.send(Err(error));
                None
            }
        }
    }

    fn prepare(
        &self,
        live: &mut Live<'_>,
        request: &ChatRequest,
        counts: &mut PromptCounts,
    ) -> Result<Prepared, ModelError> {
        let template = |e: leyden_text::TextError| ModelError::Template(e.to_string());
        let prompt = self.format.prompt(&live.history, request).map_err(template)?;
        if let Some(before) = live.job.played.get(live.asked) {
            if prompt.ids != before.prompt_ids {
                return Err(ModelError::Unavailable(format!(
                    "the agent is not deterministic: its prompt of call {} differs from the \
                     recorded one, so its rollouts cannot be continued from a call",
                    live.asked
                )));
            }
            live.asked += 1;
            let call = before.clone();
            return Ok(Prepared::Reply(self.record(live, request, prompt, call, 0)));
        }
        let (tokens, limit) = (prompt.ids.len(), self.options.max_prompt_tokens);
        if tokens > limit {
            return Err(ModelError::PromptTooLong { tokens, limit });
        }
        let constraint = self.format.grammar(request).map_err(template)?;
        match prompt.growth {
            Growth::Fresh => counts.fresh += 1,
            Growth::Extended { .. } => counts.extended += 1,
            Growth::Rewritten => counts.rewritten += 1,
        }
        let mut sampling = self.options.sampling.clone();
        if let Some(limit) = request.max_tokens {
            sampling.max_tokens = sampling.max_tokens.min(limit);
        }
        let engine_request = Request {
            key: live.job.id as u64,
            prompt: prompt.ids.clone(),
            sampling,
            seed: live.job.seed.child("call").index(live.asked as u64),
            stop_ids: Arc::clone(&self.stop_ids),
            stop: stop_texts(&request.stop, self.format),
            top_logprobs: 0,
            constraint: constraint.map(|grammar| Box::new(grammar) as _),
        };
        live.asked += 1;
        Ok(Prepared::Request(Box::new(engine_request), prompt))
    }

    /// Records the engine's completion of a question and sends the reply to the agent, if it still
    /// waits.
    pub fn deliver(
        &self,
        live: &mut Live<'_>,
        waiting: Waiting,
        completion: Result<Completion, LmError>,
    ) {
        let Waiting { request, prompt, attempt, answer } = waiting;
        if live.has_ended() || live.attempt() != attempt {
            return;
        }
        let reply = match completion {
            Ok(completion) => {
                let call = Call {
                    agent_role: request.agent_role.clone(),
                    prompt_ids: prompt.ids.clone(),
                    response_ids: completion.ids,
                    logprobs: completion.logprobs,
                    text: String::new(),
                    finish: completion.finish,
                    policy_version: self.options.policy_version,
                    constrained: request.is_constrained(),
                };
                Ok(self.record(live, &request, prompt, call, completion.cached_tokens))
            }
            Err(LmError::PromptTooLong { tokens, limit }) => {
                Err(ModelError::PromptTooLong { tokens, limit })
            }
            Err(e) => Err(ModelError::Unavailable(e.to_string())),
        };
        if let Err(error) = &reply {
            live.note_overflow(error);
        }
        live.answered();
        let _ = answer.send(reply);
    }

    /// Records a call and returns the agent's reply.
    fn record(
        &self,
        live: &mut Live<'_>,
        request: &ChatRequest,
        prompt: Prompt,
        call: Call,
        cached_tokens: usize,
    ) -> ChatReply {
        let reply = match request.report_tokens {
            false => self.format.reply(request, &call.response_ids, call.finish),
            true => self.reported(request, &call, cached_tokens),
        };
        let text = reply.message.content.clone();
        live.history.push(prompt, call.response_ids.clone(), reply.message.clone());
        live.calls.push(Call { text, ..call });
        reply
    }

    /// The reply with its tokens.
    fn reported(&self, request: &ChatRequest, call: &Call, cached_tokens: usize) -> ChatReply {
        let mut stream = ReplyStream::new(self.format, request);
        for &id in &call.response_ids {
            stream.push(id);
        }
        let ReplyEnd { content, mut reply, .. } = stream.finish(call.finish);
        let tokenizer = self.format.tokenizer();
        let bytes = call.response_ids.iter().map(|&id| tokenizer.token_bytes(id).to_vec());
        reply.tokens = Some(Box::new(ReplyTokens {
            content,
            prompt_ids: call.prompt_ids.clone(),
            cached_tokens,
            response_ids: call.response_ids.clone(),
            logprobs: call.logprobs.clone(),
            bytes: bytes.collect(),
            policy_version: call.policy_version,
        }));
        reply
    }
}

enum Prepared {
    Reply(ChatReply),
    Request(Box<Request>, Prompt),
}

/// The stop check for the stop strings of a request; `None` without any.
fn stop_texts(
    stops: &[String],
    format: &Arc<ChatFormat>,
) -> Option<Box<dyn leyden_lm::generate::StopCheck>> {
    if stops.is_empty() {
        return None;
    }
    let mut watch = StopTexts::new(format, stops);
    Some(Box::new(move |id: u32| watch.push(id)))
}
