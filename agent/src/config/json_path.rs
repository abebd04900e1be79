//! Where in a JSON document something stands: the part of JSONPath (RFC 9535) that names one place. Pure.
//!
//! `$` is the document, `.name` and `['name']` a member, `[0]` an element: `$.spot[0]['m5.large']`.

use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// The most steps from the document's root.
const MAX_STEPS: usize = 32;

/// A place in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath {
    text: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    Element(usize),
}

impl JsonPath {
    /// What stands there, if anything does.
    pub fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.steps.iter().try_fold(document, |at, step| match step {
            Step::Member(name) => at.get(name),
            Step::Element(index) => at.get(index),
        })
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for JsonPath {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "must be a path to one number, like \"$.spot[0]['m5.large'].usd\"";
        let mut rest = text.strip_prefix('$').ok_or(WANTED)?;
        let mut steps = vec![];
        while !rest.is_empty() {
            let step;
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let (name, left) = after.split_at(end);
                if name.is_empty() || name == "*" {
                    return Err(WANTED);
                }
                (step, rest) = (Step::Member(name.into()), left);
            } else {
                let after = rest.strip_prefix('[').ok_or(WANTED)?;
                let quote = after.chars().next().filter(|c| ['\'', '"'].contains(c));
                (step, rest) = match quote {
                    Some(quote) => {
                        let (name, left) = after[1..].split_once(quote).ok_or(WANTED)?;
                        (Step::Member(name.into()), left.strip_prefix(']').ok_or(WANTED)?)
                    }
                    None => {
                        let (index, left) = after.split_once(']').ok_or(WANTED)?;
                        (Step::Element(index.parse().map_err(|_| WANTED)?), left)
                    }
                };
            }
            steps.push(step);
            if steps.len() > MAX_STEPS {
                return Err(WANTED);
            }
        }
        Ok(Self { text: text.into(), steps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_elements_are_found() {
        let document = serde_json::json!({"spot": [{"m5.large": {"usd": 1}}, 2], "a": {"b": 3}});
        let find = |path: &str| path.parse::<JsonPath>().unwrap().find(&document).cloned();
        assert_eq!(find("$"), Some(document.clone()));
        assert_eq!(find("$.spot[0]['m5.large'].usd"), Some(1.into()));
        assert_eq!((find("$[\"spot\"][1]"), find("$.a.b")), (Some(2.into()), Some(3.into())));
        assert_eq!((find("$.spot[2]"), find("$.a[0]"), find("$.a.b.c")), (None, None, None));
    }

    #[test]
    fn what_names_no_single_place_is_refused() {
        for bad in ["", "a", "$a", "$.", "$..a", "$.*", "$[*]", "$[-1]", "$['a", "$['a'", "$[0", "$.a[]"] {
            assert!(bad.parse::<JsonPath>().is_err(), "{bad}");
        }
    }
}
