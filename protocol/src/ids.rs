//! Names and ids: newtypes over short checked strings, cheap to clone.
//!
//! Every name that can come from outside is checked where it enters (`FromStr`, `TryFrom`, serde),
//! so that the rest of the code need not ask again. All of them order and hash by their text.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest region name: a DNS label, since it appears in certificates and host names.
pub const MAX_REGION_BYTES: usize = 63;
/// The longest of the other names. 64 bytes keep a series key under half a kilobyte.
pub const MAX_NAME_BYTES: usize = 64;
/// The longest user or record id: room for a UUID, an e-mail address or a hash.
pub const MAX_ID_BYTES: usize = 128;

/// Why a text is not the name it was given as. Nothing changed; the same text never succeeds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} must be {wanted}")]
pub struct NameError {
    what: &'static str,
    text: String,
    wanted: &'static str,
}

/// How much of an offending text an error repeats.
const SHOWN_CHARS: usize = 80;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $max:expr, $valid:path, $wanted:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
        #[schema(value_type = String)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name in `text`, if it is one.
            pub fn new(text: &str) -> Result<Self, NameError> {
                Self::check(text).map(|()| Self(text.into()))
            }

            /// Whether `text` is such a name, without making one.
            pub fn check(text: &str) -> Result<(), NameError> {
                if text.len() <= $max && $valid(text) {
                    return Ok(());
                }
                Err(NameError { what: $what, text: text.chars().take(SHOWN_CHARS).collect(), wanted: $wanted })
            }

            /// The name's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "a {}: {}", $what, $wanted)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }
                d.deserialize_str(Visitor)
            }
        }
    )*};
}

names! {
    /// A region: the unit that has one agent. Lower case, so that it can be a DNS label and the
    /// last segment of a SPIFFE id.
    RegionId, "region", MAX_REGION_BYTES, is_label, "1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends";
    /// Whose transactions they are.
    TenantName, "tenant", MAX_NAME_BYTES, is_name, "1 to 64 ASCII letters, digits, '.', '_' or '-', starting with a letter or digit";
    /// A service that consumes resources.
    ServiceName, "service", MAX_NAME_BYTES, is_name, "1 to 64 ASCII letters, digits, '.', '_' or '-', starting with a letter or digit";
    /// A kind of transaction: what is forecast separately within a service.
    TransactionType, "transaction type", MAX_NAME_BYTES, is_name, "1 to 64 ASCII letters, digits, '.', '_' or '-', starting with a letter or digit";
    /// A resource pool of a region.
    PoolName, "pool", MAX_NAME_BYTES, is_name, "1 to 64 ASCII letters, digits, '.', '_' or '-', starting with a letter or digit";
    /// An event in a region's calendar.
    EventName, "event", MAX_NAME_BYTES, is_name, "1 to 64 ASCII letters, digits, '.', '_' or '-', starting with a letter or digit";
    /// One step of what is staged for a service before it is needed.
    StageName, "stage", MAX_NAME_BYTES, is_name, "1 to 64 ASCII letters, digits, '.', '_' or '-', starting with a letter or digit";
    /// One instance of a pool, as its provider names it.
    InstanceId, "instance", MAX_ID_BYTES, is_id, "1 to 128 visible ASCII characters";
    /// A user, as the application names them.
    UserId, "user", MAX_ID_BYTES, is_id, "1 to 128 visible ASCII characters";
    /// The sender's id of one record: a second record with it is the same record.
    RecordId, "record id", MAX_ID_BYTES, is_id, "1 to 128 visible ASCII characters";
    /// The sender's key of one batch of records: a second batch with it is the same batch.
    IdempotencyKey, "idempotency key", MAX_ID_BYTES, is_id, "1 to 128 visible ASCII characters";
}

// A name is ordered, compared and hashed as its text is.
impl Borrow<str> for RegionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

macro_rules! default_names {
    ($($name:ident)*) => {$(
        impl Default for $name {
            /// The name that stands where none was given.
            fn default() -> Self {
                Self("default".into())
            }
        }
    )*};
}
default_names! { TenantName ServiceName TransactionType PoolName }

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.bytes().all(|b| inner(b) || b == b'-') && text.bytes().next().is_some_and(inner) && text.bytes().last().is_some_and(inner)
}

fn is_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_a_dns_label() {
        for good in ["a", "eu-west-1", "0", &"a".repeat(63)] {
            assert_eq!(RegionId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "EU", "eu_west", "eu.west", "é", "a/b", &"a".repeat(64)] {
            assert!(RegionId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_names_what_came_and_what_was_wanted() {
        let error = RegionId::new("EU West").unwrap_err().to_string();
        assert!(error.starts_with("region \"EU West\" must be 1 to 63 of a-z"), "{error}");
        let long = UserId::new(&"x".repeat(10_000)).unwrap_err().to_string();
        assert!(long.len() < 200, "an error does not repeat ten kilobytes");
    }

    #[test]
    fn json_is_the_bare_text_and_is_checked() {
        let region: RegionId = serde_json::from_str("\"eu-west-1\"").unwrap();
        assert_eq!(serde_json::to_string(&region).unwrap(), "\"eu-west-1\"");
        assert!(serde_json::from_str::<RegionId>("\"Eu\"").unwrap_err().to_string().contains("must be"));
        assert!(serde_json::from_str::<RegionId>("7").unwrap_err().to_string().contains("a region"));
    }
}
