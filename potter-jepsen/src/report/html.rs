//! One HTML file with everything in it: no scripts, no fonts, nothing to fetch.

use std::fmt::Write as _;

use super::{Counts, distinct, faults, one_line, plot, timeline};
use crate::history::History;
use crate::verdict::{Analysis, Counterexample, Verdict};

pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if (c as u32) < 0x20 && !c.is_whitespace() => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2330;--quiet:#5d6675;--line:#d5d9e0;--paper:#fff;--ok:#3b78c2;\
--fail:#8a93a2;--info:#d18a1a;--bad:#c62f3f;--good:#2b8a4b;--fault:#f6d9a8}\
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ef;--quiet:#9aa5b5;--line:#3a4250;--paper:#161a21;\
--ok:#6ba5ea;--fail:#7c8695;--info:#e8a63d;--bad:#f0616f;--good:#55c07a;--fault:#4b3a19}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1120px;\
margin:24px auto;padding:0 16px}h1{font-size:24px;margin:0}h2{font-size:17px;margin:32px 0 8px}\
h3{font-size:15px;margin:20px 0 4px;color:var(--bad)}p{margin:4px 0}svg{width:100%;height:auto}\
svg text{font-size:11px;fill:var(--quiet)}.badge{display:inline-block;padding:2px 12px;border-radius:4px;\
color:#fff;font-weight:600;margin-right:12px}.valid{background:var(--good)}.invalid{background:var(--bad)}\
.unknown{background:var(--info)}table{border-collapse:collapse;margin:8px 0}td,th{padding:3px 18px 3px 0;\
text-align:left;border-bottom:1px solid var(--line)}td.valid,td.invalid,td.unknown{background:none;font-weight:600}\
td.valid{color:var(--good)}td.invalid{color:var(--bad)}td.unknown{color:var(--info)}.quiet{color:var(--quiet)}\
li{margin:3px 0}code,.op{font:13px/1.45 ui-monospace,monospace;overflow-wrap:anywhere}.axis,.lane{fill:none;\
stroke:var(--line)}.fault{fill:var(--fault);opacity:.6}circle.ok{fill:var(--ok)}circle.fail{fill:var(--fail)}\
circle.info{fill:var(--info)}.quantile{stroke:var(--bad);stroke-dasharray:3 3;fill:none;opacity:.7}\
.rate{fill:none;stroke-width:1.5}.rate.ok{stroke:var(--ok)}.rate.fail{stroke:var(--fail)}.rate.info{stroke:var(--info)}\
.bar{stroke-width:2;fill-opacity:.35}.bar.ok{fill:var(--ok)}.bar.fail{fill:var(--fail)}.bar.info{fill:var(--info)}\
.bar.marked{stroke:var(--bad);fill:var(--bad);fill-opacity:.3}svg text.in{fill:var(--ink);font-size:10.5px}\
.node{fill:var(--paper);stroke:var(--ink)}.edge{fill:none;stroke:var(--quiet);stroke-width:1.6}.edge.rw{stroke:var(--bad)}\
.edge.wr{stroke:var(--ok)}.edge.ww{stroke:var(--good)}svg text.edge-name,svg text.strong{font-size:13px;\
font-weight:700;fill:var(--ink)}marker path{fill:var(--quiet)}";

/// The report as one self-contained HTML file. Its size does not depend on the history's: plots are
/// sampled, and the timeline shows the operations of the counterexample and their neighbours.
pub fn html(history: &History, analysis: &Analysis, title: &str) -> String {
    let counts = Counts::of(history);
    let verdict = analysis.verdict.name();
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{0}: {verdict}</title>\
         <style>{STYLE}</style></head><body><h1><span class=\"badge {verdict}\">{verdict}</span>{0}</h1>\
         <p>{1}</p><p class=\"quiet\">Model {2}. {3} operations: {4} ok, {5} failed, {6} with unknown outcome.</p>",
        escape(title),
        escape(&one_line(&analysis.verdict)),
        escape(&analysis.model),
        counts.operations,
        counts.ok,
        counts.fail,
        counts.info,
    );
    levels(&mut out, analysis);
    let first = analysis.anomalies.first();
    if !analysis.anomalies.is_empty() {
        out.push_str("<h2>What is wrong</h2>");
        for found in analysis.anomalies.iter().take(20) {
            anomaly(&mut out, history, found);
        }
    }
    if counts.operations > 0 {
        let what =
            if first.is_some() { "The operations around it" } else { "The first operations" };
        _ = write!(
            out,
            "<h2>{what}</h2><p class=\"quiet\">One lane a process; the order is that of the history's \
             events. Red: part of the counterexample. Orange: outcome unknown, may take effect until \
             the end. Point at a bar for its words.</p>{}",
            timeline::timeline(history, first)
        );
        let shaded = faults(history).len();
        _ = write!(
            out,
            "<h2>Latencies</h2>{}<h2>Rates</h2>{}<p class=\"quiet\">Blue: ok, grey: failed, orange: \
             unknown. Shaded: {shaded} fault windows.</p>",
            plot::latencies(history),
            plot::rates(history)
        );
    }
    if !analysis.notes.is_empty() {
        out.push_str("<h2>Notes</h2><ul>");
        for note in analysis.notes.iter().take(50) {
            _ = write!(out, "<li>{}</li>", escape(note));
        }
        out.push_str("</ul>");
    }
    out.push_str("</body></html>\n");
    out
}

