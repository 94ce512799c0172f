//! A counter inside a map.
//!
//! Invariant: a row belongs to one actor from its first event (its birth dot) on; its numbers only
//! grow, and the reset part never passes the counted part. A row is there as long as its birth is
//! live. Removing the key resets what was seen: an increment made at the same time stays, and none
//! comes back. A row that is wholly reset stays, unseen, until [`crate::Reclaim`].

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::actor::{DotIx, SEQ_MAX};
use crate::causal::codec::{self, Order};
use crate::causal::{Causal, DotStore, JoinCx, Txn};
use crate::codec::{Decoder, Encoder, json};
use crate::counter::pn_counter::UpDown;
use crate::counter::resettable::ResetRow;
use crate::{Context, Error, Result, Writer};

/// A counter with a causal context: the form that lives in maps.
pub type CausalCounter = Causal<CounterStore>;

/// The rows of a counter in a map.
#[derive(Clone, Debug, Default)]
pub struct CounterStore {
    rows: BTreeMap<DotIx, Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    numbers: ResetRow,
    /// The last event of its actor that changed it.
    last: u64,
    /// The event that reset it so far.
    reset_by: Option<DotIx>,
}

impl Row {
    fn is_reset(&self) -> bool {
        self.numbers.counted == self.numbers.reset
    }
}

impl CounterStore {
    /// Adds `by`, which may be negative. Errors as [`crate::PnCounter::add`].
    pub fn add(&mut self, txn: &mut Txn<'_>, by: i64) -> Result<()> {
        let own = self.rows.range(DotIx::new(txn.ix, 0)..=DotIx::new(txn.ix, SEQ_MAX));
        let own = own.last().map(|(birth, row)| (*birth, row.numbers.counted));
        let counted = own.map_or(UpDown::default(), |(_, counted)| counted).with(by)?;
        let dot = txn.mint()?;
        let birth = own.map_or(dot, |(birth, _)| birth);
        let fresh = Row { numbers: ResetRow::default(), last: 0, reset_by: None };
        let row = self.rows.entry(birth).or_insert(fresh);
        row.numbers.counted = counted;
        row.last = dot.seq();
        Ok(())
    }

    /// What was counted and not reset.
    pub fn value(&self) -> i128 {
        self.rows.values().map(|row| row.numbers.value()).sum()
    }

    /// Resets what is seen here.
    pub fn reset(&mut self, txn: &mut Txn<'_>) -> Result<()> {
        // One event a row, so that a part of a delta never claims the reset of another row.
        for row in self.rows.values_mut().filter(|row| !row.is_reset()) {
            row.reset_by = Some(txn.mint()?);
            row.numbers.reset = row.numbers.counted;
        }
        Ok(())
    }
}

/// Which of two reset events names a reset that both made: the lesser one, by name.
fn earlier(a: Option<DotIx>, b: Option<DotIx>, ctx: &Context) -> Option<DotIx> {
    match (a, b) {
        (Some(a), Some(b)) => {
            let key = |dot: DotIx| (ctx.name(dot.actor()), dot.seq());
            Some(if key(b) < key(a) { b } else { a })
        }
        (a, b) => a.or(b),
    }
}

fn joined(mine: &Row, theirs: &Row, cx: &JoinCx<'_>) -> Row {
    let mut numbers = mine.numbers;
    numbers.join(&theirs.numbers);
    let by = theirs.reset_by.map(|dot| cx.import(dot));
    let reset_by =
        match (numbers.reset == mine.numbers.reset, numbers.reset == theirs.numbers.reset) {
            (true, true) => earlier(mine.reset_by, by, cx.mine),
            (true, false) => mine.reset_by,
            _ => by,
        };
    Row { numbers, last: mine.last.max(theirs.last), reset_by }
}

impl DotStore for CounterStore {
    const TYPE: &'static str = "CausalCounter";
    const TAG: u8 = 10;

    fn is_empty(&self) -> bool {
        self.rows.values().all(Row::is_reset)
    }

    fn is_bottom(&self) -> bool {
        self.rows.is_empty()
    }

