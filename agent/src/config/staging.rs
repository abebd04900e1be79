//! `[[service.stage]]`: what is made ready for a service before it is needed.
//!
//! A service is needed as soon as the newest plan wants an instance in one of its pools, or if in a step that begins within
//! `stage_lead` from now at least `stage_from` transactions of it are foreseen, at the quantile that is provisioned for and with those
//! that other services make of it. Its steps are then done in the order of the file, one after the other. When the service has not been
//! needed for `stage_keep`, they are undone in the opposite order. Advisory agents stage nothing.

use super::section::{Section, duration, number, path, text, texts, whole};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Component, PathBuf};
use std::time::Duration;
use toml::Value;
use tradewind_protocol::{RegionId, StageName};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// The most steps of a service: more belong into a hook.
const MAX_STEPS: usize = 32;

/// What is staged for one service, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct StageConfig {
    /// How far ahead a need is prepared for.
    pub lead: Duration,
    /// For how long the need must be gone before anything is undone.
    pub keep: Duration,
    /// How many transactions in a step are a need.
    pub from: f64,
    /// What is done, in this order.
    pub steps: Vec<StageStep>,
}

/// One step. Recorded as it is, so that it can be undone when it is no longer configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageStep {
    /// Its name, unique in its service.
    pub name: StageName,
    /// What it does.
    pub action: StageAction,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageAction {
    /// Copies data.
    Preload(PreloadConfig),
    /// Runs a command.
    Hook(StageHookConfig),
    /// Tells a program over HTTP.
    Webhook(StageWebhookConfig),
    /// Opens connections with other regions.
    Connect(ConnectConfig),
    /// Allocates storage.
    Storage(StorageConfig),
}

impl StageAction {
    /// What kind of step this is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            StageAction::Preload(_) => "preload",
            StageAction::Hook(_) | StageAction::Webhook(_) => "hook",
            StageAction::Connect(_) => "connect",
            StageAction::Storage(_) => "storage",
        }
    }
}

/// Data that is copied to where the service will look for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreloadConfig {
    /// Where it comes from: `file://`, `http://` or `https://`.
    pub source: String,
    /// Where it goes; relative to `staged` in the agent's data directory.
    pub to: PathBuf,
    /// Its SHA-256 in hex, if it is to be checked.
    pub sha256: Option<String>,
    /// The most bytes that it may have.
    pub max_bytes: u64,
    /// How many bytes a second may be copied.
    pub bytes_per_second: Option<u64>,
    /// How long one attempt may take; the next one goes on where it ended.
    pub deadline: Duration,
    /// The authority of an https server's certificate, if not one of the system's.
    pub ca: Option<PathBuf>,
}

/// A command that prepares, and one that undoes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageHookConfig {
    /// Prepares; may run more than once.
    pub run: Vec<String>,
    /// Undoes it; may run more than once, and after a preparation that was cut short.
    pub undo: Option<Vec<String>>,
    /// Where both run.
    pub directory: Option<PathBuf>,
    /// Environment variables on top of the agent's.
    pub env: Vec<(String, String)>,
    /// How long each may take.
    pub timeout: Duration,
}

/// A program that prepares and undoes what it is told to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageWebhookConfig {
    /// Where it is.
    pub url: String,
    /// The file with the secret that requests are signed with.
    pub secret_file: PathBuf,
    /// The authority of its certificate, if not one of the system's.
    pub ca: Option<PathBuf>,
    /// How long one request may take.
    pub timeout: Duration,
}

/// Regions that are to be connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectConfig {
    /// Which.
    pub regions: Vec<RegionId>,
    /// How long one attempt may take.
    pub deadline: Duration,
}

/// A file of a size whose blocks are allocated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageConfig {
    /// The file; relative to `staged` in the agent's data directory.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// Reads the staging of the service in `s`; none if it has no steps.