fn levels(out: &mut String, analysis: &Analysis) {
    if analysis.levels.is_empty() {
        return;
    }
    out.push_str("<h2>Isolation levels</h2><table><tr><th>level</th><th>verdict</th><th>because of</th></tr>");
    for (level, verdict) in &analysis.levels {
        let why = match verdict {
            Verdict::Invalid { counterexample } => counterexample.anomaly.clone(),
            Verdict::Unknown { reason } => reason.to_string(),
            Verdict::Valid { .. } => String::new(),
        };
        _ = write!(
            out,
            "<tr><td>{}</td><td class=\"{1}\">{1}</td><td>{2}</td></tr>",
            level.name(),
            verdict.name(),
            escape(&why)
        );
    }
    out.push_str("</table>");
}

fn anomaly(out: &mut String, history: &History, found: &Counterexample) {
    _ = write!(out, "<h3>{}</h3><p>{}</p>", escape(&found.anomaly), escape(&cut(&found.message)));
    if let Some(key) = &found.key {
        _ = write!(out, "<p>Key {}</p>", escape(&cut(key)));
    }
    if !found.cycle.is_empty() {
        out.push_str(&timeline::cycle(history, found));
        out.push_str("<ol>");
        for edge in found.cycle.iter().take(40) {
            _ = write!(
                out,
                "<li><span class=\"op\">{}</span><br>comes before op {} (<b>{}</b>): {}</li>",
                escape(&cut(&history.describe(edge.from as usize))),
                edge.to,
                edge.relation,
                escape(&cut(&edge.why))
            );
        }
        out.push_str("</ol>");
    } else if !found.operations.is_empty() {
        out.push_str("<ul>");
        for id in distinct(&found.operations).take(20) {
            let words = escape(&cut(&history.describe(id as usize)));
            _ = write!(out, "<li class=\"op\">{words}</li>");
        }
        out.push_str("</ul>");
    }
    if !found.details.is_empty() {
        out.push_str("<ul class=\"quiet\">");
        for detail in found.details.iter().take(20) {
            _ = write!(out, "<li class=\"op\">{}</li>", escape(&cut(detail)));
        }
        out.push_str("</ul>");
    }
}

/// One operation may have read a list of a million elements.
fn cut(text: &str) -> String {
    cut_at(text, 2000)
}

pub(super) fn cut_at(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}
