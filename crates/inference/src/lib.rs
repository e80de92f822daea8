//! An engine behind a queue: conversations in, streamed replies out.
