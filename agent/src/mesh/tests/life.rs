//! Agents that come, go, restart, move, publish, miss and ask.

use super::hostile::{Hostile, answer, push, send};
use super::*;
use crate::mesh::tests::pki::state_with;
use tradewind_protocol::wire::{Kind, Published, codec};

#[tokio::test]
async fn a_mesh_converges_and_a_push_reaches_everyone() {
    let pki = Pki::new("mesh");
    let names = ["a", "b", "c", "d"];
    let agents = mesh_of(&pki, &names).await;
    for (agent, name) in agents.iter().zip(names) {
        agent.publish(&format!("{name}-1"));
    }
    for agent in &agents {
        for name in names {
            let view = agent.until_state(name, &format!("{name}-1")).await;
            let entry = &view.regions[&region(name)];
            assert!(entry.age(agent.mesh.mesh.clock.now()).unwrap() < PATIENCE);
            assert!(entry.body_bytes > 0);
            assert_eq!(entry.connection.is_some(), view.this != region(name));
        }
        // Everyone joined once, nobody left or returned.
        let kinds: Vec<_> = agent.events.since(0).into_iter().map(|event| event.kind).collect();
        assert_eq!(kinds, ["mesh.region_joined"; 3], "{kinds:?}");
    }
    for agent in &agents {
        let stats = agent.mesh.stats();
        assert!(stats.pushes_received >= 3 && stats.links == 3 && stats.udp_bytes_sent > 0, "{stats:#?}");
    }
    for agent in agents {
        agent.mesh.shutdown().await;
    }
}

#[tokio::test]
async fn of_several_states_in_a_row_the_last_one_counts() {
    let pki = Pki::new("mesh");
    let agents = mesh_of(&pki, &["a", "b"]).await;
    for i in 0..50 {
        agents[0].publish(&format!("v{i}"));
    }
    let view = agents[1].until_state("a", "v49").await;
    assert!(view.regions[&region("a")].sequence <= 51);
}

