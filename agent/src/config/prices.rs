//! `[[price]]`: where prices of instances come from.

use super::json_path::JsonPath;
use super::section::{Section, duration, path, text};
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tradewind_protocol::PoolName;
use tradewind_protocol::pool::MicroUsd;

/// The most prices: a task each.
const MAX_PRICES: usize = 200;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// One price that pools may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceConfig {
    /// Its name.
    pub name: PoolName,
    /// Where it comes from.
    pub source: PriceSource,
    /// How often it is read.
    pub refresh: Duration,
    /// How old it may be before it is shown as stale.
    pub stale_after: Duration,
}

/// Where a price comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PriceSource {
    /// The configuration.
    Fixed(MicroUsd),
    /// A JSON document in a file.
    File(PathBuf, JsonPath),
    /// A JSON document of a server.
    Http(String, JsonPath),
}

impl PriceSource {
    /// Whether it has to be read.
    pub(crate) fn is_read(&self) -> bool {
        match self {
            PriceSource::Fixed(_) => false,
            PriceSource::File(..) | PriceSource::Http(..) => true,
        }
    }
}

impl fmt::Display for PriceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PriceSource::Fixed(_) => f.write_str("configuration"),
            PriceSource::File(file, path) => write!(f, "{} {path}", file.display()),
            PriceSource::Http(url, path) => write!(f, "{url} {path}"),
        }
    }
}

/// Reads every `[[price]]`.
pub(super) fn read(root: &mut Section) -> Vec<PriceConfig> {
    let mut names = BTreeSet::new();
    let prices = root.tables("price", |s| {
        let price = price(s)?;
        if !names.insert(price.name.clone()) {
            s.problem("name", &price.name, "must differ from the other prices' names");
        }
        Some(price)
    });
    if prices.len() > MAX_PRICES {
        root.problem("price", format!("{} tables", prices.len()), format!("must be at most {MAX_PRICES}"));
    }
    prices.into_iter().flatten().collect()
}

fn price(s: &mut Section) -> Option<PriceConfig> {
    let name = s.required("name", "name the price, like name = \"m5-spot\"", text::<PoolName>);
    let stated = ["usd", "file", "url"].into_iter().filter(|key| s.has(key)).count();
    let usd = s.optional("usd", super::check::usd);
    let file = s.optional("file", path);
    let url = s.optional("url", |v| {
        let url: String = v.as_str().map(Into::into).unwrap_or_default();
        crate::client::parts(&url).map(|_| url)
    });
    let at = if s.has("file") || file.is_some() || url.is_some() {
        s.required("path", "where the price stands in the document, like path = \"$.spot.usd\"", text::<JsonPath>)
    } else {
        s.optional("path", text::<JsonPath>)
    };
    // Spot prices change every few minutes; on-demand prices a few times a year.
    let refresh = s.or("refresh", 5 * MINUTE, duration(SECOND, DAY));
    let stale_after = s.or("stale_after", (6 * refresh).max(30 * MINUTE), duration(SECOND, 366 * DAY));
    if stated != 1 {
        let remedy = "say where the price comes from by one of: usd = 0.04, file = \"prices.json\", url = \"https://...\"";
        s.problem("name", name.as_ref().map_or("(missing)", |name| name.as_str()), remedy);
    }
    if stale_after < refresh {
        s.problem("stale_after", humantime::format_duration(stale_after), "must be at least refresh");
    }
    let source = match (usd, file, url) {
        (Some(usd), None, None) => PriceSource::Fixed(usd),
        (None, Some(file), None) => PriceSource::File(file, at?),
        (None, None, Some(url)) => PriceSource::Http(url, at?),
        (_, _, _) => return None,
    };
    Some(PriceConfig { name: name?, source, refresh, stale_after })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(prices: &str, pool: &str) -> Result<Config, String> {
        let text = format!(
            "region = \"eu\"\ndata_dir = \"/tmp/tw\"\n[mesh]\nlisten = \"127.0.0.1:7470\"\ntls = {{ ca = \"a\", certificate = \"b\", key = \"c\" }}\n\
             {prices}\n[[pool]]\nmax_instances = 10\nrate_per_instance = 1\nprocess = {{ command = [\"w\"] }}\n\
             instance = {{ cpu_millis = 1 }}\n{pool}"
        );
        Config::parse(&text, []).map_err(|error| error.to_string())
    }

    #[test]
    fn prices_are_read_and_pools_name_them() {
        let prices = "[[price]]\nname = \"fixed\"\nusd = 0.04\n[[price]]\nname = \"spot\"\nurl = \"https://h/p?a=b\"\npath = \"$.usd\"\n\
            refresh = \"1m\"\n[[price]]\nname = \"table\"\nfile = \"/etc/prices.json\"\npath = \"$['m5.large']\"";
        let config = parse(prices, "price = \"fixed\"").unwrap();
        assert_eq!((config.pools[0].instance_hour_price, config.prices.len()), (MicroUsd(40_000), 3));
        assert_eq!((config.prices[1].refresh, config.prices[1].stale_after), (MINUTE, 30 * MINUTE));
        assert_eq!(config.prices[2].source.to_string(), "/etc/prices.json $['m5.large']");
        let late = parse(prices, "price = \"spot\"\nlate_cost_per_instance_hour_usd = 2").unwrap();
        assert_eq!(late.pools[0].costs.price.as_ref().unwrap().as_str(), "spot");
    }

    #[test]
    fn every_mistake_of_a_price_names_its_key_and_a_remedy() {
        let cases = [
            ("[[price]]\nname = \"a\"", "", "price[0].name = a: say where the price comes from"),
            ("[[price]]\nname = \"a\"\nusd = 1\nfile = \"f\"\npath = \"$\"", "", "price[0].name = a: say where"),
            ("[[price]]\nname = \"a\"\nfile = \"f\"", "", "price[0].path = (missing)"),
            ("[[price]]\nname = \"a\"\nurl = \"h\"\npath = \"$\"", "", "price[0].url = \"h\": must be a URL"),
            ("[[price]]\nname = \"a\"\nfile = \"f\"\npath = \"a.b\"", "", "price[0].path = \"a.b\": must be a path to one number"),
            ("[[price]]\nname = \"a\"\nusd = 1\n[[price]]\nname = \"a\"\nusd = 2", "", "price[1].name = a: must differ"),
            ("", "price = \"b\"", "pool[0].price = \"b\": no [[price]] has this name"),
        ];
        for (prices, pool, wanted) in cases {
            let error = parse(prices, pool).unwrap_err();
            assert!(error.contains(wanted), "{wanted} in {error}");
        }
    }
}
