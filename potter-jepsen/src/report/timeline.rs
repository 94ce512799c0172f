//! The operations around a counterexample as bars in lanes, and its cycle as a drawing.

use std::fmt::Write as _;

use rustc_hash::FxHashSet;

use super::html::{cut_at, escape};
use crate::history::{History, Operation, Outcome};
use crate::verdict::Counterexample;

const WIDTH: f64 = 1080.0;
const LANE: f64 = 22.0;
/// Operations in a window, at most.
const WINDOW: usize = 160;

/// The window: the counterexample's operations and their neighbours.
fn window(history: &History, marked: &FxHashSet<u32>) -> Vec<usize> {
    let count = history.operations().len();
    let mut wanted: Vec<usize> =
        marked.iter().map(|&id| id as usize).filter(|&id| id < count).collect();
    wanted.sort_unstable();
    wanted.truncate(WINDOW / 2);
    if wanted.is_empty() {
        return (0..count.min(WINDOW / 2)).collect();
    }
    // As many neighbours of each as there is room for.
    let room = (WINDOW - wanted.len()) / (2 * wanted.len()).max(1);
    let mut all: FxHashSet<usize> = wanted.iter().copied().collect();
    for &id in &wanted {
        all.extend(id.saturating_sub(room)..(id + room + 1).min(count));
    }
    let mut all: Vec<usize> = all.into_iter().collect();
    all.sort_unstable();
    all
}

pub(super) fn timeline(history: &History, found: Option<&Counterexample>) -> String {
    let marked: FxHashSet<u32> =
        found.map(|found| found.operations.iter().copied().collect()).unwrap_or_default();
    let ids = window(history, &marked);
    let ops: Vec<(usize, &Operation)> =
        ids.iter().map(|&id| (id, &history.operations()[id])).collect();
    // Only the events of these operations take up room.
    let mut places: Vec<u32> =
        ops.iter().flat_map(|(_, op)| [Some(op.invoke), op.complete]).flatten().collect();
    places.sort_unstable();
    places.dedup();
    let mut lanes: Vec<i64> = ops.iter().map(|(_, op)| op.process.0).collect();
    lanes.sort_unstable();
    lanes.dedup();
    #[expect(clippy::cast_precision_loss, reason = "a drawing")]
    let x = |event: u32| {
        let at = places.partition_point(|&place| place < event) as f64;
        90.0 + (WIDTH - 110.0) * at / (places.len().max(2) - 1) as f64
    };
    #[expect(clippy::cast_precision_loss, reason = "a drawing")]
    let y = |process: i64| 8.0 + LANE * lanes.partition_point(|&lane| lane < process) as f64;
    #[expect(clippy::cast_precision_loss, reason = "a drawing")]
    let height = 16.0 + LANE * lanes.len() as f64;
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\"><title>operations by process</title>"
    );
    for &lane in &lanes {
        let y = y(lane);
        _ = write!(
            out,
            "<text x=\"4\" y=\"{:.1}\">process {lane}</text><path class=\"lane\" d=\"M90 {:.1}H{WIDTH}\"/>",
            y + 14.0,
            y + LANE - 1.0
        );
    }
    for (id, op) in &ops {
        let (begin, top) = (x(op.invoke), y(op.process.0));
        let end = op.complete.filter(|_| op.outcome != Outcome::Info).map_or(WIDTH - 12.0, x);
        let wide = (end - begin).max(4.0);
        let kind = match op.outcome {
            Outcome::Ok => "ok",
            Outcome::Fail => "fail",
            Outcome::Info => "info",
        };
        let mark = u32::try_from(*id).is_ok_and(|id| marked.contains(&id));
        let mark = if mark { " marked" } else { "" };
        let words = escape(&cut_at(&history.describe(*id), 300));
        let label = escape(&short(history, *id, wide));
        _ = write!(
            out,
            "<g><title>{words}</title><rect class=\"bar {kind}{mark}\" x=\"{begin:.1}\" y=\"{top:.1}\" \
             width=\"{wide:.1}\" height=\"{:.0}\" rx=\"2\"/><text class=\"in\" x=\"{:.1}\" y=\"{:.1}\">{label}</text></g>",
            LANE - 4.0,
            begin + 3.0,
            top + 13.0
        );
    }
    out.push_str("</svg>");
    out
}

/// What fits into a bar.
fn short(history: &History, id: usize, wide: f64) -> String {
    let value = history.output(id).filter(|value| !value.is_nil()).unwrap_or(history.input(id));
    let text = format!("{} {value}", history.f(id));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few letters")]
    let room = (wide / 6.2) as usize;
    if text.chars().count() <= room {
        text
    } else {
        text.chars().take(room.saturating_sub(1)).collect()
    }
}

/// The transactions of a cycle round a circle, with an arrow for every edge.
pub(super) fn cycle(history: &History, found: &Counterexample) -> String {
    let edges = &found.cycle[..found.cycle.len().min(12)];
    let count = edges.len();
    #[expect(clippy::cast_precision_loss, reason = "a drawing")]
    let place = |n: usize| {
        let angle = std::f64::consts::TAU * n as f64 / count as f64 - std::f64::consts::FRAC_PI_2;
        (540.0 + 300.0 * angle.cos(), 200.0 + 130.0 * angle.sin())
    };
    let mut out = String::from(
        "<svg viewBox=\"0 0 1080 400\" role=\"img\"><title>the cycle</title><defs>\
         <marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"9\" \
         markerHeight=\"9\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>",
    );
    for (n, edge) in edges.iter().enumerate() {
        let ((ax, ay), (bx, by)) = (place(n), place((n + 1) % count));
        let (dx, dy) = (bx - ax, by - ay);
        let length = (dx * dx + dy * dy).sqrt().max(1.0);
        // Ends outside of the boxes; bent, so that there and back are two lines.
        let (ux, uy) = (dx / length, dy / length);
        let (mx, my) = (f64::midpoint(ax, bx) - uy * 40.0, f64::midpoint(ay, by) + ux * 40.0);
        let end = (bx - ux * 60.0, by - uy * 26.0);
        _ = write!(
            out,
            "<path class=\"edge {0}\" marker-end=\"url(#tip)\" d=\"M{ax:.0} {ay:.0}Q{mx:.0} {my:.0} {1:.0} {2:.0}\">\
             <title>{3}</title></path><text class=\"edge-name\" x=\"{mx:.0}\" y=\"{my:.0}\">{0}</text>",
            edge.relation,
            end.0,
            end.1,
            escape(&edge.why),
        );
    }
    for (n, edge) in edges.iter().enumerate() {
        let (x, y) = place(n);
        let words = history.describe(edge.from as usize);
        let label: String =
            words.split(" → ").last().unwrap_or_default().chars().take(34).collect();
        _ = write!(
            out,
            "<g><title>{}</title><rect class=\"node\" x=\"{:.0}\" y=\"{:.0}\" width=\"220\" height=\"38\" rx=\"4\"/>\
             <text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"middle\" class=\"strong\">op {}</text>\
             <text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text></g>",
            escape(&cut_at(&words, 300)),
            x - 110.0,
            y - 20.0,
            y - 4.0,
            edge.from,
            y + 12.0,
            escape(&label),
        );
    }
    out.push_str("</svg>");
    out
}
