//! The two formats.
//!
//! Invariant: equal states have equal bytes in either format, `decode(encode(x)) = x`, and no
//! input makes a decoder panic, loop, or take memory beyond a small multiple of the input's size.
//!
//! Binary: `50 C4`, the version (1), the type's tag, the body; integers are LEB128, actors are
//! named once in a table and sequence numbers are ranges. JSON:
//! `{"state":…,"type":"ORSet","version":1}` with sorted keys and no spaces; integers above
//! 2^53 - 1 are strings, so that a JavaScript reader does not round them. Golden files of both are
//! in `tests/golden`.

pub(crate) mod binary;
pub(crate) mod json;
#[cfg(feature = "serde")]
mod serde_impl;
mod tables;
pub(crate) mod value;

use serde_json::{Map, Value as Json};

pub use binary::{Decoder, Encoder};

use crate::{Error, ErrorKind, Result};

/// The format version that this release writes.
pub const FORMAT_VERSION: u8 = 1;
/// The longest input that is decoded, in bytes: 64 MiB.
pub const INPUT_BYTES_MAX: usize = 64 << 20;
const MAGIC: [u8; 2] = [0x50, 0xC4];

/// States that can be written and read.
pub trait Codec: Sized {
    /// The type's name in JSON.
    const TYPE: &'static str;
    /// The type's byte in the binary format.
    const TAG: u8;

    /// The body in the binary format.
    fn encode_body(&self, out: &mut Encoder);

    /// Reads a body. [`ErrorKind::Malformed`] for anything that no state encodes to.
    fn decode_body(input: &mut Decoder<'_>) -> Result<Self>;

    /// The body as JSON.
    fn body_to_json(&self) -> Json;

    /// Reads the JSON of a body.
    fn body_from_json(json: &Json) -> Result<Self>;

    /// The state in the binary format.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.raw(&MAGIC);
        out.byte(FORMAT_VERSION);
        out.byte(Self::TAG);
        self.encode_body(&mut out);
        out.into_bytes()
    }

    /// Reads the binary format.
    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        limit(bytes.len())?;
        let mut input = Decoder::new(bytes);
        if [input.byte()?, input.byte()?] != MAGIC {
            return Err(Error::malformed("the bytes do not begin as a state of potter-crdt"));
        }
        version(u64::from(input.byte()?))?;
        let tag = input.byte()?;
        if tag != Self::TAG {
            return Err(Error::new(
                ErrorKind::WrongType,
                format!("the bytes hold type {tag}, not {} ({})", Self::TAG, Self::TYPE),
            ));
        }
        let state = Self::decode_body(&mut input)?;
        input.finish()?;
        Ok(state)
    }

    /// The state as canonical JSON.
    fn to_json(&self) -> String {
        let mut envelope = Map::new();
        envelope.insert("type".into(), Self::TYPE.into());
        envelope.insert("version".into(), FORMAT_VERSION.into());
        envelope.insert("state".into(), self.body_to_json());
        json::canonical(&Json::Object(envelope))
    }

    /// Reads JSON; keys may come in any order, with spaces, and unknown keys are passed over.
    fn from_json(text: &str) -> Result<Self> {
        limit(text.len())?;
        let envelope: Json = serde_json::from_str(text)
            .map_err(|error| Error::malformed(format!("this is no JSON: {error}")))?;
        let object = json::object(&envelope)?;
        version(json::int(json::field(object, "version")?)?)?;
        let name = json::text(json::field(object, "type")?)?;
        if name != Self::TYPE {
            return Err(Error::new(
                ErrorKind::WrongType,
                format!("the JSON holds a {name:.40}, not a {}", Self::TYPE),
            ));
        }
        Self::body_from_json(json::field(object, "state")?)
    }
}

fn limit(bytes: usize) -> Result<()> {
    if bytes <= INPUT_BYTES_MAX {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::LimitExceeded,
        format!("an input has at most {INPUT_BYTES_MAX} bytes, this has {bytes}"),
    ))
}

fn version(found: u64) -> Result<()> {
    if found == u64::from(FORMAT_VERSION) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::UnsupportedVersion,
        format!("format version {found} is not known here, only {FORMAT_VERSION}"),
    ))
}
