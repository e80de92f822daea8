//! A registered model server as a [`Backend`].

use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::send::{NoAnswer, Sender};
use super::{Tree, answers, asks};
use crate::backend::{Ask, Backend, Delta, Event, Failure, ModelCard};
use crate::store::ModelServer;

/// Forwards requests to one model server. It never streams from it: the complete answer is
/// returned as one delta.
pub(in crate::gateway) struct UpstreamBackend {
    pub(in crate::gateway) server: ModelServer,
    pub(in crate::gateway) sender: Arc<Sender>,
}

impl Backend for UpstreamBackend {
    fn models(&self) -> Vec<ModelCard> {
        // Its context length is not known here; the server rejects prompts that are too long.
        vec![ModelCard { id: self.server.model.clone(), created: 0, context: usize::MAX }]
    }

    fn submit(&self, ask: Ask) -> UnboundedReceiver<Event> {
        let (events, receiver) = unbounded_channel();
        let (server, sender) = (self.server.clone(), self.sender.clone());
        tokio::spawn(async move {
            let work = answer(&server, &sender, &ask, &events);
            tokio::select! {
                () = events.closed() => {}
                result = work => if let Err(failure) = result {
                    let _ = events.send(Event::Failed(failure));
                },
            }
        });
        receiver
    }
}

async fn answer(
    server: &ModelServer,
    sender: &Sender,
    ask: &Ask,
    events: &UnboundedSender<Event>,
) -> Result<(), Failure> {
    let (path, body) = asks::request(&server.model, ask);
    let sent =
        sender.send(&server.endpoint, path, body.to_string().into()).await.map_err(|error| {
            match error {
                NoAnswer::TimedOut => Failure::Late(error.to_string()),
                NoAnswer::Failed => Failure::Internal(error.to_string()),
            }
        })?;
    let (_, body) = sent.read();
    if sent.status >= 400 {
        return Err(failure(sent.status, &body));
    }
    let mut answers = answers::answers(&body, server.version);
    if answers.is_empty() {
        return Err(Failure::Internal("the model server's answer has no choices".into()));
    }
    let mut answer = answers.swap_remove(0);
    for (position, call) in answer.tool_calls.iter_mut().enumerate() {
        call.id = format!("{}{position}", ask.call_prefix);
    }
    // A closed channel means that the request was cancelled; the task is dropped then.
    let _ = events.send(Event::Started {
        prompt_ids: answer.prompt_ids.clone(),
        policy_version: answer.policy_version,
    });
    if ask.stream {
        let _ = events.send(Event::Delta(Delta {
            content: answer.content.clone(),
            tool_calls: answer.tool_calls.clone(),
            tokens: answer.tokens.clone(),
        }));
    }
    let _ = events.send(Event::Finished(Box::new(answer)));
    Ok(())
}

fn failure(status: u16, body: &Tree) -> Failure {
    let reason = body.get("error").and_then(|error| error.get("message")).or(body.get("message"));
    let message = reason.and_then(Tree::text).unwrap_or("the model server gave no reason");
    let message = format!("the model server answered {status}: {message}");
    match status {
        429 | 503 => Failure::Busy { retry_after_seconds: 5, message },
        400..500 => Failure::Invalid { param: None, message },
        _ => Failure::Internal(message),
    }
}
