//! From a file's text to a [`Config`], or to everything that is wrong with it.

use super::section::{Section, address, duration, number, path, text, texts, whole};
use super::services::{self, Service};
use super::{
    AnomalyConfig, ApiConfig, Config, Costs, ForecastConfig, IngestConfig, MeshConfig, OnShutdown, PlannerConfig, PoolConfig, PriceConfig,
    PriceSource, TlsPaths,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use toml::{Table, Value};
use tradewind_protocol::pool::MicroUsd;
use tradewind_protocol::region::{Coordinates, Mode};
use tradewind_protocol::wire::{MAX_BODY_BYTES, MAX_CLUSTER_BYTES, UnknownVersion, Version};
use tradewind_protocol::{PoolName, Quantile, Resources, ServiceName, Step};

/// One mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: the dotted key.
    pub key: String,
    /// What stands there.
    pub value: String,
    /// What should stand there instead.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {}", self.key, self.value, self.remedy)
    }
}

/// Every mistake in a configuration. Nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} in the configuration:",
            if self.problems.len() == 1 { "one mistake".into() } else { format!("{} mistakes", self.problems.len()) }
        )?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// What an environment variable that overrides a key begins with; the key follows in upper case,
/// with `__` between the tables: `TRADEWIND_MESH__LISTEN`.
const ENVIRONMENT_PREFIX: &str = "TRADEWIND_";

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Why a configuration file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path} (`run --config FILE` and `check FILE` name another)", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is wrong.
    #[error("cannot use {path}", path = path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// How.
        source: ConfigError,
    },
}

impl Config {
    /// The configuration in the file at `path`, with this process's environment laid over it.
    pub fn load(path: &Path) -> Result<Config, LoadError> {
        let text = std::fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.into(), source })?;
        Config::parse(&text, std::env::vars()).map_err(|source| LoadError::Wrong { path: path.into(), source })
    }

    /// The configuration in `toml`, with those of the `environment` variables laid over it that name
    /// a key.
    pub fn parse(toml: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Config, ConfigError> {
        let mut table: Table = toml.parse().map_err(|error: toml::de::Error| ConfigError {
            problems: vec![Problem {
                key: "(file)".into(),
                value: "(not TOML)".into(),
                remedy: error.to_string().trim().replace('\n', "\n    "),
            }],
        })?;
        let mut problems = vec![];
        let mut overriding = BTreeMap::new();
        for (name, value) in environment {
            let Some(keys) = overridden(&name) else { continue };
            match lay_over(&mut table, &keys, &value) {
                Ok(()) => {
                    overriding.insert(keys.join("."), name);
                }
                Err(at) => problems.push(Problem { key: name, value, remedy: format!("`{at}` is not a table in the file") }),
            }
        }
        let mut root = Section::root(table, &mut problems);
        let config = config(&mut root);
        root.finish();
        for problem in &mut problems {
            if let Some(name) = overriding.get(&problem.key) {
                problem.remedy.push_str(&format!(" (it comes from {name} in the environment, not from the file)"));
            }
        }
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError { problems }),
        }
    }
}

/// The keys that the environment variable `name` overrides. Variables without `__` are other
/// programs' business, except for those of the top level that are listed here.
fn overridden(name: &str) -> Option<Vec<String>> {
    const TOP_LEVEL: [&str; 5] = ["REGION", "CLUSTER", "MODE", "STEP", "DATA_DIR"];
    let rest = name.strip_prefix(ENVIRONMENT_PREFIX)?;
    (TOP_LEVEL.contains(&rest) || rest.contains("__")).then(|| rest.split("__").map(str::to_ascii_lowercase).collect())
}

/// Sets the value at `keys`; the text is read as TOML where it is TOML, as plain text elsewhere.
fn lay_over(table: &mut Table, keys: &[String], text: &str) -> Result<(), String> {
    let [key, rest @ ..] = keys else { return Ok(()) };
    if rest.is_empty() {
        let parsed = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
        table.insert(key.clone(), parsed.unwrap_or_else(|| Value::String(text.into())));
        return Ok(());
    }
    match table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(inner) => lay_over(inner, rest, text),
        _ => Err(key.clone()),
    }
}

