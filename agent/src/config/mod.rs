//! Configuration: one TOML file, environment overrides, everything checked at once.
//!
//! `section` reads the file key by key and remembers every mistake; [`Config`] is what the agent runs on, with every precondition in
//! its types. Each default says where it comes from.

mod calendar;
mod check;
mod feeds;
mod global;
mod json_path;
mod keda;
mod policy;
mod prices;
mod provider;
mod reservations;
mod section;
mod services;
mod spot;
mod staging;

use crate::calendar::Country;
use crate::forecast::global::GlobalConfig;
use crate::planner::{Policy, ServiceGraph};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tradewind_protocol::calendar::Effect;
use tradewind_protocol::pool::MicroUsd;
use tradewind_protocol::region::{Coordinates, Mode};
use tradewind_protocol::wire::Version;
use tradewind_protocol::{CalendarEvent, PoolName, Quantile, RegionId, Resources, ServiceName, Step, TenantName, TransactionType};

pub use check::{ConfigError, LoadError, Problem};
pub use json_path::JsonPath;
pub use keda::KedaConfig;
pub use prices::{PriceConfig, PriceSource};
pub use provider::{ExecConfig, HookConfig, KubernetesConfig};
pub use spot::SpotConfig;
pub use staging::{ConnectConfig, PreloadConfig, StageAction, StageConfig, StageHookConfig, StageStep, StageWebhookConfig, StorageConfig};

/// The least that is a configuration but for pools, for tests to add to.
#[cfg(test)]
const BASE: &str = "region = \"eu\"\ndata_dir = \"/tmp/tw\"\n[mesh]\nlisten = \"127.0.0.1:7470\"\n\
    [mesh.tls]\nca = \"ca.pem\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n";

/// An agent's configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The agent's region.
    pub region: RegionId,
    /// The mesh's name; agents of another one are refused.
    pub cluster: String,
    /// Whether the agent acts on its plans.
    pub mode: Mode,
    /// The length of a step; the same in the whole mesh.
    pub step: Step,
    /// Where the agent keeps its files.
    pub data_dir: PathBuf,
    /// What becomes of the instances when the agent is told to stop.
    pub on_shutdown: OnShutdown,
    /// Where the region is.
    pub coordinates: Option<Coordinates>,
    /// The other agents.
    pub mesh: MeshConfig,
    /// The HTTP API.
    pub api: ApiConfig,
    /// Records.
    pub ingest: IngestConfig,
    /// Forecasts.
    pub forecast: ForecastConfig,
    /// The most series that all experts forecast, `forecast.max_series`: the smaller ones have a lean forecast.
    pub full_series: usize,
    /// Forecasts by models that are trained on all series: the table `[forecast.global]`.
    pub global: GlobalConfig,
    /// What is out of the ordinary.
    pub anomaly: AnomalyConfig,
    /// What is known to come.
    pub calendar: CalendarConfig,
    /// What is read from elsewhere, and told to elsewhere.
    pub feeds: FeedsConfig,
    /// The external scaler for KEDA.
    pub keda: Option<KedaConfig>,
    /// Plans.
    pub planner: PlannerConfig,
    /// Agreements with other regions.
    pub reservations: ReservationConfig,
    /// What is made ready for services before they are needed.
    pub staging: BTreeMap<ServiceName, StageConfig>,
    /// Prices that pools name.
    pub prices: Vec<PriceConfig>,
    /// Pools, ascending by name.
    pub pools: Vec<PoolConfig>,
}

/// The part of agreements with other regions about capacity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationConfig {
    /// Whether other regions may reserve in this region's pools.
    pub lend: bool,
    /// Whether this region asks others for what it lacks.
    pub borrow: bool,
    /// Whether what a pool lacks in a slot is asked for as a whole, of one region or of several together: all of it, or nothing.
    pub whole: bool,
    /// As which tenant, by whose quota, it asks.
    pub tenant: TenantName,
    /// How many thousandths of a pool may be promised when soft reservations count as well.
    pub overbooking_per_mille: u32,
    /// How long a preempted reservation that has begun is left to its holder.
    pub notice: Duration,
    /// How long a promise of another region is to stand without a refresh.
    pub ttl: Duration,
    /// The longest that this region promises without a refresh.
    pub max_ttl: Duration,
    /// How many thousandths of a pool one tenant may reserve at any instant, where `quotas` does not say.
    pub default_quota_per_mille: Option<u32>,
    /// The same for single tenants.
    pub quotas: BTreeMap<TenantName, u32>,
}

impl Default for ReservationConfig {
    /// What a configuration without `[reservations]` means.
    fn default() -> Self {
        Self {
            lend: true,
            // Until an operator says that its users may be served elsewhere.
            borrow: false,
            whole: false,
            tenant: TenantName::default(),
            overbooking_per_mille: 1_500,
            notice: Duration::from_secs(30),
            ttl: Duration::from_secs(30),
            max_ttl: Duration::from_secs(300),
            default_quota_per_mille: None,
            quotas: BTreeMap::new(),
        }
    }
}

