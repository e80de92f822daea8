//! Progress display: a bar with rate and estimate on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Interval between plain lines; shorter work prints nothing.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A progress display. Cheap to update.
pub struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    total: u64,
    started: Instant,
    from: u64,
    last_line: Instant,
}

impl Progress {
    /// A display of `total` units of which `done` are already done; a total of 0 is unknown.
    pub fn new(what: &str, total: u64, done: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = match total {
                0 => "{prefix:>14} {pos} · {per_sec} · {msg}",
                _ => "{prefix:>14} {bar:32} {pos}/{len} · {per_sec} · {eta} left · {msg}",
            };
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(total).with_style(style).with_position(done);
            bar.set_prefix(what.to_owned());
            bar.reset_eta();
            bar
        });
        Self {
            bar,
            what: what.to_owned(),
            total,
            started: Instant::now(),
            from: done,
            last_line: Instant::now(),
        }
    }

    /// Moves to `done` units, with a message.
    pub fn update(&mut self, done: u64, message: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message());
            return;
        }
        let long = self.started.elapsed() >= LINE_EVERY;
        if self.last_line.elapsed() >= LINE_EVERY || (long && done == self.total) {
            self.last_line = Instant::now();
            let seconds = self.started.elapsed().as_secs_f64();
            let rate = (done - self.from.min(done)) as f64 / seconds.max(1e-9);
            let (what, message) = (&self.what, message());
            if self.total == 0 {
                eprintln!("{what}: {done} ({rate:.2}/s) {message}");
                return;
            }
            let left = if rate > 0.0 { (self.total - done) as f64 / rate } else { 0.0 };
            eprintln!("{what}: {done}/{} ({rate:.2}/s, {left:.0} s left) {message}", self.total);
        }
    }

    /// Prints a permanent line, above the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// Ends the display.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }

    /// Ends and removes the display; the caller prints the result as a separate line.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
