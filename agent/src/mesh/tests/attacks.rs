//! What the holder of a valid certificate can do to others: nothing. Each test sends the attack to a
//! running agent and then shows that every agent is as it was.

use super::hostile::{Hostile, answer, gossip, node_of, operations, push, raw_ack, relay, send, send_bytes, spoken};
use super::*;
use crate::config::TlsPaths;
use crate::mesh::message::{Entry, Message};
use crate::mesh::tests::pki::state_with;
use chitchat::{ChitchatId, Serializable};
use tradewind_protocol::wire::{Envelope, Kind, MAX_MESSAGE_BYTES, Published, codec};

/// Three honest agents with a state each, and a hostile one that they all know and talk to.
struct Siege {
    agents: Vec<Agent>,
    hostile: Hostile,
    connections: Vec<quinn::Connection>,
}

const HONEST: [&str; 3] = ["a", "b", "c"];

impl Siege {
    async fn lay() -> Self {
        let pki = Pki::new("mesh");
        let agents = mesh_of(&pki, &HONEST).await;
        for agent in &agents {
            agent.publish("true");
        }
        let hostile = Hostile::new(&pki, "evil").await;
        let mut connections = vec![];
        for agent in &agents {
            for name in HONEST {
                agent.until_state(name, "true").await;
            }
            connections.push(hostile.introduced(agent).await);
        }
        Self { agents, hostile, connections }
    }

    /// Sends a gossip message to everyone, and waits until each has counted the refusal.
    async fn gossip_refused(&self, message: &[u8], reason: &str) {
        for (agent, connection) in self.agents.iter().zip(&self.connections) {
            let before = agent.mesh.stats().refused(reason);
            gossip(connection, message).await;
            agent.until_stats(reason, |stats| stats.refused(reason) > before).await;
        }
    }

