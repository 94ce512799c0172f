//! Models by name, as files of verdicts and command lines write them.

use crate::checkers::{
    Bank, Comments, Counter, EventStore, Eventual, LongFork, Monotonic, Sagas, Sequential, Set,
    SetFull, TotalQueue,
};
use crate::error::{Error, ErrorKind, Result};
use crate::linear::{
    self, FailedCas, Fifo, KeyValue, Linearizability, MultiRegister, Mutex, Register, SetModel,
    Stack, UnorderedQueue,
};
use crate::load::Format;
use crate::syntax;
use crate::txn::{Level, ListAppend, Options, RwRegister};
use crate::value::Value;
use crate::verdict::Checker;

/// Parameters that a word alone sets.
const FLAGS: [&str; 9] = [
    "independent",
    "keyed",
    "linearizable",
    "linearizable-keys",
    "sequential-keys",
    "wfr-keys",
    "realtime",
    "negative-balances",
    "allow-negative-balances",
];

/// The text cut at white space outside of brackets and quotes.
fn words(text: &str) -> Vec<&str> {
    let (mut out, mut depth, mut quoted, mut start) = (Vec::new(), 0_usize, false, None);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '[' | '{' | '(' if !quoted => depth += 1,
            ']' | '}' | ')' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if c.is_whitespace() && depth == 0 && !quoted {
            out.extend(start.take().map(|start| &text[start..at]));
        } else {
            start = start.or(Some(at));
        }
    }
    out.extend(start.map(|start| &text[start..]));
    out
}

/// An entry under its key, and under the text that JSON has in place of a keyword.
fn as_json_too(key: Value, value: Value) -> Vec<(Value, Value)> {
    let mut entries = Vec::new();
    if let Value::Keyword(name) = &key {
        entries.push((Value::Str(name.clone()), value.clone()));
    }
    entries.push((key, value));
    entries
}

/// A parameter's name as it is looked up: `:linearizable-keys?` is `linearizable-keys`.
fn parameter(name: &str) -> String {
    name.trim_matches(['-', ':', '?', ',']).to_ascii_lowercase().replace('_', "-")
}

/// A model with its parameters: `cas-register init=nil`, `list-append level=serializable`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    name: String,
    parameters: Vec<(String, String)>,
}

impl Spec {
    /// Every name that [`Spec::checker`] knows.
    pub const NAMES: [&'static str; 25] = [
        "register",
        "cas-register",
        "multi-register",
        "kv",
        "mutex",
        "queue",
        "unordered-queue",
        "stack",
        "linear-set",
        "linear-counter",
        "list-append",
        "rw-register",
        "transactions",
        "bank",
        "set",
        "set-full",
        "comments",
        "total-queue",
        "counter",
        "monotonic",
        "long-fork",
        "sequential",
        "eventual",
        "saga",
        "event-store",
    ];

