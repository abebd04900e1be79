//! Kubernetes' HTTP API as this provider uses it, and who we are to it.
//!
//! In a cluster: the service account's token and authority. Elsewhere: a kubeconfig, whose current context must have a token, a token
//! file or a client certificate; programs that print credentials are not run. Throttling (429) is waited out here, twice.

use crate::client::{Answer, Ask, Client, Identity, Streaming};
use axum::http::Method;
use base64::Engine as _;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a pod finds its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The largest answer: a list of a few thousand pods.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// How often a throttled request is tried.
const MAX_TRIES: u32 = 3;

/// The longest pause that a throttled request waits for.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How much of a refusal is repeated.
const SHOWN_CHARS: usize = 300;

/// Who changes what, to server-side apply.
pub(super) const MANAGER: &str = "tradewind";

/// What the API said no to, by status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) reason: String,
}

impl From<String> for Refused {
    fn from(reason: String) -> Self {
        Self { status: 0, reason }
    }
}

/// A way to one cluster.
pub(super) struct Cluster {
    client: Client,
    token: Option<Token>,
    /// The namespace of the context or of the service account.
    pub(super) namespace: String,
}

enum Token {
    Fixed(String),
    /// Kubernetes replaces it every hour.
    File(PathBuf),
}

impl Cluster {
    /// By the kubeconfig at `path`, else by `$KUBECONFIG`, else as a pod.
    pub(super) fn connect(path: Option<&Path>) -> Result<Self, String> {
        let named =
            path.map(Path::to_path_buf).or_else(|| std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
        match named {
            Some(path) => Self::by_file(&path).map_err(|error| format!("kubeconfig {}: {error}", path.display())),
            None => Self::as_pod(Path::new(ACCOUNT), |name| std::env::var(name).ok())
                .map_err(|error| format!("there is no kubeconfig, and this is no pod with a service account: {error}")),
        }
    }

    /// By the service account in the directory `account`, and the environment that a pod has.
    fn as_pod(account: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let variable = |name: &str| variable(name).ok_or_else(|| format!("{name} is not set"));
        let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let read = |name: &str| std::fs::read(account.join(name)).map_err(|error| format!("{}: {error}", account.join(name).display()));
        let identity = Identity { authority: Some(read("ca.crt")?), certificate: None };
        let namespace = String::from_utf8_lossy(&read("namespace")?).trim().to_string();
        let client = Client::new(&format!("https://{host}:{port}"), &identity)?;
        Ok(Self { client, token: Some(Token::File(account.join("token"))), namespace })
    }

    fn by_file(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let config: Value = serde_norway::from_str(&text).map_err(|error| error.to_string())?;
        let find = |list: &str, name: &str, inner: &str| -> Result<Value, String> {
            let all = config[list].as_array().ok_or(format!("it has no {list}"))?;
            let found = all.iter().find(|item| item["name"] == name).ok_or(format!("{list} has no {name:?}"))?;
            Ok(found[inner].clone())
        };
        let current = config["current-context"].as_str().ok_or("it has no current-context")?;
        let context = find("contexts", current, "context")?;
        let cluster = find("clusters", context["cluster"].as_str().unwrap_or_default(), "cluster")?;
        let user = find("users", context["user"].as_str().unwrap_or_default(), "user")?;
        let dir = path.parent().unwrap_or(Path::new("."));
        let material = |from: &Value, name: &str| -> Result<Option<Vec<u8>>, String> {
            if let Some(data) = from[format!("{name}-data")].as_str() {
                return base64::engine::general_purpose::STANDARD.decode(data).map(Some).map_err(|error| format!("{name}-data: {error}"));
            }
            let Some(file) = from[name].as_str() else { return Ok(None) };
            std::fs::read(dir.join(file)).map(Some).map_err(|error| format!("{name} {file}: {error}"))
        };
        let certificate = material(&user, "client-certificate")?.zip(material(&user, "client-key")?);
        let identity = Identity { authority: material(&cluster, "certificate-authority")?, certificate };
        let fixed = user["token"].as_str().map(|token| Token::Fixed(token.into()));
        let token = fixed.or_else(|| user["tokenFile"].as_str().map(|file| Token::File(dir.join(file))));
        if user.get("exec").is_some() && token.is_none() && identity.certificate.is_none() {
            return Err("its user gets credentials from a program, which is not run: make a service account with a token".into());
        }
        let server = cluster["server"].as_str().ok_or("its cluster has no server")?;
        let namespace = context["namespace"].as_str().unwrap_or("default").to_string();
        Ok(Self { client: Client::new(server, &identity)?, token, namespace })
    }

    fn authorised(&self, mut ask: Ask) -> Result<Ask, String> {
        ask.headers.push(("accept", "application/json".into()));
        let token = match &self.token {
            None => return Ok(ask),
            Some(Token::Fixed(token)) => token.clone(),
            Some(Token::File(path)) => std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?,
        };
        ask.headers.push(("authorization", format!("Bearer {}", token.trim())));
        Ok(ask)
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, Refused> {
        for attempt in 1.. {
            let answer = self.client.ask(self.authorised(ask.clone())?, MAX_ANSWER_BYTES, TIMEOUT).await?;
            if answer.status.is_success() {
                return Ok(answer);
            }
            if answer.status.as_u16() == 429 && attempt < MAX_TRIES {
                tokio::time::sleep(answer.retry_after().unwrap_or(Duration::from_secs(1)).min(LONGEST_PAUSE)).await;
                continue;
            }
            return Err(refused(&ask, &answer));
        }
        Err(Refused::from("it was tried too often".to_string()))
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Refused> {
        json(&self.ask(Ask::get(path)).await?.body)
    }

    /// Server-side apply of `object`. With `force`, fields that others manage become ours.
    pub(super) async fn apply(&self, path: &str, object: &Value, force: bool) -> Result<Value, Refused> {
        let headers = vec![("content-type", "application/apply-patch+yaml".to_string())];
        let path = format!("{path}?fieldManager={MANAGER}&force={force}");
        json(&self.ask(Ask { method: Method::PATCH, path, headers, body: object.to_string().into_bytes() }).await?.body)
    }

    /// Merges `patch` into an object. With a `resourceVersion` in it, only into that version.
    pub(super) async fn merge(&self, path: &str, patch: &Value) -> Result<Value, Refused> {
        let headers = vec![("content-type", "application/merge-patch+json".to_string())];
        let path = format!("{path}?fieldManager={MANAGER}");
        json(&self.ask(Ask { method: Method::PATCH, path, headers, body: patch.to_string().into_bytes() }).await?.body)
    }

    /// A watch: lines of JSON, as they come.
    pub(super) async fn watch(&self, path: &str) -> Result<Streaming, Refused> {
        let opened = tokio::time::timeout(TIMEOUT, self.client.open(self.authorised(Ask::get(path))?)).await;
        let answer = opened.map_err(|_| format!("no answer within {TIMEOUT:?}"))??;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let status = answer.status.as_u16();
        let ask = Ask::get(path);
        let answer = tokio::time::timeout(TIMEOUT, answer.whole(MAX_ANSWER_BYTES)).await.map_err(|_| "no answer in time".to_string())??;
        Err(Refused { status, ..refused(&ask, &answer) })
    }
}

fn json(body: &[u8]) -> Result<Value, Refused> {
    serde_json::from_slice(body).map_err(|error| format!("the answer is not JSON: {error}").into())
}

fn refused(ask: &Ask, answer: &Answer) -> Refused {
    let status = answer.status.as_u16();
    let said = serde_json::from_slice::<Value>(&answer.body).ok().and_then(|status| Some(status["message"].as_str()?.to_string()));
    let said = said.unwrap_or_else(|| String::from_utf8_lossy(&answer.body).into_owned());
    let said: String = said.chars().take(SHOWN_CHARS).collect();
    let path = ask.path.split('?').next().unwrap_or_default();
    Refused { status, reason: format!("{} {path}: {status} {}", ask.method, said.trim()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::http;
    use crate::testing::Authority;
    use axum::http::HeaderMap;
    use tokio::sync::watch;

    #[tokio::test]
    async fn a_pod_speaks_to_its_cluster_by_its_service_account_whose_token_may_change() {
        let (authority, dir) = (Authority::new(1), tempfile::tempdir().unwrap());
        let env = Env::real(&dir.path().join("agent")).unwrap();
        let listener = env.network.bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let told = async |headers: HeaderMap| axum::Json(serde_json::json!({ "told": headers["authorization"].to_str().unwrap() }));
        let router = axum::Router::new().route("/version", axum::routing::get(told));
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(http::serve(listener, Some(authority.open_server()), router, stopped));
        let variable = |name: &str| match name {
            "KUBERNETES_SERVICE_HOST" => Some("127.0.0.1".to_string()),
            "KUBERNETES_SERVICE_PORT" => Some(port.to_string()),
            _ => None,
        };
        let missing = |error: Result<Cluster, String>| error.err().unwrap();
        assert!(missing(Cluster::as_pod(dir.path(), |_| None)).contains("KUBERNETES_SERVICE_HOST is not set"));
        assert!(missing(Cluster::as_pod(dir.path(), variable)).contains("ca.crt"));
        for (name, content) in [("ca.crt", authority.pem()), ("namespace", b"games\n".to_vec()), ("token", b"first\n".to_vec())] {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let cluster = Cluster::as_pod(dir.path(), variable).unwrap();
        assert_eq!(cluster.namespace, "games");
        assert_eq!(cluster.get("/version").await.unwrap()["told"], "Bearer first");
        std::fs::write(dir.path().join("token"), "second").unwrap();
        assert_eq!(cluster.get("/version").await.unwrap()["told"], "Bearer second");
    }
}
