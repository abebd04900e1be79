//! What instances cost now: prices from tables, files and URLs, refreshed and dated.
//!
//! The [`Book`] is a plain value: the last known price of every `[[price]]`, when it was read, and what is wrong since. A source that cannot be
//! read changes no price; the last known one is used, and shown as stale once it is older than the source says. Prices survive a restart. What prices
//! of the past tell of a spot market is read once, at the start ([`read_past`]).
//! Read next: [`JsonPath`], which finds the number in a document.

mod past;

use crate::client::{Ask, Client, Identity};
use crate::config::{JsonPath, PoolConfig, PriceConfig, PriceSource, SpotConfig};
use crate::env::{Clock, Offload};
use crate::planner::PastPrices;
use crate::stop::told;
use crate::store::{Facts, Store};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tradewind_protocol::api::PriceView;
use tradewind_protocol::pool::MicroUsd;
use tradewind_protocol::{PoolName, ResourcePool, Timestamp};

const PRICES: Facts = Facts("prices");
/// The largest document with prices: a provider's list of all its shapes in a region takes some hundred kilobytes.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// How long a server may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The highest price of an instance-hour, in US dollars: what the configuration allows too.
const MAX_USD: f64 = 1e6;

/// A price as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Quote {
    price: MicroUsd,
    read_at: Timestamp,
}

/// Every price, as last known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    sources: Vec<PriceConfig>,
    quotes: BTreeMap<PoolName, Quote>,
    /// Why the last reading of a source failed.
    failed: BTreeMap<PoolName, String>,
}

impl Book {
    /// What an instance of the pool costs an hour.
    pub(crate) fn of(&self, pool: &PoolConfig) -> MicroUsd {
        let quote = pool.costs.price.as_ref().and_then(|name| self.quotes.get(name));
        quote.map_or(pool.instance_hour_price, |quote| quote.price)
    }

    /// What a spot instance of the pool costs an hour, if that is known.
    pub(crate) fn of_spot(&self, spot: &SpotConfig) -> Option<MicroUsd> {
        let quote = spot.price.as_ref().and_then(|name| self.quotes.get(name));
        let stated = (spot.instance_hour_price.0 > 0 || spot.price.is_none()).then_some(spot.instance_hour_price);
        quote.map(|quote| quote.price).or(stated)
    }

    /// The pools' states with the prices that their instances have now.
    pub(crate) fn priced(&self, mut pools: Vec<ResourcePool>, configs: &[PoolConfig]) -> Vec<ResourcePool> {
        for pool in &mut pools {
            if let Some(config) = configs.iter().find(|config| config.name == pool.name) {
                pool.instance_hour_price = self.of(config);
            }
        }
        pools
    }

    /// What is to be said of the pool's price, if it is not as it should be.
    pub(crate) fn doubt(&self, pool: &PoolConfig, now: Timestamp) -> Option<String> {
        self.doubt_of(pool.costs.price.as_ref()?, now)
    }

    /// What is to be said of the price called `name`, if it is not as it should be.
    pub(crate) fn doubt_of(&self, name: &PoolName, now: Timestamp) -> Option<String> {
        let source = self.sources.iter().find(|source| source.name == *name)?;
        let why = self.failed.get(name).map_or_else(String::new, |why| format!(": {why}"));
        match self.quotes.get(name) {
            None if source.source.is_read() => Some(format!("price {name} was never read; instance_hour_usd is used{why}")),
            Some(quote) if source.is_stale(quote, now) => {
                Some(format!("price {name} is stale: it was last read {}, and that value is used{why}", quote.read_at))
            }
            None | Some(_) => None,
        }
    }

    /// All of them, as the API has them.
    pub(crate) fn views(&self, now: Timestamp) -> Vec<PriceView> {
        let view = |source: &PriceConfig| {
            let quote = self.quotes.get(&source.name);
            PriceView {
                name: source.name.clone(),
                source: source.source.to_string(),
                instance_hour_price: quote.map(|quote| quote.price).or(match source.source {
                    PriceSource::Fixed(price) => Some(price),
                    PriceSource::File(..) | PriceSource::Http(..) => None,
                }),
                read_at: quote.map(|quote| quote.read_at),
                age_ms: quote.map(|quote| u64::try_from(now.since(quote.read_at).as_millis()).unwrap_or(u64::MAX)),
                stale: source.source.is_read() && quote.is_none_or(|quote| source.is_stale(quote, now)),
                failure: self.failed.get(&source.name).cloned(),
            }
        };
        self.sources.iter().map(view).collect()
    }
}

impl PriceConfig {
    fn is_stale(&self, quote: &Quote, now: Timestamp) -> bool {
        self.source.is_read() && now.since(quote.read_at) > self.stale_after
    }
}