    fn each_dot(&self, each: &mut dyn FnMut(DotIx)) {
        self.rows.keys().for_each(|birth| each(*birth));
    }

    fn mentions(&self, each: &mut dyn FnMut(DotIx)) {
        for (birth, row) in &self.rows {
            each(*birth);
            each(DotIx::new(birth.actor(), row.last));
            row.reset_by.into_iter().for_each(&mut *each);
        }
    }

    fn check(&self, theirs: &Self, cx: &JoinCx<'_>) -> Result<()> {
        for (birth, row) in &theirs.rows {
            let birth = cx.import(*birth);
            // One history: the same numbers at one event, later numbers at later events.
            let one_history = |mine: &Row| {
                let (a, b) = (mine.numbers.counted, row.numbers.counted);
                match mine.last.cmp(&row.last) {
                    std::cmp::Ordering::Less => a.max(b) == b,
                    std::cmp::Ordering::Equal => a == b,
                    std::cmp::Ordering::Greater => a.max(b) == a,
                }
            };
            if let Some(mine) = self.rows.get(&birth)
                && !(one_history(mine) && mine.numbers.ordered(&row.numbers))
            {
                return Err(cx.reused(DotIx::new(birth.actor(), mine.last)));
            }
        }
        Ok(())
    }

    fn merge(&mut self, theirs: &Self, cx: &JoinCx<'_>) -> bool {
        let before = self.rows.len();
        let imported: BTreeMap<DotIx, &Row> =
            theirs.rows.iter().map(|(birth, row)| (cx.import(*birth), row)).collect();
        self.rows.retain(|birth, _| imported.contains_key(birth) || !cx.theirs_saw(*birth));
        let mut changed = self.rows.len() < before;
        for (birth, row) in imported {
            if let Some(mine) = self.rows.get_mut(&birth) {
                let new = joined(mine, row, cx);
                changed |= new != *mine;
                *mine = new;
            } else if !cx.mine_saw(birth) {
                let reset_by = row.reset_by.map(|dot| cx.import(dot));
                self.rows.insert(birth, Row { reset_by, ..*row });
                changed = true;
            }
        }
        changed
    }

    fn part(&self, keep: &dyn Fn(DotIx) -> bool) -> Self {
        let wanted = |(birth, row): &(&DotIx, &Row)| {
            keep(**birth)
                || keep(DotIx::new(birth.actor(), row.last))
                || row.reset_by.is_some_and(keep)
        };
        let rows = self.rows.iter().filter(wanted);
        Self { rows: rows.map(|(birth, row)| (*birth, *row)).collect() }
    }

    fn clear(&mut self, txn: &mut Txn<'_>) -> Result<()> {
        self.reset(txn)
    }

    fn reclaim(&mut self, stable: &dyn Fn(DotIx) -> bool) -> usize {
        let before = self.rows.len();
        self.rows.retain(|birth, row| {
            let known =
                stable(DotIx::new(birth.actor(), row.last)) && row.reset_by.is_some_and(stable);
            !(row.is_reset() && known)
        });
        before - self.rows.len()
    }

    fn encode(&self, out: &mut Encoder, order: &Order<'_>) {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_unstable_by_key(|(birth, _)| order.export(**birth));
        out.length(rows.len());
        for (birth, row) in rows {
            order.put(*birth, out);
            out.uint(row.last - birth.seq());
            put_numbers(&row.numbers, out);
            out.byte(u8::from(row.reset_by.is_some()));
            if let Some(dot) = row.reset_by {
                order.put(dot, out);
            }
        }
    }

    fn decode(input: &mut Decoder<'_>, ctx: &Context) -> Result<Self> {
        let mut rows = BTreeMap::new();
        for _ in 0..input.length()? {
            let birth = codec::get(input, ctx)?;
            let last = birth.seq().checked_add(input.uint()?).filter(|&last| last <= SEQ_MAX);
            let last = last.ok_or_else(|| Error::malformed("an event is out of bounds"))?;
            let numbers = get_numbers(input)?;
            let by = input.byte()?;
            let reset_by = if by == 1 { Some(codec::get(input, ctx)?) } else { None };
            codec::seen(ctx, birth.actor(), last)?;
            insert(&mut rows, birth, Row { numbers, last, reset_by })?;
            if by > 1 {
                return Err(Error::malformed("a flag is neither 0 nor 1"));
            }
        }
        Ok(Self { rows })
    }

