//! Clients and workloads for the simulated store: keyed registers and lists.

use async_trait::async_trait;

use super::database::Step;
use super::{Bug, Database, Env, Kind, Network};
use crate::generator::{self, Generator};
use crate::linear::{FailedCas, Linearizability, Register};
use crate::random::Random;
use crate::runner::{Client, Completion, Failure, Op, Session, Workload};
use crate::txn::{ListAppend, Options};
use crate::value::Value;
use crate::verdict::Checker;

/// Operations on one key before the next key is used: checks stay quick, and orders short.
const OPS_PER_KEY: i64 = 60;

pub(super) struct SimWorkload {
    pub(super) kind: Kind,
    pub(super) env: Env,
    pub(super) network: Network,
    pub(super) database: Database,
}

#[async_trait]
impl Workload for SimWorkload {
    fn name(&self) -> String {
        self.kind.name().into()
    }

    async fn open(&self, session: &Session) -> Result<Box<dyn Client>, Failure> {
        Ok(Box::new(SimClient {
            env: self.env.clone(),
            network: self.network.clone(),
            database: self.database.clone(),
            node: session.node.name.clone(),
        }))
    }

    fn generator(&self) -> Box<dyn Generator> {
        match self.kind {
            Kind::Register => registers().boxed(),
            Kind::Append => appends().boxed(),
        }
    }

    fn checker(&self) -> Box<dyn Checker + Send> {
        match self.kind {
            // Its cas says why it failed, and that is part of what it promises.
            Kind::Register => {
                let model = Register::new(Value::Nil).failed_cas(FailedCas::DidNotHappen);
                Box::new(Linearizability::new(model))
            }
            Kind::Append => Box::new(ListAppend::new(Options::default())),
        }
    }
}

fn registers() -> impl Generator + 'static {
    let mut count = 0;
    generator::from_fn(move |random| {
        count += 1;
        let op = match random.below(4) {
            0 | 1 => Op::new("read"),
            2 => Op::new("write").value(random.between(1, 5)),
            _ => {
                let pair = vec![Value::Int(random.between(1, 5)), Value::Int(random.between(1, 5))];
                Op::new("cas").value(pair)
            }
        };
        op.key(count / OPS_PER_KEY)
    })
}

fn appends() -> impl Generator + 'static {
    let mut next = 0;
    generator::from_fn(move |random| {
        let steps = (0..=random.below(3)).map(|_| append_step(random, &mut next));
        Op::new("txn").value(steps.collect::<Vec<_>>())
    })
}

/// Four keys at a time; every value is new.
fn append_step(random: &mut Random, next: &mut i64) -> Value {
    let key = *next / OPS_PER_KEY * 4 + random.between(0, 3);
    let word = |name: &str| Value::Keyword(name.into());
    if random.chance(500) {
        return Value::from(vec![word("r"), Value::Int(key), Value::Nil]);
    }
    *next += 1;
    Value::from(vec![word("append"), Value::Int(key), Value::Int(*next)])
}

struct SimClient {
    env: Env,
    network: Network,
    database: Database,
    node: String,
}

#[async_trait]
impl Client for SimClient {
    async fn invoke(&mut self, op: &Op) -> Result<Completion, Failure> {
        let steps = steps(op)?;
        let database = self.database.clone();
        let call = self.network.call(&self.node, async move { database.transact(steps).await });
        let answer = if self.database.bug() == Bug::WrongTimeouts {
            // The bug: it gives up early, and is sure that nothing happened.
            match self.env.timeout(std::time::Duration::from_millis(100), call).await {
                Some(answer) => answer,
                None => return Ok(Completion::Fail("time-out, so it failed".into())),
            }
        } else {
            call.await
        };
        Ok(match answer {
            Ok(results) => Completion::Ok(output(op, results)),
            Err(why) => Completion::Fail(why),
        })
    }
}

fn steps(op: &Op) -> Result<Vec<Step>, Failure> {
    let key = op.key.clone().unwrap_or_default();
    let pair = op.value.as_items();
    Ok(match (&*op.f, pair) {
        ("read", _) => vec![Step::Read(key)],
        ("write", _) => vec![Step::Write(key, op.value.clone())],
        ("cas", Some([from, to])) => vec![Step::Cas(key, from.clone(), to.clone())],
        ("txn", Some(all)) => all.iter().map(step).collect::<Result<_, _>>()?,
        _ => return Err(format!("the store has no operation {} {}", op.f, op.value).into()),
    })
}

fn step(step: &Value) -> Result<Step, Failure> {
    match step.as_items() {
        Some([f, key, value]) => Ok(match f.as_name() {
            Some("r") => Step::Read(key.clone()),
            Some("append") => Step::Append(key.clone(), value.clone()),
            _ => return Err(format!("the store has no step {step}").into()),
        }),
        _ => Err(format!("{step} is not a step [f key value]").into()),
    }
}

/// The results in the shape of the operation.
fn output(op: &Op, results: Vec<Value>) -> Value {
    match (&*op.f, op.value.as_items()) {
        ("txn", Some(all)) => {
            let filled = all.iter().zip(results).map(|(step, result)| {
                let mut parts = step.as_items().unwrap_or_default().to_vec();
                if let Some(last) = parts.last_mut() {
                    *last = result;
                }
                Value::from(parts)
            });
            Value::List(filled.collect())
        }
        ("read", _) => results.into_iter().next().unwrap_or_default(),
        _ => op.value.clone(),
    }
}
