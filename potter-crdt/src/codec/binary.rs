//! The binary format's words.

use crate::{ActorId, Error, Result};

/// Writes the binary format.
#[derive(Debug, Default)]
pub struct Encoder {
    out: Vec<u8>,
}

impl Encoder {
    /// One byte.
    pub fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    /// An unsigned integer: LEB128, 1 to 10 bytes.
    #[expect(clippy::cast_possible_truncation, reason = "the low seven bits are wanted")]
    pub fn uint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// A signed integer: zigzag, then as [`Encoder::uint`].
    #[expect(clippy::cast_sign_loss, reason = "zigzag is defined on the bits")]
    pub fn int(&mut self, value: i64) {
        self.uint(((value << 1) ^ (value >> 63)) as u64);
    }

    /// A length.
    pub fn length(&mut self, length: usize) {
        self.uint(length as u64);
    }

    /// Bytes with their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.out.extend_from_slice(bytes);
    }

    /// Text with its length in bytes.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(crate) fn actor(&mut self, actor: &ActorId) {
        self.text(actor.as_str());
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

/// Reads the binary format. Every read checks what is left; nothing is reserved on a length's
/// word alone.
#[derive(Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Over `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8> {
        let (&first, rest) = self.rest.split_first().ok_or_else(short)?;
        self.rest = rest;
        Ok(first)
    }

    /// An unsigned integer.
    pub fn uint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for at in 0..10 {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (at == 9 && bits > 1) || (at > 0 && byte == 0) {
                return Err(Error::malformed("an integer is too long"));
            }
            value |= bits << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::malformed("an integer is too long"))
    }

    /// A signed integer.
    #[expect(clippy::cast_possible_wrap, reason = "zigzag is defined on the bits")]
    pub fn int(&mut self) -> Result<i64> {
        let value = self.uint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// How many things follow, of at least one byte each.
    pub fn length(&mut self) -> Result<usize> {
        let length = usize::try_from(self.uint()?).map_err(|_| short())?;
        if length > self.rest.len() { Err(short()) } else { Ok(length) }
    }

    /// Bytes with their length.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.length()?;
        let (bytes, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(bytes)
    }

    /// Text with its length.
    pub fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Error::malformed("a text is not UTF-8"))
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn actor(&mut self) -> Result<ActorId> {
        ActorId::new(self.text()?).map_err(|error| Error::malformed(error.to_string()))
    }

    pub(crate) fn finish(&self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::malformed(format!("{} bytes are left after the state", self.rest.len())))
    }
}

fn short() -> Error {
    Error::malformed("the input ends too early")
}
