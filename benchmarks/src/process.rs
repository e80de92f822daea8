//! Threads, memory and timing of the measuring process.

use std::time::Instant;

use anyhow::{Context, Result};
use leyden_lm::device::parse_kind;
use tch::Kind;

/// Arguments for number type and threads, shared by all measuring binaries.
#[derive(Debug, Clone, clap::Args)]
pub struct Compute {
    /// Number type of activations and cache, f32 or bf16; trained weights are kept in f32
    #[arg(long, default_value = "bf16")]
    dtype: String,
    /// Threads of libtorch
    #[arg(long, default_value_t = 2)]
    pub threads: i32,
}

impl Compute {
    /// Sets the number of threads of this process and returns the number type.
    ///
    /// # Errors
    /// An unknown number type.
    pub fn settle(&self) -> Result<Kind> {
        tch::set_num_threads(self.threads);
        Ok(parse_kind(&self.dtype)?)
    }
}

/// Name of the number type in a tool's JSON output.
pub fn kind_name(kind: Kind) -> &'static str {
    if kind == Kind::Float { "f32" } else { "bf16" }
}

/// Peak resident memory of this process in bytes (`VmHWM`).
///
/// # Errors
/// Where `/proc` is missing or unreadable.
pub fn peak_memory() -> Result<u64> {
    let path = "/proc/self/status";
    let status = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    let kilobytes: u64 = kilobytes
        .and_then(|number| number.trim().parse().ok())
        .with_context(|| format!("{path} has no VmHWM in kB"))?;
    Ok(kilobytes * 1024)
}

/// Runs `work` and returns its result and duration in seconds.
///
/// # Errors
/// Those of `work`.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let started = Instant::now();
    let value = work()?;
    Ok((value, started.elapsed().as_secs_f64()))
}

/// The median; `None` for no values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    leyden_stats::quantile(&sorted, 0.5)
}

#[cfg(test)]
mod tests {
    use super::{median, peak_memory};

    #[test]
    fn the_median_of_unsorted_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn peak_memory_grows_with_what_is_touched() {
        let before = peak_memory().unwrap();
        let block = vec![1u8; before as usize + (64 << 20)];
        assert!(peak_memory().unwrap() >= before + (64 << 20), "{}", block[before as usize]);
    }
}
