//! Texts in both formats: the runs by actor and number; the order follows from their origins.

use serde_json::Value as Json;

use super::Rga;
use super::span::Span;
use crate::actor::{DotIx, SEQ_MAX};
use crate::causal::codec::{self, Order};
use crate::codec::{Codec, Decoder, Encoder, json};
use crate::{Context, Error, Result};

impl Rga {
    /// The spans as maximal runs, by the order of actors as written.
    fn runs(&self, order: &Order<'_>) -> Vec<Span> {
        let mut spans: Vec<&Span> = self.all_spans().collect();
        spans.sort_unstable_by_key(|span| order.export(span.dot));
        let mut runs: Vec<Span> = Vec::new();
        for span in spans {
            match runs.last_mut() {
                Some(run) if run.continues(span) => {
                    run.len += span.len;
                    run.text.push_str(&span.text);
                }
                _ => runs.push(span.clone()),
            }
        }
        runs
    }

    pub(super) fn body(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        self.put_runs(&Order::new(&self.ctx), &mut out);
        out.into_bytes()
    }

    /// Every number is the difference to what it most often is: a run follows the last one of its
    /// actor, its origin is near, deletions follow each other.
    fn put_runs(&self, order: &Order<'_>, out: &mut Encoder) {
        let runs = self.runs(order);
        out.length(runs.len());
        let mut last = Last::default();
        for run in runs {
            let place = order.place(run.dot.actor());
            let same = last.actor == Some(place);
            last.begin(place);
            out.byte(
                u8::from(run.origin.is_some())
                    | u8::from(run.dead.is_some()) << 1
                    | u8::from(!same) << 2,
            );
            if !same {
                out.uint(u64::from(place));
            }
            out.uint(run.dot.seq() - last.seq);
            out.int(apart(run.lamport, last.lamport));
            if let Some(origin) = run.origin {
                order.put_loose(origin, out);
                out.int(apart(origin.seq(), run.dot.seq()));
            }
            match run.dead {
                Some(dead) => {
                    out.uint(run.len);
                    out.uint(u64::from(order.place(dead.actor())));
                    out.int(apart(dead.seq(), last.dead));
                    last.dead = dead.seq() + run.len;
                }
                None => out.text(&run.text),
            }
            last.seq = run.dot.seq() + run.len;
            last.lamport = run.lamport + run.len;
        }
    }
}

/// Where the last run ended.
#[derive(Default)]
struct Last {
    actor: Option<u32>,
    seq: u64,
    lamport: u64,
    dead: u64,
}

impl Last {
    fn begin(&mut self, actor: u32) {
        if self.actor != Some(actor) {
            *self = Self { actor: Some(actor), ..Self::default() };
        }
    }
}

/// All numbers are below 2^44, so differences fit.
fn apart(to: u64, from: u64) -> i64 {
    to.cast_signed() - from.cast_signed()
}

fn at(from: u64, apart: i64) -> Result<u64> {
    from.checked_add_signed(apart)
        .filter(|&to| to > 0 && to <= SEQ_MAX)
        .ok_or_else(|| Error::malformed("an event is out of bounds"))
}

impl Order<'_> {
    /// An actor that may not be in the table: that of an origin that has not come.
    fn put_loose(&self, dot: DotIx, out: &mut Encoder) {
        let place = self.place(dot.actor());
        if place == u32::MAX {
            out.uint(0);
            out.actor(self.ctx.name(dot.actor()));
        } else {
            out.uint(u64::from(place) + 1);
        }
    }
}

fn get_loose(input: &mut Decoder<'_>, table: usize, ctx: &mut Context) -> Result<u32> {
    match input.uint()? {
        0 => {
            let actor = input.actor()?;
            if ctx.ix(&actor).is_some_and(|ix| (ix as usize) < table) {
                return Err(Error::malformed("an actor of the table is named in full"));
            }
            ctx.intern(&actor)
        }
        place => in_table(place - 1, table),
    }
}

fn in_table(place: u64, table: usize) -> Result<u32> {
    u32::try_from(place)
        .ok()
        .filter(|&place| (place as usize) < table)
        .ok_or_else(|| Error::malformed("a dot's actor is not in the table"))
}

/// One run, as [`Rga::put_runs`] writes it.
fn get_run(
    input: &mut Decoder<'_>,
    table: usize,
    ctx: &mut Context,
    last: &mut Last,
) -> Result<Span> {
    let flags = input.byte()?;
    if flags > 7 {
        return Err(Error::malformed("a run of a text has unknown flags"));
    }
    let actor = match last.actor {
        _ if flags & 4 != 0 => in_table(input.uint()?, table)?,
        Some(actor) => actor,
        None => return Err(Error::malformed("the first run of a text has no actor")),
    };
    last.begin(actor);
    let gap = i64::try_from(input.uint()?).unwrap_or(i64::MAX);
    let dot = DotIx::new(actor, at(last.seq, gap)?);
    let lamport = at(last.lamport, input.int()?)?;
    let origin = if flags & 1 == 1 {
        let actor = get_loose(input, table, ctx)?;
        Some(DotIx::new(actor, at(dot.seq(), input.int()?)?))
    } else {
        None
    };
    let mut span = Span { dot, len: 0, lamport, origin, dead: None, text: String::new() };
    if flags & 2 == 0 {
        span.text = input.text()?.to_owned();
        span.len = span.text.chars().count() as u64;
    } else {
        span.len = input.uint()?;
        let actor = in_table(input.uint()?, table)?;
        let dead = DotIx::new(actor, at(last.dead, input.int()?)?);
        span.dead = Some(dead);
        last.dead = dead.seq().saturating_add(span.len);
    }
    last.seq = dot.seq().saturating_add(span.len);
    last.lamport = lamport.saturating_add(span.len);
    Ok(span)
}

