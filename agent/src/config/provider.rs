//! What runs a pool: one of the tables `process`, `docker`, `exec`, `webhook` and `kubernetes` of `[[pool]]`, and in `[[pool.fallback]]`
//! those that take over while it fails, in the order in which they are tried.

use super::section::{Section, duration, path, texts};
use super::{DockerConfig, ProcessConfig, ProviderConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use toml::Value;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Infrastructure as code: commands, each a program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecConfig {
    /// Runs before `apply`, and may refuse.
    pub plan: Option<Vec<String>>,
    /// Carries the plan out.
    pub apply: Vec<String>,
    /// Runs in place of `apply` once nothing is wanted.
    pub destroy: Option<Vec<String>>,
    /// Says what there is.
    pub output: Vec<String>,
    /// Where the plan is written as well, below `directory`.
    pub variables_file: Option<PathBuf>,
    /// Where the commands run.
    pub directory: Option<PathBuf>,
    /// Environment variables on top of the agent's.
    pub env: Vec<(String, String)>,
    /// How long one command may take.
    pub timeout: Duration,
    /// How often `output` is asked while nothing changes.
    pub refresh: Duration,
}

/// A program that is told over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookConfig {
    /// Where it is.
    pub url: String,
    /// The file with the secret that requests are signed with.
    pub secret_file: PathBuf,
    /// The authority of its certificate, if not one of the system's.
    pub ca: Option<PathBuf>,
    /// How long one request may take.
    pub timeout: Duration,
    /// How often it is asked what there is while nothing changes.
    pub refresh: Duration,
}

/// Replicas of a Kubernetes workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesConfig {
    /// The API group's path: `/apis/apps/v1`.
    pub group: String,
    /// The workload in it: `deployments/game`.
    pub object: String,
    /// Its namespace, if not that of the context or of the service account.
    pub namespace: Option<String>,
    /// The kubeconfig, if not `$KUBECONFIG` or the service account.
    pub kubeconfig: Option<PathBuf>,
    /// The priority class of placeholder pods.
    pub priority_class: String,
    /// What placeholder pods run.
    pub placeholder_image: String,
    /// How often the cluster is read while watches are silent.
    pub refresh: Duration,
}

/// The names of the tables, and who reads them.
type Reader = fn(&mut Section) -> Option<ProviderConfig>;
const READERS: [(&str, Reader); 5] =
    [("process", process), ("docker", docker), ("exec", exec), ("webhook", webhook), ("kubernetes", kubernetes)];

/// The provider of the pool in `s`, with those that take over while it fails.
pub(super) fn read(s: &mut Section) -> Option<ProviderConfig> {
    let first = one(s);
    let fallback: Option<Vec<ProviderConfig>> = s.tables("fallback", one).into_iter().collect();
    let (first, fallback) = (first?, fallback?);
    if fallback.is_empty() {
        return Some(first);
    }
    let mut kinds = BTreeSet::from([first.kind()]);
    for provider in &fallback {
        if !kinds.insert(provider.kind()) {
            s.problem("fallback", provider.kind(), "a pool has each kind of provider once: take one of them out");
        }
    }
    Some(ProviderConfig::Chain([first].into_iter().chain(fallback).collect()))
}

/// The one provider in `s`.
pub(super) fn one(s: &mut Section) -> Option<ProviderConfig> {
    let mut provider = None;
    let mut first = None;
    for (name, reader) in READERS {
        if !s.has(name) {
            continue;
        }
        if let Some(first) = first {
            s.problem(
                name,
                "a table",
                format!("a pool has one provider: keep either {first} or {name}; one that takes over goes into [[pool.fallback]]"),
            );
        }
        first = first.or(Some(name));
        provider = s.table(name, reader);
    }
    // Without any, the simplest one says what it misses.
    if first.is_none() { s.table("process", process) } else { provider }
}

fn process(s: &mut Section) -> Option<ProviderConfig> {
    let command = s.required("command", "the worker program and its arguments, like command = [\"/usr/bin/worker\"]", command);
    let env = s.or("env", vec![], variables);
    Some(ProviderConfig::Process(ProcessConfig { command: command?, env }))
}