fn config(s: &mut Section) -> Option<Config> {
    let region = s.required("region", "name this agent's region, like region = \"eu-west-1\"", text);
    let cluster = s.or("cluster", "tradewind".to_string(), |v| match v.as_str() {
        Some(text) if !text.is_empty() && text.len() <= MAX_CLUSTER_BYTES => Ok(text.to_string()),
        _ => Err(format!("must be text of 1 to {MAX_CLUSTER_BYTES} bytes")),
    });
    let mode = s.or("mode", Mode::Advisory, |v| match v.as_str() {
        Some("advisory") => Ok(Mode::Advisory),
        Some("active") => Ok(Mode::Active),
        _ => Err("must be \"advisory\" (forecast and plan only) or \"active\" (act on the plans)"),
    });
    // A minute: the resolution of the autoscalers and metrics that users come from.
    let step = s.or("step", MINUTE, duration(Step::MIN, Step::MAX));
    let step = Step::new(step).ok()?;
    let data_dir = s.required("data_dir", "name a directory for the agent's files, like data_dir = \"/var/lib/tradewind\"", path);
    // An agent's upgrade must not take the region's capacity away.
    let on_shutdown = s.or("on_shutdown", OnShutdown::Keep, |v| match v.as_str() {
        Some("keep") => Ok(OnShutdown::Keep),
        Some("drain") => Ok(OnShutdown::Drain),
        _ => Err("must be \"keep\" (instances go on, the next start adopts them) or \"drain\" (they are ended)"),
    });
    let coordinates = s.has("coordinates").then(|| s.table("coordinates", coordinates)).flatten();
    let mesh = s.table("mesh", mesh);
    let api = s.table("api", api);
    let ingest = s.table("ingest", |s| ingest(s, step));
    let (forecast, full_series, global) = s.table("forecast", |s| {
        let forecast = forecast(s, step);
        // Measured: 0.42 MB a series where steps are minutes, so 1 GB.
        let full_series = s.or("max_series", 2_500, whole(1, 1_000_000));
        let global = s.table("global", |s| super::global::read(s, forecast.season));
        (forecast, full_series, global)
    });
    let anomaly = s.table("anomaly", anomaly);
    let calendar = super::calendar::read(s);
    let feeds = super::feeds::read(s, step, ingest.lateness);
    let wants_keda = s.has("keda");
    let keda = wants_keda.then(|| s.table("keda", super::keda::read)).flatten();
    let mut planner = s.table("planner", |s| planner(s, step));
    let reservations = s.table("reservations", super::reservations::read);
    let services = services::read(s);
    let prices = super::prices::read(s);
    let mut known = Known { names: BTreeSet::new(), services: &services, prices: &prices, utc_offset_minutes: calendar.utc_offset_minutes };
    let pools = s.tables("pool", |s| {
        let pool = pool(s, &known)?;
        known.names.insert(pool.name.clone());
        Some(pool)
    });
    for at in 0..pools.len() {
        let taken =
            pools.iter().flatten().find(|of| of.spot.as_ref().zip(pools[at].as_ref()).is_some_and(|(spot, pool)| spot.name == pool.name));
        if let Some(of) = taken.map(|of| of.name.clone()) {
            let name = pools[at].as_ref().map(|pool| pool.name.to_string()).unwrap_or_default();
            s.problem(&format!("pool[{at}].name"), name, format!("is kept for the spot instances of pool {of}: choose another"));
        }
    }
    let pools: Option<Vec<PoolConfig>> = pools.into_iter().collect();
    planner.graph = Arc::new(services::graph(s, &services, pools.as_deref()));
    let staging = services.into_iter().filter_map(|(name, service)| Some((name, service.stage?))).collect();
    let mut pools = pools?;
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    affordable(s, &planner, &pools);
    Some(Config {
        region: region?,
        cluster,
        mode,
        step,
        data_dir: data_dir?,
        on_shutdown,
        coordinates,
        mesh: mesh?,
        api: api?,
        ingest,
        forecast,
        full_series,
        global,
        anomaly,
        calendar,
        feeds,
        keda,
        planner,
        reservations,
        staging,
        prices,
        pools,
    })
}

fn coordinates(s: &mut Section) -> Option<Coordinates> {
    let latitude = s.required("latitude", "degrees, north positive", number(-90.0, 90.0));
    let longitude = s.required("longitude", "degrees, east positive", number(-180.0, 180.0));
    Some(Coordinates { latitude: latitude?, longitude: longitude? })
}

