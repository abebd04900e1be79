//! `[pool.spot]`: the part of a pool that may be bought on a spot market, for less and until it is taken back.
//!
//! Spot instances have a provider of their own, which is opened under the pool's name with `-spot` behind it, so that it may be of the same kind
//! as the pool's. How many of them there are is decided by [`crate::planner`].

use super::section::{Section, duration, number, path};
use super::{PriceConfig, PriceSource, ProviderConfig};
use std::path::PathBuf;
use std::time::Duration;
use tradewind_protocol::PoolName;
use tradewind_protocol::pool::MicroUsd;

/// What stands behind a pool's name in the name that its spot instances are kept under.
const SUFFIX: &str = "-spot";
const HOUR: Duration = Duration::from_secs(3_600);

/// A pool's spot instances.
#[derive(Debug, Clone, PartialEq)]
pub struct SpotConfig {
    /// The name that their provider is opened under.
    pub name: PoolName,
    /// What runs them.
    pub provider: ProviderConfig,
    /// The `[[price]]` that says what one costs, if one does.
    pub price: Option<PoolName>,
    /// Price of one for an hour, as far as the configuration knows it.
    pub instance_hour_price: MicroUsd,
    /// The highest price that is paid for one; what an instance costs on demand, unless told otherwise.
    pub bid: Option<MicroUsd>,
    /// The most of the pool that may be spot, 0 to 1.
    pub max_share: f64,
    /// How much of them may be taken at once, above 0 and up to 1.
    pub at_once: f64,
    /// How long before it is taken one says that it drains.
    pub notice: Duration,
    /// How often an hour one is taken, as its operators expect it.
    pub interruptions_per_hour: Option<f64>,
    /// Prices of the past: a CSV file.
    pub history: Option<PathBuf>,
}

#[cfg(test)]
impl SpotConfig {
    /// A market for tests: all of a pool may be bought there, and all may be taken at once.
    pub(crate) fn any(name: &str, instance_hour_price: MicroUsd) -> Self {
        let process = super::ProcessConfig { command: vec!["worker".into()], env: vec![] };
        Self {
            name: name.parse().unwrap(),
            provider: ProviderConfig::Process(process),
            price: None,
            instance_hour_price,
            bid: None,
            max_share: 1.0,
            at_once: 1.0,
            notice: Duration::ZERO,
            interruptions_per_hour: None,
            history: None,
        }
    }
}

/// Reads the table. `on_demand` is the price of an instance of the pool, in US dollars an hour, as far as it is known, and whether it
/// is read from elsewhere.
pub(super) fn read(pool: &mut Section, name: &PoolName, prices: &[PriceConfig], on_demand: (f64, bool)) -> Option<SpotConfig> {
    pool.table("spot", |s| spot(s, name, prices, on_demand))
}

