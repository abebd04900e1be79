//! What a planning round costs: `cargo bench -p tradewind-agent --bench planner`. One core.
//!
//! 200 services, a pool each, in a chain of calls of ten services' length, with traffic from 50 regions to each: 10,000 forecasts of
//! 24 steps and 9 quantiles. A round is what an agent does with them after a step: sums the pools' own demand (`rounds`), lets what foretells it
//! learn it, makes the plan, has it checked, and remembers it. Every fourth pool has a spot market. Beside it, in the same run, one pass over the
//! bytes of the forecasts: what no round can be faster than.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tradewind_agent::config::{Config, ConfigError};
use tradewind_agent::planner::{Memory, Outturn, OwnDemand, PoolSnapshot, Snapshot, SourceForecast, SpotSnapshot, check, plan, rounds};
use tradewind_protocol::forecast::ForecastScore;
use tradewind_protocol::pool::MicroUsd;
use tradewind_protocol::{InstanceCounts, PredictionData, Quantile, QuantilePath, RegionId, SeriesKey, ServiceName, StepIndex, Timestamp};

const SERVICES: usize = 200;
const REGIONS: usize = 50;
const CHAIN: usize = 10;
const HORIZON: usize = 24;
const ROUNDS: u32 = 20;
/// Beyond the 100 steps after which a pool's own demand has a say.
const WARM_UP: u32 = 120;
/// A day of minutes.
const SEASON: usize = 1_440;
const KNOWN: StepIndex = StepIndex(1_000);

fn main() {
    let snapshot = match configured() {
        Ok(config) => snapshot(&config),
        Err(error) => return eprintln!("{error}"),
    };
    let mut round = Round::new(snapshot);
    // Until what the pools' own demand foretells is known for long enough to have a say.
    for _ in 0..WARM_UP {
        round.run();
    }
    round.spent = [Duration::ZERO; PARTS.len()];
    for _ in 0..ROUNDS {
        round.run();
    }
    let spent = round.spent.map(|spent| (spent / ROUNDS).as_secs_f64() * 1e3);
    let snapshot = round.snapshot;
    let started = Instant::now();
    let mut sum = 0.0;
    for forecast in &snapshot.forecasts {
        let path = &forecast.prediction.path;
        sum += (0..path.horizon()).filter_map(|at| path.row(at)).flatten().map(|value| f64::from(*value)).sum::<f64>();
    }
    let pass = started.elapsed();
    assert!(black_box(sum) > 0.0);
    let parts: Vec<String> = PARTS.iter().zip(spent).map(|(part, spent)| format!("{part} {spent:.1}")).collect();
    println!(
        "{SERVICES} services x {REGIONS} regions: {:.1} ms a round ({}); one pass over all forecasts: {:.1} ms",
        spent.iter().sum::<f64>(),
        parts.join(", "),
        pass.as_secs_f64() * 1e3
    );
}

/// What a round consists of.
const PARTS: [&str; 6] = ["sum", "learn", "foresee", "plan", "check", "remember"];

/// Rounds, one after the other.
struct Round {
    snapshot: Snapshot,
    own: Vec<OwnDemand>,
    spent: [Duration; PARTS.len()],
}

impl Round {
    fn new(snapshot: Snapshot) -> Self {
        Self { own: vec![OwnDemand::default(); snapshot.pools.len()], snapshot, spent: [Duration::ZERO; PARTS.len()] }
    }

    /// What an agent does after a step. That the forecasts are made is not its part.
    fn run(&mut self) {
        let Self { snapshot, own, spent } = self;
        let step = snapshot.known_until.offset(1);
        (snapshot.known_until, snapshot.forecasts) = (step, forecasts(step));
        snapshot.now = snapshot.step.end(step);
        let mut began = Instant::now();
        let mut done = |part: usize| spent[part] += std::mem::replace(&mut began, Instant::now()).elapsed();
        let told = rounds(black_box(snapshot));
        done(0);
        for ((pool, round), own) in snapshot.pools.iter_mut().zip(&told).zip(own.iter_mut()) {
            own.observe(step, round, &pool.config, SEASON);
            pool.observed = round.observed;
        }
        done(1);
        for (pool, own) in snapshot.pools.iter_mut().zip(own.iter()) {
            pool.foreseen = own.foreseen();
        }
        done(2);
        let made = plan(snapshot);
        done(3);
        let Ok(plan) = check(made, snapshot).map(|plan| plan.into_inner()) else { return eprintln!("the checker refuses the plan") };
        assert!(black_box(&plan).decisions.len() == SERVICES);
        done(4);
        let decided = plan.decisions.iter().zip(&snapshot.pools);
        let memories: Vec<Memory> = decided
            .map(|(decision, pool)| {
                let mut memory = pool.memory.clone();
                memory.close(decision, pool, snapshot, Some(Outturn { ready: decision.active, blocked: false }));
                memory
            })
            .collect();
        snapshot.pools.iter_mut().zip(memories).for_each(|(pool, memory)| pool.memory = memory);
        snapshot.version += 1;
        done(5);
    }
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
        if at % 4 == 0 {
            text += "instance_hour_usd = 0.1\n[pool.spot]\ninstance_hour_usd = 0.03\nprocess = { command = [\"w\"] }\n";
        }
    }
    Config::parse(&text, [])
}

fn snapshot(config: &Config) -> Snapshot {
    let pool = |config: &tradewind_agent::config::PoolConfig| PoolSnapshot {
        config: config.clone(),
        counts: InstanceCounts::default(),
        price: config.instance_hour_price,
        price_doubt: None,
        measured_startup: None,
        memory: Memory::default(),
        observed: None,
        foreseen: None,
        surging: false,
        spot: config.spot.as_ref().map(|_| SpotSnapshot {
            price: Some(MicroUsd(30_000)),
            doubts: vec![],
            past: Default::default(),
            counted: Default::default(),
            instances: 0,
        }),
    };
    Snapshot {
        region: config.region.clone(),
        now: config.step.end(KNOWN),
        step: config.step,
        known_until: KNOWN,
        mode: config.mode,
        forecasts: forecasts(KNOWN),
        expected_sources: (0..REGIONS).filter_map(|at| RegionId::new(&format!("r{at}")).ok()).collect::<BTreeSet<_>>(),
        pools: config.pools.iter().map(pool).collect(),
        config: config.planner.clone(),
        version: 1,
    }
}

fn forecasts(known: StepIndex) -> Vec<SourceForecast> {
    (0..REGIONS).flat_map(|region| (0..SERVICES).filter_map(move |service| forecast(region, service, known))).collect()
}

fn forecast(region: usize, service: usize, known: StepIndex) -> Option<SourceForecast> {
    let source = RegionId::new(&format!("r{region}")).ok()?;
    let values = (0..HORIZON * Quantile::GRID.len()).map(|at| (100 + region + service + at) as f32 + (known.0 % 7) as f32).collect();
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
        path: QuantilePath::rearranged(known.offset(1), step, Quantile::GRID.to_vec(), values).ok()?,
        model: "bench".into(),
        score: ForecastScore::default(),
    };
    Some(SourceForecast { source, age: Duration::ZERO, live: true, prediction: Arc::new(prediction) })
}
