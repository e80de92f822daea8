//! The writer's operations in SQL. Every function runs inside a group's transaction and validates
//! before its first change.

mod auxiliary;
mod events;
mod leases;
mod rollouts;

pub(super) use auxiliary::{clear_models, keep_response, put_models};
pub(super) use events::{Ready, append, size};
pub(super) use leases::{claim, end_lease, heartbeat, next_attempt, requeue_expired};
pub(super) use rollouts::{create, delete, expire, fail_orphans, patch};