fn mesh(s: &mut Section) -> Option<MeshConfig> {
    let listen = s.required("listen", "the UDP address of this agent, like \"0.0.0.0:7470\"", address);
    let advertise = s.optional("advertise", |v| match address(v) {
        Ok(at) if at.ip().is_unspecified() || at.port() == 0 => Err("must be an address that other agents can reach"),
        other => other,
    });
    if let (Some(at), None) = (listen, advertise)
        && at.ip().is_unspecified()
        && !s.has("advertise")
    {
        s.problem("advertise", "(missing)", format!("name the address that other agents reach {at} at"));
    }
    let seeds = s.or("seeds", vec![], |v| {
        let seeds = texts(v)?;
        let valid =
            |seed: &String| seed.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0));
        if seeds.iter().all(valid) { Ok(seeds) } else { Err("must be a list of \"host:port\", like [\"10.0.0.7:7470\"]") }
    });
    let tls = s.table("tls", tls);
    // chitchat's own default; see the README's measurements for what it costs.
    let gossip_interval = s.or("gossip_interval", SECOND, duration(50 * MILLISECOND, MINUTE));
    // Room for the forecasts of about 200 pairs of regions over 24 steps.
    let state_budget_bytes = s.or("state_budget_bytes", 64 * 1024, whole(1024, MAX_BODY_BYTES as i64)) as usize;
    let wire_version = s.or("wire_version", Version::NEWEST, wire_version);
    Some(MeshConfig { listen: listen?, advertise, seeds, tls: tls?, gossip_interval, state_budget_bytes, wire_version })
}

fn wire_version(value: &Value) -> Result<Version, UnknownVersion> {
    let number = value.as_integer().and_then(|number| u8::try_from(number).ok());
    Version::try_from(number.unwrap_or(0))
}

pub(super) fn tls(s: &mut Section) -> Option<TlsPaths> {
    let ca = s.required("ca", "the mesh's authority (PEM): make one with `tradewind tls ca`", path);
    let certificate = s.required("certificate", "this agent's certificate (PEM): make one with `tradewind tls agent`", path);
    let key = s.required("key", "the certificate's private key (PEM)", path);
    Some(TlsPaths { ca: ca?, certificate: certificate?, key: key? })
}

fn api(s: &mut Section) -> Option<ApiConfig> {
    // Loopback: nobody else gets in unless the operator says so.
    let listen = s.or("listen", std::net::SocketAddr::from(([127, 0, 0, 1], 7480)), address);
    let wants_tls = s.has("tls");
    let tls = if wants_tls { Some(s.table("tls", tls)?) } else { None };
    if !wants_tls && !listen.ip().is_loopback() {
        s.problem("listen", listen, "beyond loopback the API needs client certificates: add [api.tls], or listen on 127.0.0.1");
    }
    let public_url = s.optional("public_url", |v| match v.as_str() {
        Some(url) if (url.starts_with("http://") || url.starts_with("https://")) && url.len() <= 256 => {
            Ok(url.trim_end_matches('/').to_string())
        }
        _ => Err("must be a URL that begins with http:// or https://, of at most 256 bytes"),
    });
    Some(ApiConfig { listen, tls, public_url })
}

fn ingest(s: &mut Section, step: Step) -> IngestConfig {
    let length = step.length();
    // An hour covers a collector's restart; more keeps more ids in memory.
    let lateness = s.or("lateness", HOUR, duration(length, 31 * DAY));
    // Clocks of one fleet differ by less; more would let a broken clock fill the future.
    let max_ahead = s.or("max_ahead", MINUTE.max(length), duration(Duration::ZERO, DAY));
    // A tenth of a step, at most five seconds: what a collector's flush interval needs.
    let close_after = s.or("close_after", (length / 10).min(5 * SECOND), duration(Duration::ZERO, HOUR));
    // 8 MiB holds a batch of 40,000 records.
    let max_body_bytes = s.or("max_body_bytes", 8 << 20, whole(1024, 1 << 30)) as usize;
    // Half a second of the measured throughput.
    let max_pending_records = s.or("max_pending_records", 100_000, whole(1, 100_000_000)) as usize;
    let max_series = s.or("max_series", 10_000, whole(1, 1_000_000));
    // Two weeks of minutes: two seasons of a week.
    let retention = s.or("retention", (14 * DAY).min(20_160 * length).max(lateness), duration(length, 366 * DAY));
    if retention < lateness {
        s.problem("retention", humantime::format_duration(retention), "must be at least `lateness`");
    }
    let max_series_per_tenant = s.or("max_series_per_tenant", max_series, whole(1, 1_000_000));
    // A quarter, and a year with as much of the next as makes two of the same season overlap.
    let retention_5m = s.or("retention_5m", 92 * DAY, duration(5 * MINUTE, 3_660 * DAY));
    let retention_1h = s.or("retention_1h", 400 * DAY, duration(HOUR, 3_660 * DAY));
    IngestConfig {
        lateness,
        max_ahead,
        close_after,
        max_body_bytes,
        max_pending_records,
        max_series,
        max_series_per_tenant,
        retention,
        retention_5m,
        retention_1h,
    }
}