    /// Everyone is alive to everyone, holds the true states, still takes new ones in, and gossips on.
    async fn had_no_effect(&self) {
        let mut heartbeats = vec![];
        for agent in &self.agents {
            let view = agent.mesh.view();
            for name in HONEST {
                let entry = &view.regions[&region(name)];
                assert!(entry.live, "{name} seems dead to {}", view.this);
                assert_eq!((entry.generation, version_of(&view, name).as_deref()), (1, Some("true")), "{name} seen by {}", view.this);
            }
            assert!(view.regions.len() <= 4, "{:?}", view.regions.keys());
            assert_eq!(agent.mesh.stats().chitchat_restarts, 0);
            heartbeats.push(heartbeat(agent).await);
        }
        for (agent, name) in self.agents.iter().zip(HONEST) {
            agent.publish(&format!("{name} again"));
        }
        for agent in &self.agents {
            for name in HONEST {
                agent.until_state(name, &format!("{name} again")).await;
            }
        }
        for (agent, before) in self.agents.iter().zip(heartbeats) {
            let deadline = Instant::now() + PATIENCE;
            while heartbeat(agent).await < before + 5 {
                assert!(Instant::now() < deadline, "gossip stands still");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(nodes(agent).await.len() <= 4, "{:?}", nodes(agent).await);
        }
    }
}

async fn heartbeat(agent: &Agent) -> u64 {
    agent.mesh.mesh.gossip.handle().unwrap().chitchat().lock().await.self_node_state().heartbeat().into()
}

async fn nodes(agent: &Agent) -> Vec<ChitchatId> {
    agent.mesh.mesh.gossip.handle().unwrap().chitchat().lock().await.node_states().keys().cloned().collect()
}

#[tokio::test]
async fn a_forged_relay_changes_nothing() {
    let siege = Siege::lay().await;
    let victim = node_of(&siege.agents[0]);
    let forged_body = published::build(state("a"), 64 * 1024).unwrap().body;
    let mut announcement = siege.agents[0].mesh.mesh.core().own.card.announcement.clone();
    announcement.sequence = 50;
    announcement.body_hash = card::hash(&forged_body);
    announcement.body_bytes = forged_body.len() as u32;
    // Signed by the wrong region.
    let forged = card::sign(&siege.hostile.identity, announcement);
    siege.gossip_refused(&relay(&victim, card::to_text(&forged), 50), "forged").await;
    // A true card under a higher version.
    let card = siege.agents[0].mesh.mesh.core().own.card.clone();
    siege.gossip_refused(&relay(&victim, card::to_text(&card), 1000), "contradiction").await;
    // No card at all.
    siege.gossip_refused(&relay(&victim, "forged".into(), 50), "malformed").await;
    siege.had_no_effect().await;
}

#[tokio::test]
async fn a_key_that_starts_with_a_multi_byte_character_changes_nothing() {
    let siege = Siege::lay().await;
    let own = siege.hostile.entry().id;
    let text = card::to_text(&siege.hostile.card(1, 2, &[]));
    for key in ["é", "\u{10ffff}", "ключ"] {
        siege.gossip_refused(&raw_ack(&[(2, operations(&own, key, &text, 2))]), "key").await;
    }
    siege.had_no_effect().await;
}

#[tokio::test]
async fn the_highest_version_changes_nothing() {
    let siege = Siege::lay().await;
    for victim in &siege.agents {
        let card = victim.mesh.mesh.core().own.card.clone();
        let message = raw_ack(&[(2, operations(&node_of(victim), "card", &card::to_text(&card), u64::MAX))]);
        siege.gossip_refused(&message, "contradiction").await;
        let mut max_version = vec![0];
        node_of(victim).serialize(&mut max_version);
        [0u64, 0].iter().for_each(|number| number.serialize(&mut max_version));
        max_version.push(2);
        u64::MAX.serialize(&mut max_version);
        siege.gossip_refused(&raw_ack(&[(2, max_version)]), "key").await;
    }
    siege.had_no_effect().await;
}

#[tokio::test]
async fn a_delta_of_compressed_zeros_changes_nothing() {
    let siege = Siege::lay().await;
    let zeros = zstd::bulk::compress(&vec![0; 65_535], 1).unwrap();
    let message = raw_ack(&std::iter::repeat_n((1, zeros), 2_000).collect::<Vec<_>>());
    let frame = frame::Packer::new().pack(&message);
    assert!(frame.len() < 1_000, "a small frame: {}", frame.len());
    siege.gossip_refused(&message, "bomb").await;
    siege.had_no_effect().await;
}

#[tokio::test]
async fn made_up_nodes_change_nothing() {
    let siege = Siege::lay().await;
    let made_up = |i: u64| Entry {
        id: ChitchatId::new(format!("m{i}"), 1, ([10, 99, (i >> 8) as u8, i as u8], 7000).into()),
        heartbeat: 10,
        last_gc_version: 0,
        max_version: 1,
    };
    let syn = |from: u64, to: u64| {
        let digest = std::iter::once(siege.hostile.entry()).chain((from..to).map(made_up)).collect();
        Message::Syn { cluster: "mesh".into(), digest }.to_bytes()
    };
    let dials: Vec<u64> = siege.agents.iter().map(|agent| agent.mesh.stats().dials).collect();
    siege.gossip_refused(&syn(0, 1_300), "crowd").await;
    siege.gossip_refused(&syn(1_300, 2_600), "crowd").await;
    siege.gossip_refused(&syn(0, 900), "unknown").await;
    // Lives of a true region that it never had, at an address that is not its.
    let mut entry = made_up(1);
    entry.id = ChitchatId::new("a", 99, ([10, 99, 9, 9], 7000).into());
    let digest = vec![siege.hostile.entry(), entry];
    let message = Message::Syn { cluster: "mesh".into(), digest }.to_bytes();
    for (agent, connection) in siege.agents.iter().zip(&siege.connections).skip(1) {
        gossip(connection, &message).await;
        agent.until_stats("unproven", |stats| stats.refused("unproven") > 0).await;
    }
    for (agent, before) in siege.agents.iter().zip(dials) {
        assert!(agent.mesh.stats().dials <= before + 1, "only the hostile peer itself may be dialled");
    }
    siege.had_no_effect().await;
}

#[tokio::test]
async fn made_up_lives_of_the_attacker_are_few() {
    let siege = Siege::lay().await;
    let cards: Vec<Card> = (2..1_302).map(|generation| siege.hostile.card(generation, 1, &[])).collect();
    for batch in cards.chunks(100) {
        send(&siege.connections[0], Kind::Cards, &codec::encode(&batch).unwrap()).await;
    }
    siege.agents[0].until_stats("refused lives", |stats| stats.refused("generation") > 0).await;
    let lives = siege.agents[0].mesh.view().regions[&region("evil")].generation;
    assert!(lives < 20, "{lives}");
    siege.had_no_effect().await;
}

#[tokio::test]
async fn the_highest_heartbeat_changes_nothing() {
    let siege = Siege::lay().await;
    for victim in &siege.agents {
        let entry = Entry { id: node_of(victim), heartbeat: u64::MAX, last_gc_version: 0, max_version: 1 };
        let message = Message::Syn { cluster: "mesh".into(), digest: vec![siege.hostile.entry(), entry] }.to_bytes();
        for (agent, connection) in siege.agents.iter().zip(&siege.connections) {
            let before = agent.mesh.stats().refused("heartbeat");
            gossip(connection, &message).await;
            // The victim itself does not ask others for its own heartbeat.
            if agent.addr() != victim.addr() {
                agent.until_stats("heartbeat", |stats| stats.refused("heartbeat") > before).await;
            }
        }
    }
    // Longer than the failure detector would take to give a silent region up.
    let end = Instant::now() + Duration::from_secs(8);
    let mut views = siege.agents[0].mesh.watch();
    while let Ok(changed) = tokio::time::timeout_at(end, views.changed()).await {
        changed.unwrap();
        for name in HONEST {
            assert!(views.borrow_and_update().regions[&region(name)].live, "{name} seems dead");
        }
    }
    siege.had_no_effect().await;
}

#[tokio::test]
async fn a_heartbeat_just_within_reach_makes_nobody_dead() {
    let siege = Siege::lay().await;
    let victim = &siege.agents[1];
    let mut views = siege.agents[0].mesh.watch();
    let end = Instant::now() + Duration::from_secs(12);
    // Always 900 ahead of what the victim has reached: what it says itself is then no news to gossip.
    while Instant::now() < end {
        let ahead = heartbeat(victim).await + 900;
        let entry = Entry { id: node_of(victim), heartbeat: ahead, last_gc_version: 0, max_version: 1 };
        if Instant::now() + Duration::from_secs(11) > end {
            let message = Message::Syn { cluster: "mesh".into(), digest: vec![siege.hostile.entry(), entry] }.to_bytes();
            gossip(&siege.connections[0], &message).await;
        }
        let _ = timeout(Duration::from_millis(300), views.changed()).await;
        assert!(siege.agents[0].mesh.view().regions[&region("b")].live, "the region itself has the last word");
    }
    siege.had_no_effect().await;
}

#[tokio::test]
async fn gossip_in_another_regions_name_changes_nothing() {
    let siege = Siege::lay().await;
    let entry = Entry { id: ChitchatId::new("a", 9, siege.hostile.addr()), heartbeat: 50, last_gc_version: 0, max_version: 9 };
    let message = Message::Syn { cluster: "mesh".into(), digest: vec![entry] }.to_bytes();
    siege.gossip_refused(&message, "impostor").await;
    assert!(siege.agents[1].has_event("mesh.peer_refused", "evil"));
    let message = Message::Syn { cluster: "another".into(), digest: vec![siege.hostile.entry()] }.to_bytes();
    siege.gossip_refused(&message, "cluster").await;
    siege.gossip_refused(&Message::BadCluster.to_bytes(), "cluster").await;
    siege.had_no_effect().await;
}

#[tokio::test]
async fn forged_cards_change_nothing() {
    let siege = Siege::lay().await;
    let hostile = &siege.hostile;
    let true_card = siege.agents[0].mesh.mesh.core().own.card.clone();
    let mut stolen = card::sign(&hostile.identity, hostile.announcement("a", 9, 1, &[]));
    let own_certificate = stolen.clone();
    stolen.certificate = true_card.certificate.clone();
    let mut changed = true_card.clone();
    changed.announcement.generation += 1;
    let mut other_mesh = hostile.announcement("evil", 9, 1, &[]);
    other_mesh.cluster = "another".into();
    let strangers = Pki::new("mesh");
    let stranger = card::sign(&strangers.identity("new"), hostile.announcement("new", 1, 1, &[]));
    let cases = [
        (stolen, "forged"),
        (own_certificate, "forged"),
        (changed, "forged"),
        (card::sign(&hostile.identity, other_mesh), "cluster"),
        (stranger, "forged"),
    ];
    for (agent, connection) in siege.agents.iter().zip(&siege.connections) {
        for (card, reason) in &cases {
            let before = agent.mesh.stats().refused(reason);
            send(connection, Kind::Cards, &codec::encode(&vec![card]).unwrap()).await;
            agent.until_stats(reason, |stats| stats.refused(reason) > before).await;
        }
        assert_eq!(agent.mesh.view().regions.len(), 4);
    }
    siege.had_no_effect().await;
}

#[tokio::test]
async fn bad_pushes_change_nothing() {
    let siege = Siege::lay().await;
    let hostile = &siege.hostile;
    let (agent, connection) = (&siege.agents[0], &siege.connections[0]);
    let body = |name: &str| published::build(state(name), 64 * 1024).unwrap().body;

    // A true state comes in; from there, only what is newer does.
    let mut mine = state("evil");
    mine.version = "mine".into();
    let good = published::build(mine, 64 * 1024).unwrap().body;
    push(connection, hostile.card(1, 10, &good), &good).await;
    agent.until_state("evil", "mine").await;
    let before = agent.mesh.stats().stale;
    push(connection, hostile.card(1, 9, &body("evil")), &body("evil")).await;
    push(connection, hostile.card(1, 10, &good), &good).await;
    agent.until_stats("stale", |stats| stats.stale >= before + 2).await;

    // Another region's state, even its true one.
    let others = siege.agents[1].mesh.mesh.core().published(&region("b")).unwrap();
    refused(agent, "foreign", push(connection, others.card.clone(), &others.body)).await;
    // A body that is not the one that was signed.
    refused(agent, "forged", push(connection, hostile.card(1, 11, b"signed"), b"other!")).await;
    // A body that says it is another region's.
    let of_a = body("a");
    refused(agent, "contradiction", push(connection, hostile.card(1, 12, &of_a), &of_a)).await;
    // Bodies that are none, too large, or grow.
    refused(agent, "malformed", push(connection, hostile.card(1, 13, b"junk"), b"junk")).await;
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    refused(agent, "malformed", push(connection, hostile.card(1, 14, &bomb), &bomb)).await;
    let large = vec![7; 300 * 1024];
    refused(agent, "malformed", push(connection, hostile.card(1, 15, &large), &large)).await;
    let huge = Envelope { kind: Kind::Push, body: &vec![0; MAX_MESSAGE_BYTES + 1] }.to_bytes(spoken(connection));
    refused(agent, "oversized", send_bytes(connection, &huge)).await;
    // Messages that are none.
    refused(agent, "malformed", send(connection, Kind::Push, b"junk")).await;
    refused(agent, "malformed", send(connection, Kind::Cards, &[0xff; 64])).await;
    refused(agent, "malformed", send_bytes(connection, &[9, 9, 9])).await;
    refused(agent, "malformed", send_bytes(connection, &[])).await;
    refused(agent, "misplaced", send(connection, Kind::Response, b"x")).await;
    refused(agent, "malformed", gossip(connection, b"junk")).await;
    assert_eq!(version_of(&agent.mesh.view(), "evil").as_deref(), Some("mine"), "the last true state stays");
    siege.had_no_effect().await;
}

/// Sends, and waits until `agent` has counted the refusal.
async fn refused(agent: &Agent, reason: &str, send: impl Future<Output = ()>) {
    let before = agent.mesh.stats().refused(reason);
    send.await;
    agent.until_stats(reason, |stats| stats.refused(reason) > before).await;
}

#[tokio::test]
async fn a_flood_is_cut_off_and_nobody_else_notices() {
    let siege = Siege::lay().await;
    let connection = &siege.connections[0];
    let syn = Message::Syn { cluster: "mesh".into(), digest: vec![siege.hostile.entry()] }.to_bytes();
    let frame = frame::Packer::new().pack(&syn);
    let message = bytes::Bytes::from(Envelope { kind: Kind::Gossip, body: &frame }.to_bytes(spoken(connection)));
    for _ in 0..2_000 {
        connection.send_datagram_wait(message.clone()).await.unwrap();
    }
    siege.agents[0].until_stats("rate", |stats| stats.refused("rate") > 0).await;
    for _ in 0..300 {
        push(connection, siege.hostile.card(1, 1, &[]), &[]).await;
    }
    siege.had_no_effect().await;
}

#[tokio::test]
async fn requests_are_read_within_bounds() {
    let siege = Siege::lay().await;
    let spoken = spoken(&siege.connections[0]);
    let ask = async |bytes: &[u8]| {
        let (mut send, mut receive) = siege.connections[0].open_bi().await.unwrap();
        let _ = send.write_all(bytes).await;
        let _ = send.finish();
        receive.read_to_end(MAX_MESSAGE_BYTES).await
    };
    let large = Envelope { kind: Kind::Request, body: &[0; 10_000] }.to_bytes(spoken);
    assert!(ask(&large).await.is_ok_and(|answer| answer.is_empty()));
    let junk = Envelope { kind: Kind::Request, body: &[0xee; 10] }.to_bytes(spoken);
    assert!(ask(&junk).await.is_ok_and(|answer| answer.is_empty()));
    let other = Envelope { kind: Kind::Push, body: &[] }.to_bytes(spoken);
    assert!(ask(&other).await.is_ok_and(|answer| answer.is_empty()));
    let stats = siege.agents[0].mesh.stats();
    assert_eq!((stats.refused("oversized"), stats.refused("malformed"), stats.refused("misplaced")), (1, 1, 1));
    siege.had_no_effect().await;
}

#[tokio::test]
async fn a_fetch_answered_with_a_forgery_changes_nothing() {
    let siege = Siege::lay().await;
    // The hostile region announces a state, and answers with another one when it is asked.
    let hostile = &siege.hostile;
    let true_body = published::build(state("evil"), 64 * 1024).unwrap().body;
    let forged_body = published::build(state_with("evil", 3), 64 * 1024).unwrap().body;
    let announced = hostile.card(1, 20, &true_body);
    send(&siege.connections[0], Kind::Cards, &codec::encode(&vec![&announced]).unwrap()).await;
    let response = Response::Published(Box::new(Published { card: announced, body: forged_body }));
    answer(&siege.connections[0], &response).await;
    siege.agents[0].until_stats("forged", |stats| stats.refused("forged") > 0).await;
    assert!(siege.agents[0].mesh.view().state(&region("evil")).is_none());
    siege.had_no_effect().await;
}

#[tokio::test]
async fn who_holds_no_valid_certificate_gets_nowhere() {
    let pki = Pki::new("mesh");
    let agents = mesh_of(&pki, &["a", "b"]).await;
    let strangers = Pki::new("mesh");
    for tls in [strangers.paths("c"), strangers.paths("a"), pki.expired("c"), pki.expired("a")] {
        // It would put up with the agent's certificate.
        let tls = TlsPaths { ca: pki.paths("unused").ca, ..tls };
        let hostile = Hostile::with(&tls).await;
        let before = agents[0].mesh.stats().refused("certificate");
        // Its own end may not notice before it reads: TLS 1.3 clients finish first.
        if let Ok(connection) = hostile.connect(&agents[0]).await {
            timeout(PATIENCE, connection.closed()).await.expect("closed by the agent");
        }
        agents[0].until_stats("certificate", |stats| stats.refused("certificate") > before).await;
    }
    assert!(agents[0].has_event("mesh.peer_refused", "no certificate of a region"));
    assert_eq!(live(&agents[0].mesh.view()), ["a", "b"]);
    assert_eq!(agents[0].mesh.view().regions.len(), 2);
}

#[tokio::test]
async fn a_second_agent_of_the_same_region_is_turned_away() {
    let pki = Pki::new("mesh");
    let agents = mesh_of(&pki, &["a", "b"]).await;
    let twin = Hostile::new(&pki, "a").await;
    let connection = twin.connect(&agents[0]).await.unwrap();
    timeout(PATIENCE, connection.closed()).await.expect("closed by the agent");
    agents[0].until_stats("own_region", |stats| stats.refused("own_region") == 1).await;
}
