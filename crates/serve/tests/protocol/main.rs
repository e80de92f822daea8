//! Tests of the wire formats with a scripted model: responses, requests to the backend, records.

mod calls;
mod chat;
mod completions;
mod fuzz;
mod harness;
mod messages;
mod refusals;
mod responses;
