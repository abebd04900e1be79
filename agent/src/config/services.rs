//! Services: what a transaction of each needs and calls, checked into the graph that demand walks.

use super::PoolConfig;
use super::section::{Section, duration, number, text};
use super::staging::{self, StageConfig};
use crate::planner::{Calls, ServiceGraph};
use std::collections::BTreeMap;
use std::time::Duration;
use toml::Value;
use tradewind_protocol::{Resources, ServiceName};

/// The most services of a region: what 200 of them in 50 regions are planned in is measured (`cargo bench -p tradewind-agent --bench planner`).
const MAX_SERVICES: usize = 1_000;

/// One service, as `[[service]]` tells it. Pools of the service take from it what they do not say themselves.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Service {
    /// What one transaction per second uses.
    pub(super) per_rate: Resources,
    /// What one instance uses.
    pub(super) instance: Option<Resources>,
    /// How long an instance takes from order to ready.
    pub(super) startup: Option<Duration>,
    /// Other services, and how often a transaction calls each.
    calls: BTreeMap<ServiceName, f64>,
    /// What is made ready before it is needed.
    pub(super) stage: Option<StageConfig>,
}

impl Service {
    /// How many transactions per second an `instance` serves: as many as the resource allows of which it has least. `None` if what a
    /// transaction uses is not told, or the instance has none of it.
    pub(super) fn rate_of(&self, instance: Resources) -> Option<f64> {
        let parts = |r: Resources| [r.cpu_millis, r.memory_bytes, r.storage_bytes, r.storage_iops, r.bandwidth_bps];
        let used = parts(self.per_rate).into_iter().zip(parts(instance)).filter(|(used, _)| *used > 0);
        used.map(|(used, has)| has as f64 / used as f64).min_by(f64::total_cmp).filter(|rate| *rate > 0.0)
    }
}

/// Reads every `[[service]]`.
pub(super) fn read(s: &mut Section) -> BTreeMap<ServiceName, Service> {
    let mut services = BTreeMap::new();
    s.tables("service", |s| {
        let name = s.required("name", "name the service, like name = \"checkout\"", |v| {
            let name: ServiceName = text(v)?;
            if services.contains_key(&name) { Err("must differ from the other services' names".to_string()) } else { Ok(name) }
        });
        let per_rate = s.table("per_rate", super::check::resources);
        let instance = s.has("instance").then(|| s.table("instance", super::check::resources));
        let startup = s.optional("startup", duration(Duration::ZERO, super::check::HOUR));
        let calls = s.or("calls", BTreeMap::new(), calls);
        let stage = staging::read(s);
        if let Some(name) = name {
            services.insert(name, Service { per_rate, instance, startup, calls, stage });
        }
    });
    if services.len() > MAX_SERVICES {
        s.problem("service", format!("{} tables", services.len()), format!("must be at most {MAX_SERVICES}"));
    }
    services
}

/// The graph of the services; what is called must be described by a `[[service]]` or served by one of the `pools`, if these are known.
pub(super) fn graph(s: &mut Section, services: &BTreeMap<ServiceName, Service>, pools: Option<&[PoolConfig]>) -> ServiceGraph {
    for (name, service) in services {
        for called in service.calls.keys() {
            let served = pools.is_none_or(|pools| pools.iter().any(|pool| pool.service == *called));
            if !services.contains_key(called) && !served {
                let remedy = format!("{name} calls it, but no [[service]] and no [[pool]] has this name: add one, or mend the name");
                s.problem("service.calls", called, remedy);
            }
        }
    }
    let calls: Calls = services.iter().map(|(name, service)| (name.clone(), service.calls.clone())).collect();
    ServiceGraph::new(&calls).unwrap_or_else(|error| {
        s.problem("service.calls", error, "take a call out");
        ServiceGraph::default()
    })
}

fn calls(value: &Value) -> Result<BTreeMap<ServiceName, f64>, String> {
    let table = value.as_table().ok_or("must be a table of services and how often a transaction calls each, like { stock = 2.5 }")?;
    let call = |(service, times): (&String, &Value)| {
        let service: ServiceName = service.parse().map_err(|e| format!("{service}: {e}"))?;
        let times = number(0.0, 1e6)(times).map_err(|wanted| format!("{service} {wanted}"))?;
        Ok((service, times))
    };
    table.iter().map(call).collect()
}