/// What prices of the past tell of the pools' spot markets, or why they tell nothing: of the pools that name a file.
pub(crate) async fn read_past(pools: &[PoolConfig], offload: Offload) -> BTreeMap<PoolName, Result<PastPrices, String>> {
    let mut all = BTreeMap::new();
    for pool in pools {
        let Some((spot, file)) = pool.spot.as_ref().and_then(|spot| Some((spot, spot.history.clone()?))) else { continue };
        let bid = spot.bid.unwrap_or(pool.instance_hour_price);
        let read = offload.run(move || past::read(&file, bid)).await;
        if let Err(why) = &read {
            tracing::warn!(pool = %pool.name, %why, "the history of its spot prices cannot be read");
        }
        all.insert(
            pool.name.clone(),
            read.map_err(|why| format!("pool {}: the history of its spot prices tells nothing: {why}", pool.name)),
        );
    }
    all
}

/// Where prices are looked up. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct PriceHandle(watch::Receiver<Arc<Book>>);

impl PriceHandle {
    pub(crate) fn book(&self) -> Arc<Book> {
        self.0.borrow().clone()
    }
}

/// What reads a source.
struct Reader {
    source: PriceConfig,
    book: Arc<watch::Sender<Arc<Book>>>,
    store: Store,
    clock: Arc<dyn Clock>,
    offload: Offload,
}

/// Starts a task for each source that is read. They end with `stop`.
pub(crate) async fn start(
    sources: &[PriceConfig],
    store: &Store,
    (clock, offload): (Arc<dyn Clock>, Offload),
    stop: &watch::Receiver<bool>,
) -> (PriceHandle, Vec<JoinHandle<()>>) {
    let mut book = Book { sources: sources.to_vec(), ..Book::default() };
    if sources.iter().any(|source| source.source.is_read()) {
        let kept = store.all(PRICES).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "prices of earlier lives cannot be read");
            vec![]
        });
        for (name, bytes) in kept {
            let source = sources.iter().find(|source| source.name.as_str() == name && source.source.is_read());
            if let (Some(source), Ok(quote)) = (source, serde_json::from_slice(&bytes)) {
                book.quotes.insert(source.name.clone(), quote);
            }
        }
    }
    let (sender, receiver) = watch::channel(Arc::new(book));
    let sender = Arc::new(sender);
    let read = sources.iter().filter(|source| source.source.is_read()).map(|source| {
        let (book, store, clock) = (sender.clone(), store.clone(), clock.clone());
        tokio::spawn(Reader { source: source.clone(), book, store, clock, offload }.run(stop.clone()))
    });
    (PriceHandle(receiver), read.collect())
}

impl Reader {
    async fn run(self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                biased;
                () = told(&mut stop) => return,
                () = self.refresh() => {}
            }
            tokio::select! {
                biased;
                () = told(&mut stop) => return,
                () = tokio::time::sleep(self.source.refresh) => {}
            }
        }
    }

    async fn refresh(&self) {
        let name = &self.source.name;
        match self.read().await {
            Ok(price) => {
                let quote = Quote { price, read_at: self.clock.now() };
                self.change(|book| {
                    book.quotes.insert(name.clone(), quote);
                    book.failed.remove(name);
                });
                let bytes = serde_json::to_vec(&quote).unwrap_or_default();
                if let Err(error) = self.store.put(PRICES, name.as_str(), bytes).await {
                    tracing::warn!(%error, price = %name, "the price is not durable");
                }
            }
            Err(why) => {
                let known = self.book.borrow().failed.get(name) == Some(&why);
                // Once for each reason, however often it is refreshed.
                if !known {
                    tracing::warn!(price = %name, %why, "the price cannot be read; the last known one, if any, is used");
                }
                self.change(|book| {
                    book.failed.insert(name.clone(), why);
                });
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Book)) {
        self.book.send_modify(|book| change(Arc::make_mut(book)));
    }

    async fn read(&self) -> Result<MicroUsd, String> {
        let (bytes, path) = match &self.source.source {
            PriceSource::Fixed(price) => return Ok(*price),
            PriceSource::File(file, path) => {
                let file = file.clone();
                (self.offload.run(move || read_file(&file)).await?, path)
            }
            PriceSource::Http(url, path) => {
                let client = Client::new(url, &Identity::default())?;
                let answer = client.ask(Ask::get(""), MAX_DOCUMENT_BYTES as usize, TIMEOUT).await?;
                if !answer.status.is_success() {
                    return Err(format!("{url} answers {}", answer.status));
                }
                (answer.body, path)
            }
        };
        let document = serde_json::from_slice(&bytes).map_err(|error| format!("it is not JSON: {error}"))?;
        price(&document, path)
    }
}

fn read_file(file: &Path) -> Result<Vec<u8>, String> {
    let failed = |error| format!("{}: {error}", file.display());
    let mut bytes = vec![];
    // What grows, or has no size of its own, ends here too.
    std::fs::File::open(file).map_err(failed)?.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(format!("{} has more than {MAX_DOCUMENT_BYTES} bytes", file.display()));
    }
    Ok(bytes)
}

