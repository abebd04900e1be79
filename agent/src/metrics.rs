//! What is counted, for Prometheus: read from the parts when somebody asks, in OpenMetrics text.
//!
//! Names begin with `tradewind_`, units are base units, and forecasts are metrics too: the median and
//! the ends of the 90 % interval of the next step, for every series of this region.

use crate::forecast::LEAN;
use crate::history::HistoryStats;
use crate::http::Progress;
use crate::mesh::{MeshStats, MeshView};
use crate::negotiate::Claims;
use crate::pool::{SpotSeen, Totals};
use crate::staging::StagingTotals;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tradewind_protocol::api::{AnomalyKind, PriceView, ProviderView, StageState, StagingView, Status};
use tradewind_protocol::region::{Health, Mode};
use tradewind_protocol::reservation::ledger;
use tradewind_protocol::{Market, PoolName, Quantile, ResourcePool, SeriesKey};

/// How many series have their forecast among the metrics, those of the highest volume first: more
/// would make a scrape take longer than its usefulness.
const MAX_FORECAST_SERIES: usize = 500;

/// Everything the metrics are read from, at one moment.
#[derive(Debug)]
pub(crate) struct Sample {
    pub status: Status,
    pub progress: Progress,
    pub mesh: MeshStats,
    pub view: Arc<MeshView>,
    pub pools: Vec<ResourcePool>,
    /// The providers of the pools that have several.
    pub providers: Vec<ProviderView>,
    pub prices: Vec<PriceView>,
    pub totals: Totals,
    /// What was seen of spot instances, of the pools that may have some.
    pub spot: BTreeMap<PoolName, SpotSeen>,
    /// What became of other regions' requests, by pool, and how many stand.
    pub ledgers: Vec<(PoolName, ledger::Stats, usize)>,
    /// What became of this region's requests.
    pub claims: Arc<Claims>,
    pub history: HistoryStats,
    /// What is made ready before it is needed, and what became of it.
    pub staging: (Vec<StagingView>, StagingTotals),
}