#[tokio::test]
async fn gossip_knows_a_pushed_card_though_nobody_gossips() {
    let pki = Pki::new("mesh");
    // They talk when they meet, and then not for an hour.
    let rarely = |seeds: Vec<SocketAddr>| Setup { seeds, gossip_interval: Duration::from_secs(3600), ..Setup::default() };
    let a = Agent::start_with(&pki, "a", rarely(vec![])).await;
    let b = Agent::start_with(&pki, "b", rarely(vec![a.addr()])).await;
    b.until_live(&["a", "b"]).await;
    let version = async || {
        let handle = b.mesh.mesh.gossip.handle().unwrap();
        let chitchat = handle.chitchat();
        let chitchat = chitchat.lock().await;
        chitchat.node_state(&chitchat::ChitchatId::new("a", 1, a.addr())).map_or(0, chitchat::NodeState::max_version)
    };
    let deadline = Instant::now() + PATIENCE;
    while version().await == 0 {
        assert!(Instant::now() < deadline, "they never met");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    a.publish("news");
    let view = b.until_state("a", "news").await;
    while version().await != view.regions[&region("a")].sequence {
        assert!(Instant::now() < deadline, "gossip was not told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_late_joiner_learns_everything() {
    let pki = Pki::new("mesh");
    let agents = mesh_of(&pki, &["a", "b", "c"]).await;
    agents.iter().for_each(|agent| agent.publish("before"));
    let late = Agent::start(&pki, "late", &[agents[2].addr()]).await;
    late.until_live(&["a", "b", "c", "late"]).await;
    for name in ["a", "b", "c"] {
        late.until_state(name, "before").await;
    }
    late.publish("hello");
    for agent in &agents {
        agent.until_state("late", "hello").await;
    }
}

#[tokio::test]
async fn a_restarted_agent_at_a_new_address_is_itself_again() {
    let pki = Pki::new("mesh");
    let mut agents = mesh_of(&pki, &["a", "b", "c"]).await;
    agents[2].publish("first life");
    agents[0].until_state("c", "first life").await;
    let old = agents.pop().unwrap();
    let old_addr = old.addr();
    old.kill();
    let new = Agent::start_with(&pki, "c", Setup { generation: 2, seeds: vec![agents[0].addr()], ..Setup::default() }).await;
    assert_ne!(new.addr(), old_addr);
    new.publish("second life");
    for agent in &agents {
        let view = agent.until_state("c", "second life").await;
        let entry = &view.regions[&region("c")];
        assert_eq!((entry.generation, entry.address, view.regions.len()), (2, new.addr(), 3));
        agent.until_live(&["a", "b", "c"]).await;
        let mesh = &agent.mesh.mesh;
        let current = |id: &chitchat::ChitchatId| *id.node_id == *"c" && id.generation_id == 2;
        let deadline = Instant::now() + PATIENCE;
        while !mesh.gossip.handle().unwrap().chitchat().lock().await.live_nodes().any(current) {
            assert!(Instant::now() < deadline, "gossip does not know the new life");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        agent.until_live(&["a", "b", "c"]).await;
        assert!(agent.has_event("mesh.region_returned", "generation 2"));
    }
}

#[tokio::test]
async fn a_restarted_agent_at_its_old_address_is_itself_again_whoever_dialled() {
    let pki = Arc::new(Pki::new("mesh"));
    for (stays, restarts) in [("a", "b"), ("b", "a")] {
        for waits_for_the_other in [false, true] {
            let one = Agent::start(&pki, stays, &[]).await;
            let seeds = vec![one.addr()];
            let setup = Setup { seeds: seeds.clone(), ..Setup::default() };
            let (other, runtime) = Agent::start_apart(&pki, restarts, setup).await;
            one.until_live(&["a", "b"]).await;
            other.until_live(&["a", "b"]).await;
            let listen = other.addr();
            // Nobody is told: not a packet leaves.
            tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await.unwrap();
            drop(other);
            let seeds = if waits_for_the_other { vec![] } else { seeds };
            let again = Agent::start_with(&pki, restarts, Setup { generation: 2, seeds, listen, ..Setup::default() }).await;
            again.publish("second life");
            let view = one.until_state(restarts, "second life").await;
            assert_eq!(view.regions[&region(restarts)].generation, 2);
            again.until_live(&["a", "b"]).await;
            one.until_live(&["a", "b"]).await;
        }
    }
}

#[tokio::test]
async fn an_agent_that_lost_its_data_continues_beyond_its_former_life() {
    let pki = Pki::new("mesh");
    let mut agents = mesh_of(&pki, &["a", "b"]).await;
    let old = Agent::start_with(&pki, "c", Setup { generation: 7, seeds: vec![agents[0].addr()], ..Setup::default() }).await;
    old.publish("first life");
    agents[1].until_state("c", "first life").await;
    old.kill();
    // It starts over, at a generation that peers have long seen.
    let new = Agent::start_with(&pki, "c", Setup { generation: 1, seeds: vec![agents[0].addr()], ..Setup::default() }).await;
    new.publish("second life");
    for agent in &agents {
        let view = agent.until_state("c", "second life").await;
        assert_eq!(view.regions[&region("c")].generation, 8);
        agent.until_live(&["a", "b", "c"]).await;
    }
    assert_eq!(new.mesh.generation(), 8);
    assert!(new.has_event("mesh.generation_raised", "generation 7"));
    agents.push(new);
}

#[tokio::test]
async fn gossip_that_ends_is_started_again_under_a_new_generation() {
    let pki = Pki::new("mesh");
    let agents = mesh_of(&pki, &["a", "b"]).await;
    agents[0].publish("before");
    agents[1].until_state("a", "before").await;
    // What a panic inside chitchat looks like from outside.
    agents[0].mesh.mesh.gossip.handle().unwrap().abort();
    agents[0].until_stats("a restart", |stats| stats.chitchat_restarts == 1).await;
    let view = agents[1].until("generation 2 of a", |view| view.regions[&region("a")].generation == 2).await;
    assert_eq!(live(&view), ["a", "b"]);
    assert_eq!(version_of(&view, "a").as_deref(), Some("before"));
    agents[0].publish("after");
    agents[1].until_state("a", "after").await;
    assert!(agents[0].has_event("mesh.gossip_restarted", "new generation"));
}

#[tokio::test]
async fn a_goodbye_is_seen_at_once_and_a_return_as_well() {
    let pki = Pki::new("mesh");
    let mut agents = mesh_of(&pki, &["a", "b", "c"]).await;
    let leaving = agents.pop().unwrap();
    let started = Instant::now();
    leaving.mesh.shutdown().await;
    for agent in &agents {
        agent.until_live(&["a", "b"]).await;
        assert!(agent.has_event("mesh.region_left", "c"));
    }
    assert!(started.elapsed() < Duration::from_secs(5), "long before gossip would notice");
    let back = Agent::start_with(&pki, "c", Setup { generation: 2, seeds: vec![agents[1].addr()], ..Setup::default() }).await;
    for agent in agents.iter().chain([&back]) {
        agent.until_live(&["a", "b", "c"]).await;
    }
    assert!(agents[0].has_event("mesh.region_returned", "c"));
}

#[tokio::test]
async fn a_death_is_noticed_without_a_goodbye() {
    let pki = Pki::new("mesh");
    let mut agents = mesh_of(&pki, &["a", "b", "c"]).await;
    agents.pop().unwrap().kill();
    for agent in &agents {
        let view = agent.until_live(&["a", "b"]).await;
        assert!(view.regions.contains_key(&region("c")), "known, but not alive");
    }
}

#[tokio::test]
async fn a_missed_push_is_fetched_from_the_region_itself() {
    let pki = Pki::new("mesh");
    let agents = mesh_of(&pki, &["a", "b"]).await;
    // A region of which only the card arrives.
    let quiet = Hostile::new(&pki, "quiet").await;
    let connection = quiet.introduced(&agents[0]).await;
    let body = published::build(state("quiet"), 1 << 16).unwrap().body;
    let card = quiet.card(1, 2, &body);
    send(&connection, Kind::Cards, &codec::encode(&vec![&card]).unwrap()).await;
    let asked = answer(&connection, &Response::Published(Box::new(Published { card, body }))).await;
    assert_eq!(asked, Request::Fetch { region: region("quiet") });
    let view = agents[0].until("the state", |view| view.state(&region("quiet")).is_some()).await;
    assert_eq!(view.regions[&region("quiet")].sequence, 2);
    assert_eq!(agents[0].mesh.stats().fetches, 1);
}

#[tokio::test]
async fn a_missed_push_of_a_region_that_is_gone_is_fetched_from_others() {
    let pki = Pki::new("mesh");
    let agents = mesh_of(&pki, &["a", "b"]).await;
    let gone = Hostile::new(&pki, "gone").await;
    let to_a = gone.introduced(&agents[0]).await;
    let to_b = gone.introduced(&agents[1]).await;
    let body = published::build(state("gone"), 1 << 16).unwrap().body;
    let card = gone.card(1, 2, &body);
    push(&to_a, card.clone(), &body).await;
    agents[0].until("the state", |view| view.state(&region("gone")).is_some()).await;
    send(&to_b, Kind::Cards, &codec::encode(&vec![&card]).unwrap()).await;
    gone.endpoint.close(99u32.into(), b"");
    agents[1].until("the state", |view| view.state(&region("gone")).is_some()).await;
    assert!(agents[0].mesh.stats().fetches_served > 0);
}

#[tokio::test]
async fn the_budget_is_kept_and_the_drop_is_seen_by_peers() {
    let pki = Pki::new("mesh");
    let budget = 8 * 1024;
    let a = Agent::start_with(&pki, "a", Setup { budget, ..Setup::default() }).await;
    let b = Agent::start(&pki, "b", &[a.addr()]).await;
    a.mesh.publish(state_with("a", 500));
    let view = b.until("a's state", |view| view.state(&region("a")).is_some()).await;
    let entry = &view.regions[&region("a")];
    let state = entry.state.as_ref().unwrap();
    assert!(entry.body_bytes as usize <= budget);
    assert!(!state.forecasts.is_empty() && state.dropped.forecasts as usize + state.forecasts.len() == 500);
    // A state that cannot be published is an event, and the one before stays.
    a.mesh.publish(self::state("b"));
    let mut ids = a.events.watch();
    timeout(PATIENCE, ids.wait_for(|_| a.has_event("mesh.state_not_published", "region b"))).await.unwrap().unwrap();
    // An agent may look at its own state a moment later.
    let own = a.until("its own state", |view| view.regions.get(&region("a")).is_some_and(|own| own.sequence >= 2)).await;
    assert_eq!(own.regions[&region("a")].sequence, 2);
}

#[tokio::test]
async fn requests_are_answered_by_the_other_end_or_refused_with_a_reason() {
    let pki = Pki::new("mesh");
    let agents = mesh_of(&pki, &["a", "b"]).await;
    let plan = Request::PredictiveScale { dry_run: true };
    let answer = agents[0].mesh.request(&region("b"), plan.clone()).await.unwrap();
    assert_eq!(answer, Response::Refused { reason: "a asked PredictiveScale { dry_run: true }".into() });
    let own = agents[0].mesh.request(&region("a"), plan.clone()).await.unwrap();
    assert_eq!(own, Response::Refused { reason: "a asked PredictiveScale { dry_run: true }".into() });
    let fetch = Request::Fetch { region: region("a") };
    assert_eq!(agents[0].mesh.request(&region("b"), fetch.clone()).await.unwrap(), Response::NotHeld);
    agents[0].publish("x");
    agents[1].until_state("a", "x").await;
    assert!(matches!(agents[0].mesh.request(&region("b"), fetch).await.unwrap(), Response::Published(_)));
    let error = agents[0].mesh.request(&region("nowhere"), plan).await.unwrap_err().to_string();
    assert!(error.contains("nowhere is not connected"), "{error}");
}

#[test]
fn an_identity_knows_until_when_it_is_valid() {
    let pki = Pki::new("mesh");
    let left = |identity: &Identity| identity.ends.unwrap().since(pki::now()).as_secs();
    assert!((364 * 86_400..366 * 86_400).contains(&left(&pki.identity("a"))));
    let ended = Identity::load_unchecked(&pki.expired("b")).unwrap();
    assert_eq!(left(&ended), 0);
}

#[tokio::test]
async fn that_a_certificate_ends_within_a_month_is_told() {
    let pki = Pki::new("mesh");
    let told = async |tls| {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real(dir.path()).unwrap();
        let events = EventLog::new(region("a"), env.clock.clone());
        let config = config(tls, &Setup::default());
        let mesh = start(&env, region("a"), "mesh".into(), &config, 1, Arc::new(Echo), events.clone()).await.unwrap();
        let agent = Agent { mesh, events, _dir: dir };
        // It is told before the first look at the mesh, which fills the view.
        agent.until_live(&["a"]).await;
        agent.has_event("mesh.certificate_ends", "issue a new one")
    };
    assert!(told(pki.ending("a", Duration::from_secs(10 * 86_400))).await);
    assert!(!told(pki.paths("a")).await);
}

#[tokio::test]
async fn an_agent_without_a_proper_identity_does_not_start() {
    let pki = Pki::new("mesh");
    let error = start_error(pki.paths("b"), "a").await;
    assert!(error.contains("no identity") && error.contains("for region b"), "{error}");
    let error = start_error(pki.expired("a"), "a").await;
    assert!(error.contains("issue a new one"), "{error}");
}
