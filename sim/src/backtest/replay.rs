//! The agent's planner, whole, over recorded demand: its forecasts of each series, what it learns of a pool's demand and of its own choices,
//! and its rules, step after step as in an agent. The pool's instances serve a unit of demand each, and start as long as the lead says.
//!
//! Not in it: what several agents tell each other (the trace is what arrives in one region), instances that fail, and the models
//! that are trained on all series.

use super::policy::Planner;
use super::rivals::Setting;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tradewind_agent::config::{Costs, ForecastConfig, PlannerConfig, PoolConfig, ProcessConfig, ProviderConfig};
use tradewind_agent::forecast::Forecasts;
use tradewind_agent::planner::{Foreseen, Memory, Outturn, OwnDemand, PoolSnapshot, Snapshot, SourceForecast, plan, rounds};
use tradewind_protocol::pool::MicroUsd;
use tradewind_protocol::region::Mode;
use tradewind_protocol::{
    InstanceCounts, PoolName, PredictionData, Quantile, RegionId, Resources, SeriesKey, Step, StepIndex, TransactionType,
};

/// Price of a unit for an hour.
const PRICE: MicroUsd = MicroUsd(1_000_000);
/// What a series without a season is forecast with.
const SEASON: usize = 288;
/// The pool's maximum, ten times the peak: nothing may be learned from a bound that knows it.
const MOST: u32 = 1_000;

/// The planner of one series. The knob is the price of a unit for as long as one of lateness: the probability of being late that is worth it.
pub(crate) fn replay<'a>(demand: &'a [f64], setting: &'a Setting) -> Planner<'a> {
    let world = World::of(setting);
    let rounds = world.rounds(demand);
    Box::new(move |late| world.plan(&rounds, late))
}

/// What is the same for all knobs.
struct World<'a> {
    setting: &'a Setting,
    step: Step,
    key: SeriesKey,
    pool: PoolConfig,
}

/// What is known after a step, whatever the knob.
struct Known {
    forecast: Arc<PredictionData>,
    observed: Option<f64>,
    foreseen: Option<Foreseen>,
    surging: bool,
}

impl<'a> World<'a> {
    fn of(setting: &'a Setting) -> Self {
        const NAME: &str = "a good name";
        // Nothing is decided by how long a step is: one that no agent could have is taken for the nearest that it could.
        let length = Duration::from_secs_f64(setting.step_s.clamp(Step::MIN.as_secs_f64(), Step::MAX.as_secs_f64()));
        let step = Step::new(length).expect("between the shortest and the longest");
        let key = SeriesKey {
            tenant: Default::default(),
            source: RegionId::new("users").expect(NAME),
            destination: RegionId::new("here").expect(NAME),
            service: Default::default(),
            transaction_type: TransactionType::default(),
        };
        let pool = PoolConfig {
            name: PoolName::new("pool").expect(NAME),
            service: Default::default(),
            rate_per_instance: 1.0 / step.seconds(),
            instance: Resources { cpu_millis: 1, ..Resources::ZERO },
            capacity: Resources { cpu_millis: u64::from(u16::MAX), ..Resources::ZERO },
            min_instances: 0,
            max_instances: MOST,
            min_warm: 0,
            // The running step is part of the lead, of 48 steps at most.
            startup: step.length() * (setting.lead as u32 - 1),
            drain_timeout: step.length(),
            instance_hour_price: PRICE,
            costs: Costs::default(),
            policies: vec![],
            provider: ProviderConfig::Process(ProcessConfig { command: vec![], env: vec![] }),
            spot: None,
        };
        Self { setting, step, key, pool }
    }

    fn snapshot(&self, t: usize, forecast: &Arc<PredictionData>, pool: PoolConfig) -> Snapshot {
        let at = StepIndex(t as i64);
        Snapshot {
            region: self.key.destination.clone(),
            now: self.step.end(at),
            step: self.step,
            known_until: at,
            mode: Mode::Active,
            forecasts: vec![SourceForecast {
                source: self.key.source.clone(),
                age: Duration::ZERO,
                live: true,
                prediction: forecast.clone(),
            }],
            expected_sources: BTreeSet::new(),
            pools: vec![PoolSnapshot {
                config: pool,
                counts: InstanceCounts::default(),
                price: PRICE,
                price_doubt: None,
                measured_startup: None,
                memory: Memory::default(),
                observed: None,
                foreseen: None,
                surging: false,
                spot: None,
            }],
            config: PlannerConfig {
                quantile: Quantile::CENTRAL_90.1,
                settle: Duration::ZERO,
                scale_in_after: Duration::ZERO,
                stale_after: Duration::MAX,
                graph: Arc::default(),
                max_cost_per_hour: None,
            },
            version: 1,
        }
    }

    fn rounds(&self, demand: &[f64]) -> Vec<Known> {
        let season = self.setting.season.unwrap_or(SEASON);
        let mut forecasts = Forecasts::new(&ForecastConfig { horizon: self.setting.lead, season }, self.step);
        let mut own = OwnDemand::default();
        let round = |(t, demand): (usize, &f64)| {
            let at = StepIndex(t as i64);
            forecasts.close(at, [(&self.key, *demand)]);
            let forecast = Arc::new(forecasts.predictions(self.step.end(at)).remove(0));
            let round = rounds(&self.snapshot(t, &forecast, self.pool.clone())).remove(0);
            own.observe(at, &round, &self.pool, self.setting.season.unwrap_or(0));
            Known { forecast, observed: round.observed, foreseen: own.foreseen(), surging: own.is_surging() }
        };
        demand.iter().enumerate().map(round).collect()
    }

    fn plan(&self, known: &[Known], late: f64) -> Vec<u16> {
        let late_price = MicroUsd((PRICE.0 as f64 / late.max(1e-9)) as u64);
        let costs = Costs { late_per_instance_hour: Some(late_price), ..Costs::default() };
        let config = PoolConfig { costs, ..self.pool.clone() };
        let lead = self.setting.lead;
        let mut memory = Memory::default();
        let mut totals: Vec<u16> = Vec::with_capacity(known.len());
        for (t, known) in known.iter().enumerate() {
            let mut snapshot = self.snapshot(t, &known.forecast, config.clone());
            let pool = &mut snapshot.pools[0];
            (pool.memory, pool.observed, pool.foreseen) = (std::mem::take(&mut memory), known.observed, known.foreseen.clone());
            pool.surging = known.surging;
            let decision = &plan(&snapshot).decisions[0];
            memory = std::mem::take(&mut snapshot.pools[0].memory);
            let ready = if t >= lead { totals[t - lead..].iter().copied().min().unwrap_or(0) } else { 0 };
            let outturn = Outturn { ready: ready.into(), blocked: decision.blocked.is_some() };
            memory.close(decision, &snapshot.pools[0], &snapshot, Some(outturn));
            totals.push(u16::try_from(decision.active.saturating_add(decision.warm)).unwrap_or(u16::MAX));
        }
        totals
    }
}