/// What becomes of the instances when the agent is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnShutdown {
    /// They go on; the agent's next life adopts them.
    #[default]
    Keep,
    /// They are drained and ended.
    Drain,
}

/// Paths of a certificate, its key, and the authority that others must have. All PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPaths {
    /// The mesh's authority.
    pub ca: PathBuf,
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key, PKCS #8.
    pub key: PathBuf,
}

/// The mesh's part.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshConfig {
    /// Where the QUIC endpoint listens.
    pub listen: SocketAddr,
    /// The address that others reach it at, if that is not where it listens.
    pub advertise: Option<SocketAddr>,
    /// Where to find the mesh: addresses of some of its agents (`host:port`).
    pub seeds: Vec<String>,
    /// Who the agent is.
    pub tls: TlsPaths,
    /// How often chitchat talks to three peers.
    pub gossip_interval: Duration,
    /// The most bytes the region's published state may take, compressed.
    pub state_budget_bytes: usize,
    /// The newest version of the wire that is spoken.
    pub wire_version: Version,
}

/// The HTTP API's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// With this the API speaks TLS and asks clients for a certificate of the authority.
    pub tls: Option<TlsPaths>,
    /// The base URL that others reach it at, if that is not where it listens.
    pub public_url: Option<String>,
}

/// Ingest's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestConfig {
    /// How old a record may be.
    pub lateness: Duration,
    /// How far ahead of the agent's clock a record may be.
    pub max_ahead: Duration,
    /// How long after a step's end it is closed.
    pub close_after: Duration,
    /// The largest request body, decompressed.
    pub max_body_bytes: usize,
    /// The most records that wait to be made durable; beyond, 429.
    pub max_pending_records: usize,
    /// The most series; records of further ones are refused.
    pub max_series: usize,
    /// The most series of one tenant; the smallest beyond are counted in series of the type `other`.
    pub max_series_per_tenant: usize,
    /// How long counts are kept step by step.
    pub retention: Duration,
    /// How long their sums over five minutes are kept.
    pub retention_5m: Duration,
    /// How long their sums over an hour are kept.
    pub retention_1h: Duration,
}

/// Forecasting's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForecastConfig {
    /// How many steps ahead.
    pub horizon: usize,
    /// Length of the season in steps.
    pub season: usize,
}

/// Anomaly detection's part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnomalyConfig {
    /// The probability with which an ordinary step of a series is called anomalous.
    pub false_alarm_probability: f64,
}

/// The calendar's part.
#[derive(Debug, Clone, PartialEq)]
pub struct CalendarConfig {
    /// Whose public holidays are in the calendar.
    pub holidays: Vec<Country>,
    /// How far the region's days are ahead of UTC's, in minutes.
    pub utc_offset_minutes: i32,
    /// What a public holiday does to traffic, if it is known.
    pub holiday_effect: Option<Effect>,
    /// Events of the configuration file, by name.
    pub events: Vec<CalendarEvent>,
}

/// What is read from elsewhere, and told to elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FeedsConfig {
    /// Counts from Prometheus.
    pub read: Option<PromReadConfig>,
    /// Observations, forecasts and decisions to Prometheus.
    pub write: Option<PromWriteConfig>,
    /// Files of records.
    pub tails: Vec<TailConfig>,
    /// Where anomalies are posted.
    pub webhook: Option<WebhookConfig>,
}

/// Counts from a server that speaks Prometheus' HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromReadConfig {
    /// The server's base URL.
    pub url: String,
    /// How far back it is read at first.
    pub backfill: Duration,
    /// How long after a step's end it is asked for.
    pub delay: Duration,
    /// What is asked.
    pub queries: Vec<PromQuery>,
}

/// One query, and what its labels mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromQuery {
    /// Its name, by which the agent remembers how far it was read.
    pub name: String,
    /// PromQL: a value a step and series, the step's transactions.
    pub query: String,
    /// The label with the destination region.
    pub destination_label: String,
    /// The label with the service.
    pub service_label: Option<String>,
    /// The label with the transaction type.
    pub type_label: Option<String>,
    /// The label with the tenant.
    pub tenant_label: Option<String>,
    /// The service where there is no label.
    pub service: ServiceName,
    /// The transaction type where there is no label.
    pub transaction_type: TransactionType,
    /// The tenant where there is no label.
    pub tenant: TenantName,
}

/// Remote write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromWriteConfig {
    /// The URL that takes it.
    pub url: String,
    /// The most series of which forecasts are written, those of the highest volume first.
    pub max_series: usize,
    /// Labels for every sample.
    pub labels: Vec<(String, String)>,
}

