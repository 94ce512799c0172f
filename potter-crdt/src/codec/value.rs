//! Plain values: what sets, registers and maps hold.
//!
//! Invariant: equal values have equal bytes; `decode(encode(x)) = x` in both formats; a value
//! takes at least one byte.

use std::fmt::Debug;
use std::hash::Hash;

use serde_json::Value as Json;

use crate::codec::{Decoder, Encoder, json};
use crate::{Error, Result};

/// A value that states hold. Implemented for integers, `bool`, `String`, `Vec<u8>`, pairs and
/// [`JsonValue`]; implement it for your own types by way of these.
pub trait Value: Clone + Debug + Ord + Hash {
    /// Writes the value, at least one byte.
    fn encode(&self, out: &mut Encoder);
    /// Reads it back.
    fn decode(input: &mut Decoder<'_>) -> Result<Self>;
    /// The value as JSON.
    fn to_json(&self) -> Json;
    /// Reads it back.
    fn from_json(json: &Json) -> Result<Self>;

    /// The bytes that decide a tie between two values.
    fn canonical_bytes(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        self.encode(&mut out);
        out.into_bytes()
    }
}

impl Value for u64 {
    fn encode(&self, out: &mut Encoder) {
        out.uint(*self);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        input.uint()
    }

    fn to_json(&self) -> Json {
        json::from_int(*self)
    }

    fn from_json(json: &Json) -> Result<Self> {
        json::int(json)
    }
}

impl Value for u32 {
    fn encode(&self, out: &mut Encoder) {
        out.uint(u64::from(*self));
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        Self::try_from(input.uint()?).map_err(|_| Error::malformed("an integer is above 2^32 - 1"))
    }

    fn to_json(&self) -> Json {
        (*self).into()
    }

    fn from_json(json: &Json) -> Result<Self> {
        Self::try_from(json::int(json)?)
            .map_err(|_| Error::malformed("an integer is above 2^32 - 1"))
    }
}

impl Value for i64 {
    fn encode(&self, out: &mut Encoder) {
        out.int(*self);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        input.int()
    }

    fn to_json(&self) -> Json {
        json::from_signed(*self)
    }

    fn from_json(json: &Json) -> Result<Self> {
        json::signed(json)
    }
}

impl Value for bool {
    fn encode(&self, out: &mut Encoder) {
        out.byte(u8::from(*self));
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        match input.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Error::malformed("a boolean is neither 0 nor 1")),
        }
    }

    fn to_json(&self) -> Json {
        (*self).into()
    }

    fn from_json(json: &Json) -> Result<Self> {
        json.as_bool().ok_or_else(|| Error::malformed("a boolean was expected"))
    }
}

impl Value for String {
    fn encode(&self, out: &mut Encoder) {
        out.text(self);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        input.text().map(str::to_owned)
    }

    fn to_json(&self) -> Json {
        self.as_str().into()
    }

    fn from_json(json: &Json) -> Result<Self> {
        json::text(json).map(str::to_owned)
    }
}

/// Lower-case hexadecimal digits in JSON.
impl Value for Vec<u8> {
    fn encode(&self, out: &mut Encoder) {
        out.bytes(self);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        input.bytes().map(<[u8]>::to_vec)
    }

    fn to_json(&self) -> Json {
        self.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
    }

    fn from_json(json: &Json) -> Result<Self> {
        let bad = || Error::malformed("bytes are an even number of hexadecimal digits");
        let digits = json::text(json)?.as_bytes();
        if digits.len() % 2 != 0 {
            return Err(bad());
        }
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(bad()),
        };
        digits.chunks_exact(2).map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
    }
}

impl<A: Value, B: Value> Value for (A, B) {
    fn encode(&self, out: &mut Encoder) {
        self.0.encode(out);
        self.1.encode(out);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        Ok((A::decode(input)?, B::decode(input)?))
    }

    fn to_json(&self) -> Json {
        Json::Array(vec![self.0.to_json(), self.1.to_json()])
    }

    fn from_json(json: &Json) -> Result<Self> {
        match json::array(json)? {
            [a, b] => Ok((A::from_json(a)?, B::from_json(b)?)),
            _ => Err(Error::malformed("a pair is an array of two")),
        }
    }
}

/// Any JSON, held as its canonical text: two spellings of one value are one value.
///
/// ```
/// use potter_crdt::JsonValue;
///
/// let a = JsonValue::parse(r#"{ "b": 1.0, "a": [true] }"#)?;
/// assert_eq!(a.as_str(), r#"{"a":[true],"b":1}"#);
/// # Ok::<(), potter_crdt::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JsonValue(String);

impl JsonValue {
    /// Reads JSON text.
    pub fn parse(text: &str) -> Result<Self> {
        let json: Json = serde_json::from_str(text)
            .map_err(|error| Error::malformed(format!("this is no JSON: {error}")))?;
        Ok(Self::from(&json))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value.
    pub fn to_value(&self) -> Json {
        serde_json::from_str(&self.0).unwrap_or(Json::Null)
    }
}

impl From<&Json> for JsonValue {
    fn from(json: &Json) -> Self {
        Self(json::canonical(json))
    }
}

impl From<Json> for JsonValue {
    fn from(json: Json) -> Self {
        Self::from(&json)
    }
}

impl From<&str> for JsonValue {
    /// A JSON string.
    fn from(text: &str) -> Self {
        Self::from(&Json::from(text))
    }
}

impl Debug for JsonValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for JsonValue {
    fn encode(&self, out: &mut Encoder) {
        out.text(&self.0);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        let text = input.text()?;
        let value = Self::parse(text)?;
        if value.0 == text { Ok(value) } else { Err(Error::malformed("JSON is not canonical")) }
    }

    fn to_json(&self) -> Json {
        self.to_value()
    }

    fn from_json(json: &Json) -> Result<Self> {
        Ok(Self::from(json))
    }
}
