//! The live page of a run: curves, throughput, rollouts in flight, over server-sent events.
