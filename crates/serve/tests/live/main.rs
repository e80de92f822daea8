//! The live page: what it answers over HTTP, and what it looks like in a browser.

mod browser;
mod page;
mod requests;
mod world;
