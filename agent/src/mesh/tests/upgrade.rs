//! Agents of this version of the wire and of the one before, in one mesh.

use super::hostile::{Hostile, push, send_bytes};
use super::*;
use tradewind_protocol::wire::{Envelope, Kind, Version};

async fn start(pki: &Pki, name: &str, seeds: &[SocketAddr], generation: u64, wire_version: Version) -> Agent {
    Agent::start_with(pki, name, Setup { seeds: seeds.to_vec(), generation, wire_version, ..Setup::default() }).await
}

/// Waits until `agent` speaks `version` with `peer`.
async fn until_spoken(agent: &Agent, peer: &str, version: Version) {
    let spoken = |view: &MeshView| view.regions.get(&region(peer)).and_then(|entry| entry.connection).map(|connected| connected.version);
    agent.until(&format!("{version:?} spoken with {peer}"), |view| spoken(view) == Some(version)).await;
}

#[tokio::test]
async fn agents_of_two_versions_are_one_mesh_and_are_upgraded_one_by_one() {
    let pki = Pki::new("mesh");
    let a = start(&pki, "a", &[], 1, Version::V1).await;
    let seeds = [a.addr()];
    let b = start(&pki, "b", &seeds, 1, Version::V2).await;
    let c = start(&pki, "c", &seeds, 1, Version::V2).await;
    for agent in [&a, &b, &c] {
        agent.until_live(&["a", "b", "c"]).await;
    }
    until_spoken(&a, "b", Version::V1).await;
    until_spoken(&b, "a", Version::V1).await;
    until_spoken(&b, "c", Version::V2).await;
    for (agent, name) in [(&a, "a"), (&b, "b"), (&c, "c")] {
        agent.publish(&format!("first of {name}"));
    }
    for agent in [&a, &b, &c] {
        for name in ["a", "b", "c"] {
            agent.until_state(name, &format!("first of {name}")).await;
        }
    }
    let pushed = a.mesh.stats().pushes_received + b.mesh.stats().pushes_received + c.mesh.stats().pushes_received;
    assert!(pushed >= 6, "{pushed} states came by push, whoever of the two versions sent them");
    // What an agent holds, it also gives to those of the other version: here what one speaks with the other is a request.
    let asked = a.mesh.request(&region("b"), Request::Fetch { region: region("c") }).await.unwrap();
    assert!(matches!(&asked, Response::Published(published) if published.card.announcement.region == region("c")), "{asked:?}");
    let asked = b.mesh.request(&region("a"), Request::PredictiveScale { dry_run: true }).await.unwrap();
    assert!(matches!(asked, Response::Refused { .. }));

    // a is upgraded: it leaves in order, and comes back as one of the newer version.
    a.mesh.shutdown().await;
    drop(a);
    let a = start(&pki, "a", &[b.addr(), c.addr()], 2, Version::V2).await;
    a.publish("second of a");
    for agent in [&a, &b, &c] {
        agent.until_live(&["a", "b", "c"]).await;
        agent.until_state("a", "second of a").await;
    }
    until_spoken(&b, "a", Version::V2).await;
    for agent in [&a, &b, &c] {
        assert!(!agent.has_event("mesh.peer_refused", ""), "{:?}", agent.events.since(0));
    }
}

#[tokio::test]
async fn whoever_speaks_the_version_before_is_believed_no_more_than_others() {
    let pki = Pki::new("mesh");
    let agents = mesh_of(&pki, &["a", "b"]).await;
    let evil = Hostile::speaking(&pki.paths("evil"), Version::V1).await;
    let connection = evil.introduced(&agents[0]).await;
    assert_eq!(hostile::spoken(&connection), Version::V1);
    let body = published::build(state("evil"), 64 * 1024).unwrap().body;
    push(&connection, evil.card(1, 2, &body), &body).await;
    agents[0].until("a state of evil", |view| version_of(view, "evil").is_some()).await;

    let before = agents[0].mesh.stats();
    let others = evil.announcement("b", 9, 9, &body);
    push(&connection, card::sign(&evil.identity, others), &body).await;
    agents[0].until_stats("foreign", |stats| stats.refused("foreign") > before.refused("foreign")).await;
    // A message of the newer version where the older one was agreed on.
    let newer = Envelope { kind: Kind::Cards, body: &[0] }.to_bytes(Version::V2);
    send_bytes(&connection, &newer).await;
    agents[0].until_stats("malformed", |stats| stats.refused("malformed") > before.refused("malformed")).await;
    assert_eq!(agents[0].mesh.view().regions[&region("b")].generation, 1);
}
