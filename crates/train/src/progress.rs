//! Progress of long work: a bar with rate and estimate on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between plain lines; what is over sooner says nothing.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows how far something is. Cheap to update.
pub struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    total: u64,
    started: Instant,
    from: u64,
    last_line: Instant,
}

impl Progress {
    /// A display of `total` units of which `done` are done already.
    pub fn new(what: &str, total: u64, done: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(
                "{prefix:>14} {bar:32} {pos}/{len} · {per_sec} · {eta} left · {msg}",
            )
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

    /// Moves to `done` units, with a word on what happened.
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
            let left = if rate > 0.0 { self.total.saturating_sub(done) as f64 / rate } else { 0.0 };
            eprintln!(
                "{}: {done}/{} ({rate:.2}/s, {left:.0} s left) {}",
                self.what,
                self.total,
                message()
            );
        }
    }

    /// A line that stays, above the bar.
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

    /// Ends the display and takes it away: what it led to is told in a line of its own.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