fn exec(s: &mut Section) -> Option<ProviderConfig> {
    let plan = s.optional("plan", command);
    let apply =
        s.required("apply", "the command that carries a plan out, like apply = [\"terraform\", \"apply\", \"-auto-approve\"]", command);
    let destroy = s.optional("destroy", command);
    let output = s.required("output", "the command that says what there is, like output = [\"terraform\", \"output\", \"-json\"]", command);
    let variables_file = s.optional("variables_file", path);
    let directory = s.optional("directory", path);
    let env = s.or("env", vec![], variables);
    // What a small virtual machine takes to be made, five times over.
    let timeout = s.or("timeout", 600 * SECOND, duration(SECOND, 24 * HOUR));
    // Tools that ask a cloud's API are slow, and some of them are charged for.
    let refresh = s.or("refresh", 15 * SECOND, duration(Duration::from_millis(20), HOUR));
    Some(ProviderConfig::Exec(ExecConfig {
        plan,
        apply: apply?,
        destroy,
        output: output?,
        variables_file,
        directory,
        env,
        timeout,
        refresh,
    }))
}

fn webhook(s: &mut Section) -> Option<ProviderConfig> {
    let url = s.required("url", "where the plan is posted, like url = \"https://capacity.example.net/tradewind\"", url);
    let secret_file = s.required("secret_file", "the file with the secret that requests are signed with, of at least 16 bytes", path);
    let ca = s.optional("ca", path);
    let timeout = s.or("timeout", 10 * SECOND, duration(Duration::from_millis(100), 60 * SECOND));
    let refresh = s.or("refresh", 5 * SECOND, duration(Duration::from_millis(20), HOUR));
    Some(ProviderConfig::Webhook(HookConfig { url: url?, secret_file: secret_file?, ca, timeout, refresh }))
}

fn kubernetes(s: &mut Section) -> Option<ProviderConfig> {
    let wanted = "the workload to scale, like workload = \"deployment/game\", \"statefulset/game\" or \"agones.dev/v1/fleets/game\"";
    let workload = s.required("workload", wanted, |v| {
        let parts: Vec<&str> = v.as_str().unwrap_or_default().split('/').collect();
        let plain =
            |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
        match parts[..] {
            _ if !parts.iter().all(plain) => Err("must be in lower case, like \"deployment/game\" or \"agones.dev/v1/fleets/game\""),
            ["deployment", name] => Ok(("/apis/apps/v1".to_string(), format!("deployments/{name}"))),
            ["statefulset", name] => Ok(("/apis/apps/v1".to_string(), format!("statefulsets/{name}"))),
            [group, version, plural, name] => Ok((format!("/apis/{group}/{version}"), format!("{plural}/{name}"))),
            _ => Err("must be deployment/NAME, statefulset/NAME or GROUP/VERSION/PLURAL/NAME"),
        }
    });
    let name =
        |v: &Value| v.as_str().filter(|text| !text.is_empty() && !text.contains('/')).map(String::from).ok_or("must be a name in quotes");
    let namespace = s.optional("namespace", name);
    let kubeconfig = s.optional("kubeconfig", path);
    // Shipped with the RBAC manifest.
    let priority_class = s.or("priority_class", "tradewind-placeholder".into(), name);
    let image = |v: &Value| v.as_str().filter(|text| !text.is_empty()).map(String::from).ok_or("must be an image in quotes");
    let placeholder_image = s.or("placeholder_image", "registry.k8s.io/pause:3.10".into(), image);
    let refresh = s.or("refresh", 10 * SECOND, duration(Duration::from_millis(20), HOUR));
    let (group, object) = workload?;
    Some(ProviderConfig::Kubernetes(KubernetesConfig { group, object, namespace, kubeconfig, priority_class, placeholder_image, refresh }))
}

/// A URL of a server, over TLS or not.
pub(super) fn url(value: &Value) -> Result<String, String> {
    let text = value.as_str().filter(|text| text.len() <= 512).ok_or("must be a URL of at most 512 bytes, in quotes")?;
    crate::client::parts(text).map(|_| text.to_string())
}

/// A program and its arguments.
pub(super) fn command(value: &Value) -> Result<Vec<String>, &'static str> {
    match texts(value) {
        Ok(command) if command.first().is_some_and(|program| !program.is_empty()) => Ok(command),
        Ok(_) => Err("must name a program"),
        Err(wanted) => Err(wanted),
    }
}

