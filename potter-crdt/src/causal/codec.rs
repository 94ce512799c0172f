//! Documents in both formats: a table of actors, the context, the store.

use serde_json::{Map, Value as Json};

use crate::actor::{DotIx, SEQ_MAX};
use crate::causal::{Causal, DotStore};
use crate::codec::{Codec, Decoder, Encoder, json};
use crate::ranges::Ranges;
use crate::{Context, Dot, Error, Result};

/// The actors of a context in the order in which they are written: by name.
#[derive(Debug)]
pub struct Order<'a> {
    pub(crate) ctx: &'a Context,
    pub(crate) sorted: Vec<u32>,
    place: Vec<u32>,
}

impl<'a> Order<'a> {
    pub(crate) fn new(ctx: &'a Context) -> Self {
        let sorted = ctx.sorted();
        let mut place = vec![u32::MAX; ctx.actors()];
        for (at, &ix) in (0u32..).zip(&sorted) {
            place[ix as usize] = at;
        }
        Self { ctx, sorted, place }
    }

    pub(crate) fn place(&self, actor: u32) -> u32 {
        self.place[actor as usize]
    }

    /// A dot as it is written.
    pub(crate) fn export(&self, dot: DotIx) -> DotIx {
        DotIx::new(self.place(dot.actor()), dot.seq())
    }

    pub(crate) fn put(&self, dot: DotIx, out: &mut Encoder) {
        out.uint(u64::from(self.place(dot.actor())));
        out.uint(dot.seq());
    }

    pub(crate) fn json(&self, dot: DotIx) -> Json {
        let name = self.ctx.name(dot.actor()).as_str();
        Json::Array(vec![name.into(), json::from_int(dot.seq())])
    }
}

/// A dot of a document whose context was read before.
pub(crate) fn get(input: &mut Decoder<'_>, ctx: &Context) -> Result<DotIx> {
    let actor = actor_place(input, ctx)?;
    seen(ctx, actor, input.uint()?)
}

pub(crate) fn actor_place(input: &mut Decoder<'_>, ctx: &Context) -> Result<u32> {
    u32::try_from(input.uint()?)
        .ok()
        .filter(|&ix| (ix as usize) < ctx.actors())
        .ok_or_else(|| Error::malformed("a dot's actor is not in the table"))
}

pub(crate) fn seen(ctx: &Context, actor: u32, seq: u64) -> Result<DotIx> {
    if seq == 0 || seq > SEQ_MAX || !ctx.ranges(actor).contains(seq) {
        return Err(Error::malformed("a live event is not in the context"));
    }
    Ok(DotIx::new(actor, seq))
}

pub(crate) fn get_json(value: &Json, ctx: &Context) -> Result<DotIx> {
    let [actor, seq] = json::array(value)? else {
        return Err(Error::malformed("a dot is [actor, number]"));
    };
    let dot = Dot { actor: json::actor(actor)?, seq: json::int(seq)? };
    match ctx.dot_ix(&dot) {
        Some(at) if ctx.has(at) => Ok(at),
        _ => Err(Error::malformed("a live event is not in the context")),
    }
}

pub(crate) fn put_ranges(ranges: impl Iterator<Item = (u64, u64)> + Clone, out: &mut Encoder) {
    out.length(ranges.clone().count());
    let mut next = 1;
    for (lo, hi) in ranges {
        out.uint(lo - next);
        out.uint(hi - lo);
        next = hi + 2;
    }
}

/// Ranges in rising order, not adjacent, within the limit of sequence numbers.
pub(crate) fn get_ranges(input: &mut Decoder<'_>) -> Result<Vec<(u64, u64)>> {
    let bad = || Error::malformed("a range of events is out of bounds");
    let count = input.length()?;
    if count > input.left() / 2 {
        return Err(bad());
    }
    let mut out = Vec::with_capacity(count);
    let mut next = 1u64;
    for _ in 0..count {
        let lo = next.checked_add(input.uint()?).ok_or_else(bad)?;
        let hi = lo.checked_add(input.uint()?).filter(|&hi| hi <= SEQ_MAX).ok_or_else(bad)?;
        out.push((lo, hi));
        next = hi + 2;
    }
    Ok(out)
}