pub(super) fn read(s: &mut Section) -> Option<StageConfig> {
    // Thrice the default lead of data that takes five minutes to copy. A guess.
    let lead = s.or("stage_lead", 15 * MINUTE, duration(SECOND, DAY));
    // As long as a lull of which it is not worth to copy everything again. A guess.
    let keep = s.or("stage_keep", 10 * MINUTE, duration(Duration::ZERO, 31 * DAY));
    let from = s.or("stage_from", 1.0, number(1e-6, 1e12));
    let mut names = BTreeSet::new();
    let steps = s.tables("stage", |s| step(s, &mut names));
    if steps.len() > MAX_STEPS {
        s.problem("stage", format!("{} tables", steps.len()), format!("must be at most {MAX_STEPS}"));
    }
    let steps: Vec<StageStep> = steps.into_iter().flatten().collect();
    (!steps.is_empty()).then_some(StageConfig { lead, keep, from, steps })
}

/// The names of the tables, and who reads them.
type Reader = fn(&mut Section) -> Option<StageAction>;
const READERS: [(&str, Reader); 5] =
    [("preload", preload), ("hook", hook), ("webhook", webhook), ("connect", connect), ("storage", storage)];

fn step(s: &mut Section, names: &mut BTreeSet<StageName>) -> Option<StageStep> {
    let name = s.required("name", "name the step, like name = \"maps\"", |v| {
        let name: StageName = text(v)?;
        if names.insert(name.clone()) { Ok(name) } else { Err("must differ from the other steps' names".to_string()) }
    });
    let mut action = None;
    let mut first = None;
    for (kind, reader) in READERS {
        if !s.has(kind) {
            continue;
        }
        match first {
            Some(first) => s.problem(kind, "a table", format!("a step does one thing: keep either {first} or {kind}")),
            None => first = Some(kind),
        }
        action = s.table(kind, reader);
    }
    if first.is_none() {
        let remedy = "say what the step does: preload = { .. }, hook = { .. }, webhook = { .. }, connect = { .. } or storage = { .. }";
        s.problem("preload", "(missing)", remedy);
    }
    Some(StageStep { name: name?, action: action? })
}

fn preload(s: &mut Section) -> Option<StageAction> {
    let source = s.required("source", "where the data is, like source = \"https://data.example.net/maps.tar\"", source);
    let to = s.required("to", "where it goes, below `staged` in data_dir or an absolute path", place);
    let sha256 = s.optional("sha256", |v| match v.as_str().map(str::to_ascii_lowercase) {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(hex),
        _ => Err("must be 64 hexadecimal digits"),
    });
    // More should be meant. A guess.
    let max_bytes = s.or("max_bytes", 10 << 30, whole(1, i64::MAX)) as u64;
    let bytes_per_second = s.optional("bytes_per_second", whole(1_024, i64::MAX)).map(|rate| rate as u64);
    let deadline = s.or("deadline", 10 * MINUTE, duration(SECOND, DAY));
    let ca = s.optional("ca", path);
    Some(StageAction::Preload(PreloadConfig { source: source?, to: to?, sha256, max_bytes, bytes_per_second, deadline, ca }))
}

fn hook(s: &mut Section) -> Option<StageAction> {
    let run = s.required("do", "the command that prepares, like do = [\"/etc/tradewind/open-ports\"]", super::provider::command);
    let undo = s.optional("undo", super::provider::command);
    let directory = s.optional("directory", path);
    let env = s.or("env", vec![], super::provider::variables);
    let timeout = s.or("timeout", 30 * SECOND, duration(SECOND, DAY));
    Some(StageAction::Hook(StageHookConfig { run: run?, undo, directory, env, timeout }))
}

fn webhook(s: &mut Section) -> Option<StageAction> {
    let url = s.required("url", "where it is posted, like url = \"https://balancer.example.net/stage\"", super::provider::url);
    let secret_file = s.required("secret_file", "the file with the secret that requests are signed with, of at least 16 bytes", path);
    let ca = s.optional("ca", path);
    let timeout = s.or("timeout", 10 * SECOND, duration(Duration::from_millis(100), 60 * SECOND));
    Some(StageAction::Webhook(StageWebhookConfig { url: url?, secret_file: secret_file?, ca, timeout }))
}