fn spot(s: &mut Section, pool: &PoolName, prices: &[PriceConfig], (on_demand, read): (f64, bool)) -> Option<SpotConfig> {
    let name = PoolName::new(&format!("{pool}{SUFFIX}"));
    if name.is_err() {
        s.problem("price", pool, format!("the pool's name must leave room for {SUFFIX}: shorten it"));
    }
    let provider = super::provider::one(s);
    let priced = s.has("price") || s.has("instance_hour_usd");
    let stated = s.optional("instance_hour_usd", super::check::usd);
    let source = super::check::named_price(s, prices);
    let fixed = source.and_then(|source| match source.source {
        PriceSource::Fixed(price) => Some(price),
        PriceSource::File(..) | PriceSource::Http(..) => None,
    });
    let known = fixed.or(stated);
    if !priced {
        s.problem("price", "(missing)", "say what a spot instance costs: price = \"NAME\" of a [[price]], or instance_hour_usd = 0.04");
    }
    if on_demand <= 0.0 && !read {
        s.problem("price", "a spot price", "needs a price to be compared with: add instance_hour_usd or price to the pool");
    }
    let bid = s.optional("bid_usd", super::check::usd);
    // A guess: a fifth of a pool stays whatever the market does.
    let max_share = s.or("max_share", 0.8, number(0.0, 1.0));
    // The safe side: a pool is one market, and a market takes all of its instances together.
    let at_once = s.or("at_once", 1.0, number(0.01, 1.0));
    // Without a notice the instance is simply gone.
    let notice = s.or("notice", Duration::ZERO, duration(Duration::ZERO, HOUR));
    let interruptions_per_hour = s.optional("interruptions_per_hour", number(0.0, 60.0));
    let history = s.optional("history", path);
    if history.is_some() && bid.is_none() && on_demand <= 0.0 {
        s.problem("history", "a file", "its prices are compared with a bid: add bid_usd, or instance_hour_usd to the pool");
    }
    Some(SpotConfig {
        name: name.ok()?,
        provider: provider?,
        price: source.map(|source| source.name.clone()),
        instance_hour_price: known.unwrap_or_default(),
        bid,
        max_share,
        at_once,
        notice,
        interruptions_per_hour,
        history,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BASE, Config};

    fn parse(pool: &str, spot: &str) -> Result<Config, String> {
        let text = format!(
            "{BASE}[[price]]\nname = \"m5\"\nfile = \"p.json\"\npath = \"$.usd\"\n[[pool]]\nname = \"web\"\nrate_per_instance = 1\nmax_instances = 9\n\
             process = {{ command = [\"w\"] }}\n{pool}\n[pool.spot]\n{spot}"
        );
        Config::parse(&text, []).map_err(|error| error.to_string())
    }

    #[test]
    fn spot_instances_have_a_provider_and_a_price_of_their_own() {
        let spot = "process = { command = [\"w\", \"--spot\"] }\nprice = \"m5\"\nat_once = 0.5\nnotice = \"2m\"\nhistory = \"h.csv\"";
        let config = parse("instance_hour_usd = 0.2", spot).unwrap();
        let of = config.pools[0].spot.as_ref().unwrap();
        assert_eq!((of.name.as_str(), of.provider.kind(), of.instance_hour_price), ("web-spot", "process", MicroUsd(0)));
        assert_eq!((of.max_share, of.at_once, of.notice, of.interruptions_per_hour), (0.8, 0.5, Duration::from_secs(120), None));
        let flavour = config.pools[0].spot_flavour().unwrap();
        assert_eq!((flavour.name.as_str(), flavour.provider == of.provider, flavour.spot), ("web-spot", true, None));
        let fixed = parse("price = \"m5\"", "docker = { image = \"w\" }\ninstance_hour_usd = 0.05").unwrap();
        assert_eq!(fixed.pools[0].spot.as_ref().unwrap().instance_hour_price, MicroUsd(50_000));
    }

    #[test]
    fn every_mistake_of_a_spot_table_is_told() {
        let worker = "process = { command = [\"w\"] }\n";
        let cases = [
            ("instance_hour_usd = 1", worker.to_string(), "spot.price = (missing): say what a spot instance costs"),
            ("", format!("{worker}instance_hour_usd = 1"), "spot.price = a spot price: needs a price to be compared with"),
            ("instance_hour_usd = 1", format!("{worker}price = \"c5\""), "spot.price = \"c5\": no [[price]] has this name"),
            ("instance_hour_usd = 1", "instance_hour_usd = 1".into(), "spot.process.command = (missing)"),
            (
                "price = \"m5\"",
                format!("{worker}price = \"m5\"\nhistory = \"h\""),
                "spot.history = a file: its prices are compared with a bid",
            ),
            ("instance_hour_usd = 1", format!("{worker}instance_hour_usd = 1\nmax_share = 2\nat_once = 0"), "spot.at_once = 0: must be"),
            ("instance_hour_usd = 1", format!("{worker}instance_hour_usd = 1\nrate = 2"), "spot.rate = 2: unknown key"),
        ];
        for (pool, spot, wanted) in cases {
            let error = parse(pool, &spot).unwrap_err();
            assert!(error.contains(wanted), "{wanted} in {error}");
        }
        let more =
            format!("{worker}instance_hour_usd = 1\n[[pool]]\nname = \"web-spot\"\nrate_per_instance = 1\nmax_instances = 1\n{worker}");
        let error = parse("instance_hour_usd = 2", &more).unwrap_err();
        assert!(error.contains("pool[1].name = web-spot: is kept for the spot instances of pool web"), "{error}");
    }
}
