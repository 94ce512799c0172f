//! A reader for EDN and JSON that works on one form of a history at a time.
//!
//! JSON is read by the same code: commas are white space in EDN anyway, and colons are in JSON.

use std::io::BufRead;

use arcstr::{ArcStr, literal};
use thin_vec::ThinVec;

use crate::error::{Error, ErrorKind, Result};
use crate::value::Value;

/// Nesting beyond this is refused, so that no input overflows the stack.
const DEPTH_MAX: usize = 64;

/// Parses one value from the start of `text`; what follows it is ignored.
pub(crate) fn parse(text: &str, json: bool, line: u64) -> Result<Value> {
    let mut parser = Parser { text: text.as_bytes(), at: 0, json, line };
    parser.value(0)?.ok_or_else(|| parser.error("a value is missing"))
}

struct Parser<'t> {
    text: &'t [u8],
    at: usize,
    json: bool,
    line: u64,
}

/// The text as a value has it. The words that histories repeat most are not stored again.
pub(crate) fn word(text: &str) -> ArcStr {
    match text {
        "r" => literal!("r"),
        "w" => literal!("w"),
        "append" => literal!("append"),
        "read" => literal!("read"),
        "write" => literal!("write"),
        "cas" => literal!("cas"),
        "txn" => literal!("txn"),
        "type" => literal!("type"),
        "invoke" => literal!("invoke"),
        "ok" => literal!("ok"),
        "process" => literal!("process"),
        "value" => literal!("value"),
        other => other.into(),
    }
}

/// A number that is no `i64`, written in one way: `1.50` is `1.5`, `007e2` is `700.0`.
fn number(text: &str) -> String {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let sign = if digits.len() < text.len() { "-" } else { "" };
        return format!("{sign}{}", digits.trim_start_matches('0'));
    }
    match text.parse::<f64>() {
        Ok(float) if float.is_finite() => format!("{float:?}"),
        _ => text.to_owned(),
    }
}

impl Parser<'_> {
    fn error(&self, message: impl std::fmt::Display) -> Error {
        let before = &self.text[..self.at.min(self.text.len())];
        let lines = before.iter().filter(|&&b| b == b'\n').count() as u64;
        Error::at(ErrorKind::Syntax, self.line + lines, message.to_string())
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) -> Result<()> {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | b',' => self.at += 1,
                b':' if self.json => self.at += 1,
                b';' if !self.json => {
                    while self.peek().is_some_and(|b| b != b'\n') {
                        self.at += 1;
                    }
                }
                b'#' if self.text.get(self.at + 1) == Some(&b'_') => {
                    self.at += 2;
                    self.value(1)?;
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// The next value; `None` before a closing bracket and at the end.
    fn value(&mut self, depth: usize) -> Result<Option<Value>> {
        if depth > DEPTH_MAX {
            return Err(self.error(format!("values are nested more than {DEPTH_MAX} deep")));
        }
        self.skip_space()?;
        let Some(byte) = self.peek() else { return Ok(None) };
        Ok(Some(match byte {
            b']' | b')' | b'}' => return Ok(None),
            b'[' => Value::List(self.items(b']', depth)?),
            b'(' => Value::List(self.items(b')', depth)?),
            b'{' => self.map(depth)?,
            b'"' => Value::Str(word(&self.string()?)),
            b'\\' => {
                self.at += 1;
                Value::Str(self.token(true).into())
            }
            b':' => {
                self.at += 1;
                Value::Keyword(word(&self.token(true)))
            }
            b'#' => return self.tagged(depth).map(Some),
            b'^' | b'\'' => {
                if byte == b'^' {
                    self.at += 1;
                    self.value(depth + 1)?;
                } else {
                    self.at += 1;
                }
                return self.value(depth + 1);
            }
            _ => self.atom()?,
        }))
    }

    fn items(&mut self, close: u8, depth: usize) -> Result<ThinVec<Value>> {
        self.at += 1;
        let mut items = Vec::new();
        while let Some(item) = self.value(depth + 1)? {
            items.push(item);
        }
        if self.peek() != Some(close) {
            return Err(self.error(format!("'{}' is missing", close as char)));
        }
        self.at += 1;
        // Into exactly as much room as they need.
        Ok(items.into())
    }

    fn map(&mut self, depth: usize) -> Result<Value> {
        let items = self.items(b'}', depth)?;
        if items.len() % 2 == 1 {
            return Err(self.error("a map has a key without a value"));
        }
        let mut entries = ThinVec::with_capacity(items.len() / 2);
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            entries.push((key, value));
        }
        Ok(Value::Map(entries))
    }

    /// `#{…}` is a set; of any other tag (`#inst "…"`, `#knossos.op.Op{…}`) only the value counts.
    fn tagged(&mut self, depth: usize) -> Result<Value> {
        self.at += 1;
        if self.peek() == Some(b'{') {
            return Ok(Value::Set(self.items(b'}', depth)?));
        }
        let tag = self.token(true);
        if tag == "#NaN" || tag == "#Inf" || tag == "#-Inf" {
            return Ok(Value::Number(tag.trim_start_matches('#').into()));
        }
        match self.value(depth + 1)? {
            Some(Value::Keyword(name)) if tag.is_empty() || tag == "#" => Ok(Value::Number(name)),
            Some(value) => Ok(value),
            None => Err(self.error(format!("the tag #{tag} has no value"))),
        }
    }

    fn token(&mut self, any: bool) -> String {
        let start = self.at;
        while let Some(byte) = self.peek() {
            let ends = byte.is_ascii_whitespace()
                || matches!(byte, b',' | b'[' | b']' | b'(' | b')' | b'{' | b'}' | b'"' | b';')
                || (self.json && byte == b':' && !any);
            if ends {
                break;
            }
            self.at += 1;
        }
        if self.at == start && self.at < self.text.len() && any {
            // A character literal of a delimiter.
            self.at += 1;
        }
        String::from_utf8_lossy(&self.text[start..self.at]).into_owned()
    }

    fn atom(&mut self) -> Result<Value> {
        let token = self.token(false);
        if token.is_empty() {
            return Err(self.error("a character that begins no value"));
        }
        Ok(match token.as_str() {
            "nil" | "null" => Value::Nil,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => {
                let digits = token.trim_start_matches(['+', '-']);
                if !digits.starts_with(|c: char| c.is_ascii_digit()) {
                    return Ok(Value::Keyword(word(&token)));
                }
                let whole = token.trim_end_matches('N').trim_start_matches('+');
                match whole.parse() {
                    Ok(number) => Value::Int(number),
                    Err(_) => Value::Number(number(whole).into()),
                }
            }
        })
    }

    fn string(&mut self) -> Result<String> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let Some(byte) = self.peek() else {
                return Err(self.error("a string has no end"));
            };
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => self.escape(&mut out)?,
                other => out.push(other),
            }
        }
        String::from_utf8(out).map_err(|_| self.error("a string is not UTF-8"))
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let Some(byte) = self.peek() else {
            return Err(self.error("a string has no end"));
        };
        self.at += 1;
        match byte {
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'r' => out.push(b'\r'),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'u' => {
                let mut code = self.hex4()?;
                if (0xD800..0xDC00).contains(&code) && self.text[self.at..].starts_with(b"\\u") {
                    self.at += 2;
                    code = 0x1_0000
                        + ((code - 0xD800) << 10)
                        + (self.hex4()?.wrapping_sub(0xDC00) & 0x3FF);
                }
                let c = char::from_u32(code).unwrap_or('\u{FFFD}');
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => out.push(other),
        }
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32> {
        let digits = self.text.get(self.at..self.at + 4).and_then(|d| std::str::from_utf8(d).ok());
        let Some(code) = digits.and_then(|d| u32::from_str_radix(d, 16).ok()) else {
            return Err(self.error("\\u needs four hexadecimal digits"));
        };
        self.at += 4;
        Ok(code)
    }
}

