//! Prometheus metrics.

use std::sync::atomic::Ordering;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::gate::GateState;
use crate::backend::Figure;
use crate::store::{RolloutState, Store};

/// All metrics of the gateway.
pub(super) struct Metrics {
    registry: Registry,
    pub(super) requests: IntCounterVec,
    pub(super) seconds: HistogramVec,
    pub(super) waited: Histogram,
    pub(super) in_flight: IntGauge,
    pub(super) prompt_tokens: IntCounter,
    pub(super) cached_tokens: IntCounter,
    pub(super) response_tokens: IntCounter,
    pub(super) recorded: IntCounter,
    pub(super) repeated: IntCounter,
    pub(super) upstream_retries: IntCounter,
    rollouts: IntGaugeVec,
    waiting: IntGauge,
    paused: IntGauge,
    store_groups: IntCounter,
    store_writes: IntCounter,
    store_queue: IntGauge,
}

/// Histogram buckets in seconds, from a cache hit to a long generation.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

impl Metrics {
    /// # Errors
    /// If two metrics have the same name.
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let requests = IntCounterVec::new(
            Opts::new("leyden_requests_total", "Model calls by endpoint and status."),
            &["endpoint", "status"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        let times = HistogramOpts::new(
            "leyden_request_seconds",
            "From the arrival of a model call to the end of its answer.",
        );
        let seconds = HistogramVec::new(times.buckets(SECONDS.to_vec()), &["endpoint"])?;
        registry.register(Box::new(seconds.clone()))?;
        let waits = HistogramOpts::new(
            "leyden_update_wait_seconds",
            "Time model calls waited for weight updates.",
        );
        let waited = Histogram::with_opts(waits.buckets(SECONDS.to_vec()))?;
        registry.register(Box::new(waited.clone()))?;
        let rollouts =
            IntGaugeVec::new(Opts::new("leyden_rollouts", "Rollouts by state."), &["state"])?;
        registry.register(Box::new(rollouts.clone()))?;
        Ok(Self {
            requests,
            seconds,
            waited,
            rollouts,
            in_flight: gauge("leyden_requests_in_flight", "Model calls in flight.")?,
            prompt_tokens: counter("leyden_prompt_tokens_total", "Tokens of prompts.")?,
            cached_tokens: counter(
                "leyden_cached_tokens_total",
                "Prompt tokens found in the cache.",
            )?,
            response_tokens: counter("leyden_response_tokens_total", "Tokens generated.")?,
            recorded: counter("leyden_calls_recorded_total", "Model calls in the store.")?,
            repeated: counter(
                "leyden_calls_repeated_total",
                "Retries answered with the recorded response.",
            )?,
            upstream_retries: counter(
                "leyden_upstream_retries_total",
                "Retries at registered model servers.",
            )?,
            waiting: gauge("leyden_requests_waiting", "Model calls waiting for a weight update.")?,
            paused: gauge("leyden_paused", "1 while weights are updated.")?,
            store_groups: counter("leyden_store_groups_total", "Transactions, each one sync.")?,
            store_writes: counter("leyden_store_writes_total", "Writes in them.")?,
            store_queue: gauge("leyden_store_queue", "Writes that are not durable yet.")?,
            registry,
        })
    }

    /// The text that Prometheus scrapes.
    pub(super) fn text(
        &self,
        store: &Store,
        gate: &GateState,
    ) -> Result<String, prometheus::Error> {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for (state, count) in RolloutState::ALL.iter().zip(store.states()) {
            self.rollouts.with_label_values(&[state.name()]).set(signed(count as u64));
        }
        self.waiting.set(signed(gate.waiting as u64));
        self.paused.set(i64::from(gate.closed.is_some()));
        let counts = store.counts();
        // Counted by the store's writer since it started.
        for (metric, count) in
            [(&self.store_groups, &counts.groups), (&self.store_writes, &counts.writes)]
        {
            metric.inc_by(count.load(Ordering::Relaxed).saturating_sub(metric.get()));
        }
        self.store_queue.set(signed(counts.queue.load(Ordering::Relaxed)));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8(text).unwrap_or_default())
    }
}

/// A backend's metrics in Prometheus text format.
pub(super) fn lines(figures: &[Figure]) -> String {
    let line = |&Figure { name, help, value }: &Figure| {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n")
    };
    figures.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::{Figure, lines};

    #[test]
    fn figures_are_typed_as_counters_or_gauges() {
        let figures = [
            Figure { name: "leyden_engine_running", help: "Now.", value: 3 },
            Figure { name: "leyden_engine_tokens_total", help: "All.", value: 7 },
        ];
        let text = lines(&figures);
        assert!(text.contains("# TYPE leyden_engine_running gauge\nleyden_engine_running 3\n"));
        assert!(text.contains("# TYPE leyden_engine_tokens_total counter\n"));
        assert!(text.ends_with("leyden_engine_tokens_total 7\n"));
    }
}
