//! A bank account: the sum of what was paid in and taken out.

use examples_common::Money;
use potter_eventsourcing::{Aggregate, Snapshottable, domain_events};
use serde::{Deserialize, Serialize};

use crate::refused::Refused;

/// It was opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// Whose it is.
    pub owner: String,
    /// What was paid in at once.
    pub initial_balance: Money,
}

/// Money moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// How much.
    pub amount: Money,
}

/// It was closed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Closed {
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

domain_events! {
    /// What happens to an account.
    #[derive(Clone, Debug, PartialEq)]
    pub enum AccountEvent {
        /// It was opened.
        Opened(Opened) => "account.opened" v 1,
        /// Money came.
        Deposited(Moved) => "account.deposited" v 1,
        /// Money went.
        Withdrawn(Moved) => "account.withdrawn" v 1,
        /// It was closed.
        Closed(Closed) => "account.closed" v 1,
    }
}

/// What an account can be asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Open it.
    Create(Opened),
    /// Pay in.
    Deposit(Money),
    /// Take out.
    Withdraw(Money),
    /// Close it.
    Close(Closed),
}

/// Whether it is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nobody opened it yet.
    #[default]
    None,
    /// It is open.
    Open,
    /// It was closed.
    Closed,
}

/// An account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Whose it is.
    pub owner: String,
    /// What is in it.
    pub balance: Money,
    /// Whether it is open.
    pub status: Status,
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = Command;
    type Event = AccountEvent;
    type Error = Refused;

    fn decide(&self, command: &Command) -> Result<Vec<AccountEvent>, Refused> {
        match (self.status, command) {
            (Status::None, Command::Create(opened)) => {
                return Ok(vec![AccountEvent::Opened(opened.clone())]);
            }
            (Status::None, _) => return Err(Refused::NoSuchAccount),
            (_, Command::Create(_)) => return Err(Refused::AccountExists),
            (Status::Closed, _) => return Err(Refused::AccountClosed),
            (Status::Open, _) => {}
        }
        let event = match command {
            Command::Deposit(amount) if self.balance.checked_add(*amount).is_none() => {
                return Err(Refused::BalanceTooLarge);
            }
            Command::Withdraw(amount) if *amount > self.balance => {
                return Err(Refused::InsufficientFunds { balance: self.balance, amount: *amount });
            }
            Command::Close(_) if self.balance > Money::default() => {
                return Err(Refused::AccountNotEmpty { balance: self.balance });
            }
            Command::Deposit(amount) => AccountEvent::Deposited(Moved { amount: *amount }),
            Command::Withdraw(amount) => AccountEvent::Withdrawn(Moved { amount: *amount }),
            Command::Close(closed) => AccountEvent::Closed(closed.clone()),
            Command::Create(_) => return Err(Refused::AccountExists),
        };
        Ok(vec![event])
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened(opened) => {
                self.owner.clone_from(&opened.owner);
                self.balance = opened.initial_balance;
                self.status = Status::Open;
            }
            AccountEvent::Deposited(moved) => {
                self.balance = self.balance.checked_add(moved.amount).unwrap_or(Money::MAX);
            }
            AccountEvent::Withdrawn(moved) => {
                self.balance = Money::from_cents(self.balance.cents() - moved.amount.cents());
            }
            AccountEvent::Closed(_) => self.status = Status::Closed,
        }
    }
}

impl Snapshottable for Account {
    const SNAPSHOT_VERSION: u32 = 1;
}
