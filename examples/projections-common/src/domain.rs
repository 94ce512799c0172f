//! Users and orders: what happens to them.

use potter_eventsourcing::domain_events;
use serde::{Deserialize, Serialize};

/// Who came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserCreated {
    /// Where mail goes.
    pub email: String,
    /// The full name.
    pub name: String,
}

/// Who bought for how much.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPlaced {
    /// The buyer.
    pub user_id: String,
    /// The amount in cents.
    pub cents: i64,
}

domain_events! {
    /// The events of a user: streams of the type `identity.user`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum UserEvent {
        /// The user came.
        Created(UserCreated) => "user.created" v 1,
    }
}

domain_events! {
    /// The events of an order: streams of the type `sales.order`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum OrderEvent {
        /// The order was placed.
        Placed(OrderPlaced) => "order.placed" v 1,
    }
}
