//! W3C trace context: the `traceparent` header, read and written without a tracing system.

use std::fmt;

use uuid::Uuid;

/// Which trace a request belongs to, and the span that it comes from (W3C Trace Context,
/// version 00).
///
/// ```
/// use potter_core::TraceContext;
///
/// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let parent = TraceContext::parse(header).unwrap();
/// let here = parent.child();
/// assert_eq!(here.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
/// assert_ne!(here.span_id(), parent.span_id());
/// assert_eq!(parent.to_string(), header);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceContext {
    /// From its numbers; `None` when an id is zero, which the standard forbids.
    pub fn from_parts(trace_id: u128, span_id: u64, sampled: bool) -> Option<Self> {
        let valid = trace_id != 0 && span_id != 0;
        valid.then_some(Self { trace: trace_id, span: span_id, flags: u8::from(sampled) })
    }

    /// Reads a `traceparent` header; `None` when it is not valid, and a new trace must be begun.
    pub fn parse(header: &str) -> Option<Self> {
        let header = header.trim();
        let mut parts = header.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let version = hex(version, 2)?;
        // Later versions may add parts at the end; version 00 has none, 255 is forbidden.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let flags = u8::try_from(hex(flags, 2)?).ok()?;
        let span = u64::try_from(hex(span, 16)?).ok()?;
        Self::from_parts(hex(trace, 32)?, span, flags & 1 == 1)
    }

    /// A new trace with random ids, sampled.
    pub fn root() -> Self {
        // A version 4 UUID has fixed bits that are set, so it is never zero.
        Self { trace: Uuid::new_v4().as_u128(), span: random_span(), flags: 1 }
    }

    /// The same trace with a new span id.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span: random_span(), ..*self }
    }

    /// 32 lower-case hex digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// 16 lower-case hex digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span)
    }

    /// The trace and span id as numbers.
    pub fn parts(&self) -> (u128, u64) {
        (self.trace, self.span)
    }

    /// Whether the caller records the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

fn random_span() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    (high ^ low).max(1)
}

/// Exactly `digits` lower-case hex digits, as the standard wants them.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != digits || !text.bytes().all(lower) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn what_the_standard_forbids_is_refused() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for bad in [
            String::new(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-01-more"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{trace}-{span}-1"),
            format!("00-+{}-{span}-01", &trace[1..]),
        ] {
            assert_eq!(TraceContext::parse(&bad), None, "{bad}");
        }
        assert!(TraceContext::parse(&format!("01-{trace}-{span}-00-more")).is_some());
    }

    proptest! {
        #[test]
        fn written_and_read_is_the_same(trace in 1u128.., span in 1u64.., sampled: bool) {
            let context = TraceContext::from_parts(trace, span, sampled);
            prop_assert_eq!(context.and_then(|c| TraceContext::parse(&c.to_string())), context);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".*") {
            let _ = TraceContext::parse(&text);
        }
    }
}
