//! From a request to the engine's input: rendered, tokenised, with its grammar.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use leyden_core::{ChatRequest, SeedTree};
use leyden_lm::generate::{Constraint, Request};
use leyden_serve::backend::{Ask, Failure, Prompt};
use leyden_text::{ChatFormat, Growth, History, TextError};

use crate::conversations::Conversations;
use crate::counters::{Counters, add};
use crate::job::{Arrival, Input, Job, ReplyText};
use crate::options::Options;
use crate::worker::{Message, panic_message};

/// Shared state of the preparing threads.
pub(crate) struct Preparation {
    format: Arc<ChatFormat>,
    conversations: Arc<Conversations>,
    counters: Arc<Counters>,
    options: Options,
    stop_ids: Arc<[u32]>,
    seed: SeedTree,
}

/// A request for the engine, and the job that receives its tokens.
pub(crate) struct Prepared {
    pub request: Request,
    pub job: Job,
}

/// Prepares arriving requests until the channel is closed.
pub(crate) fn run(
    preparation: &Preparation,
    arriving: &Mutex<Receiver<Arrival>>,
    messages: &Sender<Message>,
) {
    loop {
        // Waiting with the lock held is harmless: the other threads have nothing to do either.
        let arrival = arriving.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(arrival) = arrival else { return };
        if arrival.events.is_closed() {
            add(&preparation.counters.cancelled, 1);
            continue;
        }
        let events = arrival.events.clone();
        // A template or a grammar that panics fails only its own request.
        let prepared = catch_unwind(AssertUnwindSafe(|| preparation.prepare(arrival)))
            .unwrap_or_else(|panic| Err(Failure::Internal(panic_message(&*panic))));
        let failure = match prepared {
            Ok(prepared) => match messages.send(Message::Request(Box::new(prepared))) {
                Ok(()) => continue,
                Err(_) => Failure::ShuttingDown,
            },
            Err(failure) => failure,
        };
        add(&preparation.counters.failed, 1);
        let _ = events.send(leyden_serve::backend::Event::Failed(failure));
    }
}

impl Preparation {
    pub fn new(
        format: Arc<ChatFormat>,
        conversations: Arc<Conversations>,
        counters: Arc<Counters>,
        options: Options,
    ) -> Self {
        let stop_ids = format.stop_ids().iter().copied().collect();
        let seed = SeedTree::new(options.seed).child("serve");
        Self { format, conversations, counters, options, stop_ids, seed }
    }

    fn prepare(&self, arrival: Arrival) -> Result<Prepared, Failure> {
        let Arrival { ask, events, slot, number, deadline } = arrival;
        let Ask { prompt, sampling, stop, seed, top_logprobs, conversation, .. } = ask;
        let Ask { call_prefix, stream, ignore_eos, .. } = ask;
        let mut key = None;
        let (input, constraint) = match prompt {
            Prompt::Chat(request) => {
                let known = conversation.as_deref().map(|name| self.conversations.get(name));
                key = known.as_ref().map(|conversation| conversation.key);
                let history = known.map_or_else(Default::default, |known| known.history);
                self.chat(request, &history)?
            }
            Prompt::Text(text) => {
                let ids = self.format.tokenizer().encode_sequence(&text, usize::MAX);
                (Input::Raw { ids: ids.map_err(|e| refused("prompt", &e))? }, None)
            }
            Prompt::Ids(ids) => (Input::Raw { ids }, None),
        };
        self.check(input.ids())?;
        let seed = match seed {
            Some(seed) => SeedTree::new(seed),
            None => self.seed.child("request").index(number),
        };
        let reply_text = match &input {
            Input::Chat { request, .. } => {
                ReplyText::new(&self.format, request, &stop, call_prefix)
            }
            Input::Raw { .. } => {
                ReplyText::new(&self.format, &ChatRequest::default(), &stop, call_prefix)
            }
        };
        let request = Request {
            key: key.unwrap_or_else(|| self.conversations.fresh_key()),
            prompt: input.ids().to_vec(),
            sampling,
            seed,
            stop_ids: match ignore_eos && constraint.is_none() {
                true => Arc::from([]),
                false => Arc::clone(&self.stop_ids),
            },
            stop: reply_text.stop_check(),
            top_logprobs,
            constraint,
        };
        let constrained = request.constraint.is_some();
        let job = Job {
            input,
            reply_text,
            stop,
            format: Arc::clone(&self.format),
            conversation,
            constrained,
            stream,
            deadline,
            held_since: None,
            policy_version: 0,
            tokens: Vec::new(),
            events,
            started: false,
            slot,
        };
        Ok(Prepared { request, job })
    }

    /// The prompt of a chat and the grammar of its answer.
    fn chat(
        &self,
        request: ChatRequest,
        history: &History,
    ) -> Result<(Input, Option<Box<dyn Constraint>>), Failure> {
        let prompt = self.format.prompt(history, &request).map_err(|e| refused("messages", &e))?;
        match prompt.growth {
            Growth::Fresh => {}
            Growth::Extended { .. } => add(&self.counters.extended_prompts, 1),
            Growth::Rewritten => add(&self.counters.rewritten_prompts, 1),
        }
        let param = if request.tools.is_empty() { "response_format" } else { "tools" };
        let grammar = self.format.grammar(&request).map_err(|e| refused(param, &e))?;
        let constraint = grammar.map(|grammar| Box::new(grammar) as Box<dyn Constraint>);
        Ok((Input::Chat { prompt: Box::new(prompt), request: Box::new(request) }, constraint))
    }

    /// Checks that the prompt is not empty and leaves room for at least one token.
    fn check(&self, ids: &[u32]) -> Result<(), Failure> {
        let (tokens, limit) = (ids.len(), self.options.card.context);
        if tokens == 0 {
            let message = "the prompt is empty: it has no token to continue".to_owned();
            return Err(Failure::Invalid { param: Some("prompt".to_owned()), message });
        }
        if tokens >= limit {
            return Err(Failure::ContextLength { tokens, limit });
        }
        Ok(())
    }
}

fn refused(param: &str, error: &TextError) -> Failure {
    Failure::Invalid { param: Some(param.to_owned()), message: error.to_string() }
}
