//! The account: what it can be asked to do, what happens to it, what it is then.

use potter_eventsourcing::{Aggregate, domain_events};
use serde::{Deserialize, Serialize};

/// The most that an account can hold, and that can be moved at once, in the smallest unit of its
/// currency.
pub(crate) const AMOUNT_MAX: i64 = 1_000_000_000_000;

/// It was opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// Whose it is.
    pub owner: String,
}

/// Money moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// How much, in the smallest unit of the currency.
    pub amount: i64,
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
        Closed => "account.closed" v 1,
    }
}

/// What an account can be asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Open it, with a first deposit if there is one.
    Open {
        /// Whose it is.
        owner: String,
        /// The first deposit; 0 for none.
        initial_balance: i64,
    },
    /// Put money in.
    Deposit(i64),
    /// Take money out.
    Withdraw(i64),
    /// Close it.
    Close,
}

/// Why it refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Nobody opened it.
    #[error("there is no such account")]
    Unknown,
    /// It was opened before.
    #[error("the account exists already")]
    Exists,
    /// It was closed.
    #[error("the account is closed")]
    Closed,
    /// There is less in it.
    #[error("insufficient funds: {available} of {asked} are there")]
    InsufficientFunds {
        /// What is in it.
        available: i64,
        /// What was asked for.
        asked: i64,
    },
    /// It would hold too much.
    #[error("an account holds at most {AMOUNT_MAX}")]
    TooMuch,
}

/// An account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Whose it is; `None` before it was opened.
    pub owner: Option<String>,
    /// What is in it.
    pub balance: i64,
    /// Was it closed?
    pub closed: bool,
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = Command;
    type Event = AccountEvent;
    type Error = Refused;

    fn decide(&self, command: &Command) -> Result<Vec<AccountEvent>, Refused> {
        match command {
            Command::Open { .. } if self.owner.is_some() => return Err(Refused::Exists),
            Command::Open { .. } => {}
            _ if self.owner.is_none() => return Err(Refused::Unknown),
            _ if self.closed => return Err(Refused::Closed),
            _ => {}
        }
        let deposited = |amount| AccountEvent::Deposited(Moved { amount });
        match command {
            Command::Open { owner, initial_balance } => {
                let mut events = vec![AccountEvent::Opened(Opened { owner: owner.clone() })];
                if *initial_balance > 0 {
                    events.push(deposited(*initial_balance));
                }
                Ok(events)
            }
            Command::Deposit(amount) if self.balance + amount > AMOUNT_MAX => Err(Refused::TooMuch),
            Command::Deposit(amount) => Ok(vec![deposited(*amount)]),
            Command::Withdraw(asked) if *asked > self.balance => {
                Err(Refused::InsufficientFunds { available: self.balance, asked: *asked })
            }
            Command::Withdraw(amount) => {
                Ok(vec![AccountEvent::Withdrawn(Moved { amount: *amount })])
            }
            Command::Close => Ok(vec![AccountEvent::Closed]),
        }
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened(opened) => self.owner = Some(opened.owner.clone()),
            AccountEvent::Deposited(moved) => self.balance += moved.amount,
            AccountEvent::Withdrawn(moved) => self.balance -= moved.amount,
            AccountEvent::Closed => self.closed = true,
        }
    }
}
