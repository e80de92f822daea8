//! What the writer does, in SQL. Every function runs inside a group's transaction; a refusal
//! comes before the first change.

mod beside;
mod events;
mod leases;
mod rollouts;

pub(super) use beside::{clear_models, keep_response, put_models};
pub(super) use events::{Ready, append, size};
pub(super) use leases::{claim, end_lease, heartbeat, next_attempt, requeue_expired};
pub(super) use rollouts::{create, delete, expire, fail_orphans, patch};
