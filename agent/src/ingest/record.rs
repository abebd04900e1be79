//! One record as it was written: any JSON value, read in one pass, with its text borrowed.
//!
//! Reading is lenient, so that a wrong type refuses one record and not the array around it: each
//! known field is kept as whatever JSON it [`Given`] was. Only broken syntax is an error here.
//! `batch` judges the fields.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// How much of an offending text a reason repeats.
const SHOWN_CHARS: usize = 40;

/// A JSON value where a scalar is wanted.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Given<'a> {
    Text(Cow<'a, str>),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Bool(bool),
    Null,
    Array,
    Object,
}

impl fmt::Display for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Given::Text(text) => write!(f, "{:?}", shown(text)),
            Given::Unsigned(number) => write!(f, "{number}"),
            Given::Negative(number) => write!(f, "{number}"),
            Given::Float(number) => write!(f, "{number}"),
            Given::Bool(value) => write!(f, "{value}"),
            Given::Null => f.write_str("null"),
            Given::Array => f.write_str("an array"),
            Given::Object => f.write_str("an object"),
        }
    }
}

/// The start of `text`, for a reason.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

/// One element of an array, or one line.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack: a box would be an allocation a record")]
pub(super) enum Element<'a> {
    Record(RawRecord<'a>),
    /// Not an object.
    Other(Given<'a>),
}

/// The fields of a record that were given.
#[derive(Debug, Default)]
pub(super) struct RawRecord<'a> {
    pub(super) id: Option<Given<'a>>,
    pub(super) tenant: Option<Given<'a>>,
    pub(super) source_region: Option<Given<'a>>,
    pub(super) destination_region: Option<Given<'a>>,
    pub(super) service: Option<Given<'a>>,
    pub(super) transaction_type: Option<Given<'a>>,
    pub(super) user: Option<Given<'a>>,
    pub(super) timestamp: Option<Given<'a>>,
    pub(super) count: Option<Given<'a>>,
    pub(super) latency_ms: Option<Given<'a>>,
    /// The field was given, well or badly.
    resources: bool,
    /// What is wrong with the record's shape, whatever its fields hold.
    pub(super) malformed: Option<String>,
}

const FIELDS: &str =
    "id, tenant, source_region, destination_region, service, transaction_type, user, timestamp, count, latency_ms, resources";
const RESOURCES: [&str; 5] = ["cpu_millis", "memory_bytes", "storage_bytes", "storage_iops", "bandwidth_bps"];

impl<'a> RawRecord<'a> {
    fn slot(&mut self, field: &str) -> Option<&mut Option<Given<'a>>> {
        Some(match field {
            "id" => &mut self.id,
            "tenant" => &mut self.tenant,
            "source_region" => &mut self.source_region,
            "destination_region" => &mut self.destination_region,
            "service" => &mut self.service,
            "transaction_type" => &mut self.transaction_type,
            "user" => &mut self.user,
            "timestamp" => &mut self.timestamp,
            "count" => &mut self.count,
            "latency_ms" => &mut self.latency_ms,
            _ => return None,
        })
    }

    /// Keeps the first thing found wrong.
    fn malformed(&mut self, reason: impl FnOnce() -> String) {
        if self.malformed.is_none() {
            self.malformed = Some(reason());
        }
    }
}

/// The `visit_` methods of everything in JSON that is neither array nor object.
macro_rules! scalars {
    (|$given:ident| $value:expr) => {
        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            let $given = Given::Text(Cow::Borrowed(text));
            Ok($value)
        }
        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            let $given = Given::Text(Cow::Owned(text.to_owned()));
            Ok($value)
        }
        fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
            let $given = Given::Unsigned(number);
            Ok($value)
        }
        fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
            let $given = Given::Negative(number);
            Ok($value)
        }
        fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
            let $given = Given::Float(number);
            Ok($value)
        }
        fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
            let $given = Given::Bool(value);
            Ok($value)
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            let $given = Given::Null;
            Ok($value)
        }
    };
}
impl<'de: 'a, 'a> Deserialize<'de> for Element<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct ElementVisitor;
        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Element<'de>, A::Error> {
                read_record(map).map(Element::Record)
            }
            scalars!(|given| Element::Other(given));
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Element<'de>, A::Error> {
                skip_seq(seq).map(|()| Element::Other(Given::Array))
            }
        }
        d.deserialize_any(ElementVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Given<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct GivenVisitor;
        impl<'de> Visitor<'de> for GivenVisitor {
            type Value = Given<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            scalars!(|given| given);
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Given<'de>, A::Error> {
                skip_seq(seq).map(|()| Given::Array)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Given<'de>, A::Error> {
                skip_map(map).map(|()| Given::Object)
            }
        }
        d.deserialize_any(GivenVisitor)
    }
}

/// A name of a field, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        d.deserialize_str(NameVisitor)
    }
}

fn read_record<'de, A: MapAccess<'de>>(mut map: A) -> Result<RawRecord<'de>, A::Error> {
    let mut record = RawRecord::default();
    while let Some(Name(name)) = map.next_key()? {
        if let Some(slot) = record.slot(&name) {
            let first = slot.replace(map.next_value()?);
            if first.is_some() {
                record.malformed(|| format!("{name} is given twice: wanted once"));
            }
        } else if name == "resources" {
            let Resources(wrong) = map.next_value()?;
            if std::mem::replace(&mut record.resources, true) {
                record.malformed(|| "resources is given twice: wanted once".into());
            }
            if let Some(wrong) = wrong {
                record.malformed(|| wrong);
            }
        } else {
            map.next_value::<IgnoredAny>()?;
            record.malformed(|| format!("field {:?} is unknown: wanted {FIELDS}", shown(&name)));
        }
    }
    Ok(record)
}

/// Whether the field `resources` is as it should be; what is wrong if not.
struct Resources(Option<String>);

impl<'de> Deserialize<'de> for Resources {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct ResourcesVisitor;
        impl<'de> Visitor<'de> for ResourcesVisitor {
            type Value = Resources;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("resources")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Resources, A::Error> {
                read_resources(map).map(Resources)
            }
            scalars!(|given| Resources(wrong_resources(&given)));
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Resources, A::Error> {
                skip_seq(seq).map(|()| Resources(wrong_resources(&Given::Array)))
            }
        }
        d.deserialize_any(ResourcesVisitor)
    }
}

fn wrong_resources(given: &Given<'_>) -> Option<String> {
    (*given != Given::Null).then(|| format!("resources is {given}: wanted an object of {}", RESOURCES.join(", ")))
}

fn read_resources<'de, A: MapAccess<'de>>(mut map: A) -> Result<Option<String>, A::Error> {
    let mut wrong = None;
    let mut seen = [false; RESOURCES.len()];
    while let Some(Name(name)) = map.next_key()? {
        let given: Given<'_> = map.next_value()?;
        let place = RESOURCES.iter().position(|known| *known == name);
        let reason = match (place, &given) {
            (None, _) => format!("resources field {:?} is unknown: wanted {}", shown(&name), RESOURCES.join(", ")),
            (Some(place), _) if std::mem::replace(&mut seen[place], true) => format!("resources.{name} is given twice: wanted once"),
            (Some(_), Given::Unsigned(_)) => continue,
            (Some(_), other) => format!("resources.{name} is {other}: wanted an integer of at least 0"),
        };
        wrong.get_or_insert(reason);
    }
    Ok(wrong)
}

fn skip_seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

fn skip_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}