fn bounded(actor: u32, seq: u64) -> Result<DotIx> {
    if seq == 0 || seq > SEQ_MAX {
        return Err(Error::malformed("an event is out of bounds"));
    }
    Ok(DotIx::new(actor, seq))
}

/// Spans as a decoder collects them: in order, within the context, apart from each other.
fn push(spans: &mut Vec<Span>, span: Span, ctx: &Context) -> Result<()> {
    let bad = || Error::malformed("a run of a text is out of order or out of bounds");
    let inside = |first: DotIx| {
        let last = first.seq().checked_add(span.len - 1).filter(|&last| last <= SEQ_MAX)?;
        let wanted = crate::ranges::Ranges::from_iter([(first.seq(), last)]);
        ctx.ranges(first.actor()).covers(&wanted).then_some(())
    };
    if span.len == 0 {
        return Err(bad());
    }
    inside(span.dot).ok_or_else(bad)?;
    if let Some(dead) = span.dead {
        inside(dead).ok_or_else(bad)?;
    }
    let time_ok =
        span.lamport > 0 && span.lamport.checked_add(span.len).is_some_and(|end| end <= SEQ_MAX);
    let after = spans.last().is_none_or(|last| {
        last.dot.actor() != span.dot.actor() || last.last_seq() < span.dot.seq()
    });
    if !time_ok || !after || span.origin == Some(span.dot) {
        return Err(bad());
    }
    spans.push(span);
    Ok(())
}

fn built(ctx: Context, mut spans: Vec<Span>) -> Result<Rga> {
    spans.sort_by_key(|span| span.dot);
    if spans.windows(2).any(|pair| {
        pair[0].dot.actor() == pair[1].dot.actor() && pair[0].last_seq() >= pair[1].dot.seq()
    }) {
        return Err(Error::malformed("an event is in a text twice"));
    }
    let state = Rga::of(ctx, spans);
    // Times must rise from origin to character.
    let same: Vec<u32> = (0u32..).take(state.ctx.actors()).collect();
    state.agree(&state, &same)?;
    Ok(state)
}

impl Codec for Rga {
    const TYPE: &'static str = "RGA";
    const TAG: u8 = 15;

    fn encode_body(&self, out: &mut Encoder) {
        let order = Order::new(&self.ctx);
        codec::put_context(&order, out);
        self.put_runs(&order, out);
    }

    fn decode_body(input: &mut Decoder<'_>) -> Result<Self> {
        let mut ctx = codec::get_context(input)?;
        let table = ctx.actors();
        let mut spans = Vec::new();
        let mut last = Last::default();
        for _ in 0..input.length()? {
            let span = get_run(input, table, &mut ctx, &mut last)?;
            push(&mut spans, span, &ctx)?;
        }
        built(ctx, spans)
    }

    fn body_to_json(&self) -> Json {
        let order = Order::new(&self.ctx);
        let run = |run: Span| {
            let mut fields =
                vec![("dot", order.json(run.dot)), ("lamport", json::from_int(run.lamport))];
            fields.extend(run.origin.map(|origin| ("origin", order.json(origin))));
            match run.dead {
                Some(dead) => fields
                    .extend([("deleted", order.json(dead)), ("length", json::from_int(run.len))]),
                None => fields.push(("text", run.text.into())),
            }
            json::make_object(fields)
        };
        json::make_object([
            ("context", codec::context_to_json(&self.ctx)),
            ("runs", Json::Array(self.runs(&order).into_iter().map(run).collect())),
        ])
    }

    fn body_from_json(value: &Json) -> Result<Self> {
        let object = json::object(value)?;
        let mut ctx = codec::context_from_json(json::field(object, "context")?)?;
        let mut spans = Vec::new();
        for run in json::array(json::field(object, "runs")?)? {
            let run = json::object(run)?;
            let dot = codec::get_json(json::field(run, "dot")?, &ctx)?;
            let lamport = json::int(json::field(run, "lamport")?)?;
            let origin = run.get("origin").map(|dot| loose_json(dot, &mut ctx)).transpose()?;
            let dead = run.get("deleted").map(|dot| codec::get_json(dot, &ctx)).transpose()?;
            let mut span = Span { dot, len: 0, lamport, origin, dead, text: String::new() };
            if dead.is_some() {
                span.len = json::int(json::field(run, "length")?)?;
            } else {
                span.text = json::text(json::field(run, "text")?)?.to_owned();
                span.len = span.text.chars().count() as u64;
            }
            push(&mut spans, span, &ctx)?;
        }
        built(ctx, spans)
    }
}

fn loose_json(value: &Json, ctx: &mut Context) -> Result<DotIx> {
    let [actor, seq] = json::array(value)? else {
        return Err(Error::malformed("a dot is [actor, number]"));
    };
    let actor = ctx.intern(&json::actor(actor)?)?;
    bounded(actor, json::int(seq)?)
}
