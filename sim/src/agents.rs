//! The cast of a scenario: one real agent a region, with a configuration and a certificate.

use crate::clock::virtual_now;
use crate::entropy::EPOCH;
use crate::env::simulation_seed;
use crate::liar::{self, Papers};
use crate::scenario::{Region, Scenario};
use crate::world::{Program, World};
use anyhow::{Context as _, bail};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tradewind_agent::agent::Agent;
use tradewind_agent::config::{Config, TlsPaths};
use tradewind_agent::env::Seed;
use tradewind_agent::pool::RuleWatch;
use tradewind_protocol::RegionId;
use tradewind_protocol::pki::{self, Subject, Validity};
use tradewind_protocol::wire::Version;

/// Where every agent's QUIC endpoint listens.
pub(crate) const MESH_PORT: u16 = 7470;

/// Where every agent's HTTP API listens.
pub(crate) const API_PORT: u16 = 7480;

/// Certificates are valid from a day before a simulation begins until ten years later.
const DAY_S: i64 = 86_400;
const VALID_DAYS: i64 = 3_650;

/// How many agents each agent is told of at its start: the first ones, so that the mesh has a few
/// well-known members, as in the field.
const SEEDS: usize = 3;

/// Within what time all agents start for the first time. In one instant, as nobody's do, gossip would everywhere and for ever
/// coincide with the end of the steps, when all states are on their way and would be gossiped as well.
const FIRST_BOOTS_MS: u64 = 1_000;

/// The keys in a scenario's `[agent]` table that the simulator sets itself.
const OWN_KEYS: [&str; 3] = ["region", "data_dir", "coordinates"];

/// What is decided about an agent from outside.
#[derive(Debug)]
pub(crate) struct Controls {
    /// Tells it to end in order.
    pub(crate) stop: Notify,
    /// When its last life that did so had done it.
    pub(crate) ended: Cell<Option<Duration>>,
    /// What its next life speaks at most.
    pub(crate) wire_version: Cell<Version>,
}

impl Controls {
    /// Of an agent that is one of `wire_version` at first.
    pub(crate) fn new(wire_version: Version) -> Self {
        Self { stop: Notify::new(), ended: Cell::default(), wire_version: Cell::new(wire_version) }
    }
}

/// The configurations of all agents of a scenario.
pub(crate) struct Cast {
    pub(crate) configs: BTreeMap<RegionId, Config>,
    /// What watches each agent's ledgers, from its start on.
    pub(crate) watches: Rc<RefCell<BTreeMap<RegionId, RuleWatch>>>,
    ca: pki::Issued,
    validity: Validity,
    root: Seed,
}

impl Cast {
    /// Configurations for every region, at the addresses that `world` gives them. Their
    /// certificates and keys, which follow from the seed, are written to `directory`: agents read
    /// them from files.
    pub(crate) fn new(scenario: &Scenario, seed: u64, world: &World, directory: &Path) -> anyhow::Result<Cast> {
        let root = simulation_seed(seed).child("certificates");
        let begin = EPOCH.as_secs().cast_signed();
        let validity = Validity { not_before: begin - DAY_S, not_after: begin + VALID_DAYS * DAY_S };
        let write = |name: String, pem: &str| {
            let path = directory.join(name);
            std::fs::write(&path, pem).with_context(|| format!("cannot write {}", path.display()))?;
            anyhow::Ok(path)
        };
        let ca = pki::issue_ca(&scenario.name, validity, root.child("authority").bytes())?;
        let ca_path = write("ca.pem".into(), &ca.certificate_pem)?;
        let address = |region: &RegionId, port| SocketAddr::new(world.address_of(region.as_str()), port);
        let seeds: Vec<String> = scenario.regions.iter().take(SEEDS).map(|region| address(&region.id, MESH_PORT).to_string()).collect();
        let mut configs = BTreeMap::new();
        for Region { id, coordinates, .. } in &scenario.regions {
            let mut config = config(&scenario.agent, id, address(id, MESH_PORT), &seeds)
                .with_context(|| format!("the agent's configuration of scenario {:?}", scenario.name))?;
            config.coordinates = *coordinates;
            // Not loopback, which only the machine itself would reach, and not TLS, which the
            // simulation's clients do not speak.
            config.api.listen = (Ipv4Addr::UNSPECIFIED, API_PORT).into();
            config.api.public_url = Some(format!("http://{}", address(id, API_PORT)));
            let leaf = pki::issue_leaf(&ca, &Subject::Agent(id.clone(), vec![]), validity, root.child(id.as_str()).bytes())?;
            config.mesh.tls = TlsPaths {
                ca: ca_path.clone(),
                certificate: write(format!("{id}.pem"), &leaf.certificate_pem)?,
                key: write(format!("{id}.key"), &leaf.key_pem)?,
            };
            configs.insert(id.clone(), config);
        }
        Ok(Cast { configs, watches: Rc::default(), ca, validity, root })
    }

