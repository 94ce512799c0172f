//! Commands as they come in: a name, an aggregate and data.

use examples_common::{Money, Problem};
use potter_core::Json;
use potter_eventsourcing::StreamId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::account::{self, Closed, Opened};
use crate::order::{self, Created, Item, Shipped};

/// The names of the commands.
pub const COMMAND_TYPES: [&str; 12] = [
    "CreateAccount",
    "Deposit",
    "Withdraw",
    "CloseAccount",
    "CreateOrder",
    "AddItem",
    "RemoveItem",
    "ConfirmOrder",
    "PayOrder",
    "ShipOrder",
    "DeliverOrder",
    "CancelOrder",
];

const TEXT_BYTES_MAX: usize = 200;
const ID_BYTES_MAX: usize = 100;

/// A command to carry out.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandRequest {
    /// Names this command: sent again with the same content it is answered as the first time. A new
    /// one if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    /// `account-…` or `order-…`.
    #[schema(example = "account-123")]
    pub aggregate_id: String,
    /// One of the names that GET /api/v1/commands lists.
    #[schema(example = "Deposit")]
    pub command_type: String,
    /// What the command needs.
    #[serde(default = "nothing")]
    #[schema(value_type = Object, example = json!({"amount": 200}))]
    pub data: Json,
    /// The version that the aggregate must be at; refused with 409 when it is at another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
}

fn nothing() -> Json {
    Json::parse("{}".to_owned()).unwrap_or_else(|_| Json::null())
}

/// Which kind of aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bank account.
    Account,
    /// An order.
    Order,
}

impl Kind {
    /// Its name, which is that of its streams.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Order => "order",
        }
    }
}

/// An aggregate by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateId {
    /// What it is.
    pub kind: Kind,
    /// Its stream: the whole id.
    pub stream: StreamId,
}

impl AggregateId {
    /// Reads `account-123`.
    ///
    /// # Errors
    /// 422 `invalid_aggregate_id`.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let refused = || {
            let detail = format!(
                "aggregate_id is account-… or order-…, such as account-123, with at most \
                 {ID_BYTES_MAX} visible characters."
            );
            Problem::unprocessable("invalid_aggregate_id", &*detail)
                .with_field("aggregate_id", detail)
        };
        let plain = text.len() <= ID_BYTES_MAX && !text.chars().any(char::is_control);
        let stream = StreamId::parse(text).ok().filter(|_| plain).ok_or_else(refused)?;
        let kind = match stream.stream_type() {
            "account" => Kind::Account,
            "order" => Kind::Order,
            _ => return Err(refused()),
        };
        Ok(Self { kind, stream })
    }

    /// What is behind the hyphen.
    pub fn local(&self) -> &str {
        self.stream.id()
    }
}

/// A command that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// For an account.
    Account(account::Command),
    /// For an order.
    Order(order::Command),
}