    fn to_json(&self, order: &Order<'_>) -> Json {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_unstable_by_key(|(birth, _)| order.export(**birth));
        let one = |(birth, row): (&DotIx, &Row)| {
            let mut fields = vec![
                ("birth", order.json(*birth)),
                ("last", json::from_int(row.last)),
                ("counted", updown_to_json(row.numbers.counted)),
                ("reset", updown_to_json(row.numbers.reset)),
            ];
            fields.extend(row.reset_by.map(|dot| ("reset_by", order.json(dot))));
            json::make_object(fields)
        };
        Json::Array(rows.into_iter().map(one).collect())
    }

    fn from_json(value: &Json, ctx: &Context) -> Result<Self> {
        let mut rows = BTreeMap::new();
        for one in json::array(value)? {
            let one = json::object(one)?;
            let birth = codec::get_json(json::field(one, "birth")?, ctx)?;
            let last = json::int(json::field(one, "last")?)?;
            codec::seen(ctx, birth.actor(), last)?;
            let numbers = ResetRow {
                counted: updown_from_json(json::field(one, "counted")?)?,
                reset: updown_from_json(json::field(one, "reset")?)?,
            };
            let reset_by = one.get("reset_by").map(|dot| codec::get_json(dot, ctx)).transpose()?;
            insert(&mut rows, birth, Row { numbers, last, reset_by })?;
        }
        Ok(Self { rows })
    }
}

fn insert(rows: &mut BTreeMap<DotIx, Row>, birth: DotIx, row: Row) -> Result<()> {
    if row.last < birth.seq() {
        return Err(Error::malformed("a row of a counter ends before it begins"));
    }
    match rows.insert(birth, row) {
        None => valid(&row.numbers),
        Some(_) => Err(Error::malformed("an event is live twice")),
    }
}

/// A reset takes away what was counted, never more.
pub(crate) fn valid(row: &ResetRow) -> Result<()> {
    let total = row.counted.up.checked_add(row.counted.down);
    if total.is_none() || row.reset.up > row.counted.up || row.reset.down > row.counted.down {
        return Err(Error::malformed("a row of a counter is out of bounds"));
    }
    Ok(())
}

pub(crate) fn put_numbers(row: &ResetRow, out: &mut Encoder) {
    for number in [row.counted.up, row.counted.down, row.reset.up, row.reset.down] {
        out.uint(number);
    }
}

pub(crate) fn get_numbers(input: &mut Decoder<'_>) -> Result<ResetRow> {
    let mut pair = || Ok(UpDown { up: input.uint()?, down: input.uint()? });
    Ok(ResetRow { counted: pair()?, reset: pair()? })
}

pub(crate) fn updown_to_json(value: UpDown) -> Json {
    Json::Array(vec![json::from_int(value.up), json::from_int(value.down)])
}

pub(crate) fn updown_from_json(value: &Json) -> Result<UpDown> {
    match json::array(value)? {
        [up, down] => Ok(UpDown { up: json::int(up)?, down: json::int(down)? }),
        _ => Err(Error::malformed("a row of a counter is [added, subtracted]")),
    }
}

impl CausalCounter {
    /// Adds `by`, which may be negative.
    pub fn add(&mut self, writer: &mut Writer, by: i64) -> Result<()> {
        self.edit(writer, |counter, txn| counter.add(txn, by))
    }

    /// Resets what is seen here.
    pub fn reset(&mut self, writer: &mut Writer) -> Result<()> {
        self.edit(writer, CounterStore::reset)
    }

    /// What was counted and not reset.
    pub fn value(&self) -> i128 {
        self.store.value()
    }
}
