//! HTTP: routes, keys, limits, and the attribution of requests to rollouts.
