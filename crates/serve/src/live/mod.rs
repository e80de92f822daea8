//! The live page of a run.
//!
//! A run publishes its progress to a [`Feed`]; [`serve`] shows it as a self-contained page, and
//! [`router`] adds the same page to an existing server. The page draws the curves of reward and
//! throughput, lists the rollouts in flight, and shows finished ones with the credit of each call.
//! It is read-only.
//!
//! Readers never block a run: the feed accepts an update and returns, its size does not grow with
//! the run, and slow readers miss intermediate states, not events.

mod curve;
mod feed;
mod guard;
mod http;
pub mod rollouts;
mod server;

pub use curve::{Curve, MOST_POINTS, Point};
pub use feed::{Cursor, Feed, HISTORY, MOST_IN_FLIGHT, News, Notice, RunCard, Status};
pub use guard::Guard;
pub use http::router;
pub use rollouts::Rollouts;
pub use server::{Handle, LiveError, serve};
