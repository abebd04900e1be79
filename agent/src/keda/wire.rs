//! The messages of KEDA's `externalscaler.proto` and gRPC's framing of them, written by hand. Pure.
//!
//! Six small messages and five bytes of framing: a code generator and a gRPC framework would be built for each of us, for years, to save
//! this file. Fields that are not known here are passed over, as protobuf asks.

use std::collections::BTreeMap;

/// The largest request: a ScaledObject's names and metadata.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// `ScaledObjectRef`, and the metric's name of a `GetMetricsRequest`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) metric: String,
}

/// One field of a message.
enum Value<'a> {
    Bytes(&'a [u8]),
    Other,
}

/// The next field: its number, its value, and what comes after it.
fn field(bytes: &[u8]) -> Result<(u64, Value<'_>, &[u8]), &'static str> {
    const SHORT: &str = "a message is cut short";
    let (tag, rest) = varint(bytes)?;
    let (value, rest) = match tag & 7 {
        0 => (Value::Other, varint(rest)?.1),
        1 => (Value::Other, rest.get(8..).ok_or(SHORT)?),
        2 => {
            let (length, rest) = varint(rest)?;
            let length = usize::try_from(length).map_err(|_| SHORT)?;
            let (content, rest) = rest.split_at_checked(length).ok_or(SHORT)?;
            (Value::Bytes(content), rest)
        }
        5 => (Value::Other, rest.get(4..).ok_or(SHORT)?),
        _ => return Err("a field has a type that protobuf does not have"),
    };
    Ok((tag >> 3, value, rest))
}

fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), &'static str> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[at + 1..]));
        }
    }
    Err("a number is cut short")
}

fn text(bytes: &[u8]) -> Result<String, &'static str> {
    std::str::from_utf8(bytes).map(Into::into).map_err(|_| "text is not UTF-8")
}

/// Reads a `ScaledObjectRef`.
pub(crate) fn scaled_object(mut bytes: &[u8]) -> Result<Asked, &'static str> {
    let mut asked = Asked::default();
    while !bytes.is_empty() {
        let (number, value, rest) = field(bytes)?;
        bytes = rest;
        match (number, value) {
            (1, Value::Bytes(name)) => asked.name = text(name)?,
            (2, Value::Bytes(namespace)) => asked.namespace = text(namespace)?,
            (3, Value::Bytes(mut entry)) => {
                let (mut key, mut content) = (String::new(), String::new());
                while !entry.is_empty() {
                    let (number, value, rest) = field(entry)?;
                    entry = rest;
                    match (number, value) {
                        (1, Value::Bytes(bytes)) => key = text(bytes)?,
                        (2, Value::Bytes(bytes)) => content = text(bytes)?,
                        _ => {}
                    }
                }
                asked.metadata.insert(key, content);
            }
            _ => {}
        }
    }
    Ok(asked)
}

/// Reads a `GetMetricsRequest`.
pub(crate) fn get_metrics(mut bytes: &[u8]) -> Result<Asked, &'static str> {
    let (mut asked, mut metric) = (Asked::default(), String::new());
    while !bytes.is_empty() {
        let (number, value, rest) = field(bytes)?;
        bytes = rest;
        match (number, value) {
            (1, Value::Bytes(object)) => asked = scaled_object(object)?,
            (2, Value::Bytes(name)) => metric = text(name)?,
            _ => {}
        }
    }
    Ok(Asked { metric, ..asked })
}

/// An `IsActiveResponse`.
pub(crate) fn is_active(active: bool) -> Vec<u8> {
    if active { vec![0x08, 1] } else { vec![] }
}

/// A `GetMetricSpecResponse` or `GetMetricsResponse` with one metric: the two differ in names only. The whole number is for servers
/// of a time before the other field.
pub(crate) fn metric(name: &str, value: f64) -> Vec<u8> {
    let mut inner = vec![0x0a];
    push_varint(&mut inner, name.len() as u64);
    inner.extend_from_slice(name.as_bytes());
    inner.push(0x10);
    push_varint(&mut inner, value.ceil().clamp(0.0, 9e18) as u64);
    inner.push(0x19);
    inner.extend_from_slice(&value.to_le_bytes());
    let mut out = vec![0x0a];
    push_varint(&mut out, inner.len() as u64);
    out.extend_from_slice(&inner);
    out
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A message as gRPC sends it: not compressed, its length, itself.
pub(crate) fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// The one message of a request's body.
pub(crate) fn unframe(body: &[u8]) -> Result<&[u8], &'static str> {
    let (head, message) = body.split_at_checked(5).ok_or("there is no message")?;
    match head {
        [0, a, b, c, d] if u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len() => Ok(message),
        [0, ..] => Err("the message is not as long as it says"),
        _ => Err("compression is not understood"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes are those of the generated Python code of protobuf.
    #[test]
    fn messages_have_protobufs_bytes() {
        let object = b"\x0a\x04game\x12\x07default\x1a\x0f\x0a\x07service\x12\x04game";
        let asked = scaled_object(object).unwrap();
        assert_eq!((asked.name.as_str(), asked.namespace.as_str(), asked.metadata["service"].as_str()), ("game", "default", "game"));
        let request = [&[0x0a, object.len() as u8], &object[..], b"\x12\x01m\x18\x05"].concat();
        assert_eq!(get_metrics(&request).unwrap(), Asked { metric: "m".into(), ..asked });
        assert_eq!(metric("m", 2.5), b"\x0a\x0e\x0a\x01m\x10\x03\x19\0\0\0\0\0\0\x04\x40");
        assert_eq!(unframe(&frame(b"abc")).unwrap(), b"abc");
    }

    #[test]
    fn whatever_is_cut_short_is_refused_and_nothing_panics() {
        let object = b"\x0a\x04game\x12\x07default\x1a\x0f\x0a\x07service\x12\x04game";
        for end in 0..object.len() {
            let _ = scaled_object(&object[..end]);
        }
        for bad in [
            &b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..],
            b"\x0f",
            b"\x0a\x02\xff\xff",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(scaled_object(bad).is_err(), "{bad:?}");
        }
        assert!(unframe(b"\x01\0\0\0\0").is_err() && unframe(b"\0\0\0\0\x05a").is_err() && unframe(b"").is_err());
    }
}