/// Cuts a text into its operation maps, without ever holding more than one: the maps may stand one
/// a line, over several lines, or in one vector or list around all.
pub(crate) struct Forms<R> {
    input: R,
    form: Vec<u8>,
    rest: Vec<u8>,
    rest_at: usize,
    line: u64,
    json: bool,
}

impl<R: BufRead> Forms<R> {
    pub(crate) fn new(input: R, json: bool) -> Self {
        Self { input, form: Vec::new(), rest: Vec::new(), rest_at: 0, line: 0, json }
    }

    fn fill(&mut self) -> Result<bool> {
        self.rest.clear();
        self.rest_at = 0;
        self.line += 1;
        let read = self.input.read_until(b'\n', &mut self.rest);
        Ok(read.map_err(|error| Error::read(error, self.line))? > 0)
    }

    /// The next map and the line it begins on.
    pub(crate) fn next_map(&mut self) -> Result<Option<(u64, Value)>> {
        self.form.clear();
        let (mut depth, mut in_string, mut escaped, mut begin) = (0_usize, false, false, 0);
        loop {
            if self.rest_at >= self.rest.len() && !self.fill()? {
                if depth > 0 {
                    let message = "the text ends inside of an operation that begins here";
                    return Err(Error::at(ErrorKind::Syntax, begin, message));
                }
                return Ok(None);
            }
            let byte = self.rest[self.rest_at];
            self.rest_at += 1;
            if in_string {
                self.form.push(byte);
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b';' if !self.json => {
                    self.rest_at = self.rest.len();
                    if depth > 0 {
                        self.form.push(b'\n');
                    }
                    continue;
                }
                b'\\' if depth > 0 && !self.json => {
                    self.form.push(byte);
                    if self.rest_at < self.rest.len() {
                        self.form.push(self.rest[self.rest_at]);
                        self.rest_at += 1;
                    }
                    continue;
                }
                b'"' if depth > 0 => in_string = true,
                b'{' => {
                    if depth == 0 {
                        begin = self.line;
                    }
                    depth += 1;
                }
                b'[' | b'(' if depth > 0 => depth += 1,
                b']' | b')' | b'}' if depth > 0 => {
                    depth -= 1;
                    if depth == 0 {
                        self.form.push(byte);
                        let text = String::from_utf8_lossy(&self.form);
                        return Ok(Some((begin, parse(&text, self.json, begin)?)));
                    }
                }
                _ => {}
            }
            if depth > 0 {
                self.form.push(byte);
            }
        }
    }
}