fn docker(s: &mut Section) -> Option<ProviderConfig> {
    let named = |v: &Value| v.as_str().filter(|text| !text.is_empty()).map(String::from).ok_or("must be text that is not empty");
    let image = s.required("image", "the image to run, like image = \"game:1.4\"", named);
    let command = s.or("command", vec![], texts);
    let env = s.or("env", vec![], variables);
    let network = s.or("network", None, |v| named(v).map(Some));
    let socket = s.or("socket", "/var/run/docker.sock".into(), |v| match named(v) {
        Ok(path) if path.starts_with('/') => Ok(path),
        Ok(_) | Err(_) => Err("must be the path of the engine's socket, like \"/var/run/docker.sock\""),
    });
    Some(ProviderConfig::Docker(DockerConfig { image: image?, command, env, network, socket }))
}

pub(super) fn variables(value: &Value) -> Result<Vec<(String, String)>, &'static str> {
    let wanted = "must be a table of text, like { NAME = \"value\" }";
    let pair = |(k, v): (&String, &Value)| Ok((k.clone(), v.as_str().ok_or(wanted)?.to_string()));
    value.as_table().ok_or(wanted)?.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BASE, Config};

    fn pool(provider: &str) -> String {
        format!("{BASE}[[pool]]\nname = \"p\"\nrate_per_instance = 1\nmax_instances = 2\n{provider}")
    }

    #[test]
    fn providers_that_take_plans_are_read_and_every_mistake_is_told() {
        let exec = "exec = { apply = [\"a\"], output = [\"o\", \"-json\"], timeout = \"1m\" }\n";
        let ProviderConfig::Exec(exec) = &Config::parse(&pool(exec), []).unwrap().pools[0].provider else { panic!("not exec") };
        assert_eq!((exec.timeout, &exec.output[1][..], &exec.destroy), (60 * SECOND, "-json", &None));
        let hook = "webhook = { url = \"https://h/plan\", secret_file = \"/s\" }\n";
        assert!(matches!(Config::parse(&pool(hook), []).unwrap().pools[0].provider, ProviderConfig::Webhook(_)));
        let bad = "exec = { apply = [], timeout = \"0s\", varfile = \"x\" }\nwebhook = { url = \"h\" }\n";
        let error = Config::parse(&pool(bad), []).unwrap_err().to_string();
        for named in [
            "exec.apply",
            "exec.output",
            "exec.timeout",
            "exec.varfile",
            "webhook.url",
            "webhook.secret_file",
            "keep either exec or webhook",
        ] {
            assert!(error.contains(named), "{named} in {error}");
        }
    }

    #[test]
    fn what_takes_over_is_read_in_order_and_each_kind_once() {
        let hook = "webhook = { url = \"https://h/plan\", secret_file = \"/s\" }\n";
        let worker = "process = { command = [\"w\"] }\n";
        let docker = "docker = { image = \"w\" }\n";
        let text = pool(&format!("{hook}[[pool.fallback]]\n{docker}[[pool.fallback]]\n{worker}"));
        let config = Config::parse(&text, []).unwrap();
        let kinds: Vec<_> = config.pools[0].provider.each().iter().map(ProviderConfig::kind).collect();
        assert_eq!(kinds, ["webhook", "docker", "process"]);
        let bad = pool(&format!("{worker}[[pool.fallback]]\n{worker}[[pool.fallback]]\ndocker = {{ }}\n"));
        let error = Config::parse(&bad, []).unwrap_err().to_string();
        assert!(error.contains("fallback[1].docker.image"), "{error}");
        let twice = Config::parse(&pool(&format!("{worker}[[pool.fallback]]\n{worker}")), []).unwrap_err().to_string();
        assert!(twice.contains("pool[0].fallback = process: a pool has each kind of provider once"), "{twice}");
    }

    #[test]
    fn every_mistake_of_a_kubernetes_table_is_told() {
        let bad = "kubernetes = { workload = \"Deployment/game\", namespace = \"a/b\", placeholder_image = \"\", refresh = \"2h\", replicas = 3 }\n";
        let error = Config::parse(&pool(bad), []).unwrap_err().to_string();
        for key in ["workload", "namespace", "placeholder_image", "refresh", "replicas"] {
            assert!(error.contains(&format!("kubernetes.{key} = ")), "{key} in {error}");
        }
        for wrong in ["", "pod/game/x/y/z", "replicaset/game", "deployment/"] {
            let error = Config::parse(&pool(&format!("kubernetes = {{ workload = \"{wrong}\" }}\n")), []).unwrap_err().to_string();
            assert!(error.contains("kubernetes.workload = "), "{wrong}: {error}");
        }
    }
}