fn forecast(s: &mut Section, step: Step) -> ForecastConfig {
    let horizon = s.or("horizon", 24, whole(1, 512)) as usize;
    // A day, where the step divides it into few enough steps to remember.
    let day = (DAY.as_millis() / step.length().as_millis()) as i64;
    let season = s.or("season", day.clamp(1, 2_880), whole(1, 20_160)) as usize;
    ForecastConfig { horizon, season }
}

fn anomaly(s: &mut Section) -> AnomalyConfig {
    // The best round figure on the labelled series of the NAB benchmark: `tradewind-sim nab bench`.
    AnomalyConfig { false_alarm_probability: s.or("false_alarm_probability", 3e-4, number(1e-9, 0.1)) }
}

fn planner(s: &mut Section, step: Step) -> PlannerConfig {
    let length = step.length();
    // Newsvendor: being late is taken to cost twenty times what idling costs. A guess; operators
    // know better.
    let quantile = s.or("quantile", 0.95, number(0.5, 0.999));
    // A fifth of a step, at most two seconds: one push crosses the world in a tenth of that.
    let settle = s.or("settle", (length / 5).min(2 * SECOND), duration(Duration::ZERO, HOUR));
    // Kubernetes' HPA waits five minutes: five of our default steps.
    let scale_in_after = s.or("scale_in_after", 5 * length, duration(Duration::ZERO, DAY));
    let stale_after = s.or("stale_after", (5 * length).max(5 * SECOND), duration(length, DAY));
    let max_cost_per_hour = s.optional("max_cost_per_hour_usd", usd);
    PlannerConfig { quantile: Quantile::nearest(quantile), settle, scale_in_after, stale_after, graph: Arc::default(), max_cost_per_hour }
}

/// A budget that does not pay for what pools have in any case would be overrun in every round.
fn affordable(s: &mut Section, planner: &PlannerConfig, pools: &[PoolConfig]) {
    let Some(budget) = planner.max_cost_per_hour else { return };
    let least: u64 = pools.iter().map(|pool| pool.instance_hour_price.0.saturating_mul(pool.promised().into())).sum();
    if least > budget.0 {
        let least = least as f64 / 1e6;
        s.problem(
            "planner.max_cost_per_hour_usd",
            budget.0 as f64 / 1e6,
            format!("must be at least {least}, which the pools' min_instances and min_warm cost: raise it, or lower those"),
        );
    }
}

/// An amount of money, in US dollars.
pub(super) fn usd(value: &Value) -> Result<MicroUsd, String> {
    number(0.0, 1e9)(value).map(|usd| MicroUsd((usd * 1e6).round() as u64))
}

/// What a pool is read with.
struct Known<'a> {
    /// The names of the pools before it.
    names: BTreeSet<PoolName>,
    services: &'a BTreeMap<ServiceName, Service>,
    prices: &'a [PriceConfig],
    utc_offset_minutes: i32,
}

