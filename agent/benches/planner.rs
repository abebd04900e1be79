//! What a planning round costs: `cargo bench -p tradewind-agent --bench planner`. One core.
//!
//! 200 services, a pool each, in a chain of calls of ten services' length, with traffic from 50 regions to each: 10,000 forecasts of
//! 24 steps and 9 quantiles. A round makes the plan and has it checked. Beside it, in the same run, one pass over the bytes of the forecasts:
//! what no round can be faster than.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tradewind_agent::config::{Config, ConfigError};
use tradewind_agent::planner::{Memory, PoolSnapshot, Snapshot, SourceForecast, check, plan};
use tradewind_protocol::forecast::ForecastScore;
use tradewind_protocol::{InstanceCounts, PredictionData, Quantile, QuantilePath, RegionId, SeriesKey, ServiceName, StepIndex, Timestamp};

const SERVICES: usize = 200;
const REGIONS: usize = 50;
const CHAIN: usize = 10;
const HORIZON: usize = 24;
const ROUNDS: u32 = 20;
const KNOWN: StepIndex = StepIndex(1_000);

fn main() {
    let snapshot = match configured() {
        Ok(config) => snapshot(&config),
        Err(error) => return eprintln!("{error}"),
    };
    let started = Instant::now();
    for _ in 0..ROUNDS {
        let judged = check(plan(black_box(&snapshot)), &snapshot);
        assert!(black_box(judged).is_ok_and(|plan| plan.into_inner().decisions.len() == SERVICES));
    }
    let round = started.elapsed() / ROUNDS;
    let started = Instant::now();
    let mut sum = 0.0;
    for forecast in &snapshot.forecasts {
        let path = &forecast.prediction.path;
        sum += (0..path.horizon()).filter_map(|at| path.row(at)).flatten().map(|value| f64::from(*value)).sum::<f64>();
    }
    let pass = started.elapsed();
    assert!(black_box(sum) > 0.0);
    println!(
        "{SERVICES} services x {REGIONS} regions: {:.1} ms a round (plan and check); one pass over all forecasts: {:.1} ms",
        round.as_secs_f64() * 1e3,
        pass.as_secs_f64() * 1e3
    );
}

fn configured() -> Result<Config, ConfigError> {
    let mut text = "region = \"r0\"\ndata_dir = \"/tmp/x\"\n[mesh]\nlisten = \"127.0.0.1:1\"\n\
                    tls = { ca = \"a\", certificate = \"b\", key = \"c\" }\n"
        .to_string();
    for at in 0..SERVICES {
        let calls = if (at + 1) % CHAIN == 0 { String::new() } else { format!("s{} = 1.5", at + 1) };
        text += &format!(
            "[[service]]\nname = \"s{at}\"\ncalls = {{ {calls} }}\n[[pool]]\nname = \"p{at}\"\nservice = \"s{at}\"\n\
             rate_per_instance = 10\nmax_instances = 100000\nstartup = \"3m\"\ninstance = {{ cpu_millis = 100 }}\n\
             process = {{ command = [\"w\"] }}\n"
        );
    }
    Config::parse(&text, [])
}

fn snapshot(config: &Config) -> Snapshot {
    let forecasts = (0..REGIONS).flat_map(|region| (0..SERVICES).filter_map(move |service| forecast(region, service))).collect();
    let pool = |config: &tradewind_agent::config::PoolConfig| PoolSnapshot {
        config: config.clone(),
        counts: InstanceCounts::default(),
        price: config.instance_hour_price,
        price_doubt: None,
        measured_startup: None,
        memory: Memory::default(),
        observed: None,
        foreseen: None,
        spot: None,
    };
    Snapshot {
        region: config.region.clone(),
        now: config.step.end(KNOWN),
        step: config.step,
        known_until: KNOWN,
        mode: config.mode,
        forecasts,
        expected_sources: (0..REGIONS).filter_map(|at| RegionId::new(&format!("r{at}")).ok()).collect::<BTreeSet<_>>(),
        pools: config.pools.iter().map(pool).collect(),
        config: config.planner.clone(),
        version: 1,
    }
}

fn forecast(region: usize, service: usize) -> Option<SourceForecast> {
    let source = RegionId::new(&format!("r{region}")).ok()?;
    let values = (0..HORIZON * Quantile::GRID.len()).map(|at| (100 + region + service + at) as f32).collect();
    let step = tradewind_protocol::Step::new(Duration::from_secs(60)).ok()?;
    let prediction = PredictionData {
        series: SeriesKey {
            tenant: Default::default(),
            source: source.clone(),
            destination: RegionId::new("r0").ok()?,
            service: ServiceName::new(&format!("s{service}")).ok()?,
            transaction_type: Default::default(),
        },
        issued_at: Timestamp::EPOCH,
        observed: 100.0,
        mean_volume: 100.0,
        path: QuantilePath::rearranged(KNOWN.offset(1), step, Quantile::GRID.to_vec(), values).ok()?,
        model: "bench".into(),
        score: ForecastScore::default(),
    };
    Some(SourceForecast { source, age: Duration::ZERO, live: true, prediction: Arc::new(prediction) })
}
