//! The name of a stream.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// The longest stream id, in bytes of UTF-8.
const BYTES_MAX: usize = 255;

/// How many segments streams are spread over.
pub const SEGMENTS: u16 = 4096;

/// Names a stream: its type, a hyphen, its id (`order-42`). The type has no hyphen, so that it
/// can be told from the id; both are non-empty, 255 bytes in all. Cheap to clone.
///
/// ```
/// use potter_eventsourcing::StreamId;
///
/// let stream = StreamId::new("order", 42)?;
/// assert_eq!(stream.as_str(), "order-42");
/// assert_eq!((stream.stream_type(), stream.id()), ("order", "42"));
/// # Ok::<(), potter_eventsourcing::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamId(Arc<str>);

impl StreamId {
    /// The stream of the thing of type `stream_type` with this `id`.
    ///
    /// # Errors
    /// `InvalidInput` when one is empty, the type has a hyphen, there is a NUL character, or it
    /// is too long.
    pub fn new(stream_type: &str, id: impl fmt::Display) -> Result<Self> {
        if stream_type.contains('-') {
            let message = format!("the stream type \"{stream_type}\" has a hyphen: use _ or .");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Self::parse(format!("{stream_type}-{id}"))
    }

    /// Takes the whole text, as [`as_str`](Self::as_str) gives it.
    ///
    /// # Errors
    /// `InvalidInput` as for [`new`](Self::new).
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let bytes = text.len();
        let parts = text.split_once('-');
        if !parts.is_some_and(|(stream_type, id)| !stream_type.is_empty() && !id.is_empty()) {
            let message = format!("the stream id \"{text}\" is not of the form type-id");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if bytes > BYTES_MAX || text.contains('\0') {
            let message = format!(
                "a stream id has at most {BYTES_MAX} bytes and no NUL character; this one has {bytes} bytes"
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(Self(text.into()))
    }

    /// What kind of thing the stream is of.
    pub fn stream_type(&self) -> &str {
        self.0.split_once('-').map_or("", |(stream_type, _)| stream_type)
    }

    /// Which one it is.
    pub fn id(&self) -> &str {
        self.0.split_once('-').map_or("", |(_, id)| id)
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which of the [`SEGMENTS`] the stream belongs to: FNV-1a of its bytes, folded. Stored with
    /// every event, so this function never changes.
    pub fn segment(&self) -> u16 {
        let hash = self.0.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let folded = hash ^ (hash >> 32);
        u16::try_from((folded ^ (folded >> 16)) % u64::from(SEGMENTS)).unwrap_or(0)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for StreamId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(text)
    }
}

impl From<StreamId> for String {
    fn from(stream: StreamId) -> Self {
        stream.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_ids_are_refused() {
        for (stream_type, id) in [("", "1"), ("order", ""), ("a-b", "1"), ("order", "\0")] {
            assert!(StreamId::new(stream_type, id).is_err(), "{stream_type:?} {id:?}");
        }
        assert!(StreamId::new("order", "x".repeat(249)).is_ok());
        assert!(StreamId::new("order", "x".repeat(250)).is_err());
        assert_eq!(StreamId::new("order", "a-b").unwrap().id(), "a-b");
    }

    /// The segment is stored: a change here would tear streams apart.
    #[test]
    fn segment_of_known_ids_is_frozen() {
        let segment = |text: &str| StreamId::parse(text).unwrap().segment();
        assert_eq!(["order-1", "order-2", "account-ü", "a-b"].map(segment), GOLDEN);
    }

    const GOLDEN: [u16; 4] = [680, 1169, 2694, 2532];

    #[test]
    fn segments_are_even() {
        let mut counts = vec![0u32; usize::from(SEGMENTS)];
        for n in 0..409_600 {
            counts[usize::from(StreamId::new("order", n).unwrap().segment())] += 1;
        }
        let (min, max) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(*min > 40 && *max < 180, "{min} to {max} where 100 are expected");
    }
}
