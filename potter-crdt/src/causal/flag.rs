//! A flag in which enabling wins over concurrent disabling.
//!
//! Invariant: the flag is on as long as one of its enabling events is live.

use serde_json::Value as Json;

use crate::actor::DotIx;
use crate::causal::codec::{self, Order};
use crate::causal::{Causal, DotStore, JoinCx, Txn};
use crate::codec::{Decoder, Encoder, json};
use crate::{Context, Dot, Error, Result, Writer};

/// An enable-wins flag.
///
/// ```
/// use potter_crdt::{ActorId, EnableWinsFlag, Join, Writer};
///
/// let mut writer = Writer::new(ActorId::new("a")?);
/// let mut here = EnableWinsFlag::new();
/// here.enable(&mut writer)?;
/// let mut there = here.clone();
/// there.disable();
/// here.enable(&mut writer)?; // at the same time
/// here.join(&there)?;
/// assert!(here.is_enabled());
/// # Ok::<(), potter_crdt::Error>(())
/// ```
pub type EnableWinsFlag = Causal<FlagStore>;

/// The enabling events of an [`EnableWinsFlag`].
#[derive(Clone, Debug, Default)]
pub struct FlagStore {
    dots: Vec<DotIx>,
}

impl FlagStore {
    /// Switches on.
    pub fn enable(&mut self, txn: &mut Txn<'_>) -> Result<Dot> {
        let dot = txn.mint()?;
        self.dots.clear();
        self.dots.push(dot);
        Ok(txn.dot(dot))
    }

    /// Switches off what is seen here; true if it was on.
    pub fn disable(&mut self) -> bool {
        let was = self.is_enabled();
        self.dots.clear();
        was
    }

    /// Is it on?
    pub fn is_enabled(&self) -> bool {
        !self.dots.is_empty()
    }
}

impl DotStore for FlagStore {
    const TYPE: &'static str = "EWFlag";
    const TAG: u8 = 9;

    fn is_empty(&self) -> bool {
        self.dots.is_empty()
    }

    fn each_dot(&self, each: &mut dyn FnMut(DotIx)) {
        self.dots.iter().for_each(|dot| each(*dot));
    }

    fn check(&self, _: &Self, _: &JoinCx<'_>) -> Result<()> {
        Ok(())
    }

    fn merge(&mut self, theirs: &Self, cx: &JoinCx<'_>) -> bool {
        let before = self.dots.len();
        let imported: Vec<DotIx> = theirs.dots.iter().map(|dot| cx.import(*dot)).collect();
        self.dots.retain(|dot| imported.contains(dot) || !cx.theirs_saw(*dot));
        let kept = self.dots.len();
        self.dots.extend(imported.into_iter().filter(|dot| !cx.mine_saw(*dot)));
        kept < before || self.dots.len() > kept
    }

    fn part(&self, keep: &dyn Fn(DotIx) -> bool) -> Self {
        Self { dots: self.dots.iter().copied().filter(|dot| keep(*dot)).collect() }
    }

    fn clear(&mut self, _: &mut Txn<'_>) -> Result<()> {
        self.dots.clear();
        Ok(())
    }

    fn encode(&self, out: &mut Encoder, order: &Order<'_>) {
        let mut dots = self.dots.clone();
        dots.sort_unstable_by_key(|dot| order.export(*dot));
        out.length(dots.len());
        dots.into_iter().for_each(|dot| order.put(dot, out));
    }

    fn decode(input: &mut Decoder<'_>, ctx: &Context) -> Result<Self> {
        let mut out = Self::default();
        for _ in 0..input.length()? {
            let dot = codec::get(input, ctx)?;
            if out.dots.last().is_some_and(|last| *last >= dot) {
                return Err(Error::malformed("the events of a flag are not in order"));
            }
            out.dots.push(dot);
        }
        Ok(out)
    }

    fn to_json(&self, order: &Order<'_>) -> Json {
        let mut dots = self.dots.clone();
        dots.sort_unstable_by_key(|dot| order.export(*dot));
        Json::Array(dots.into_iter().map(|dot| order.json(dot)).collect())
    }

    fn from_json(value: &Json, ctx: &Context) -> Result<Self> {
        let dots: Vec<DotIx> = json::array(value)?
            .iter()
            .map(|dot| codec::get_json(dot, ctx))
            .collect::<Result<_>>()?;
        let mut sorted = dots.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() < dots.len() {
            return Err(Error::malformed("an event is live twice"));
        }
        Ok(Self { dots })
    }
}

impl EnableWinsFlag {
    /// Switches on.
    pub fn enable(&mut self, writer: &mut Writer) -> Result<Dot> {
        self.edit(writer, FlagStore::enable)
    }

    /// Switches off what is seen here, and returns the delta to send.
    pub fn disable(&mut self) -> Self {
        let delta = self.removal_of(self.store.dots.iter().copied());
        self.store.disable();
        delta
    }

    /// Is it on?
    pub fn is_enabled(&self) -> bool {
        self.store.is_enabled()
    }
}
