//! `Serialize` and `Deserialize` by way of the canonical JSON form, envelope included.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

use crate::codec::Codec;
use crate::{
    BoundedCounter, Causal, DotStore, GCounter, GSet, LwwRegister, PnCounter, ResettableCounter,
    Timestamp, TwoPhaseSet, Value, VectorClock,
};

fn serialize<C: Codec, S: Serializer>(state: &C, serializer: S) -> Result<S::Ok, S::Error> {
    let json: Json = serde_json::from_str(&state.to_json()).map_err(serde::ser::Error::custom)?;
    json.serialize(serializer)
}

fn deserialize<'de, C: Codec, D: Deserializer<'de>>(deserializer: D) -> Result<C, D::Error> {
    let json = Json::deserialize(deserializer)?;
    C::from_json(&json.to_string()).map_err(D::Error::custom)
}

macro_rules! by_json {
    ($([$($generics:tt)*] $type:ty;)*) => {$(
        impl<$($generics)*> Serialize for $type {
            fn serialize<Out: Serializer>(&self, serializer: Out) -> Result<Out::Ok, Out::Error> {
                serialize(self, serializer)
            }
        }

        impl<'de, $($generics)*> Deserialize<'de> for $type {
            fn deserialize<In: Deserializer<'de>>(deserializer: In) -> Result<Self, In::Error> {
                deserialize(deserializer)
            }
        }
    )*};
}

by_json! {
    [] VectorClock;
    [] GCounter;
    [] PnCounter;
    [] ResettableCounter;
    [] BoundedCounter;
    [V: Value] LwwRegister<V>;
    [T: Value] GSet<T>;
    [T: Value] TwoPhaseSet<T>;
    [S: DotStore] Causal<S>;
    [] crate::Rga;
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}
