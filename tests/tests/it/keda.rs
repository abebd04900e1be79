//! The external scaler of a real agent, called by a client that is generated from the public contract (`agent/deploy/keda/externalscaler.proto`).

use serde_json::json;
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::Code;
use tonic::transport::Channel;
use tradewind_tests::{Cluster, Member, Setup};

#[expect(unreachable_pub, unused_qualifications, reason = "it is generated")]
mod externalscaler {
    tonic::include_proto!("externalscaler");
}

use externalscaler::external_scaler_client::ExternalScalerClient;
use externalscaler::{GetMetricsRequest, ScaledObjectRef};

const PATIENCE: Duration = Duration::from_secs(30);

fn object(service: &str) -> ScaledObjectRef {
    ScaledObjectRef {
        name: "game".into(),
        namespace: "games".into(),
        scaler_metadata: HashMap::from([("service".to_owned(), service.to_owned())]),
    }
}

/// Records 40 transactions of now: 200 a second, if every step has as many.
fn record(solo: &Member) {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let records = json!([{ "source_region": "solo", "destination_region": "solo", "service": "game", "timestamp": at, "count": 40 }]);
    assert_eq!(solo.post("/v1/records", &records.to_string()).status, 200);
}

/// Asks until the answer is good, and demands something meanwhile.
async fn eventually<T>(solo: &Member, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = SystemTime::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed().unwrap() < PATIENCE, "in vain: {what}");
        tokio::task::block_in_place(|| record(solo));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn scaler_follows_the_demand(solo: &Member, mut client: ExternalScalerClient<Channel>) {
    // Until there is a plan, a call fails with what KEDA takes for its fallback.
    let idle = loop {
        match client.is_active(object("game")).await {
            Ok(answer) => break answer.into_inner().result,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(!idle, "nobody has asked for anything yet");
    let mut changes = client.stream_is_active(object("game")).await.unwrap().into_inner();
    assert!(!changes.message().await.unwrap().unwrap().result);

    let spec = client.get_metric_spec(object("game")).await.unwrap().into_inner().metric_specs.remove(0);
    assert_eq!((spec.metric_name.as_str(), spec.target_size_float), ("tradewind-game", 100.0));
    let request = GetMetricsRequest { scaled_object_ref: Some(object("game")), metric_name: spec.metric_name.clone() };
    let metric = eventually(solo, "the metric follows the demand", async || {
        let metric = client.get_metrics(request.clone()).await.unwrap().into_inner().metric_values.remove(0);
        (metric.metric_value_float > 100.0).then_some(metric)
    })
    .await;
    assert_eq!(metric.metric_name, spec.metric_name);
    assert!(client.is_active(object("game")).await.unwrap().into_inner().result);
    let change = tokio::time::timeout(PATIENCE, changes.message()).await.unwrap();
    assert!(change.unwrap().unwrap().result, "the stream tells it by itself");

    let unknown = client.get_metric_spec(object("mail")).await.unwrap_err();
    assert!(unknown.code() == Code::NotFound && unknown.message().contains("no pool of region solo serves mail"), "{unknown:?}");
    let unnamed = client.is_active(ScaledObjectRef::default()).await.unwrap_err();
    assert_eq!(unnamed.code(), Code::InvalidArgument);
}

#[test]
fn a_generated_client_is_answered_as_the_contract_says() {
    let mut cluster = Cluster::new();
    let setup = Setup { tables: "[keda]\nlisten = \"127.0.0.1:0\"\n".into(), ..Setup::default() }.with_workers(0);
    cluster.start("solo", &setup);
    let solo = cluster.member("solo");
    let at = format!("http://{}", solo.runtime.keda.as_ref().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let client = ExternalScalerClient::connect(at).await.unwrap();
        scaler_follows_the_demand(solo, client).await;
    });
}
