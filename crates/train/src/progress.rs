//! Progress of long work: a bar with rate and estimate on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Shows how far something is. Cheap to update; plain lines come at most every ten seconds.
pub struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    total: u64,
    started: Instant,
    from: u64,
    last_line: Option<Instant>,
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
            last_line: None,
        }
    }

    /// Moves to `done` units, with a word on what happened.
    pub fn update(&mut self, done: u64, message: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message());
            return;
        }
        let due = self.last_line.is_none_or(|last| last.elapsed() >= Duration::from_secs(10));
        if due || done == self.total {
            self.last_line = Some(Instant::now());
            let seconds = self.started.elapsed().as_secs_f64();
            let rate = (done - self.from.min(done)) as f64 / seconds.max(1e-9);
            let left = if rate > 0.0 { (self.total - done) as f64 / rate } else { 0.0 };
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
}
