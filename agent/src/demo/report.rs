//! What came of the demo: for a newcomer in words, for programs as JSON.

use super::fleet::{Fleet, MAX_INSTANCES, WORKER_STARTUP};
use super::reactive;
use super::score::Scores;
use super::trace::{HISTORY_ROWS, ROW_HOURS, Trace};
use super::{LEAD_STEPS, STEP};
use anyhow::ensure;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use tradewind_protocol::api::CapacitySample;
use tradewind_protocol::{RegionId, StepIndex};

/// The summary.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    regions: Vec<RegionId>,
    steps: usize,
    records_ingested: u64,
    forecast: Forecast,
    capacity: Capacity,
    mesh: Mesh,
    pub workers: Workers,
}

/// Pinball losses in megabytes a step, at the lead time, over all pairs.
#[derive(Debug, Serialize)]
struct Forecast {
    scored: u64,
    pinball: f64,
    seasonal_naive_pinball: f64,
    coverage_90: f64,
}

/// Shares of region-steps; hours of one instance, in recorded time.
#[derive(Debug, Serialize)]
struct Capacity {
    late_share: f64,
    reactive_late_share: f64,
    resource_hours: f64,
    reactive_resource_hours: f64,
    /// The utilisation target that the reactive scaler needed to cost as much as we did.
    reactive_target: f64,
    by_region: Vec<RegionCapacity>,
}

#[derive(Debug, Serialize)]
struct RegionCapacity {
    region: RegionId,
    late_share: f64,
    resource_hours: f64,
}

#[derive(Debug, Serialize)]
struct Mesh {
    convergence_ms: u64,
    bytes_per_agent_second: f64,
}

/// Worker processes.
#[derive(Debug, Serialize)]
pub(super) struct Workers {
    started: u64,
    pub leaked: usize,
}

/// What was gathered while the demo ran.
pub(super) struct Played {
    pub steps: usize,
    pub first: StepIndex,
    pub records: u64,
    pub scores: Scores,
    /// By region, in the order of the trace.
    pub capacity: Vec<Vec<CapacitySample>>,
    pub bytes_per_agent_second: f64,
    pub started: u64,
}

impl Report {
    pub(super) fn new(trace: &Trace, fleet: &Fleet, played: Played) -> anyhow::Result<Self> {
        let (mut late, mut instance_steps) = (0, 0.0);
        let (mut demands, mut by_region) = (vec![], vec![]);
        for (index, (member, samples)) in fleet.members.iter().zip(&played.capacity).enumerate() {
            let samples: BTreeMap<StepIndex, &CapacitySample> = samples.iter().map(|sample| (sample.step, sample)).collect();
            let demand: Vec<f64> = (0..played.steps)
                .map(|live| trace.into(HISTORY_ROWS + live, index) / STEP.as_secs_f64() / member.rate_per_instance)
                .collect();
            let (mut region_late, mut region_steps) = (0, 0.0);
            for (live, demand) in demand.iter().enumerate() {
                let sample = samples.get(&played.first.offset(live as i64));
                ensure!(sample.is_some(), "the agent of {} has no account of step {live}", member.region);
                let Some(sample) = sample else { continue };
                region_late += usize::from(*demand > f64::from(sample.ready));
                region_steps += sample.instance_ms as f64 / STEP.as_millis() as f64;
            }
            late += region_late;
            instance_steps += region_steps;
            by_region.push(RegionCapacity {
                region: member.region.clone(),
                late_share: share(region_late, played.steps),
                resource_hours: region_steps * ROW_HOURS,
            });
            demands.push(demand);
        }
        let region_steps = played.steps * demands.len();
        let (reactive_target, rival) = reactive::play_at_cost(&demands, LEAD_STEPS, instance_steps, MAX_INSTANCES);
        Ok(Self {
            regions: trace.regions.iter().map(|node| node.region.clone()).collect(),
            steps: played.steps,
            records_ingested: played.records,
            forecast: Forecast {
                scored: played.scores.count,
                pinball: played.scores.mean_pinball(),
                seasonal_naive_pinball: played.scores.mean_naive_pinball(),
                coverage_90: played.scores.coverage_90(),
            },
            capacity: Capacity {
                late_share: share(late, region_steps),
                reactive_late_share: share(rival.late_steps, region_steps),
                resource_hours: instance_steps * ROW_HOURS,
                reactive_resource_hours: rival.instance_steps * ROW_HOURS,
                reactive_target,
                by_region,
            },
            mesh: Mesh { convergence_ms: fleet.convergence.as_millis() as u64, bytes_per_agent_second: played.bytes_per_agent_second },
            workers: Workers { started: played.started, leaked: 0 },
        })
    }

    /// Prints the summary on standard output.
    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            serde_json::to_writer_pretty(&mut out, self)?;
            writeln!(out)?;
            return Ok(());
        }
        let (forecast, capacity) = (&self.forecast, &self.capacity);
        let recorded_hours = self.steps as f64 * ROW_HOURS;
        writeln!(
            out,
            "\n{} regions, {} steps ({recorded_hours:.1} recorded hours), {} records",
            self.regions.len(),
            self.steps,
            self.records_ingested
        )?;
        writeln!(out, "\nForecasts, {LEAD_STEPS} steps ahead, scored on what came afterwards ({} of them):", forecast.scored)?;
        writeln!(
            out,
            "  error (mean pinball loss)    {:>8.0} MB   seasonal naive {:>8.0} MB   ratio {:.2}",
            forecast.pinball,
            forecast.seasonal_naive_pinball,
            forecast.pinball / forecast.seasonal_naive_pinball.max(f64::MIN_POSITIVE)
        )?;
        writeln!(out, "  the 90 % interval held       {:>8.1} %", 100.0 * forecast.coverage_90)?;
        writeln!(out, "\nCapacity (workers take {WORKER_STARTUP:?} to start, so an order serves {LEAD_STEPS} steps later):")?;
        writeln!(
            out,
            "                               {:>11}   reactive scaler at {:.0} % utilisation",
            "Tradewind",
            100.0 * capacity.reactive_target
        )?;
        writeln!(
            out,
            "  steps with too little        {:>9.2} %   {:>9.2} %",
            100.0 * capacity.late_share,
            100.0 * capacity.reactive_late_share
        )?;
        writeln!(out, "  instance-hours paid          {:>11.1}   {:>11.1}", capacity.resource_hours, capacity.reactive_resource_hours)?;
        for region in &capacity.by_region {
            writeln!(
                out,
                "    {:<10} too little in {:>5.2} %, {:>6.1} instance-hours",
                region.region.to_string(),
                100.0 * region.late_share,
                region.resource_hours
            )?;
        }
        writeln!(
            out,
            "\nMesh: complete after {} ms; {:.1} kB a second and agent",
            self.mesh.convergence_ms,
            self.mesh.bytes_per_agent_second / 1e3
        )?;
        writeln!(out, "Workers: {} real processes started, {} left behind", self.workers.started, self.workers.leaked)?;
        Ok(())
    }
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}
