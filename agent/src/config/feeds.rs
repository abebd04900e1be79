//! `[prometheus]`, `[[tail]]` and `[webhook]`: what is read from elsewhere, and told to elsewhere.

use super::section::{Section, duration, path, text, texts, whole};
use super::{FeedsConfig, PromQuery, PromReadConfig, PromWriteConfig, TailConfig, WebhookConfig};
use std::collections::BTreeSet;
use std::time::Duration;
use toml::Value;
use tradewind_protocol::{ServiceName, Step, TenantName, TransactionType};

const SECOND: Duration = Duration::from_secs(1);

/// Reads all of them from the file's root; records may be `lateness` old.
pub(super) fn read(root: &mut Section, step: Step, lateness: Duration) -> FeedsConfig {
    let (read, write) = root.table("prometheus", |s| {
        let read = if s.has("read") { s.table("read", |s| prometheus_read(s, step, lateness)) } else { None };
        let write = if s.has("write") { s.table("write", prometheus_write) } else { None };
        (read, write)
    });
    let mut paths = BTreeSet::new();
    let tails = root.tables("tail", |s| {
        let path = s.required("path", "the file with a record a line, like path = \"/var/log/app/records.ndjson\"", path);
        // Half of the shortest step that anybody tails by.
        let interval = s.or("interval", SECOND, duration(Duration::from_millis(10), Duration::from_secs(3600)));
        let path = path?;
        if !paths.insert(path.clone()) {
            s.problem("path", path.display(), "must differ from the other tails' paths");
        }
        Some(TailConfig { path, interval })
    });
    let webhook = if root.has("webhook") {
        root.table("webhook", |s| Some(WebhookConfig { url: s.required("url", "where anomalies are posted", url)? }))
    } else {
        None
    };
    FeedsConfig { read, write, tails: tails.into_iter().flatten().collect(), webhook }
}

fn prometheus_read(s: &mut Section, step: Step, lateness: Duration) -> Option<PromReadConfig> {
    let base = s.required("url", "where the server is, like url = \"http://127.0.0.1:9090\"", url);
    // Prometheus answers in whole seconds and fractions; a second is what its own rules are evaluated by.
    if step.length() < SECOND {
        s.problem("url", "", format!("a step of {step} is too short to be read from Prometheus: at least 1s"));
    }
    let backfill = s.or("backfill", lateness, duration(Duration::ZERO, lateness));
    // Shorter than the default of ingest.close_after: what is read of a step is there when it is closed.
    let delay = s.or("delay", 2 * SECOND, duration(Duration::ZERO, Duration::from_secs(3600)));
    let mut names = BTreeSet::new();
    let queries = s.tables("query", |s| {
        let name: Option<String> = s.required("name", "name the query, like name = \"requests\"", |v| match v.as_str() {
            Some(name) if (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) => {
                Ok(name.to_string())
            }
            _ => Err("must be 1 to 32 letters, digits, '-' or '_'"),
        });
        let wanted = "PromQL for the transactions of a step, like query = \"sum by (destination) (increase(requests_total[60s]))\"";
        let query = s.required("query", wanted, |v| v.as_str().map(String::from).ok_or("must be text in quotes"));
        let label = |v: &Value| v.as_str().map(String::from).ok_or("must be the name of a label in quotes");
        let destination_label = s.or("destination_label", "destination".to_string(), label);
        let service_label = s.optional("service_label", label);
        let type_label = s.optional("type_label", label);
        let tenant_label = s.optional("tenant_label", label);
        let service = s.or("service", ServiceName::default(), text);
        let transaction_type = s.or("type", TransactionType::default(), text);
        let tenant = s.or("tenant", TenantName::default(), text);
        let (name, query) = (name?, query?);
        if !names.insert(name.clone()) {
            s.problem("name", &name, "must differ from the other queries' names");
        }
        Some(PromQuery { name, query, destination_label, service_label, type_label, tenant_label, service, transaction_type, tenant })
    });
    if queries.is_empty() {
        s.problem("query", "(missing)", "name at least one query: [[prometheus.read.query]]");
    }
    Some(PromReadConfig { url: base?, backfill, delay, queries: queries.into_iter().flatten().collect() })
}

fn prometheus_write(s: &mut Section) -> Option<PromWriteConfig> {
    let url = s.required("url", "where remote write is taken, like url = \"http://127.0.0.1:9090/api/v1/write\"", url);
    let max_series = s.or("max_series", 500, whole(1, 100_000)) as usize;
    let labels = s.or("labels", vec![], |v| {
        let labels = texts(v)?;
        let parsed = labels.iter().map(|label| label.split_once('=').map(|(name, value)| (name.to_string(), value.to_string())));
        parsed.collect::<Option<Vec<_>>>().ok_or("must be a list like [\"cluster=production\"]")
    });
    Some(PromWriteConfig { url: url?, max_series, labels })
}

fn url(value: &Value) -> Result<String, &'static str> {
    let url = value.as_str().filter(|url| url.strip_prefix("http://").is_some_and(|rest| !rest.is_empty()) && url.len() <= 512);
    url.map(|url| url.trim_end_matches('/').to_string()).ok_or("must be a URL that begins with http:// (put a local proxy before TLS)")
}

#[cfg(test)]
mod tests {
    use crate::config::{BASE, Config};

    #[test]
    fn feeds_are_read_and_every_mistake_is_told() {
        let good = "[prometheus.read]\nurl = \"http://p:9090/\"\nbackfill = \"30m\"\n[[prometheus.read.query]]\nname = \"r\"\nquery = \"up\"\n\
            service = \"game\"\ntype_label = \"kind\"\n[prometheus.write]\nurl = \"http://p:9090/api/v1/write\"\nlabels = [\"a=b\"]\n\
            [[tail]]\npath = \"/x\"\n[webhook]\nurl = \"http://hook/\"\n";
        let feeds = Config::parse(&format!("{BASE}{good}"), []).unwrap().feeds;
        assert_eq!(feeds.read.unwrap().queries[0].service.as_str(), "game");
        assert_eq!((feeds.tails.len(), feeds.webhook.unwrap().url.as_str()), (1, "http://hook"));
        let bad = "[prometheus.read]\nurl = \"p\"\nbackfill = \"2h\"\n[prometheus.write]\nlabels = [\"x\"]\n[[tail]]\n[webhook]\n";
        let error = Config::parse(&format!("{BASE}{bad}"), []).unwrap_err().to_string();
        for key in ["read.url", "read.backfill", "read.query", "write.url", "write.labels", "tail[0].path", "webhook.url"] {
            assert!(error.contains(key), "{key} in {error}");
        }
    }
}
