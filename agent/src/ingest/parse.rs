//! A body's records, one after the other, into a [`Batch`].

use super::batch::{Batch, Folder, Rules};
use super::body::BodyError;
use super::record::Element;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use std::fmt;

/// The records of `body`, checked and folded. The body is a JSON array if its first visible byte
/// is `[`, and NDJSON otherwise; blank lines of NDJSON count as lines and hold no record.
pub fn parse(body: &[u8], rules: &Rules<'_>) -> Result<Batch, BodyError> {
    let limit = rules.config.max_body_bytes;
    if body.len() > limit {
        return Err(BodyError::TooLarge { limit });
    }
    let mut folder = Folder::new(rules);
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => parse_array(body, &mut folder)?,
        Some(_) => parse_lines(body, &mut folder),
        None => {}
    }
    Ok(folder.finish())
}

/// Syntax that is broken anywhere leaves open where the next record begins, so all are refused.
fn parse_array<'a>(body: &'a [u8], folder: &mut Folder<'a, '_>) -> Result<(), BodyError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let before = &body[..error.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.len() - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1) + 1;
        BodyError::Syntax { line, column, reason: "invalid UTF-8".into() }
    })?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let parsed = Elements { folder }.deserialize(&mut parser).and_then(|()| parser.end());
    parsed.map_err(|error| BodyError::Syntax { line: error.line(), column: error.column(), reason: bare(&error) })
}

fn parse_lines<'a>(body: &'a [u8], folder: &mut Folder<'a, '_>) {
    for (line, bytes) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        let bytes = bytes.trim_ascii();
        if bytes.is_empty() {
            continue;
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            folder.refuse(line, "the line is not UTF-8: wanted one JSON object".into());
            continue;
        };
        match serde_json::from_str::<Element<'_>>(text) {
            Ok(element) => folder.add(line, element),
            Err(error) => folder.refuse(line, format!("broken JSON at column {}: {}", error.column(), bare(&error))),
        }
    }
}

/// The parser's message without the position that ends it.
fn bare(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.rfind(" at line ") {
        text.truncate(at);
    }
    text
}

/// Folds the elements of an array as they are read.
struct Elements<'f, 'a, 'r> {
    folder: &'f mut Folder<'a, 'r>,
}

impl<'a> DeserializeSeed<'a> for Elements<'_, 'a, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'a>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'a> Visitor<'a> for Elements<'_, 'a, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records")
    }
    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut place = 0;
        while let Some(element) = seq.next_element::<Element<'a>>()? {
            place += 1;
            self.folder.add(place, element);
        }
        Ok(())
    }
}
