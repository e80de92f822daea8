//! The wire formats: a request's body to [`Ask`](crate::backend::Ask)s, events to a response.
//!
//! Pure functions on JSON: no network, no store. The gateway feeds them.
