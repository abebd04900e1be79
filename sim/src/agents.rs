//! The cast of a scenario: one real agent a region, with a configuration and a certificate.

use crate::entropy::EPOCH;
use crate::env::simulation_seed;
use crate::scenario::Scenario;
use crate::world::{Program, World};
use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use tradewind_agent::config::Config;
use tradewind_protocol::RegionId;
use tradewind_protocol::pki::{self, Issued, Subject, Validity};

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

/// The keys in a scenario's `[agent]` table that the simulator sets itself.
const OWN_KEYS: [&str; 3] = ["region", "data_dir", "coordinates"];

/// One agent's part.
pub(crate) struct Part {
    pub(crate) config: Config,
    pub(crate) certificate: Issued,
}

/// The parts of all agents of a scenario.
pub(crate) struct Cast {
    pub(crate) ca_pem: String,
    pub(crate) parts: BTreeMap<RegionId, Part>,
}

impl Cast {
    /// Configurations and certificates for every region, at the addresses that `world` gives them.
    pub(crate) fn new(scenario: &Scenario, seed: u64, world: &World) -> anyhow::Result<Cast> {
        let root = simulation_seed(seed).child("certificates");
        let begin = EPOCH.as_secs().cast_signed();
        let validity = Validity { not_before: begin - DAY_S, not_after: begin + VALID_DAYS * DAY_S };
        let ca = pki::issue_ca(&scenario.name, validity, root.child("authority").bytes())?;
        let address = |region: &RegionId, port| SocketAddr::new(world.address_of(region.as_str()), port);
        let seeds: Vec<String> = scenario.regions.iter().take(SEEDS).map(|region| address(&region.id, MESH_PORT).to_string()).collect();
        let mut parts = BTreeMap::new();
        for region in &scenario.regions {
            let mut config = config(&scenario.agent, &region.id, address(&region.id, MESH_PORT), &seeds)
                .with_context(|| format!("the agent's configuration of scenario {:?}", scenario.name))?;
            config.coordinates = region.coordinates;
            // Not loopback, which only the machine itself would reach, and not TLS, which the
            // simulation's clients do not speak.
            config.api.listen = (Ipv4Addr::UNSPECIFIED, API_PORT).into();
            config.api.public_url = Some(format!("http://{}", address(&region.id, API_PORT)));
            let subject = Subject::Agent(region.id.clone(), vec![]);
            let certificate = pki::issue_leaf(&ca, &subject, validity, root.child(region.id.as_str()).bytes())?;
            parts.insert(region.id.clone(), Part { config, certificate });
        }
        Ok(Cast { ca_pem: ca.certificate_pem, parts })
    }

    /// What runs on the region's machine.
    pub(crate) fn program(&self, region: &RegionId) -> anyhow::Result<Program> {
        let part = self.parts.get(region).with_context(|| format!("no part for {region}"))?;
        let (config, certificate, ca_pem) = (part.config.clone(), part.certificate.clone(), self.ca_pem.clone());
        Ok(Rc::new(move |env| {
            let _ = (&config, &certificate, &ca_pem, env);
            Box::pin(std::future::pending())
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
    Ok(Config::parse(&toml::to_string(&table)?, [])?)
}