    /// The papers of the peer that lies: a certificate of a region that no agent is of.
    pub(crate) fn liar(&self, scenario: &Scenario, world: &World) -> anyhow::Result<Papers> {
        let region = RegionId::new(liar::NAME)?;
        let seed = self.root.child(liar::NAME).bytes();
        Ok(Papers {
            ca_pem: self.ca.certificate_pem.clone(),
            own: pki::issue_leaf(&self.ca, &Subject::Agent(region.clone(), vec![]), self.validity, seed)?,
            cluster: self.configs.values().next().map(|config| config.cluster.clone()).unwrap_or_default(),
            victims: scenario.regions.iter().map(|one| (one.id.clone(), world.address_of(one.id.as_str()))).collect(),
            region,
        })
    }

    /// What runs on the region's machine.
    pub(crate) fn program(&self, region: &RegionId, controls: Rc<Controls>) -> anyhow::Result<Program> {
        let config = self.configs.get(region).with_context(|| format!("no configuration for {region}"))?.clone();
        let mut chance = StdRng::from_seed(self.root.child("first boots").child(region.as_str()).bytes());
        let first_boot = Cell::new(Duration::from_millis(chance.random_range(0..FIRST_BOOTS_MS)));
        let (watches, region) = (self.watches.clone(), region.clone());
        Ok(Rc::new(move |env| {
            let (mut config, controls, watches, region) = (config.clone(), controls.clone(), watches.clone(), region.clone());
            let boot = first_boot.take();
            Box::pin(async move {
                tokio::time::sleep(boot).await;
                // What the life before was told.
                tokio::select! {
                    biased;
                    () = controls.stop.notified() => {}
                    () = std::future::ready(()) => {}
                }
                config.mesh.wire_version = controls.wire_version.get();
                let running = Agent::start(config, env).await?;
                watches.borrow_mut().insert(region, running.pool().rules());
                controls.stop.notified().await;
                running.shutdown().await;
                controls.ended.set(Some(virtual_now()));
                // Until the machine boots again.
                std::future::pending().await
            })
        }))
    }
}

/// The agent's configuration as its own parser reads it.
fn config(table: &toml::Table, region: &RegionId, listen: SocketAddr, seeds: &[String]) -> anyhow::Result<Config> {
    if let Some(key) = OWN_KEYS.iter().find(|key| table.contains_key(**key)) {
        bail!("agent.{key}: the simulator sets this key itself; leave it out");
    }
    let mut table = table.clone();
    table.insert("region".into(), region.as_str().into());
    table.insert("data_dir".into(), "data".into());
    let mesh = table.entry("mesh").or_insert_with(|| toml::Table::new().into());
    let Some(mesh) = mesh.as_table_mut() else { bail!("agent.mesh must be a table") };
    mesh.insert("listen".into(), listen.to_string().into());
    mesh.insert("seeds".into(), seeds.to_vec().into());
    let tls = ["ca", "certificate", "key"].map(|name| (name.to_string(), toml::Value::from("in memory")));
    mesh.insert("tls".into(), toml::Table::from_iter(tls).into());
    // Training takes seconds, and here all that while nothing else goes on: only where a scenario asks for it.
    if let Some(forecast) = table.entry("forecast").or_insert_with(|| toml::Table::new().into()).as_table_mut() {
        let none = toml::Table::from_iter([("models".to_owned(), toml::Value::Array(vec![]))]);
        forecast.entry("global").or_insert_with(|| none.into());
    }
    Ok(Config::parse(&toml::to_string(&table)?, [])?)
}