/// A file that is tailed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailConfig {
    /// The file.
    pub path: PathBuf,
    /// How often it is looked at.
    pub interval: Duration,
}

/// Where anomalies are posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// The URL.
    pub url: String,
}

/// Planning's part.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannerConfig {
    /// The quantile to provision for: 1 - (cost of idling / cost of being late).
    pub quantile: Quantile,
    /// How long after a step is closed the plan is made: other regions' forecasts arrive meanwhile.
    pub settle: Duration,
    /// For how long demand must stay lower before capacity is taken away.
    pub scale_in_after: Duration,
    /// How old another region's forecast may be.
    pub stale_after: Duration,
    /// Which services call which.
    pub graph: Arc<ServiceGraph>,
    /// The most that all pools together may cost an hour.
    pub max_cost_per_hour: Option<MicroUsd>,
}

/// One pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolConfig {
    /// Its name.
    pub name: PoolName,
    /// The service that its instances serve.
    pub service: ServiceName,
    /// How many transactions per second one active instance serves.
    pub rate_per_instance: f64,
    /// What one instance uses.
    pub instance: Resources,
    /// All that the pool may use.
    pub capacity: Resources,
    /// The fewest active instances.
    pub min_instances: u32,
    /// The most instances.
    pub max_instances: u32,
    /// The fewest instances kept warm on top.
    pub min_warm: u32,
    /// How long an instance takes from order to ready, until it has been measured.
    pub startup: Duration,
    /// How long a draining instance may take to finish.
    pub drain_timeout: Duration,
    /// Price of one instance for an hour.
    pub instance_hour_price: MicroUsd,
    /// What else costs money, and how much it may cost.
    pub costs: Costs,
    /// What its operators lay down beside its demand.
    pub policies: Vec<Policy>,
    /// What runs the instances.
    pub provider: ProviderConfig,
    /// Those of them that may be bought on a spot market, if any may.
    pub spot: Option<SpotConfig>,
}

impl PoolConfig {
    /// The pool as the provider of its spot instances is opened, if it has any.
    pub fn spot_flavour(&self) -> Option<PoolConfig> {
        let spot = self.spot.as_ref()?;
        Some(PoolConfig { name: spot.name.clone(), provider: spot.provider.clone(), spot: None, ..self.clone() })
    }

    /// How many instances the pool has whatever a policy or a budget says: its own minima.
    pub fn promised(&self) -> u32 {
        self.min_instances.saturating_add(self.min_warm).min(self.max_instances)
    }
}

/// What a pool costs beside the price of its instances, and how much it may cost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Costs {
    /// The most that the pool may cost an hour.
    pub max_per_hour: Option<MicroUsd>,
    /// What an hour of the demand of one instance costs when it is not served. With it the quantile follows from the costs.
    pub late_per_instance_hour: Option<MicroUsd>,
    /// The `[[price]]` that says what an instance costs, if one does.
    pub price: Option<PoolName>,
    /// What a start costs beside the price of the time that it takes.
    pub start: MicroUsd,
}

/// What runs a pool's instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderConfig {
    /// Processes of this machine.
    Process(ProcessConfig),
    /// Containers of a Docker engine.
    Docker(DockerConfig),
    /// Infrastructure as code.
    Exec(ExecConfig),
    /// A program that is told over HTTP.
    Webhook(HookConfig),
    /// Replicas of a Kubernetes workload.
    Kubernetes(KubernetesConfig),
    /// At least two of the others, each of another kind: each takes over while those before it fail.
    Chain(Vec<ProviderConfig>),
}

impl ProviderConfig {
    /// The providers one by one, in the order in which they are tried.
    pub fn each(&self) -> &[ProviderConfig] {
        match self {
            ProviderConfig::Chain(all) => all,
            one => std::slice::from_ref(one),
        }
    }

    /// The name of its table.
    pub fn kind(&self) -> &'static str {
        match self {
            ProviderConfig::Process(_) => "process",
            ProviderConfig::Docker(_) => "docker",
            ProviderConfig::Exec(_) => "exec",
            ProviderConfig::Webhook(_) => "webhook",
            ProviderConfig::Kubernetes(_) => "kubernetes",
            ProviderConfig::Chain(_) => "chain",
        }
    }
}

/// How to start a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerConfig {
    /// The image, which the engine must have.
    pub image: String,
    /// Replaces the image's command when it is not empty.
    pub command: Vec<String>,
    /// Environment variables of the container.
    pub env: Vec<(String, String)>,
    /// The network that it joins: `none`, `host`, `bridge` or one of the engine's. The engine's choice if left out.
    pub network: Option<String>,
    /// The path of the engine's socket.
    pub socket: String,
}

/// How to start a worker process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessConfig {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Environment variables, on top of a minimal set.
    pub env: Vec<(String, String)>,
}