impl Command {
    /// Reads the command of a request.
    ///
    /// # Errors
    /// 422 `unknown_command` (it lists those that there are), `invalid_data` (with the field) or
    /// `wrong_aggregate`.
    pub fn read(request: &CommandRequest) -> Result<(AggregateId, Self), Problem> {
        let id = AggregateId::parse(&request.aggregate_id)?;
        let command = read(&request.command_type, &request.data)?;
        let fits = matches!(
            (&command, id.kind),
            (Self::Account(_), Kind::Account) | (Self::Order(_), Kind::Order)
        );
        if !fits {
            let (name, other) = (&request.command_type, id.kind.as_str());
            let detail = format!("{name} is no command for an {other}: see aggregate_id.");
            return Err(Problem::unprocessable("wrong_aggregate", &*detail)
                .with_field("aggregate_id", detail));
        }
        Ok((id, command))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateAccount {
    owner: String,
    #[serde(default)]
    initial_balance: Money,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Amount {
    amount: Money,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateOrder {
    customer_id: String,
    #[serde(default)]
    amount: Money,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveItem {
    product_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pay {
    amount: Option<Money>,
    method: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ship {
    tracking_number: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn read(command_type: &str, data: &Json) -> Result<Command, Problem> {
    use account::Command as A;
    use order::Command as O;
    Ok(match command_type {
        "CreateAccount" => {
            let CreateAccount { owner, initial_balance } = fields(data)?;
            Command::Account(A::Create(Opened { owner: text("owner", owner)?, initial_balance }))
        }
        "Deposit" => Command::Account(A::Deposit(positive(&fields::<Amount>(data)?)?)),
        "Withdraw" => Command::Account(A::Withdraw(positive(&fields::<Amount>(data)?)?)),
        "CloseAccount" => Command::Account(A::Close(Closed { reason: reason(data)? })),
        "CreateOrder" => {
            let CreateOrder { customer_id, amount, items } = fields(data)?;
            let items = items.into_iter().map(item).collect::<Result<_, _>>()?;
            let customer_id = text("customer_id", customer_id)?;
            Command::Order(O::Create(Created { customer_id, amount, items }))
        }
        "AddItem" => Command::Order(O::AddItem(item(fields(data)?)?)),
        "RemoveItem" => {
            let RemoveItem { product_id } = fields(data)?;
            Command::Order(O::RemoveItem(text("product_id", product_id)?))
        }
        "ConfirmOrder" => fields::<Nothing>(data).map(|Nothing {}| Command::Order(O::Confirm))?,
        "PayOrder" => {
            let Pay { amount, method } = fields(data)?;
            let method = text("method", method.unwrap_or_else(|| "card".to_owned()))?;
            Command::Order(O::Pay { amount, method })
        }
        "ShipOrder" => {
            let tracking_number = fields::<Ship>(data)?.tracking_number;
            let tracking_number =
                tracking_number.map(|number| text("tracking_number", number)).transpose()?;
            Command::Order(O::Ship(Shipped { tracking_number }))
        }
        "DeliverOrder" => fields::<Nothing>(data).map(|Nothing {}| Command::Order(O::Deliver))?,
        "CancelOrder" => Command::Order(O::Cancel { reason: reason(data)? }),
        other => {
            let known = COMMAND_TYPES.join(", ");
            let other: String = other.chars().take(TEXT_BYTES_MAX).collect();
            let detail = format!("There is no command {other:?}. The commands are: {known}.");
            return Err(Problem::unprocessable("unknown_command", &*detail)
                .with_field("command_type", format!("must be one of: {known}")));
        }
    })
}

fn invalid(field: &str, message: impl Into<String>) -> Problem {
    let message = message.into();
    Problem::unprocessable("invalid_data", format!("Field {field}: {message}."))
        .with_field(field, message)
}

/// The data as a `T`; a mistake names its field.
fn fields<T: DeserializeOwned>(data: &Json) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_str(data.as_str());
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let text = error.inner().to_string();
        let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
        invalid(&if path == "." { "data".to_owned() } else { format!("data.{path}") }, message)
    })
}

fn text(field: &str, text: String) -> Result<String, Problem> {
    let sane = !text.trim().is_empty()
        && text.len() <= TEXT_BYTES_MAX
        && !text.chars().any(char::is_control);
    if sane {
        return Ok(text);
    }
    let message = format!("must have 1 to {TEXT_BYTES_MAX} bytes and no control character");
    Err(invalid(&format!("data.{field}"), message))
}

fn reason(data: &Json) -> Result<Option<String>, Problem> {
    fields::<Reason>(data)?.reason.map(|reason| text("reason", reason)).transpose()
}

fn positive(Amount { amount }: &Amount) -> Result<Money, Problem> {
    if *amount > Money::default() {
        return Ok(*amount);
    }
    Err(invalid("data.amount", "must be more than 0"))
}

fn item(item: Item) -> Result<Item, Problem> {
    if item.quantity == 0 {
        return Err(invalid("data.quantity", "must be 1 or more"));
    }
    Ok(Item { product_id: text("product_id", item.product_id)?, ..item })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(aggregate_id: &str, command_type: &str, data: &str) -> CommandRequest {
        CommandRequest {
            command_id: None,
            aggregate_id: aggregate_id.to_owned(),
            command_type: command_type.to_owned(),
            data: Json::parse(data.to_owned()).unwrap(),
            expected_version: None,
        }
    }

    #[test]
    fn every_name_is_known_and_others_are_listed() {
        for name in COMMAND_TYPES {
            let refused = read(name, &Json::parse("3".to_owned()).unwrap()).unwrap_err();
            assert_eq!(refused.code, "invalid_data", "{name}");
        }
        let refused = read("Explode", &nothing()).unwrap_err();
        assert_eq!((refused.status, &*refused.code), (422, "unknown_command"));
        assert!(COMMAND_TYPES.iter().all(|name| refused.detail.contains(name)), "{refused}");
    }

    #[test]
    fn a_mistake_names_its_field() {
        for (id, name, data, code, field) in [
            ("account-1", "Deposit", r#"{"amount": 0}"#, "invalid_data", "data.amount"),
            ("account-1", "Deposit", r#"{"amount": -1}"#, "invalid_data", "data.amount"),
            ("account-1", "Deposit", r#"{"amount": 0.001}"#, "invalid_data", "data.amount"),
            ("account-1", "Deposit", r#"{"amount": 1, "x": 2}"#, "invalid_data", "data.x"),
            ("account-1", "CreateAccount", r#"{"owner": " "}"#, "invalid_data", "data.owner"),
            (
                "order-1",
                "AddItem",
                r#"{"product_id": "a", "quantity": 0, "price": 1}"#,
                "invalid_data",
                "data.quantity",
            ),
            ("order-1", "Deposit", r#"{"amount": 1}"#, "wrong_aggregate", "aggregate_id"),
            ("cart-1", "Deposit", r#"{"amount": 1}"#, "invalid_aggregate_id", "aggregate_id"),
            ("account", "Deposit", r#"{"amount": 1}"#, "invalid_aggregate_id", "aggregate_id"),
        ] {
            let refused = Command::read(&request(id, name, data)).unwrap_err();
            assert_eq!(&*refused.code, code, "{id} {name} {data}");
            assert_eq!(refused.errors[0].field, field, "{id} {name} {data}: {refused}");
        }
        let (id, command) = Command::read(&request("account-a-b", "CloseAccount", "{}")).unwrap();
        assert_eq!((id.local(), id.kind), ("a-b", Kind::Account));
        assert_eq!(command, Command::Account(account::Command::Close(Closed { reason: None })));
    }
}
