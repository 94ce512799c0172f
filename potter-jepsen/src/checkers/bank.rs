//! Transfers between accounts never change the sum.

use super::{Findings, misfit, operations};
use crate::budget::Budget;
use crate::error::Result;
use crate::history::{History, Outcome};
use crate::value::Value;
use crate::verdict::{Analysis, Checker, no_evidence};

/// Reads `{account balance}` must all have the same sum and, unless allowed, no negative balance.
/// Meaningful where reads are snapshots: under read committed a read may be a mixture.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Bank {
    /// The sum of all balances; if not given, that of the first read.
    pub total: Option<i64>,
    /// Whether an account may be overdrawn.
    pub negative_balances: bool,
}

impl Bank {
    /// The sum is that of the first read, no account is overdrawn.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a known sum.
    #[must_use]
    pub fn total(mut self, total: i64) -> Self {
        self.total = Some(total);
        self
    }

    /// Accounts may be overdrawn.
    #[must_use]
    pub fn allow_negative_balances(mut self) -> Self {
        self.negative_balances = true;
        self
    }
}

/// The balances by account; lists are balances of numbered accounts.
fn balances(value: &Value) -> Option<Vec<(String, Option<i64>)>> {
    match value {
        Value::Map(entries) => {
            Some(entries.iter().map(|(k, v)| (k.to_string(), v.as_int())).collect())
        }
        Value::List(items) => {
            let numbered = items.iter().enumerate();
            Some(numbered.map(|(n, v)| (n.to_string(), v.as_int())).collect())
        }
        _ => None,
    }
}

impl Checker for Bank {
    fn check(&self, history: &History, _: &Budget) -> Result<Analysis> {
        if let Some(verdict) = no_evidence(history) {
            return Ok(Analysis::new("bank", verdict));
        }
        let mut findings = Findings::default();
        let mut total = self.total.map(i128::from);
        let mut accounts: Option<Vec<String>> = None;
        let mut reads = 0;
        for op in operations(history) {
            if op.f != "read" || op.outcome != Outcome::Ok || op.output.is_nil() {
                continue;
            }
            let Some(balances) = balances(op.output) else {
                return Err(misfit(history, op.id, "a read of a bank returns {account balance}"));
            };
            reads += 1;
            let who = history.describe(op.id as usize);
            let mut names: Vec<String> = balances.iter().map(|(name, _)| name.clone()).collect();
            names.sort_unstable();
            let expected = accounts.get_or_insert_with(|| names.clone());
            if *expected != names {
                let message = format!("other accounts than in the first read: {who}");
                findings.add("unexpected-key", message, &[op.id]);
            }
            if let Some((name, _)) = balances.iter().find(|(_, balance)| balance.is_none()) {
                findings.add(
                    "nil-balance",
                    format!("account {name} has no balance: {who}"),
                    &[op.id],
                );
                continue;
            }
            let sum: i128 = balances.iter().filter_map(|(_, b)| b.map(i128::from)).sum();
            let expected = *total.get_or_insert(sum);
            if sum != expected {
                let message = format!("the sum is {sum} and must be {expected}: {who}");
                findings.add("wrong-total", message, &[op.id]);
            }
            let overdrawn = balances.iter().find(|(_, balance)| balance.is_some_and(|b| b < 0));
            if let Some((name, _)) = overdrawn.filter(|_| !self.negative_balances) {
                let message = format!("account {name} is overdrawn: {who}");
                findings.add("negative-value", message, &[op.id]);
            }
        }
        let text = format!("{reads} reads, all with the same sum");
        Ok(findings.analysis("bank", (reads, text)))
    }
}
