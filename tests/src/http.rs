//! Plain HTTP requests with their whole answers.

use serde::de::DeserializeOwned;
use std::time::Duration;

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub retry_after: Option<String>,
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.body))
    }
}

fn client() -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(20))).http_status_as_error(false).build().into()
}

fn answer(response: ureq::http::Response<ureq::Body>) -> Answer {
    let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok()).map(String::from);
    let (status, content_type, retry_after) =
        (response.status().as_u16(), header("content-type").unwrap_or_default(), header("retry-after"));
    let body = response.into_body().into_with_config().limit(1 << 28).read_to_string().expect("the body is text");
    Answer { status, content_type, retry_after, body }
}

/// GET; `None` where nobody answers.
pub fn get(url: &str) -> Option<Answer> {
    client().get(url).call().ok().map(answer)
}

/// GET of text; panics where nobody answers.
pub fn get_text(url: &str) -> String {
    get(url).unwrap_or_else(|| panic!("{url} does not answer")).body
}

/// DELETE; panics where nobody answers.
pub fn delete(url: &str) -> Answer {
    answer(client().delete(url).call().unwrap_or_else(|e| panic!("{url} does not answer: {e}")))
}

/// POST of JSON without more headers; panics where nobody answers.
pub fn post(url: &str, body: &str) -> Answer {
    send(url, &[("content-type", "application/json")], body.as_bytes())
}

/// POST; panics where nobody answers.
pub fn send(url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    Connection::new().send(url, headers, body)
}

/// A client that keeps its connection between requests.
pub struct Connection(ureq::Agent);

impl Connection {
    /// Not connected yet.
    #[expect(clippy::new_without_default, reason = "a connection to nothing is no sensible default")]
    pub fn new() -> Self {
        Self(client())
    }

    /// POST; panics where nobody answers.
    pub fn send(&self, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = self.0.post(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send(body).unwrap_or_else(|e| panic!("POST {url}: {e}")))
    }
}
