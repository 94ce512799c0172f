//! Why an aggregate refuses a command, and what that is over HTTP.

use axum::http::StatusCode;
use examples_common::{Money, Problem};

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Nobody opened the account.
    #[error("there is no such account: open it with CreateAccount")]
    NoSuchAccount,
    /// It is there already.
    #[error("the account exists already: choose another aggregate_id")]
    AccountExists,
    /// It was closed.
    #[error("the account is closed: it takes no more commands")]
    AccountClosed,
    /// There is not so much in it.
    #[error("the balance is {balance}: {amount} can't be withdrawn")]
    InsufficientFunds {
        /// What is in it.
        balance: Money,
        /// What was wanted.
        amount: Money,
    },
    /// There is money in it.
    #[error("the balance is {balance}: withdraw it before closing")]
    AccountNotEmpty {
        /// What is in it.
        balance: Money,
    },
    /// It can't hold so much.
    #[error("an account holds at most {}", Money::MAX)]
    BalanceTooLarge,
    /// Nobody created the order.
    #[error("there is no such order: create it with CreateOrder")]
    NoSuchOrder,
    /// It is there already.
    #[error("the order exists already: choose another aggregate_id")]
    OrderExists,
    /// The order is past that.
    #[error("the order is {status}: {command} needs one that is {needed}")]
    WrongStatus {
        /// What it is.
        status: &'static str,
        /// What was wanted.
        command: &'static str,
        /// What it would have to be.
        needed: &'static str,
    },
    /// There is nothing to sell.
    #[error("the order has neither items nor an amount: add an item first")]
    OrderEmpty,
    /// Not that product.
    #[error("the order has no item {0}")]
    NoSuchItem(String),
    /// Too many kinds, too many, or too dear.
    #[error("an order has at most {} items, of {} in all", crate::order::ITEMS_MAX, Money::MAX)]
    OrderTooLarge,
    /// Not what it costs.
    #[error("the order costs {total}: a payment of {amount} does not fit")]
    WrongAmount {
        /// What it costs.
        total: Money,
        /// What was paid.
        amount: Money,
    },
}

impl Refused {
    /// The status and the stable code.
    pub fn code(&self) -> (StatusCode, &'static str) {
        let refused = StatusCode::UNPROCESSABLE_ENTITY;
        match self {
            Self::NoSuchAccount | Self::NoSuchOrder => {
                (StatusCode::NOT_FOUND, "aggregate_not_found")
            }
            Self::AccountExists | Self::OrderExists => (StatusCode::CONFLICT, "aggregate_exists"),
            Self::AccountClosed => (StatusCode::CONFLICT, "account_closed"),
            Self::WrongStatus { .. } => (StatusCode::CONFLICT, "wrong_order_status"),
            Self::InsufficientFunds { .. } => (refused, "insufficient_funds"),
            Self::AccountNotEmpty { .. } => (refused, "account_not_empty"),
            Self::BalanceTooLarge => (refused, "balance_too_large"),
            Self::OrderEmpty => (refused, "order_empty"),
            Self::NoSuchItem(_) => (refused, "no_such_item"),
            Self::OrderTooLarge => (refused, "order_too_large"),
            Self::WrongAmount { .. } => (refused, "wrong_amount"),
        }
    }

    /// As an answer about the aggregate `id`.
    pub fn problem(&self, id: &str) -> Problem {
        let (status, code) = self.code();
        Problem::new(status, code, format!("{id}: {self}."))
    }
}