pub(crate) fn put_context(order: &Order<'_>, out: &mut Encoder) {
    out.length(order.sorted.len());
    for &ix in &order.sorted {
        out.actor(order.ctx.name(ix));
        let ranges: Vec<_> = order.ctx.ranges(ix).iter().collect();
        put_ranges(ranges.into_iter(), out);
    }
}

pub(crate) fn get_context(input: &mut Decoder<'_>) -> Result<Context> {
    let mut ctx = Context::new();
    for at in 0..input.length()? {
        let actor = input.actor()?;
        let ix = ctx.intern(&actor)?;
        let ranges = get_ranges(input)?;
        if ix as usize != at || ranges.is_empty() {
            return Err(Error::malformed("an actor is named twice, or without events"));
        }
        let mut set = Ranges::default();
        for (lo, hi) in ranges {
            set.push(lo, hi);
        }
        *ctx.ranges_mut(ix) = set;
    }
    Ok(ctx)
}

/// `{"actor":[[1,7],[9,9]]}`
pub(crate) fn context_to_json(ctx: &Context) -> Json {
    let mut out: Map<String, Json> = Map::new();
    for ix in ctx.used() {
        let ranges = ctx.ranges(ix).iter();
        let ranges = ranges
            .map(|(lo, hi)| Json::Array(vec![json::from_int(lo), json::from_int(hi)]))
            .collect();
        out.insert(ctx.name(ix).as_str().to_owned(), Json::Array(ranges));
    }
    Json::Object(out)
}

pub(crate) fn context_from_json(value: &Json) -> Result<Context> {
    let mut ctx = Context::new();
    for (name, ranges) in json::object(value)? {
        let actor = json::actor_text(name)?;
        for range in json::array(ranges)? {
            let [lo, hi] = json::array(range)? else {
                return Err(Error::malformed("a range of events is [first, last]"));
            };
            ctx.insert_range(&actor, json::int(lo)?, json::int(hi)?)
                .map_err(|error| Error::malformed(error.to_string()))?;
        }
    }
    Ok(ctx)
}

impl<S: DotStore> Codec for Causal<S> {
    const TYPE: &'static str = S::TYPE;
    const TAG: u8 = S::TAG;

    fn encode_body(&self, out: &mut Encoder) {
        let order = Order::new(&self.ctx);
        put_context(&order, out);
        self.store.encode(out, &order);
    }

    fn decode_body(input: &mut Decoder<'_>) -> Result<Self> {
        let ctx = get_context(input)?;
        let store = S::decode(input, &ctx)?;
        Ok(Self { ctx, store })
    }

    fn body_to_json(&self) -> Json {
        let order = Order::new(&self.ctx);
        json::make_object([
            ("context", context_to_json(&self.ctx)),
            ("store", self.store.to_json(&order)),
        ])
    }

    fn body_from_json(value: &Json) -> Result<Self> {
        let object = json::object(value)?;
        let ctx = context_from_json(json::field(object, "context")?)?;
        let store = S::from_json(json::field(object, "store")?, &ctx)?;
        Ok(Self { ctx, store })
    }
}

/// Equal states have equal bytes, whatever their inner numbers are.
impl<S: DotStore> PartialEq for Causal<S> {
    fn eq(&self, other: &Self) -> bool {
        self.ctx == other.ctx && {
            let bytes = |doc: &Self| {
                let mut out = Encoder::default();
                doc.store.encode(&mut out, &Order::new(&doc.ctx));
                out.into_bytes()
            };
            bytes(self) == bytes(other)
        }
    }
}

impl<S: DotStore> Eq for Causal<S> {}