/// The price at `path`: a number of US dollars, or such a number as text.
fn price(document: &serde_json::Value, path: &JsonPath) -> Result<MicroUsd, String> {
    let found = path.find(document).ok_or_else(|| format!("there is nothing at {path}"))?;
    let number = found.as_f64().or_else(|| found.as_str()?.trim().parse().ok());
    match number.filter(|usd| (0.0..=MAX_USD).contains(usd)) {
        Some(usd) => Ok(MicroUsd((usd * 1e6).round() as u64)),
        None => {
            let shown: String = found.to_string().chars().take(40).collect();
            Err(format!("{path} is {shown}; it must be a number of US dollars between 0 and {MAX_USD}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const HOUR: Duration = Duration::from_secs(3_600);

    fn source(name: &str, source: PriceSource) -> PriceConfig {
        PriceConfig { name: name.parse().unwrap(), source, refresh: Duration::from_millis(20), stale_after: HOUR }
    }

    async fn until(prices: &PriceHandle, wanted: impl Fn(&PriceView) -> bool) -> PriceView {
        let mut changes = prices.0.clone();
        let now = Timestamp::parse("2100-01-01T00:00:00Z").unwrap();
        let found = tokio::time::timeout(Duration::from_secs(20), changes.wait_for(|book| wanted(&book.views(now)[0]))).await;
        found.unwrap().unwrap().views(now)[0].clone()
    }

    #[test]
    fn a_price_is_a_number_or_its_text() {
        let path: JsonPath = "$.p".parse().unwrap();
        let read = |text: &str| price(&serde_json::from_str(text).unwrap(), &path);
        assert_eq!(read("{\"p\": 0.0425}"), Ok(MicroUsd(42_500)));
        assert_eq!(read("{\"p\": \" 1.5 \"}"), Ok(MicroUsd(1_500_000)));
        for (bad, why) in [("{\"p\": -1}", "$.p is -1; it must be"), ("{\"p\": \"much\"}", "$.p is \"much\""), ("{}", "nothing at $.p")] {
            assert!(read(bad).unwrap_err().contains(why), "{bad}");
        }
    }

    #[test]
    fn a_file_without_end_is_not_read_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prices.json");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(MAX_DOCUMENT_BYTES).unwrap();
        assert_eq!(read_file(&path).map(|bytes| bytes.len() as u64), Ok(MAX_DOCUMENT_BYTES));
        file.set_len(MAX_DOCUMENT_BYTES + 1).unwrap();
        assert!(read_file(&path).unwrap_err().contains("has more than 4194304 bytes"));
        assert!(read_file(Path::new("/dev/zero")).unwrap_err().contains("/dev/zero has more than"), "nor one that says it is empty");
    }

    #[tokio::test]
    async fn a_file_is_read_again_and_what_was_known_outlives_it_and_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("prices.json");
        std::fs::write(&file, "{\"spot\": [{\"usd\": 0.5}]}").unwrap();
        let env = Env::real(dir.path()).unwrap();
        let store = Store::open(&env).await.unwrap();
        let sources = [source("spot", PriceSource::File(file.clone(), "$.spot[0].usd".parse().unwrap()))];
        let (stop, stopped) = watch::channel(false);
        let world = || (env.clock.clone(), env.offload);
        let (prices, tasks) = start(&sources, &store, world(), &stopped).await;
        until(&prices, |view| view.instance_hour_price == Some(MicroUsd(500_000))).await;
        std::fs::write(&file, "{\"spot\": [{\"usd\": 0.7}]}").unwrap();
        until(&prices, |view| view.instance_hour_price == Some(MicroUsd(700_000))).await;
        std::fs::remove_file(&file).unwrap();
        let view = until(&prices, |view| view.failure.is_some()).await;
        assert_eq!(view.instance_hour_price, Some(MicroUsd(700_000)));
        assert!(view.stale && view.failure.unwrap().contains("prices.json"), "it was read an age ago");
        stop.send_replace(true);
        for task in tasks {
            task.await.unwrap();
        }
        let (prices, _) = start(&sources, &store, world(), &stopped).await;
        assert_eq!(prices.book().views(env.clock.now())[0].instance_hour_price, Some(MicroUsd(700_000)), "from the life before");
    }

    #[tokio::test]
    async fn a_server_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real(dir.path()).unwrap();
        let store = Store::open(&env).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/spot?shape=m5", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 1_000];
            let read = stream.read(&mut head).await.unwrap();
            let body = "{\"price\": \"0.031\"}";
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&head[..read]).into_owned()
        });
        let sources = [source("spot", PriceSource::Http(url, "$.price".parse().unwrap()))];
        let (_stop, stopped) = watch::channel(false);
        let (prices, _tasks) = start(&sources, &store, (env.clock.clone(), env.offload), &stopped).await;
        until(&prices, |view| view.instance_hour_price == Some(MicroUsd(31_000))).await;
        assert!(server.await.unwrap().starts_with("GET /v1/spot?shape=m5 HTTP/1.1"));
    }
}
