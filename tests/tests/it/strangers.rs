//! Agents that have no business in the mesh get nowhere, and the mesh goes on.

use tradewind_protocol::RegionId;
use tradewind_protocol::pki::{self, Issued, Subject, Validity};
use tradewind_tests::cluster::validity;
use tradewind_tests::{Cluster, Setup, eventually, program};

fn leaf(ca: &Issued, region: &str, validity: Validity) -> Issued {
    pki::issue_leaf(ca, &Subject::Agent(RegionId::new(region).unwrap(), vec![]), validity, [99; 32]).unwrap()
}

fn pair() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.start("east", &Setup::default());
    cluster.start("west", &Setup { seeds: vec!["east".into()], ..Setup::default() });
    cluster.converged(&["east", "west"]);
    cluster
}

/// Starts `stranger` towards `east` and shows that nobody takes notice.
fn gets_nowhere(cluster: &mut Cluster) {
    cluster.restart("stranger");
    eventually("the stranger has tried", || {
        let metrics = tradewind_tests::get_text(&cluster.member("stranger").url("/metrics"));
        metrics.lines().find_map(|l| l.strip_prefix("tradewind_mesh_dial_failures_total ")?.parse::<f64>().ok()).filter(|n| *n >= 2.0)
    });
    for region in ["east", "west"] {
        let status = cluster.member(region).status();
        assert_eq!((status.regions_known, status.regions_live), (2, 2), "{region} took notice of the stranger");
    }
    assert_eq!(cluster.member("stranger").status().regions_known, 1);
}

#[test]
fn a_certificate_of_another_authority() {
    let mut cluster = pair();
    let other = pki::issue_ca("test", validity(), [2; 32]).unwrap();
    let stranger = leaf(&other, "stranger", validity());
    cluster.configure_with("stranger", &Setup { seeds: vec!["east".into()], ..Setup::default() }, &stranger);
    // It trusts its own authority and ours, as a stranger may.
    let home = cluster.home("stranger");
    std::fs::write(home.join("ca.pem"), format!("{}{}", other.certificate_pem, cluster.ca().certificate_pem)).unwrap();
    let config = std::fs::read_to_string(home.join("agent.toml")).unwrap();
    let own_ca = config.replace(&format!("{}/ca.pem", cluster.marker()), &format!("{}/stranger/ca.pem", cluster.marker()));
    assert_ne!(config, own_ca);
    std::fs::write(home.join("agent.toml"), own_ca).unwrap();
    gets_nowhere(&mut cluster);
}

/// Runs `check` and then `run` on the configuration of `region`, and returns what `run` said.
fn refused_at_the_start(cluster: &Cluster, region: &str) -> String {
    let run = std::process::Command::new(program("tradewind-agent"))
        .args(["run", "--config"])
        .arg(cluster.home(region).join("agent.toml"))
        .output()
        .unwrap();
    assert!(!run.status.success());
    String::from_utf8_lossy(&run.stderr).into_owned()
}

#[test]
fn an_expired_certificate() {
    let cluster = pair();
    let past = Validity { not_before: 1_000_000_000, not_after: 1_100_000_000 };
    let stranger = leaf(cluster.ca(), "stranger", past);
    cluster.configure_with("stranger", &Setup { seeds: vec!["east".into()], ..Setup::default() }, &stranger);
    let said = refused_at_the_start(&cluster, "stranger");
    assert!(said.contains("expired"), "{said}");
}

#[test]
fn a_certificate_of_another_region() {
    let cluster = pair();
    let stranger = leaf(cluster.ca(), "west", validity());
    cluster.configure_with("stranger", &Setup { seeds: vec!["east".into()], ..Setup::default() }, &stranger);
    let said = refused_at_the_start(&cluster, "stranger");
    assert!(said.contains("west") && said.contains("stranger"), "{said}");
}
