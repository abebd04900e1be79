//! What a service needs is made ready by real agents before it is needed, and undone when it is not.

use serde_json::json;
use std::process::Command;
use tradewind_protocol::api::{StageState, StagingState, StagingView};
use tradewind_tests::{Cluster, Setup, eventually, get_text, now_ms, program};

#[test]
fn traffic_from_another_region_stages_a_service_which_is_undone_when_it_ends() {
    let mut cluster = Cluster::new();
    cluster.start("west", &Setup::default());
    let home = cluster.home("east");
    std::fs::create_dir_all(&home).unwrap();
    let (source, rules) = (home.join("maps.tar"), home.join("rules"));
    std::fs::write(&source, vec![7; 300_000]).unwrap();
    let hook = |script: String| format!("[\"/bin/sh\", \"-c\", {script:?}]");
    let tables = format!(
        "[[service]]\nname = \"game\"\nstage_lead = \"1s\"\nstage_keep = \"200ms\"\nstage_from = 50\n\
         [[service.stage]]\nname = \"maps\"\npreload = {{ source = \"file://{}\", to = \"maps.tar\" }}\n\
         [[service.stage]]\nname = \"rules\"\nhook = {{ do = {}, undo = {} }}\n\
         [[service.stage]]\nname = \"links\"\nconnect = {{ regions = [\"west\"] }}\n\
         [[service.stage]]\nname = \"scratch\"\nstorage = {{ file = \"scratch\", bytes = 65536 }}\n",
        source.display(),
        hook(format!("touch {}", rules.display())),
        hook(format!("rm -f {}", rules.display())),
    );
    let setup = Setup { top: "mode = \"active\"\n".into(), tables, seeds: vec!["west".into()], ..Setup::default() };
    cluster.start("east", &setup);
    cluster.converged(&["east", "west"]);
    let (east, west) = (cluster.member("east"), cluster.member("west"));
    let staging = || east.get::<Vec<StagingView>>("/v1/staging").remove(0);
    assert_eq!(staging().state, StagingState::Idle);
    let send = || {
        let record =
            json!([{"source_region": "west", "destination_region": "east", "service": "game", "timestamp": now_ms(), "count": 500}]);
        assert_eq!(west.post("/v1/records", &record.to_string()).status, 200);
    };
    let ready = eventually("everything is staged", || {
        send();
        Some(staging()).filter(|view| view.state == StagingState::Ready)
    });
    assert!(ready.steps.iter().all(|step| step.state == StageState::Done), "{ready:?}");
    let (maps, scratch) = (home.join("staged/maps.tar"), home.join("staged/scratch"));
    assert_eq!(std::fs::metadata(&maps).unwrap().len(), 300_000);
    assert!(rules.exists() && scratch.exists());
    let metrics = get_text(&east.url("/metrics"));
    assert!(metrics.contains("tradewind_staging_steps{service=\"game\",state=\"done\"} 4"), "{metrics}");
    assert!(metrics.contains("tradewind_staging_copied_bytes_total 300000"), "{metrics}");
    let shown = Command::new(program("tradewind")).args(["staging", "--agent", &east.runtime.api]).env("NO_COLOR", "1").output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(["game", "maps", "preload", "connect", "done"].iter().all(|word| shown.contains(word)), "{shown}");

    // The agent dies, nobody comes any more, and its next life undoes what the former one has done.
    cluster.kill("east");
    cluster.restart("east");
    let east = cluster.member("east");
    let undone = || east.get::<Vec<StagingView>>("/v1/staging").remove(0).state == StagingState::Idle;
    eventually("it is undone", || undone().then_some(()));
    assert!(!maps.exists() && !rules.exists() && !scratch.exists());
}
