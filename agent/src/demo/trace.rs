//! The recorded traffic that the demo replays; see `agent/data/README.md` for its origin.

use anyhow::{Context as _, ensure};
use flate2::read::GzDecoder;
use std::io::Read as _;
use tradewind_protocol::RegionId;
use tradewind_protocol::region::Coordinates;

/// Rows a day: one every five minutes.
pub(super) const ROWS_PER_DAY: usize = 288;
/// How much recorded time one row stands for, in hours.
pub(super) const ROW_HOURS: f64 = 24.0 / ROWS_PER_DAY as f64;
/// The days before the replay: what the agents may learn from.
pub(super) const HISTORY_ROWS: usize = 7 * ROWS_PER_DAY;

/// The nodes in the order in which the demo takes them: the corners of the map first, so that a few of
/// them differ in their traffic as much as all do.
const NODES: [&str; 12] =
    ["nycmng", "losang", "hstnng", "sttlng", "chinng", "washng", "atlang", "dnvrng", "iplsng", "kscyng", "snvang", "atlam5"];

/// Traffic between some of the nodes, in megabytes a row.
pub(super) struct Trace {
    /// The nodes, each a region of the demo.
    pub regions: Vec<Node>,
    /// `rows[row][source][destination]`.
    rows: Vec<Vec<Vec<u64>>>,
}

/// A node of the recorded network.
pub(super) struct Node {
    pub region: RegionId,
    pub coordinates: Coordinates,
}

impl Trace {
    /// The traffic among the first `count` nodes.
    pub(super) fn load(count: usize) -> anyhow::Result<Self> {
        let mut text = String::new();
        GzDecoder::new(&include_bytes!("../../data/abilene.csv.gz")[..]).read_to_string(&mut text)?;
        let names = &NODES[..count.min(NODES.len())];
        let regions = names.iter().map(|name| node(name)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut lines = text.lines();
        let header: Vec<&str> = lines.next().context("the recorded traffic is empty")?.split(',').collect();
        let columns: Vec<Option<(usize, usize)>> = header
            .iter()
            .map(|column| {
                let (source, destination) = column.split_once('>')?;
                Some((names.iter().position(|n| *n == source)?, names.iter().position(|n| *n == destination)?))
            })
            .collect();
        let mut rows = vec![];
        for line in lines {
            let mut row = vec![vec![0; names.len()]; names.len()];
            for (cell, place) in line.split(',').zip(&columns) {
                if let Some((source, destination)) = *place {
                    row[source][destination] = cell.parse().with_context(|| format!("not a count: {cell:?}"))?;
                }
            }
            rows.push(row);
        }
        ensure!(rows.len() >= HISTORY_ROWS + ROWS_PER_DAY, "the recorded traffic has only {} rows", rows.len());
        Ok(Self { regions, rows })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Megabytes from `source` to each region during `row`.
    pub(super) fn from(&self, row: usize, source: usize) -> &[u64] {
        &self.rows[row][source]
    }

    /// Megabytes from `source` to `destination` during `row`.
    pub(super) fn pair(&self, row: usize, source: usize, destination: usize) -> f64 {
        self.rows[row][source][destination] as f64
    }

    /// Megabytes that `destination` receives during `row`.
    pub(super) fn into(&self, row: usize, destination: usize) -> f64 {
        self.rows[row].iter().map(|from| from[destination] as f64).sum()
    }

    /// The demand that `destination` stayed below in 95 % of the history, megabytes a row.
    pub(super) fn busy(&self, destination: usize) -> f64 {
        let mut demand: Vec<f64> = (0..HISTORY_ROWS).map(|row| self.into(row, destination)).collect();
        demand.sort_by(f64::total_cmp);
        demand[demand.len() * 95 / 100]
    }
}

fn node(name: &str) -> anyhow::Result<Node> {
    let line = include_str!("../../data/abilene_nodes.csv").lines().find(|line| line.split(',').next() == Some(name));
    let cells: Vec<&str> = line.with_context(|| format!("no coordinates for {name}"))?.split(',').collect();
    let degree = |i: usize| -> anyhow::Result<f64> { Ok(cells.get(i).context("a coordinate is missing")?.parse()?) };
    Ok(Node { region: RegionId::new(name)?, coordinates: Coordinates { latitude: degree(1)?, longitude: degree(2)? } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_traffic_is_whole() {
        let trace = Trace::load(12).unwrap();
        assert_eq!((trace.regions.len(), trace.rows()), (12, 2304));
        // The first row's first cell: 20 MB from atlam5 to atlang.
        assert_eq!(trace.pair(0, 11, 6), 20.0);
        assert!((0..12).all(|r| trace.pair(0, r, r) == 0.0 && trace.busy(r) > 0.0));
    }
}
