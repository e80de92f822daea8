//! The live page of a run.
//!
//! A run tells a [`Feed`] what happens; [`serve`] shows it as one page that needs nothing but
//! itself, and [`router`] does the same inside a server that runs anyway. The page draws the
//! curves of reward and throughput, lists the rollouts in flight, and shows finished ones with
//! the credit of each call. It looks and changes nothing.
//!
//! A run is never held up by whoever looks at it: the feed takes what it is told and returns,
//! its size does not grow with the run, and slow readers miss states in between, not events.

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
