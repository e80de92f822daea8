//! Demonstrations by running an agent against scripted replies: its requests with the replies are
//! the conversations. So prompts need not be duplicated.

use futures::executor::block_on;
use leyden_core::{Agent, Episode, Message, Script, Task};
use leyden_train::data::Conversation;

/// The conversations of an agent with scripted model replies: one per reply, consisting of the
/// request and the reply. Unused replies are skipped.
pub fn play(agent: &dyn Agent, task: &Task, replies: Vec<Message>) -> Vec<Conversation> {
    let script = Script::of_messages(replies.clone());
    let episode = Episode::new(&script);
    // An agent that makes more requests than there are replies ends with an error; the earlier
    // conversations are still valid.
    let _ = block_on(agent.run(task, &episode));
    drop(episode);
    let requests = script.into_requests().into_iter();
    let conversation = |(request, reply): (leyden_core::ChatRequest, Message)| {
        let mut messages = request.messages;
        messages.push(reply);
        Conversation { messages, tools: request.tools }
    };
    requests.zip(replies).map(conversation).collect()
}
