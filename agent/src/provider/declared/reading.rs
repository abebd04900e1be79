//! What a command or a webhook says about instances, from JSON.
//!
//! `{"instances": [{"id": "a", "state": "warm", "address": "10.0.0.7"}]}`; or as `terraform output -json` wraps it,
//! `{"instances": {"value": [..]}}`; `address` may be left out, `state` is `starting`, `warm`, `active` or `draining`.

use super::Seen;
use serde::Deserialize;
use std::collections::BTreeSet;
use tradewind_protocol::InstanceId;
use tradewind_protocol::api::InstanceState;

/// The most instances of one answer: what a pool may have.
const MAX_INSTANCES: usize = 100_000;

/// How much of an address is kept.
const MAX_HANDLE_CHARS: usize = 200;

#[derive(Deserialize)]
struct Document {
    instances: Instances,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Instances {
    Plain(Vec<Instance>),
    Wrapped { value: Vec<Instance> },
}

#[derive(Deserialize)]
struct Instance {
    id: InstanceId,
    state: State,
    #[serde(default)]
    address: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum State {
    Starting,
    Warm,
    Active,
    Draining,
}

/// The instances in `bytes`.
pub(crate) fn instances(bytes: &[u8]) -> Result<Vec<Seen>, String> {
    const WANTED: &str = "wanted {\"instances\": [{\"id\": .., \"state\": \"starting|warm|active|draining\", \"address\": ..}]}";
    let document: Document = serde_json::from_slice(bytes).map_err(|error| {
        let shown: String = String::from_utf8_lossy(bytes).chars().take(MAX_HANDLE_CHARS).collect();
        format!("{WANTED}, got {shown:?}: {error}")
    })?;
    let (Instances::Plain(instances) | Instances::Wrapped { value: instances }) = document.instances;
    if instances.len() > MAX_INSTANCES {
        return Err(format!("{} instances are more than {MAX_INSTANCES}", instances.len()));
    }
    let mut ids = BTreeSet::new();
    for instance in &instances {
        if !ids.insert(&instance.id) {
            return Err(format!("instance {} is there twice", instance.id));
        }
    }
    let seen = instances.into_iter().map(|instance| Seen {
        want: None,
        state: match instance.state {
            State::Starting => InstanceState::Starting,
            State::Warm => InstanceState::Warm,
            State::Active => InstanceState::Active,
            State::Draining => InstanceState::Draining,
        },
        handle: instance.address.unwrap_or_else(|| "no address".into()).chars().take(MAX_HANDLE_CHARS).collect(),
        id: instance.id,
    });
    Ok(seen.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_wrapped_answers_are_read_and_nonsense_is_named() {
        let plain = br#"{"instances": [{"id": "a", "state": "active", "address": "10.0.0.7"}, {"id": "b", "state": "starting"}]}"#;
        let read = instances(plain).unwrap();
        assert_eq!((read[0].state, read[0].handle.as_str(), read[1].state), (InstanceState::Active, "10.0.0.7", InstanceState::Starting));
        let wrapped = br#"{"other": 1, "instances": {"sensitive": false, "value": [{"id": "a", "state": "warm"}]}}"#;
        assert_eq!(instances(wrapped).unwrap().len(), 1);
        for (bad, named) in [
            (&b"Apply complete!"[..], "Apply complete!"),
            (br#"{"instances": [{"id": "a", "state": "happy"}]}"#, "happy"),
            (br#"{"instances": [{"id": "a", "state": "warm"}, {"id": "a", "state": "warm"}]}"#, "twice"),
            (br#"{}"#, "wanted"),
        ] {
            let error = instances(bad).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
