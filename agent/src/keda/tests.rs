//! The scaler over a real socket, asked in HTTP/2 as gRPC does.

use super::*;
use crate::env::Env;
use crate::testing::Authority;
use h2::client::SendRequest;
use tradewind_protocol::plan::DecisionReason;
use tradewind_protocol::pool::InstanceCounts;
use tradewind_protocol::region::Mode;
use tradewind_protocol::{PoolDecision, PoolName, Quantile, RegionId, RegionalResourcePlan, ServiceName, StepIndex, Timestamp};

const CONFIG: &str = "region = \"eu\"\ndata_dir = \"/tmp/tw\"\n[mesh]\nlisten = \"127.0.0.1:7470\"\n\
    [mesh.tls]\nca = \"ca.pem\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n[keda]\nlisten = \"127.0.0.1:0\"\n\
    [[pool]]\nname = \"p\"\nservice = \"game\"\nrate_per_instance = 25\nmax_instances = 4\nprocess = { command = [\"w\"] }\n";

/// A plan for one pool of the service for each of these shares of its demand: what is foreseen, and what was observed.
fn plan(shares: &[(f64, f64)]) -> Arc<RegionalResourcePlan> {
    let decisions = shares.iter().map(|(demand_rate, observed_rate)| decision(*demand_rate, *observed_rate));
    Arc::new(RegionalResourcePlan {
        region: RegionId::new("eu").unwrap(),
        version: 1,
        made_at: Timestamp::EPOCH,
        mode: Mode::Advisory,
        known_until: StepIndex(0),
        decisions: decisions.collect(),
        notes: vec![],
    })
}

fn decision(demand_rate: f64, observed_rate: f64) -> PoolDecision {
    let reason = DecisionReason {
        quantile: Quantile::nearest(0.95),
        demand_rate,
        median_rate: demand_rate,
        upper_rate: 0.0,
        own_rate: None,
        observed_rate,
        reactive_floor: 0,
        lead_ms: 60_000,
        forecasts: 1,
        stale_sources: vec![],
        rule: String::new(),
    };
    PoolDecision {
        pool: PoolName::new("p").unwrap(),
        service: ServiceName::new("game").unwrap(),
        current: InstanceCounts::default(),
        active: 0,
        warm: 0,
        ready_by: Timestamp::EPOCH,
        reason,
        mix: None,
        blocked: None,
    }
}

/// A `ScaledObjectRef` with this metadata.
fn object(metadata: &[(&str, &str)]) -> Vec<u8> {
    let field = |number: u8, content: &[u8]| [&[number << 3 | 2, content.len() as u8], content].concat();
    let entries = metadata.iter().map(|(key, value)| field(3, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat()));
    entries.fold(field(1, b"game-scaler"), |all, entry| [all, entry].concat())
}

struct Caller {
    send: SendRequest<Bytes>,
    progress: watch::Sender<Progress>,
    _stop: watch::Sender<bool>,
}

async fn caller() -> Caller {
    let (at, progress, stop) = scaler(None).await;
    let stream = tokio::net::TcpStream::connect(at).await.unwrap();
    Caller { send: speak(stream).await.unwrap(), progress, _stop: stop }
}

