//! Latencies and rates over the test, as SVG. Ten million operations become a few thousand points.

use std::fmt::Write as _;

use crate::history::{History, Outcome};
use crate::report::faults;

const WIDTH: f64 = 1080.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 70.0;
const POINTS_MAX: usize = 3000;
const BINS: usize = 120;

/// Seconds for events with times; without, the events' numbers.
struct Scale {
    timed: bool,
    last: f64,
}

impl Scale {
    fn of(history: &History) -> Self {
        let events = history.events();
        let timed = !events.is_empty() && events.iter().all(|event| event.time.is_some());
        let mut scale = Self { timed, last: 1.0 };
        scale.last = (0..events.len()).map(|at| scale.at(history, at)).fold(1e-9, f64::max);
        scale
    }

    #[expect(clippy::cast_precision_loss, reason = "a plot")]
    fn at(&self, history: &History, event: usize) -> f64 {
        match history.events()[event].time {
            Some(time) if self.timed => time as f64 / 1e9,
            _ => event as f64,
        }
    }

    fn x(&self, at: f64) -> f64 {
        LEFT + (WIDTH - LEFT - 10.0) * (at / self.last).clamp(0.0, 1.0)
    }

    fn unit(&self) -> &'static str {
        if self.timed { "s" } else { "events" }
    }
}

fn frame(out: &mut String, history: &History, scale: &Scale, title: &str, label: &str) {
    _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\"><title>{label}</title>",
        HEIGHT + 40.0
    );
    for (name, begin, end) in faults(history) {
        let (x, to) = (scale.x(scale.at(history, begin)), scale.x(scale.at(history, end)));
        let wide = (to - x).max(2.0);
        let name = super::html::escape(&name);
        _ = write!(
            out,
            "<rect class=\"fault\" x=\"{x:.1}\" y=\"10\" width=\"{wide:.1}\" height=\"{HEIGHT}\">\
             <title>{name}</title></rect>"
        );
        // Its name, where there is room for it.
        #[expect(clippy::cast_precision_loss, reason = "a few letters")]
        if name.chars().count() as f64 * 6.5 < wide {
            _ = write!(out, "<text x=\"{:.1}\" y=\"22\">{name}</text>", x + 4.0);
        }
    }
    let bottom = HEIGHT + 10.0;
    let right = WIDTH - 10.0;
    _ = write!(
        out,
        "<path class=\"axis\" d=\"M{LEFT} 10V{bottom}H{right}\"/><text x=\"{LEFT}\" y=\"{}\">0</text>\
         <text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{:.1} {}</text><text x=\"4\" y=\"22\">{title}</text>",
        bottom + 16.0,
        bottom + 16.0,
        scale.last,
        scale.unit(),
    );
}

fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Fail => "fail",
        Outcome::Info => "info",
    }
}

/// One dot an operation, on a logarithmic scale; every nth if there are many.
#[expect(clippy::cast_precision_loss, reason = "a plot")]
pub(super) fn latencies(history: &History) -> String {
    let scale = Scale::of(history);
    let mut out = String::new();
    let title = if scale.timed { "ms" } else { "events" };
    frame(&mut out, history, &scale, title, "how long operations took");
    let count = history.operations().len();
    let step = count.div_ceil(POINTS_MAX).max(1);
    let took = |begin: usize, end: usize| {
        let length = scale.at(history, end) - scale.at(history, begin);
        if scale.timed { (length * 1000.0).max(0.001) } else { length.max(1.0) }
    };
    let sampled = || history.operations().iter().step_by(step);
    let mut all: Vec<f64> =
        sampled().filter_map(|op| Some(took(op.invoke as usize, op.complete? as usize))).collect();
    all.sort_by(f64::total_cmp);
    let (low, high) = (all.first().copied().unwrap_or(1.0), all.last().copied().unwrap_or(10.0));
    let span = (high.ln() - low.ln()).max(0.1);
    let y = |value: f64| 10.0 + HEIGHT - 8.0 - (HEIGHT - 16.0) * ((value.ln() - low.ln()) / span);
    for op in sampled() {
        let Some(end) = op.complete else { continue };
        let x = scale.x(scale.at(history, op.invoke as usize));
        let y = y(took(op.invoke as usize, end as usize));
        _ = write!(
            out,
            "<circle class=\"{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.8\"/>",
            class(op.outcome)
        );
    }
    for quantile in [0.5, 0.95, 0.99] {
        if all.is_empty() {
            break;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let value = all[(((all.len() - 1) as f64) * quantile) as usize];
        let y = y(value);
        _ = write!(
            out,
            "<path class=\"quantile\" d=\"M{LEFT} {y:.1}H{}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">p{:.0} {value:.2}</text>",
            WIDTH - 10.0,
            LEFT - 4.0,
            y + 4.0,
            quantile * 100.0,
        );
    }
    out.push_str("</svg>");
    out
}

/// Completions in each of a hundred and twenty parts of the test, by outcome.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a plot")]
#[expect(clippy::cast_sign_loss, reason = "a plot")]
pub(super) fn rates(history: &History) -> String {
    let scale = Scale::of(history);
    let mut bins = vec![[0_usize; 3]; BINS];
    for op in history.operations() {
        let at = scale.at(history, op.complete.unwrap_or(op.invoke) as usize);
        let bin = ((at / scale.last) * BINS as f64) as usize;
        let kind = match op.outcome {
            Outcome::Ok => 0,
            Outcome::Fail => 1,
            Outcome::Info => 2,
        };
        bins[bin.min(BINS - 1)][kind] += 1;
    }
    let most = bins.iter().flatten().copied().max().unwrap_or(1).max(1);
    let mut out = String::new();
    let title = if scale.timed { "operations/s" } else { "operations" };
    frame(&mut out, history, &scale, title, "how many operations completed");
    for (kind, name) in ["ok", "fail", "info"].into_iter().enumerate() {
        let mut path = String::new();
        for (n, bin) in bins.iter().enumerate() {
            let x = scale.x(scale.last * (n as f64 + 0.5) / BINS as f64);
            let y = 10.0 + HEIGHT - (HEIGHT - 20.0) * bin[kind] as f64 / most as f64;
            _ = write!(path, "{}{x:.1} {y:.1}", if n == 0 { 'M' } else { 'L' });
        }
        _ = write!(out, "<path class=\"rate {name}\" d=\"{path}\"/>");
    }
    let per_second = if scale.timed { BINS as f64 / scale.last } else { 1.0 };
    _ = write!(
        out,
        "<text x=\"{}\" y=\"36\" text-anchor=\"end\">{:.0}</text></svg>",
        LEFT - 4.0,
        most as f64 * per_second
    );
    out
}
