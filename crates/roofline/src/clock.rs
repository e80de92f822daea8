//! Timing of kernels.

use std::time::Instant;

use leyden_lm::LmError;
use leyden_stats::quantile;
use serde::Serialize;
use tch::{Cuda, Device};

/// Timing settings: duration and number of repetitions.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub device: Device,
    /// Number of repetitions over which the spread is computed.
    pub repetitions: usize,
    /// Minimum duration of a repetition in seconds, so that reading the clock and launching on the
    /// device are negligible.
    pub least: f64,
}

/// Seconds per run, over the repetitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub repetitions: usize,
    /// Runs per repetition.
    pub runs: usize,
}

impl Clock {
    /// # Errors
    /// Errors of `run`.
    pub fn time(
        &self,
        run: &mut dyn FnMut(usize) -> Result<(), LmError>,
    ) -> Result<Spread, LmError> {
        let mut number = 0;
        let mut several = |runs: usize| -> Result<f64, LmError> {
            self.synchronize();
            let started = Instant::now();
            for _ in 0..runs {
                run(number)?;
                number += 1;
            }
            self.synchronize();
            Ok(started.elapsed().as_secs_f64())
        };
        // Warm-up: kernels are selected and compiled, memory is allocated, caches are filled.
        several(2)?;
        let once = several(1)?;
        let runs = (self.least / once.max(1e-9)).ceil().clamp(1.0, 1e6) as usize;
        let mut times = Vec::with_capacity(self.repetitions);
        for _ in 0..self.repetitions.max(1) {
            times.push(several(runs)? / runs as f64);
        }
        Ok(Spread::of(times, runs))
    }

    /// Waits until the device has completed all queued work.
    fn synchronize(&self) {
        if let Device::Cuda(index) = self.device {
            Cuda::synchronize(index as i64);
        }
    }
}

impl Spread {
    fn of(mut times: Vec<f64>, runs: usize) -> Self {
        times.sort_by(f64::total_cmp);
        // There is at least one repetition.
        let median = quantile(&times, 0.5).unwrap_or_default();
        Self {
            median,
            least: times[0],
            most: times[times.len() - 1],
            repetitions: times.len(),
            runs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_has_median_minimum_and_maximum() {
        let odd = Spread::of(vec![3.0, 1.0, 2.0], 4);
        assert_eq!(
            (odd.least, odd.median, odd.most, odd.repetitions, odd.runs),
            (1.0, 2.0, 3.0, 3, 4)
        );
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0], 1).median, 2.5);
    }

    #[test]
    fn runs_are_numbered_without_gaps() {
        let clock = Clock { device: Device::Cpu, repetitions: 3, least: 0.0 };
        let mut seen = Vec::new();
        let spread = clock
            .time(&mut |number| {
                seen.push(number);
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, (0..seen.len()).collect::<Vec<_>>());
        assert_eq!((spread.repetitions, seen.len()), (3, 3 + 3 * spread.runs));
    }

    #[test]
    fn kernel_errors_are_propagated() {
        let clock = Clock { device: Device::Cpu, repetitions: 1, least: 0.0 };
        let error = clock.time(&mut |_| Err(LmError::Invalid("no".to_owned())));
        assert!(error.unwrap_err().to_string().contains("no"));
    }
}
