//! The events of a user's domain, and how they are named in the store.

use potter_core::Json;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;

/// An event of a domain: usually an enum, one variant for each thing that can happen.
///
/// The type name and schema version are stored beside the payload and chosen by you: renaming a
/// Rust type breaks nothing. With serde alone, only [`event_type`](Self::event_type) is left to
/// write; [`domain_events!`](crate::domain_events) writes it all.
pub trait DomainEvent: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What happened, as it is stored: `order.placed`.
    fn event_type(&self) -> &'static str;

    /// The shape of the payload; raise it when the shape changes.
    fn schema_version(&self) -> u32 {
        1
    }

    /// The payload.
    ///
    /// # Errors
    /// `InvalidInput` when it can't be JSON.
    fn encode(&self) -> Result<Json> {
        Ok(Json::of(self)?)
    }

    /// Reads what [`encode`](Self::encode) wrote, in this or an older version of the code.
    ///
    /// # Errors
    /// `UnknownEvent` for a type or schema version that it does not know, `Corrupt` for a payload of
    /// another shape.
    fn decode(event_type: &str, schema_version: u32, payload: &Json) -> Result<Self> {
        let _ = (event_type, schema_version);
        Ok(payload.get()?)
    }
}

/// Defines the events of a domain: an enum whose variants hold one struct each (or nothing),
/// with the name and schema version that each is stored under. The payload is the struct alone.
///
/// ```
/// use potter_eventsourcing::{DomainEvent, domain_events};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
/// pub struct Placed {
///     pub sku: String,
/// }
///
/// domain_events! {
///     /// What happens to an order.
///     #[derive(Clone, Debug, PartialEq)]
///     pub enum OrderEvent {
///         /// It was placed.
///         Placed(Placed) => "order.placed" v 1,
///         /// It was called off.
///         Cancelled => "order.cancelled" v 1,
///     }
/// }
///
/// let event = OrderEvent::Placed(Placed { sku: "tea".into() });
/// assert_eq!(event.event_type(), "order.placed");
/// assert_eq!(event.encode()?.as_str(), r#"{"sku":"tea"}"#);
/// assert_eq!(OrderEvent::decode("order.placed", 1, &event.encode()?)?, event);
/// assert!(OrderEvent::decode("order.shipped", 1, &event.encode()?).is_err());
/// # Ok::<(), potter_eventsourcing::Error>(())
/// ```
#[macro_export]
macro_rules! domain_events {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $($(#[$variant_meta:meta])* $variant:ident $(($body:ty))? => $wire:literal v $schema:literal),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive($crate::__private::serde::Serialize, $crate::__private::serde::Deserialize)]
        #[serde(crate = "potter_eventsourcing::__private::serde")]
        $vis enum $name {
            $($(#[$variant_meta])* $variant $(($body))?),*
        }

        impl $crate::DomainEvent for $name {
            fn event_type(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $wire),*
                }
            }

            fn schema_version(&self) -> u32 {
                match self {
                    $(Self::$variant { .. } => $schema),*
                }
            }

            fn encode(&self) -> $crate::Result<$crate::__private::Json> {
                match self {
                    $($crate::domain_events!(@pattern $variant $(($body) body)?) =>
                        $crate::domain_events!(@encode $(($body) body)?)),*
                }
            }

            fn decode(
                event_type: &str,
                schema_version: u32,
                payload: &$crate::__private::Json,
            ) -> $crate::Result<Self> {
                match (event_type, schema_version) {
                    $(($wire, $schema) => $crate::domain_events!(@decode payload $variant $(($body))?),)*
                    _ => Err($crate::__private::unknown_event(
                        stringify!($name), event_type, schema_version)),
                }
            }
        }
    };
    (@pattern $variant:ident) => { Self::$variant };
    (@pattern $variant:ident ($body:ty) $bound:ident) => { Self::$variant($bound) };
    (@encode) => { Ok($crate::__private::Json::of(&$crate::__private::Empty {})?) };
    (@encode ($body:ty) $bound:ident) => { Ok($crate::__private::Json::of($bound)?) };
    (@decode $payload:ident $variant:ident) => { Ok(Self::$variant) };
    (@decode $payload:ident $variant:ident ($body:ty)) => { Ok(Self::$variant($payload.get()?)) };
}