/// The metrics as OpenMetrics text.
pub(crate) fn render(sample: Sample) -> String {
    let mut registry = Registry::with_prefix("tradewind");
    registry.register_collector(Box::new(sample));
    let mut out = String::new();
    // A string takes everything.
    let _ = text::encode(&mut out, &registry);
    out
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PoolState {
    pool: String,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PoolProvider {
    pool: String,
    provider: String,
    market: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServiceState {
    service: String,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Pair {
    tenant: String,
    source: String,
    destination: String,
    service: String,
    r#type: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PairQuantile {
    tenant: String,
    source: String,
    destination: String,
    service: String,
    r#type: String,
    quantile: String,
}

impl Pair {
    fn of(key: &SeriesKey) -> Self {
        Self {
            tenant: key.tenant.to_string(),
            source: key.source.to_string(),
            destination: key.destination.to_string(),
            service: key.service.to_string(),
            r#type: key.transaction_type.to_string(),
        }
    }

    fn at(self, quantile: Quantile) -> PairQuantile {
        let Pair { tenant, source, destination, service, r#type } = self;
        PairQuantile { tenant, source, destination, service, r#type, quantile: quantile.probability().to_string() }
    }
}

/// Writes families of one kind of number.
struct Families<'e>(DescriptorEncoder<'e>);

impl Families<'_> {
    fn counter(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        counter.encode(self.0.encode_descriptor(name, help, unit, MetricType::Counter)?)
    }

    fn counters<L: EncodeLabelSet>(&mut self, name: &str, help: &str, values: impl Iterator<Item = (L, u64)>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        values.into_iter().try_for_each(|(labels, value)| ConstCounter::new(value).encode(family.encode_family(&labels)?))
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?)
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl Iterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        values.into_iter().try_for_each(|(labels, value)| ConstGauge::new(value).encode(family.encode_family(&labels)?))
    }
}

impl Collector for Sample {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = Families(encoder);
        self.agent(&mut out)?;
        self.records(&mut out)?;
        self.mesh(&mut out)?;
        self.pools(&mut out)?;
        self.reservations(&mut out)?;
        self.staging(&mut out)?;
        self.forecasts(&mut out)?;
        self.anomalies(&mut out)
    }
}

impl Sample {
    fn agent(&self, out: &mut Families) -> fmt::Result {
        let build = [("region", self.status.region.to_string()), ("version", self.status.version.clone())];
        out.gauges("agent", "Which agent this is; always 1", None, [(build, 1.0)].into_iter())?;
        out.gauge("step", "Length of a step", Some(&Unit::Seconds), self.status.step.seconds())?;
        out.gauge(
            "started_at",
            "When the agent started, since 1970",
            Some(&Unit::Seconds),
            self.status.started_at.as_millis() as f64 / 1e3,
        )?;
        out.gauge("healthy", "1 when the agent judges itself healthy", None, f64::from(u8::from(self.status.health == Health::Healthy)))?;
        out.gauge("active_mode", "1 when plans are carried out", None, f64::from(u8::from(self.status.mode == Mode::Active)))?;
        let closed = self.progress.closed.map_or(0.0, |step| self.status.step.end(step).as_millis() as f64 / 1e3);
        out.gauge("closed_until", "End of the last closed step, since 1970", Some(&Unit::Seconds), closed)
    }

    fn records(&self, out: &mut Families) -> fmt::Result {
        let history = &self.history;
        out.counter("records_accepted", "Records counted and durable", None, history.accepted)?;
        out.counter("records_refused", "Records refused one by one", None, history.refused)?;
        out.counter("records_duplicate", "Records whose id had been counted", None, history.duplicates)?;
        out.counter("batches_replayed", "Batches whose key had been counted", None, history.replayed)?;
        out.counter("batches_turned_away", "Batches answered 429", None, history.busy)?;
        out.counter("records_folded", "Records counted in a series `other` since their tenant has too many", None, history.folded)?;
        let folded = self.status.folded.iter();
        let tenants = folded.clone().map(|of| ([("tenant", of.tenant.to_string())], of.transactions));
        out.counters("transactions_folded", "Transactions counted in a series `other`, by tenant", tenants)?;
        let tenants = folded.map(|of| ([("tenant", of.tenant.to_string())], of.series as f64));
        out.gauges("series_folded", "Series of late that are counted in a series `other`, as far as they are told apart", None, tenants)?;
        out.counter("history_commits", "Transactions made durable", None, history.commits)?;
        out.gauge("records_pending", "Records waiting to be made durable", None, history.pending as f64)?;
        out.gauge("series", "Series that are counted", None, history.series as f64)
    }

    fn mesh(&self, out: &mut Families) -> fmt::Result {
        let mesh = &self.mesh;
        let live = self.view.live().count();
        let regions = [("live", live), ("dead", self.view.regions.len() - live)];
        out.gauges("regions", "Regions by whether they are alive", None, regions.map(|(s, n)| ([("state", s)], n as f64)).into_iter())?;
        let rtts =
            self.view.regions.iter().filter_map(|(region, entry)| Some(([("peer", region.to_string())], entry.rtt()?.as_secs_f64())));
        out.gauges("mesh_rtt", "Round-trip time to a peer", Some(&Unit::Seconds), rtts)?;
        let versions = self
            .view
            .regions
            .iter()
            .filter_map(|(region, entry)| Some(([("peer", region.to_string())], f64::from(entry.connection?.version.number()))));
        out.gauges("mesh_wire_version", "Wire version that is spoken with a peer", None, versions)?;
        if let Some(ends) = self.status.certificate_ends_at {
            let help = "When the agent's certificate ends, in seconds since 1970";
            out.gauge("mesh_certificate_ends", help, Some(&Unit::Seconds), ends.as_millis() as f64 / 1e3)?;
        }
        out.gauge("mesh_connections", "QUIC connections", None, mesh.links as f64)?;
        out.counter("mesh_sent", "UDP payload sent to peers", Some(&Unit::Bytes), mesh.udp_bytes_sent)?;
        out.counter("mesh_received", "UDP payload received from peers", Some(&Unit::Bytes), mesh.udp_bytes_received)?;
        out.counter("mesh_dials", "Connections tried", None, mesh.dials)?;
        out.counter("mesh_dial_failures", "Connections that failed", None, mesh.dial_failures)?;
        out.counter("mesh_pushes_sent", "States sent straight to peers", None, mesh.pushes_sent)?;
        out.counter("mesh_pushes_received", "States received straight from their regions", None, mesh.pushes_received)?;
        out.counter("mesh_fetches", "States fetched because their push was missed", None, mesh.fetches)?;
        out.counter("mesh_messages_lost", "Messages dropped for want of time or room", None, mesh.messages_lost)?;
        out.counter("mesh_gossip_restarts", "How often gossip ended and was started again", None, mesh.chitchat_restarts)?;
        let refused = mesh.refused.iter().map(|(reason, count)| ([("reason", *reason)], *count));
        out.counters("mesh_refused", "What peers sent and what changed nothing", refused)
    }

    fn pools(&self, out: &mut Families) -> fmt::Result {
        let states = self.pools.iter().flat_map(|pool| {
            let counts = pool.instances;
            [("starting", counts.starting), ("warm", counts.warm), ("active", counts.active), ("draining", counts.draining)]
                .map(|(state, count)| (PoolState { pool: pool.name.to_string(), state }, f64::from(count)))
        });
        out.gauges("instances", "Instances by state", None, states)?;
        out.counter("instances_started", "Instances started", None, self.totals.started)?;
        out.counter("instances_adopted", "Instances of earlier lives that were found", None, self.totals.adopted)?;
        out.counter("instances_lost", "Instances that ended unexpectedly", None, self.totals.lost)?;
        out.counter("instance_orders_failed", "Orders that a provider did not carry out", None, self.totals.failed_orders)?;
        let provider = |view: &ProviderView| PoolProvider {
            pool: view.pool.to_string(),
            provider: view.provider.clone(),
            market: match view.market {
                Market::OnDemand => "on_demand",
                Market::Spot => "spot",
            },
        };
        let run = self.providers.iter().map(|view| (provider(view), f64::from(view.instances)));
        out.gauges("provider_instances", "Instances by provider, of pools that have several", None, run)?;
        let failing = self.providers.iter().map(|view| (provider(view), f64::from(u8::from(view.failing.is_some()))));
        out.gauges("provider_failing", "1 while others of the pool take over for it", None, failing)?;
        let startup = self.pools.iter().map(|pool| ([("pool", pool.name.to_string())], pool.startup_ms as f64 / 1e3));
        out.gauges("instance_startup", "From order to ready, as measured", Some(&Unit::Seconds), startup)?;
        let decisions = || self.progress.plan.iter().flat_map(|plan| &plan.decisions);
        let wanted = decisions().map(|d| ([("pool", d.pool.to_string())], f64::from(d.active) + f64::from(d.warm)));
        out.gauges("instances_planned", "Instances that the newest plan wants", None, wanted)?;
        let flag = |set: bool| f64::from(u8::from(set));
        let mixes = || decisions().filter_map(|d| Some(([("pool", d.pool.to_string())], d.mix.as_ref()?)));
        let spot = mixes().map(|(pool, mix)| (pool, f64::from(mix.spot)));
        out.gauges("instances_planned_spot", "Of these, those that are to be bought on the spot market", None, spot)?;
        let rate = mixes().map(|(pool, mix)| (pool, mix.interruptions_per_hour));
        out.gauges("spot_interruption_rate", "How often an hour a spot instance is expected to be taken", None, rate)?;
        let exposed = mixes().map(|(pool, mix)| (pool, flag(mix.exposed.is_some())));
        out.gauges("plan_exposed", "1 while an interruption would leave less than the demand seen last needs", None, exposed)?;
        let taken = self.spot.iter().map(|(pool, seen)| ([("pool", pool.to_string())], seen.interrupted));
        out.counters("spot_interruptions", "Spot instances that were taken", taken)?;
        let blocked = decisions().map(|d| ([("pool", d.pool.to_string())], flag(d.blocked.is_some())));
        out.gauges("plan_blocked", "1 while the newest plan has less than it wants", None, blocked)?;
        let below = decisions().map(|d| ([("pool", d.pool.to_string())], flag(d.active < d.reason.reactive_floor)));
        out.gauges("plan_below_floor", "1 while the newest plan serves less than live load needs", None, below)?;
        let quantile = decisions().map(|d| ([("pool", d.pool.to_string())], d.reason.quantile.probability()));
        out.gauges("plan_quantile", "Quantile of demand that the newest plan provides for", None, quantile)?;
        let margins = &self.progress.margins;
        let margin = margins.iter().map(|(pool, of)| ([("pool", pool.to_string())], of.margin));
        out.gauges("planner_margin", "What the distance between quantile and median is multiplied with", None, margin)?;
        let regret = margins.iter().map(|(pool, of)| ([("pool", pool.to_string())], of.regret));
        out.gauges("planner_regret", "Instance-steps paid beyond the best margin in hindsight, discounted", None, regret)?;
        let weights = margins.iter().flat_map(|(pool, of)| {
            of.choices.iter().map(move |choice| {
                let margin = if choice.tuned { "tuned".to_string() } else { choice.margin.to_string() };
                ([("pool", pool.to_string()), ("margin", margin)], choice.weight)
            })
        });
        out.gauges("planner_margin_weight", "How much each margin has to say", None, weights)?;
        let stale = self.prices.iter().map(|price| ([("price", price.name.to_string())], flag(price.stale)));
        out.gauges("price_stale", "1 while a price is older than it may be", None, stale)?;
        let usd = self.prices.iter().filter_map(|p| Some(([("price", p.name.to_string())], p.instance_hour_price?.0 as f64 / 1e6)));
        out.gauges("price_instance_hour_usd", "Price of one instance for an hour, as last known", None, usd)
    }

    fn reservations(&self, out: &mut Families) -> fmt::Result {
        let standing = self.ledgers.iter().map(|(pool, _, standing)| ([("pool", pool.to_string())], *standing as f64));
        out.gauges("reservations", "Reservations of other regions that stand", None, standing)?;
        let outcomes = self.ledgers.iter().flat_map(|(pool, s, _)| {
            let counts = [
                ("held", s.held),
                ("countered", s.countered),
                ("refused", s.refused),
                ("confirmed", s.confirmed),
                ("released", s.released),
                ("lapsed", s.lapsed),
                ("preempted", s.preempted),
            ];
            counts.map(|(state, count)| (PoolState { pool: pool.to_string(), state }, count))
        });
        out.counters("reservation_requests", "What became of other regions' requests", outcomes)?;
        let stats = self.claims.stats;
        let own = [("asked", stats.asked), ("granted", stats.granted), ("refused", stats.refused), ("lost", stats.lost)];
        out.counters("claims", "What became of this region's requests to others", own.map(|(s, n)| ([("state", s)], n)).into_iter())
    }

    fn staging(&self, out: &mut Families) -> fmt::Result {
        let (services, totals) = &self.staging;
        let steps = services.iter().flat_map(|view| {
            let done = view.steps.iter().filter(|step| step.state == StageState::Done).count();
            [("done", done), ("not_done", view.steps.len() - done)]
                .map(|(state, count)| (ServiceState { service: view.service.to_string(), state }, count as f64))
        });
        out.gauges("staging_steps", "Steps of staging by whether they are done", None, steps)?;
        let late = services.iter().map(|view| ([("service", view.service.to_string())], f64::from(u8::from(view.late))));
        out.gauges("staging_late", "1 while a service is needed and not staged", None, late)?;
        let jobs = [("done", totals.done), ("undone", totals.undone), ("failed", totals.failed)];
        out.counters("staging_jobs", "What became of steps of staging", jobs.map(|(s, n)| ([("state", s)], n)).into_iter())?;
        out.counter("staging_copied", "Bytes that preloads have copied", Some(&Unit::Bytes), totals.bytes)
    }

    fn forecasts(&self, out: &mut Families) -> fmt::Result {
        let lean = self.progress.predictions.iter().filter(|prediction| prediction.model == LEAN).count();
        let by = [("all", self.progress.predictions.len() - lean), ("lean", lean)];
        let help = "Series that are forecast: by all experts, or leanly since they are beyond forecast.max_series";
        out.gauges("forecast_series", help, None, by.map(|(by, series)| ([("by", by)], series as f64)).into_iter())?;
        let mut shown: Vec<_> = self.progress.predictions.iter().collect();
        shown.sort_by(|a, b| b.mean_volume.total_cmp(&a.mean_volume));
        shown.truncate(MAX_FORECAST_SERIES);
        let (low, high) = Quantile::CENTRAL_90;
        let values = shown.iter().flat_map(|p| {
            let value = |q| (Pair::of(&p.series).at(q), p.path.value(p.path.start(), q).unwrap_or(0.0));
            [value(low), value(Quantile::MEDIAN), value(high)]
        });
        out.gauges("forecast_transactions", "Transactions foreseen for the step after the last closed one", None, values)?;
        let observed = shown.iter().map(|p| (Pair::of(&p.series), p.observed));
        out.gauges("observed_transactions", "Transactions in the last closed step", None, observed)?;
        let errors = shown.iter().map(|p| (Pair::of(&p.series), p.score.pinball));
        out.gauges("forecast_pinball_loss", "Mean pinball loss of late, one step ahead", None, errors)?;
        let naive = shown.iter().map(|p| (Pair::of(&p.series), p.score.seasonal_naive_pinball));
        out.gauges("forecast_seasonal_naive_pinball_loss", "The same for the seasonal naive forecast", None, naive)?;
        let coverage = shown.iter().map(|p| (Pair::of(&p.series), p.score.coverage_90));
        out.gauges("forecast_coverage_ratio", "Share of actuals inside the 90 % interval of late", None, coverage)
    }

    fn anomalies(&self, out: &mut Families) -> fmt::Result {
        let report = &self.progress.anomalies;
        let kind = |kind: AnomalyKind| match kind {
            AnomalyKind::Point => "point",
            AnomalyKind::LevelShift => "level_shift",
            AnomalyKind::MissingData => "missing_data",
        };
        let found = report.found.iter().map(|(of, count)| ([("kind", kind(*of))], *count));
        out.counters("anomalies", "Anomalies found", found)?;
        out.gauge("anomalies_ongoing", "Series that are out of the ordinary now", None, report.ongoing() as f64)
    }
}
