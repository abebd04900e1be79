//! Prices of the past, from a CSV file: how often they rose above a bid, and for how long they were not above it.
//!
//! The file has a header line. The column `ts` is the time, as RFC 3339, from which a price holds, the column `usd` (or `usd_h`) that price of an
//! instance-hour; rows that differ in any other column are of different markets, each of which counts. A market's last price holds until the
//! last time in the file. Rows may come in any order.

use crate::planner::PastPrices;
use std::collections::BTreeMap;
use std::path::Path;
use tradewind_protocol::Timestamp;
use tradewind_protocol::pool::MicroUsd;

/// The most rows: of one market's price every five minutes, two years.
const MAX_ROWS: usize = 200_000;
/// The most columns: lists of prices name region, zone, shape and system.
const MAX_COLUMNS: usize = 32;

/// What the file tells of instances that are bid `bid` for.
pub(crate) fn read(file: &Path, bid: MicroUsd) -> Result<PastPrices, String> {
    let bytes = super::read_file(file)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| format!("{}: it is not UTF-8: {error}", file.display()))?;
    count(text, bid).map_err(|why| format!("{}: {why}", file.display()))
}

fn count(text: &str, bid: MicroUsd) -> Result<PastPrices, String> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())).filter(|(_, line)| !line.is_empty());
    let (_, header) = lines.next().ok_or("it is empty; it must begin with a header that names the columns ts and usd")?;
    let header: Vec<&str> = header.split(',').map(str::trim).collect();
    let column = |names: &[&str]| header.iter().position(|column| names.contains(column));
    let (Some(time), Some(price)) = (column(&["ts"]), column(&["usd", "usd_h"])) else {
        return Err(format!("its header is {:?}; it must name the columns ts and usd (or usd_h)", header.join(",")));
    };
    if header.len() > MAX_COLUMNS {
        return Err(format!("it has {} columns; it may have {MAX_COLUMNS}", header.len()));
    }
    let mut markets: BTreeMap<Vec<&str>, BTreeMap<Timestamp, bool>> = BTreeMap::new();
    let mut last: Option<Timestamp> = None;
    for (rows, (line, row)) in lines.enumerate() {
        if rows >= MAX_ROWS {
            return Err(format!("it has more than {MAX_ROWS} rows: keep the newest"));
        }
        let cells: Vec<&str> = row.split(',').map(str::trim).collect();
        if cells.len() != header.len() {
            return Err(format!("line {line} has {} columns, the header has {}", cells.len(), header.len()));
        }
        let at = Timestamp::parse(cells[time])
            .map_err(|_| format!("line {line}: ts is {:?}; it must be like 2026-01-01T00:00:00Z", cells[time]))?;
        let usd = cells[price].parse::<f64>().ok().filter(|usd| (0.0..=super::MAX_USD).contains(usd));
        let usd = usd.ok_or_else(|| format!("line {line}: the price is {:?}; it must be a number of US dollars", cells[price]))?;
        let market = cells.iter().enumerate().filter(|(at, _)| *at != time && *at != price).map(|(_, cell)| *cell).collect();
        markets.entry(market).or_default().insert(at, usd * 1e6 > bid.0 as f64 + 0.5);
        last = last.max(Some(at));
    }
    let Some(last) = last else { return Ok(PastPrices::default()) };
    let mut past = PastPrices::default();
    for prices in markets.values() {
        let next = prices.iter().skip(1).map(|(at, above)| (*at, *above)).chain([(last, false)]);
        for ((from, above), (until, then)) in prices.iter().zip(next) {
            if !above {
                past.hours += until.since(*from).as_secs_f64() / 3_600.0;
                past.crossings += f64::from(u8::from(then));
            }
        }
    }
    Ok(past)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_market_counts_its_rises_above_the_bid_and_its_hours_below() {
        let text = "zone,ts,usd\na,2026-01-01T00:00:00Z,0.5\na,2026-01-01T03:00:00Z,1.5\na,2026-01-01T04:00:00Z,0.7\n\
            b,2026-01-01T05:00:00Z,1.0\n\na,2026-01-01T06:00:00+00:00,1.2\nb,2026-01-01T02:00:00Z,0.9\n";
        let past = count(text, MicroUsd(1_000_000)).unwrap();
        assert_eq!((past.crossings, past.hours), (2.0, 3.0 + 2.0 + 4.0), "what costs the bid is not above it");
        assert_eq!(count(text, MicroUsd(400_000)).unwrap(), PastPrices::default(), "never below it");
        assert_eq!(count("ts,usd\n", MicroUsd(1)).unwrap(), PastPrices::default());
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        let cases = [
            ("", "it is empty"),
            ("ts,price\n", "must name the columns ts and usd"),
            ("ts,usd\n2026-01-01T00:00:00Z\n", "line 2 has 1 columns"),
            ("ts,usd\nyesterday,1\n", "line 2: ts is \"yesterday\""),
            ("ts,usd\n\n2026-01-01T00:00:00Z,-1\n", "line 3: the price is \"-1\""),
        ];
        for (text, wanted) in cases {
            let error = count(text, MicroUsd(1)).unwrap_err();
            assert!(error.contains(wanted), "{wanted} in {error}");
        }
        assert!(read(Path::new("/nowhere/h.csv"), MicroUsd(1)).unwrap_err().contains("/nowhere/h.csv"));
    }

    /// `data/spot_prices.csv`; its origin is in `data/README.md`.
    #[test]
    fn recorded_prices_are_read() {
        let recorded = include_str!("../../data/spot_prices.csv");
        let never = count(recorded, MicroUsd(1_000_000)).unwrap();
        assert!(never.crossings == 0.0 && never.hours > 20.0, "{never:?}");
        // At a bid within the range of the prices some are crossed.
        let some = count(recorded, MicroUsd(202_000)).unwrap();
        assert!(some.crossings == 1.0 && some.hours < never.hours, "a zone in Sao Paulo went from 0.2009 to 0.203: {some:?}");
    }
}
