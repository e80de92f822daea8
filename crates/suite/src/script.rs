//! Demonstrations by playing: an agent runs against a script, and what it asked with what it
//! was told are the conversations. So no prompt is written twice.

use futures::executor::block_on;
use leyden_core::{Agent, Episode, Message, Script, Task};
use leyden_train::data::Conversation;

/// The conversations of an agent whose model replies as written: for each reply what was
/// asked, and the reply. Replies that the agent does not ask for are left out.
pub fn play(agent: &dyn Agent, task: &Task, replies: Vec<Message>) -> Vec<Conversation> {
    let script = Script::of_messages(replies.clone());
    let episode = Episode::new(&script);
    // An agent that asks for more than is written ends with an error; what came before counts.
    let _ = block_on(agent.run(task, &episode));
    drop(episode);
    let asked = script.into_asked().into_iter();
    let conversation = |(request, reply): (leyden_core::ChatRequest, Message)| {
        let mut messages = request.messages;
        messages.push(reply);
        Conversation { messages, tools: request.tools }
    };
    asked.zip(replies).map(conversation).collect()
}
