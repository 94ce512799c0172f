//! A bar on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use potter_eventsourcing::ReplayProgress;

/// How far something is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) done: u64,
    pub(crate) total: u64,
    pub(crate) position: u64,
    pub(crate) elapsed: Duration,
}

impl From<&ReplayProgress> for Now {
    fn from(now: &ReplayProgress) -> Self {
        let ReplayProgress { done, total, position, elapsed, .. } = *now;
        Self { done, total, position, elapsed }
    }
}

/// Shows how far something is.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    lines: Mutex<Lines>,
}

struct Lines {
    last: Instant,
    waiting: Vec<String>,
}

const TEMPLATE: &str =
    "{bar:40} {pos}/{len} ({percent}%) | {msg} | {per_sec} | {elapsed} | ETA {eta}";

impl Progress {
    pub(crate) fn new() -> Self {
        let bar = std::io::stdout().is_terminal().then(|| {
            let style = ProgressStyle::with_template(TEMPLATE);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style)
        });
        let lines = Lines { last: Instant::now(), waiting: Vec::new() };
        Self { bar, lines: Mutex::new(lines) }
    }

    pub(crate) fn show(&self, now: Now) {
        let ended = now.done >= now.total;
        if let Some(bar) = &self.bar {
            bar.set_length(now.total);
            bar.set_position(now.done);
            bar.set_message(format!("position {}", now.position));
            if ended {
                bar.finish();
            }
            return;
        }
        let Ok(mut lines) = self.lines.lock() else { return };
        if ended || lines.last.elapsed() >= Duration::from_secs(1) {
            lines.last = Instant::now();
            lines.waiting.push(line(now));
        }
    }

    /// The lines that were not on a terminal.
    pub(crate) fn take_lines(&self) -> Vec<String> {
        self.lines.lock().map(|mut lines| std::mem::take(&mut lines.waiting)).unwrap_or_default()
    }
}

/// `Progress: 1500/10000 (15.00%) | Position: 1500 | Rate: 9000/s | Elapsed: 1s | ETA: 1 second`
#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn line(now: Now) -> String {
    let Now { done, total, position, elapsed } = now;
    let percent = if total == 0 { 100.0 } else { done as f64 * 100.0 / total as f64 };
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-9);
    let left = total.saturating_sub(done) as f64 / rate.max(1e-9);
    let left = Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX);
    let eta = if done == 0 { "?".to_owned() } else { HumanDuration(left).to_string() };
    format!(
        "Progress: {done}/{total} ({percent:.2}%) | Position: {position} | Rate: {rate:.0}/s | \
         Elapsed: {elapsed:.1?} | ETA: {eta}"
    )
}