fn connect(s: &mut Section) -> Option<StageAction> {
    let regions = s.required("regions", "the regions that will be needed, like regions = [\"us-east-1\"]", |v| {
        let names = texts(v)?;
        if names.is_empty() {
            return Err("must name a region".to_string());
        }
        names.iter().map(|name| name.parse::<RegionId>().map_err(|error| format!("{name}: {error}"))).collect()
    });
    let deadline = s.or("deadline", 30 * SECOND, duration(SECOND, DAY));
    Some(StageAction::Connect(ConnectConfig { regions: regions?, deadline }))
}

fn storage(s: &mut Section) -> Option<StageAction> {
    let file = s.required("file", "the file to allocate, below `staged` in data_dir or an absolute path", place);
    let bytes = s.required("bytes", "its size, like bytes = 1073741824", whole(1, i64::MAX));
    Some(StageAction::Storage(StorageConfig { file: file?, bytes: bytes? as u64 }))
}

fn source(value: &Value) -> Result<String, String> {
    let text = value.as_str().filter(|text| text.len() <= 512).ok_or("must be a URL of at most 512 bytes, in quotes")?;
    match text.strip_prefix("file://") {
        Some(path) if path.starts_with('/') => Ok(text.to_string()),
        Some(_) => Err("must have an absolute path after file://, like \"file:///srv/maps.tar\"".into()),
        None => crate::client::parts(text).map(|_| text.to_string()).map_err(|wanted| format!("{wanted}, or file://")),
    }
}

/// A path that cannot leave the directory that it is relative to.
fn place(value: &Value) -> Result<PathBuf, &'static str> {
    let path = path(value)?;
    match path.components().any(|part| part == Component::ParentDir) || path.file_name().is_none() {
        true => Err("must be the path of a file, without \"..\""),
        false => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BASE, Config};
    use tradewind_protocol::ServiceName;

    const SERVICE: &str = "[[service]]\nname = \"game\"\n";

    #[test]
    fn steps_are_read_in_their_order() {
        let text = "stage_lead = \"20m\"\n[[service.stage]]\nname = \"maps\"\npreload = { source = \"file:///srv/maps\", to = \"maps\" }\n\
            [[service.stage]]\nname = \"ports\"\nhook = { do = [\"open\"], undo = [\"close\"] }\n\
            [[service.stage]]\nname = \"links\"\nconnect = { regions = [\"us\"] }\n\
            [[service.stage]]\nname = \"scratch\"\nstorage = { file = \"scratch\", bytes = 4096 }\n";
        let config = Config::parse(&format!("{BASE}{SERVICE}{text}"), []).unwrap();
        let staging = &config.staging[&ServiceName::new("game").unwrap()];
        let kinds: Vec<_> = staging.steps.iter().map(|step| (step.name.as_str(), step.action.kind())).collect();
        assert_eq!(kinds, [("maps", "preload"), ("ports", "hook"), ("links", "connect"), ("scratch", "storage")]);
        assert_eq!((staging.lead, staging.keep), (20 * MINUTE, 10 * MINUTE));
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let text = "stage_lead = \"0s\"\n[[service.stage]]\nname = \"a\"\npreload = { source = \"ftp://x\", to = \"../up\", sha256 = \"12\" }\n\
            [[service.stage]]\nname = \"a\"\nhook = { do = [], timeout = 5 }\nconnect = { regions = [] }\n\
            [[service.stage]]\nname = \"c\"\n[[service.stage]]\nname = \"d\"\nstorage = { file = \"f\", size = 1 }\n";
        let error = Config::parse(&format!("{BASE}{SERVICE}{text}"), []).unwrap_err().to_string();
        for named in [
            "service[0].stage_lead",
            "stage[0].preload.source",
            "or file://",
            "stage[0].preload.to",
            "without \"..\"",
            "64 hexadecimal digits",
            "must differ from the other steps' names",
            "stage[1].hook.do",
            "stage[1].hook.timeout",
            "keep either hook or connect",
            "must name a region",
            "say what the step does",
            "stage[3].storage.bytes",
            "stage[3].storage.size",
        ] {
            assert!(error.contains(named), "{named} in {error}");
        }
    }
}
