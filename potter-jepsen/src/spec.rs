//! Models by name, as files of verdicts and command lines write them.

use crate::checkers::{
    Bank, Counter, EventStore, Eventual, LongFork, Monotonic, Sagas, Sequential, Set, SetFull,
    TotalQueue,
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

/// A model with its parameters: `cas-register init=nil`, `list-append level=serializable`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    name: String,
    parameters: Vec<(String, String)>,
}

impl Spec {
    /// Every name that [`Spec::checker`] knows.
    pub const NAMES: [&'static str; 24] = [
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
        "total-queue",
        "counter",
        "monotonic",
        "long-fork",
        "sequential",
        "eventual",
        "saga",
        "event-store",
    ];

    /// Reads a name and `parameter=value` pairs; other words are remarks.
    pub fn parse(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace();
        let Some(name) = words.next() else {
            return Err(Error::new(ErrorKind::Unsupported, "the model's name is missing"));
        };
        let parameters = words
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Ok(Self { name: name.to_ascii_lowercase().replace('_', "-"), parameters })
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
                let mismatch = match self.get("failed-cas") {
                    Some("mismatch") => true,
                    Some("did-not-happen") => false,
                    Some(other) => {
                        return Err(bad("failed-cas", other, "mismatch or did-not-happen"));
                    }
                    None => format == Format::JepsenLog,
                };
                let says = if mismatch { FailedCas::Mismatch } else { FailedCas::DidNotHappen };
                Box::new(Linearizability::new(Register::new(self.initial()?).failed_cas(says)))
            }
            "multi-register" => Box::new(Linearizability::new(MultiRegister::new(self.initial()?))),
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
            "set-full" | "comments" => {
                let strict = self.flag("linearizable") || self.name == "comments";
                Box::new(if strict { SetFull::new().linearizable() } else { SetFull::new() })
            }
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
            let names: Vec<&str> = Level::ALL.iter().map(|level| level.name()).collect();
            let level = Level::parse(name).ok_or_else(|| bad("level", name, &names.join(", ")))?;
            options.level = level;
        }
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