    /// Reads a name and `parameter=value` pairs. A word that is the name of a flag, such as
    /// `linearizable-keys`, sets it; other words are remarks. A value may have brackets with spaces
    /// between: `init={:x 0 :y 0}`. The library that a model comes from may stand before its name:
    /// `elle-list-append`, `knossos-mutex`, `jepsen-bank`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut words = words(text).into_iter();
        let Some(name) = words.next() else {
            return Err(Error::new(ErrorKind::Unsupported, "the model's name is missing"));
        };
        let parameters = words
            .filter_map(|word| match word.split_once('=') {
                Some((name, value)) => Some((parameter(name), value.to_owned())),
                None => {
                    let name = parameter(word);
                    FLAGS.contains(&name.as_str()).then(|| (name, "true".to_owned()))
                }
            })
            .collect();
        let name = name.trim_end_matches([':', ',']).to_ascii_lowercase().replace('_', "-");
        let plain = ["elle-", "knossos-", "jepsen-"].iter().find_map(|of| name.strip_prefix(of));
        Ok(Self { name: plain.unwrap_or(&name).to_owned(), parameters })
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same with one more parameter, which counts before an earlier one of the same name.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.insert(0, (name.to_owned(), value.to_owned()));
        self
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| matches!(value, "true" | "yes" | "1"))
    }

    /// The initial values of several registers: one for all, a map, or `x=0 y=0`.
    fn initials(&self) -> Result<MultiRegister> {
        let mut registers = match self.initial()? {
            Value::Map(entries) => entries
                .into_iter()
                .fold(MultiRegister::new(Value::Nil), |registers, (key, value)| {
                    registers.with(as_json_too(key, value))
                }),
            other => MultiRegister::new(other),
        };
        for (name, value) in &self.parameters {
            if !matches!(name.as_str(), "init" | "initial") && !FLAGS.contains(&name.as_str()) {
                let key = match name.parse() {
                    Ok(number) => Value::Int(number),
                    Err(_) => Value::Keyword(name.as_str().into()),
                };
                registers = registers.with(as_json_too(key, syntax::parse(value, false, 1)?));
            }
        }
        Ok(registers)
    }

    fn initial(&self) -> Result<Value> {
        match self.get("init").or_else(|| self.get("initial")) {
            Some(text) => syntax::parse(text, false, 1),
            None => Ok(Value::Nil),
        }
    }

    /// Whether keys stand in the values, `[key value]`, as Jepsen's independent workloads write.
    pub fn has_independent_keys(&self) -> bool {
        self.flag("independent") || self.flag("keyed")
    }

    /// The checker for histories that came in `format`, with the conventions that are usual there.
    pub fn checker(&self, format: Format) -> Result<Box<dyn Checker>> {
        Ok(match self.name.as_str() {
            "register" | "cas-register" | "cas" => {
                Box::new(Linearizability::new(self.register(format)?))
            }
            "multi-register" => Box::new(Linearizability::new(self.initials()?)),
            "kv" => Box::new(Linearizability::new(KeyValue::default())),
            "mutex" | "lock" => Box::new(Linearizability::new(Mutex::default())),
            "queue" | "fifo" | "fifo-queue" => Box::new(Linearizability::new(Fifo::default())),
            "unordered-queue" | "bag" => Box::new(Linearizability::new(UnorderedQueue::default())),
            "stack" => Box::new(Linearizability::new(Stack::default())),
            "linear-set" => Box::new(Linearizability::new(SetModel::default())),
            "linear-counter" => Box::new(Linearizability::new(linear::Counter::default())),
            "list-append" | "append" => Box::new(ListAppend::new(self.options(format)?)),
            "rw-register" | "wr" | "transactions" | "txn" => {
                Box::new(RwRegister::new(self.options(format)?))
            }
            "bank" => Box::new(self.bank()?),
            "set" => Box::new(Set::new()),
            "set-full" => {
                let strict = self.flag("linearizable");
                Box::new(if strict { SetFull::new().linearizable() } else { SetFull::new() })
            }
            "comments" => Box::new(Comments::new()),
            "total-queue" => {
                let twice = match self.get("duplicates") {
                    Some("allow") => true,
                    None | Some("anomaly") => false,
                    Some(other) => return Err(bad("duplicates", other, "allow or anomaly")),
                };
                let queue = TotalQueue::new();
                Box::new(if twice { queue.allow_duplicates() } else { queue })
            }
            "counter" => Box::new(Counter::new()),
            "monotonic" => {
                let strict = self.flag("realtime");
                Box::new(if strict { Monotonic::new().real_time() } else { Monotonic::new() })
            }
            "long-fork" => Box::new(LongFork::new()),
            "sequential" => Box::new(Sequential::new()),
            "eventual" => Box::new(Eventual::new()),
            "saga" | "sagas" => Box::new(Sagas::new()),
            "event-store" => Box::new(EventStore::new()),
            other => {
                let message =
                    format!("there is no model {other}; there are {}", Self::NAMES.join(", "));
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        })
    }

    fn register(&self, format: Format) -> Result<Register> {
        let mismatch = match self.get("failed-cas") {
            Some("mismatch") => true,
            Some("did-not-happen") => false,
            Some(other) => return Err(bad("failed-cas", other, "mismatch or did-not-happen")),
            None => format == Format::JepsenLog,
        };
        let says = if mismatch { FailedCas::Mismatch } else { FailedCas::DidNotHappen };
        let register = Register::new(self.initial()?).failed_cas(says);
        Ok(match self.get("nil-reads") {
            Some("value") => register.nil_is_unknown(false),
            Some("unknown") => register.nil_is_unknown(true),
            Some(other) => return Err(bad("nil-reads", other, "value or unknown")),
            None => register,
        })
    }

    fn bank(&self) -> Result<Bank> {
        let mut bank = Bank::new();
        if let Some(total) = self.get("total").or_else(|| self.get("total-amount")) {
            let total = total.parse().map_err(|_| bad("total", total, "a whole number"))?;
            bank = bank.total(total);
        }
        let negative = self.flag("negative-balances") || self.flag("allow-negative-balances");
        Ok(if negative { bank.allow_negative_balances() } else { bank })
    }

    /// The options of transactional checkers.
    pub fn options(&self, format: Format) -> Result<Options> {
        let mut options = Options::of(format);
        if let Some(name) = self.get("level").or_else(|| self.get("consistency-models")) {
            options.level = strongest(name)?;
        }
        options.keys.linearizable = self.flag("linearizable-keys");
        options.keys.sequential = self.flag("sequential-keys");
        options.keys.writes_follow_reads = self.flag("wfr-keys");
        match self.get("unwritten") {
            None => {}
            Some("anomaly") => options.unwritten_is_anomaly = true,
            Some("outside") => options.unwritten_is_anomaly = false,
            Some(other) => return Err(bad("unwritten", other, "anomaly or outside")),
        }
        Ok(options)
    }
}

fn bad(name: &str, value: &str, allowed: &str) -> Error {
    let message = format!("{name}={value}: it must be {allowed}");
    Error::new(ErrorKind::Unsupported, message)
}

/// One level, or several with commas between, in brackets or not: the strongest, if it implies the
/// others.
fn strongest(text: &str) -> Result<Level> {
    let names: Vec<&str> = Level::ALL.iter().map(|level| level.name()).collect();
    let separate = |c: char| c == ',' || c.is_whitespace();
    let inside = text.trim_matches(['[', ']', '(', ')', '{', '}', '#']);
    let mut levels = Vec::new();
    for name in inside.split(separate).filter(|name| !name.is_empty()) {
        levels.push(Level::parse(name).ok_or_else(|| bad("level", name, &names.join(", ")))?);
    }
    let Some(level) = levels.iter().copied().max() else {
        return Err(bad("level", text, &names.join(", ")));
    };
    // The order of processes and of time is in none of these two.
    let strong = [Level::StrongSessionSnapshotIsolation, Level::StrongSnapshotIsolation];
    let apart = matches!(level, Level::RepeatableRead | Level::Serializable)
        && levels.iter().any(|level| strong.contains(level));
    match apart {
        true => Err(bad("level", text, "one level, or levels of which one implies the others")),
        false => Ok(level),
    }
}