fn pool(s: &mut Section, known: &Known) -> Option<PoolConfig> {
    let services = known.services;
    let name = s.or("name", PoolName::default(), |v| {
        let name: PoolName = text(v)?;
        if known.names.contains(&name) { Err("must differ from the other pools' names".to_string()) } else { Ok(name) }
    });
    let service = s.or("service", ServiceName::default(), text);
    let described = services.get(&service);
    let instance = match described.and_then(|service| service.instance) {
        Some(instance) if !s.has("instance") => instance,
        _ => s.table("instance", resources),
    };
    let derived = described.and_then(|service| service.rate_of(instance)).filter(|_| !s.has("rate_per_instance"));
    let rate = match derived {
        Some(rate) => Some(rate),
        None => s.required("rate_per_instance", "transactions per second that one instance serves", number(1e-6, 1e12)),
    };
    let capacity = s.table("capacity", resources);
    let min_instances = s.or("min_instances", 0, whole(0u32, 100_000));
    let max_instances = s.required("max_instances", "the most instances that may run, like max_instances = 10", whole(1u32, 100_000));
    let min_warm = s.or("min_warm", 0, whole(0, 100_000));
    let startup = described.and_then(|service| service.startup).unwrap_or(5 * SECOND);
    let startup = s.or("startup", startup, duration(Duration::ZERO, HOUR));
    let drain_timeout = s.or("drain_timeout", 30 * SECOND, duration(Duration::ZERO, DAY));
    let price = s.or("instance_hour_usd", 0.0, number(0.0, 1e6));
    let (costs, price, is_read) = costs(s, price, known.prices);
    let policies = super::policy::read(s, known.utc_offset_minutes);
    let provider = super::provider::read(s);
    let spot = s.has("spot").then(|| super::spot::read(s, &name, known.prices, (price, is_read)));
    let max_instances = max_instances?;
    let promised = min_instances.saturating_add(min_warm).min(max_instances);
    super::policy::fit(s, &policies, (min_instances, promised, max_instances));
    if let Some(most) = costs.max_per_hour
        && price * f64::from(promised) > most.0 as f64 / 1e6
    {
        let remedy = format!("must pay for min_instances and min_warm, {promised} at {price} each: raise it, or lower those");
        s.problem("max_cost_per_hour_usd", most.0 as f64 / 1e6, remedy);
    }
    if min_instances > max_instances {
        s.problem("min_instances", min_instances, format!("must be at most max_instances, which is {max_instances}"));
    }
    let needed = instance.checked_mul(u64::from(min_instances.max(1)));
    if capacity != Resources::ZERO && !needed.is_some_and(|needed| needed.fits_in(capacity)) {
        s.problem("capacity", capacity, format!("must hold at least {} of instance ({instance})", min_instances.max(1)));
    }
    // No stated capacity: as much as the instances may use.
    let capacity = if capacity == Resources::ZERO { instance.checked_mul(u64::from(max_instances))? } else { capacity };
    let instance_hour_price = MicroUsd((price * 1e6).round() as u64);
    Some(PoolConfig {
        name,
        service,
        rate_per_instance: rate?,
        instance,
        capacity,
        min_instances,
        max_instances,
        min_warm,
        startup,
        drain_timeout,
        instance_hour_price,
        costs,
        policies,
        provider: provider?,
        spot: match spot {
            Some(spot) => Some(spot?),
            None => None,
        },
    })
}

/// The `[[price]]` that the key `price` names.
pub(super) fn named_price<'a>(s: &mut Section, prices: &'a [PriceConfig]) -> Option<&'a PriceConfig> {
    s.optional("price", |v| {
        let name: PoolName = text(v)?;
        let source = prices.iter().find(|price| price.name == name);
        source.ok_or_else(|| "no [[price]] has this name: add one, or mend the name".to_string())
    })
}

/// The pool's costs, the price of an instance as far as the configuration knows it, and whether it is read from elsewhere.
fn costs(s: &mut Section, price: f64, prices: &[PriceConfig]) -> (Costs, f64, bool) {
    let source = named_price(s, prices);
    let read = source.is_some_and(|source| source.source.is_read());
    let price = match source.map(|source| &source.source) {
        Some(PriceSource::Fixed(fixed)) => fixed.0 as f64 / 1e6,
        Some(PriceSource::File(..) | PriceSource::Http(..)) | None => price,
    };
    let max_per_hour = s.optional("max_cost_per_hour_usd", usd);
    let late_per_instance_hour = s.optional("late_cost_per_instance_hour_usd", usd);
    let start = s.or("start_cost_usd", MicroUsd::default(), usd);
    if let Some(late) = late_per_instance_hour.map(|late| late.0 as f64 / 1e6) {
        if price <= 0.0 && !read {
            let remedy = "needs a price to be compared with: add instance_hour_usd or price, or remove it (then planner.quantile holds)";
            s.problem("late_cost_per_instance_hour_usd", late, remedy);
        } else if late < 2.0 * price {
            let remedy = format!("must be at least twice the price of an instance ({price}): below that, the median is too much");
            s.problem("late_cost_per_instance_hour_usd", late, remedy);
        }
    }
    (Costs { max_per_hour, late_per_instance_hour, price: source.map(|source| source.name.clone()), start }, price, read)
}

pub(super) fn resources(s: &mut Section) -> Resources {
    let mut amount = |key| s.or(key, 0, whole(0, i64::MAX)) as u64;
    Resources {
        cpu_millis: amount("cpu_millis"),
        memory_bytes: amount("memory_bytes"),
        storage_bytes: amount("storage_bytes"),
        storage_iops: amount("storage_iops"),
        bandwidth_bps: amount("bandwidth_bps"),
    }
}

#[cfg(test)]
mod tests;