/// A scaler, where it listens, and what it is told.
async fn scaler(tls: Option<TlsAcceptor>) -> (std::net::SocketAddr, watch::Sender<Progress>, watch::Sender<bool>) {
    let config = Arc::new(Config::parse(CONFIG, []).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real(dir.path()).unwrap();
    let listener = env.network.bind_tcp(config.keda.as_ref().unwrap().listen).await.unwrap();
    let at = listener.local_addr().unwrap();
    let ((progress, seen), (stop, stopped)) = (watch::channel(Progress::default()), watch::channel(false));
    tokio::spawn(serve(Arc::new(Keda { config, progress: seen }), listener, tls, stopped));
    (at, progress, stop)
}

async fn speak(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Bytes>, h2::Error> {
    let (send, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    send.ready().await
}

impl Caller {
    fn know(&self, demand: f64, observed: f64) {
        self.progress.send_modify(|progress| progress.plan = Some(plan(&[(demand, observed)])));
    }

    async fn open(&mut self, method: &str, message: &[u8]) -> Response<h2::RecvStream> {
        let uri = format!("http://scaler/externalscaler.ExternalScaler/{method}");
        let request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap();
        let (answer, mut body) = self.send.send_request(request, false).unwrap();
        body.send_data(wire::frame(message).into(), true).unwrap();
        answer.await.unwrap()
    }

    /// The message, or gRPC's code and words.
    async fn call(&mut self, method: &str, message: &[u8]) -> Result<Vec<u8>, (u16, String)> {
        let answer = self.open(method, message).await;
        let text = |headers: &HeaderMap, name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_string()).unwrap_or_default();
        if let Ok(code) = text(answer.headers(), "grpc-status").parse() {
            return Err((code, text(answer.headers(), "grpc-message")));
        }
        assert_eq!(text(answer.headers(), "content-type"), "application/grpc");
        let mut body = answer.into_body();
        let message = body.data().await.unwrap().unwrap();
        assert_eq!(text(&body.trailers().await.unwrap().unwrap(), "grpc-status"), "0");
        Ok(wire::unframe(&message).unwrap().to_vec())
    }
}

#[tokio::test]
async fn the_metric_is_the_foreseen_demand_and_never_less_than_what_is_observed() {
    let mut caller = caller().await;
    let game = object(&[("service", "game")]);
    assert_eq!(caller.call("IsActive", &game).await.unwrap_err().0, 14, "there is no plan yet");
    caller.know(120.5, 80.0);
    assert_eq!(caller.call("IsActive", &game).await.unwrap(), wire::is_active(true));
    assert_eq!(caller.call("GetMetricSpec", &game).await.unwrap(), wire::metric("tradewind-game", 25.0));
    let own = object(&[("service", "game"), ("targetRate", "7.5")]);
    assert_eq!(caller.call("GetMetricSpec", &own).await.unwrap(), wire::metric("tradewind-game", 7.5));
    let request = [&[0x0a, game.len() as u8], &game[..], b"\x12\x0etradewind-game"].concat();
    assert_eq!(caller.call("GetMetrics", &request).await.unwrap(), wire::metric("tradewind-game", 120.5));
    caller.know(10.0, 80.0);
    assert_eq!(caller.call("GetMetrics", &request).await.unwrap(), wire::metric("tradewind-game", 80.0));
    // Two pools, each with its share.
    caller.progress.send_modify(|progress| progress.plan = Some(plan(&[(60.0, 10.0), (20.0, 30.0)])));
    assert_eq!(caller.call("GetMetrics", &request).await.unwrap(), wire::metric("tradewind-game", 90.0));
    caller.know(0.0, 0.0);
    assert_eq!(caller.call("IsActive", &game).await.unwrap(), wire::is_active(false));
}

#[tokio::test]
async fn what_cannot_be_answered_says_why() {
    let mut caller = caller().await;
    caller.know(1.0, 1.0);
    for (method, metadata, code, named) in [
        ("IsActive", &[][..], 3, "service"),
        ("IsActive", &[("service", "mail")], 5, "mail"),
        ("GetMetricSpec", &[("service", "game"), ("targetRate", "-1")], 3, "targetRate"),
        ("GetEverything", &[("service", "game")], 12, "externalscaler.proto"),
        ("StreamIsActive", &[("service", "mail")], 5, "mail"),
    ] {
        let (found, words) = caller.call(method, &object(metadata)).await.unwrap_err();
        assert!(found == code && words.contains(named), "{method}: {found} {words}");
    }
    assert_eq!(caller.call("IsActive", b"\x0a\xff").await.unwrap_err().0, 3);
}

#[tokio::test]
async fn a_stream_tells_each_change_once() {
    let mut caller = caller().await;
    caller.know(1.0, 1.0);
    let mut body = caller.open("StreamIsActive", &object(&[("service", "game")])).await.into_body();
    for active in [true, false, true] {
        caller.know(if active { 5.0 } else { 0.0 }, 0.0);
        caller.know(if active { 6.0 } else { 0.0 }, 0.0);
        assert_eq!(body.data().await.unwrap().unwrap(), wire::frame(&wire::is_active(active)));
    }
}

#[tokio::test]
async fn with_tls_it_speaks_http_2_to_those_that_its_authority_knows_and_to_nobody_else() {
    let (ours, other) = (Authority::new(1), Authority::new(2));
    let dir = tempfile::tempdir().unwrap();
    let tls = crate::http::acceptor(&ours.server(), &Env::real(dir.path()).unwrap(), b"h2").unwrap();
    let (at, progress, stop) = scaler(Some(tls)).await;
    let connect = async |config: rustls::ClientConfig| {
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = tokio::net::TcpStream::connect(at).await.unwrap();
        tls.connect(rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap(), stream).await
    };
    let stream = connect(ours.client_config(b"h2")).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "which gRPC clients insist on");
    let mut caller = Caller { send: speak(stream).await.unwrap(), progress, _stop: stop };
    caller.know(5.0, 1.0);
    assert_eq!(caller.call("IsActive", &object(&[("service", "game")])).await.unwrap(), wire::is_active(true));
    // In TLS 1.3 a client learns only with its first bytes that its certificate is refused.
    let mut strange = ours.client_config(b"h2");
    strange.client_auth_cert_resolver = other.client_config(b"h2").client_auth_cert_resolver;
    match connect(strange).await {
        Err(_) => {}
        Ok(stream) => {
            let refused = match speak(stream).await {
                Err(error) => Some(error),
                Ok(send) => {
                    let request = Request::post("http://scaler/externalscaler.ExternalScaler/IsActive").body(()).unwrap();
                    let mut send = send;
                    match send.send_request(request, true) {
                        Err(error) => Some(error),
                        Ok((answer, _)) => answer.await.err(),
                    }
                }
            };
            assert!(refused.is_some(), "a stranger was answered");
        }
    }
}
