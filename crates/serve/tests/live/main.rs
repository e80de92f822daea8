//! Tests of the live page, over HTTP and in a browser.

mod browser;
mod fixtures;
mod page;
mod requests;
