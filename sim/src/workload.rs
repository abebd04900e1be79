//! Traffic: what happened in a region between two moments, as the records that its client posts.

use crate::clock::wall_time;
use crate::data;
use crate::scenario::Workload;
use anyhow::{Context as _, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::f64::consts::TAU;
use std::time::Duration;
use tradewind_agent::env::Seed;
use tradewind_protocol::{RecordId, RegionId, ServiceName, TenantName, Timestamp, TransactionRecord, TransactionType};

/// How far the season swings the rate, as a share of its mean. A guess: day and night of a service
/// used on one continent.
const SWING: f64 = 0.6;

/// How far chance moves the count of one batch, as a share of what is due.
const NOISE: f64 = 0.2;

/// Records a batch of history: what the agent's own demo posts at once.
const HISTORY_BATCH: usize = 2_000;

/// The traffic that begins in one region.
pub(crate) struct Traffic {
    source: RegionId,
    flows: Vec<Flow>,
    every: Duration,
    late_one_in: u64,
    rng: StdRng,
    batches: u64,
}

/// The traffic from one region to one other.
struct Flow {
    destination: RegionId,
    shape: Shape,
}

enum Shape {
    Season {
        rate: f64,
        season: Duration,
        phase: f64,
    },
    /// The first `before` rows lie before the simulation.
    Rows {
        counts: Vec<f64>,
        row: Duration,
        before: usize,
    },
}

impl Traffic {
    /// The traffic from `source` to `others`; none if the workload has none.
    pub(crate) fn new(workload: &Workload, source: &RegionId, others: &[RegionId], seed: Seed) -> anyhow::Result<Option<Traffic>> {
        let mut rng = StdRng::from_seed(seed.child(&format!("traffic {source}")).bytes());
        let (flows, every, late_one_in) = match workload {
            Workload::Silence => return Ok(None),
            Workload::Synthetic { rate, season, every, late_one_in } => {
                // One phase a region, as if the sun came to them in turn; some destinations matter more.
                let phase = rng.random_range(0.0..TAU);
                let mut flow = |destination: &RegionId| Flow {
                    destination: destination.clone(),
                    shape: Shape::Season { rate: rate * rng.random_range(0.5..1.5), season: *season, phase },
                };
                (others.iter().map(&mut flow).collect(), *every, *late_one_in)
            }
            Workload::Recorded { file, row, scale, history_rows, late_one_in } => {
                let text = data::read(file).context("the recorded traffic")?;
                let mut flows = recorded(&text, source, others, *row, *scale).with_context(|| format!("in {}", file.display()))?;
                for flow in &mut flows {
                    if let Shape::Rows { before, counts, .. } = &mut flow.shape {
                        ensure!(
                            *history_rows < counts.len(),
                            "{} has only {} rows, and history_rows = {history_rows} leaves none to come",
                            file.display(),
                            counts.len()
                        );
                        *before = *history_rows;
                    }
                }
                (flows, *row, *late_one_in)
            }
        };
        Ok(Some(Traffic { source: source.clone(), flows, every, late_one_in, rng, batches: 0 }))
    }

    /// How often there is a batch.
    pub(crate) fn every(&self) -> Duration {
        self.every
    }

    /// Whether the batch with this number, counted from 1, comes late.
    pub(crate) fn is_late(&self, number: u64) -> bool {
        self.late_one_in > 0 && number.is_multiple_of(self.late_one_in)
    }

    /// What happened in the interval that ends at `now`, one record a destination.
    pub(crate) fn batch(&mut self, now: Duration) -> Vec<TransactionRecord> {
        let Self { source, flows, every, rng, batches, .. } = self;
        *batches += 1;
        let mut records = vec![];
        for flow in flows {
            let due = flow.shape.due(now, *every);
            let noisy = match flow.shape {
                Shape::Season { .. } => due * (1.0 + NOISE * rng.random_range(-1.0..1.0)),
                // A recording has its own.
                Shape::Rows { .. } => due,
            };
            // What is left of the last whole transaction happens with that probability.
            let count = noisy as u64 + u64::from(rng.random_bool(noisy.fract()));
            if count > 0 {
                records.push(TransactionRecord {
                    // Every other batch's, so that both ways of counting once are used.
                    id: (*batches % 2 == 0).then(|| RecordId::new(&format!("{source}-{}-{batches}", flow.destination)).ok()).flatten(),
                    ..record(source, &flow.destination, wall_time(now), count)
                });
            }
        }
        records
    }

    /// What happened before the simulation began, in batches, oldest first. The row that ends at `now`
    /// is the first one that [`batch`](Self::batch) gives.
    pub(crate) fn history(&self, now: Duration) -> Vec<Vec<TransactionRecord>> {
        let mut records = vec![];
        for flow in &self.flows {
            let Shape::Rows { counts, row, before } = &flow.shape else { continue };
            for (i, count) in counts.iter().take(*before).enumerate() {
                let at = wall_time(now).before(*row * u32::try_from(before - i).unwrap_or(u32::MAX));
                if *count >= 0.5 {
                    records.push(record(&self.source, &flow.destination, at, count.round() as u64));
                }
            }
        }
        records.sort_by_key(|record| record.timestamp);
        records.chunks(HISTORY_BATCH).map(<[_]>::to_vec).collect()
    }
}

fn record(source: &RegionId, destination: &RegionId, timestamp: Timestamp, count: u64) -> TransactionRecord {
    TransactionRecord {
        id: None,
        tenant: TenantName::default(),
        source_region: source.clone(),
        destination_region: destination.clone(),
        service: ServiceName::default(),
        transaction_type: TransactionType::default(),
        user: None,
        timestamp,
        count,
        latency_ms: None,
        resources: None,
    }
}

impl Shape {
    /// Transactions due in the interval of this length that ends at `now`.
    fn due(&self, now: Duration, length: Duration) -> f64 {
        match self {
            Shape::Season { rate, season, phase } => {
                let angle = TAU * now.as_secs_f64() / season.as_secs_f64() + phase;
                rate * (1.0 + SWING * angle.sin()) * length.as_secs_f64()
            }
            Shape::Rows { counts, row, before } => {
                // The interval that ends where a row begins lies in the row before it.
                let index = (now.as_secs_f64() / row.as_secs_f64()).ceil() as usize + before;
                index.checked_sub(1).and_then(|index| counts.get(index)).copied().unwrap_or(0.0)
            }
        }
    }
}

/// The flows of `source` in a table with a column `from>to` per pair. Names are compared without
/// regard to case, since regions are lower case.
fn recorded(text: &str, source: &RegionId, others: &[RegionId], row: Duration, scale: f64) -> anyhow::Result<Vec<Flow>> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, header) = lines.next().context("the file is empty")?;
    let header: Vec<String> = data::heading(header)?.into_iter().map(str::to_lowercase).collect();
    let rows: Vec<(usize, Vec<&str>)> = lines.map(|(at, line)| (at + 1, line.split(',').collect())).collect();
    let mut flows = vec![];
    for destination in others {
        let Some(column) = header.iter().position(|name| *name == format!("{source}>{destination}")) else { continue };
        let mut counts = Vec::with_capacity(rows.len());
        for (line, row) in &rows {
            let cell = row.get(column).with_context(|| format!("line {line} has no column {}", column + 1))?;
            let value: f64 =
                cell.trim().trim_matches('"').parse().with_context(|| format!("line {line}, column {}: {cell:?}", column + 1))?;
            ensure!(value.is_finite() && value >= 0.0, "line {line}, column {}: {cell:?} must be at least 0", column + 1);
            counts.push(value * scale);
        }
        flows.push(Flow { destination: destination.clone(), shape: Shape::Rows { counts, row, before: 0 } });
    }
    ensure!(!flows.is_empty(), "no column begins with \"{source}>\"");
    Ok(flows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> [RegionId; 3] {
        ["a", "b", "c"].map(|name| RegionId::new(name).unwrap())
    }

    #[test]
    fn synthetic_traffic_has_its_rate_and_is_the_seeds() {
        let [a, b, c] = ids();
        let workload =
            Workload::Synthetic { rate: 10.0, season: Duration::from_secs(20), every: Duration::from_millis(500), late_one_in: 0 };
        let run = |seed| {
            let mut traffic = Traffic::new(&workload, &a, &[b.clone(), c.clone()], Seed::new([seed; 32])).unwrap().unwrap();
            (1..=400)
                .map(|i| traffic.batch(Duration::from_millis(500 * i)).iter().map(|record| record.count).sum::<u64>())
                .collect::<Vec<_>>()
        };
        let counts = run(1);
        assert_eq!(counts, run(1));
        assert_ne!(counts, run(2));
        // Two flows of 5 to 15 transactions per second for 200 seconds, swinging.
        let total: u64 = counts.iter().sum();
        assert!((2_000..=6_000).contains(&total), "{total}");
        assert!(counts.iter().max().unwrap() > &(2 * counts.iter().min().unwrap()), "{counts:?}");
    }

    #[test]
    fn recorded_traffic_is_the_files() {
        let [a, b, c] = ids();
        let text = "ts,A>B,A>C,B>A\n0,1,2,3\n1,10,20,30\n";
        let flows = recorded(text, &a, &[b.clone(), c], Duration::from_secs(1), 100.0).unwrap();
        assert_eq!(flows.len(), 2);
        let mut traffic = Traffic {
            source: a.clone(),
            flows: recorded(text, &a, std::slice::from_ref(&b), Duration::from_secs(1), 1.0).unwrap(),
            every: Duration::from_secs(1),
            late_one_in: 0,
            rng: StdRng::from_seed([0; 32]),
            batches: 0,
        };
        if let Shape::Rows { before, .. } = &mut traffic.flows[0].shape {
            *before = 1;
        }
        let (history, live) = (traffic.history(Duration::from_secs(1)), traffic.batch(Duration::from_secs(1)));
        assert_eq!((history.len(), history[0].len(), live.len()), (1, 1, 1));
        let said = [&history[0][0], &live[0]].map(|record| (record.count, record.timestamp));
        assert_eq!(said, [(1, wall_time(Duration::ZERO)), (10, wall_time(Duration::from_secs(1)))], "the first row is history");
        let due: Vec<f64> = [1, 2, 3].map(|s| flows[0].shape.due(Duration::from_secs(s), Duration::from_secs(1))).into();
        assert_eq!(due, [100.0, 1000.0, 0.0]);
        let odd = "ts,\"A>B\"\r\n\r\n0,\"7\"\r\n\n";
        let flows = recorded(odd, &a, std::slice::from_ref(&b), Duration::from_secs(1), 1.0).unwrap();
        assert_eq!(flows[0].shape.due(Duration::from_secs(1), Duration::from_secs(1)), 7.0, "quotes and blank lines");
        for bad in ["", "ts,a>b,a>b\n0,1,2\n", "ts,x>y\n0,1\n", "ts,a>b\n0,x\n", "ts,a>b\n0\n", "ts,a>b\n0,-1\n"] {
            assert!(recorded(bad, &a, std::slice::from_ref(&b), Duration::from_secs(1), 1.0).is_err(), "{bad:?}");
        }
    }
}
