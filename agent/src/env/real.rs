//! The operating system as an [`Env`].

use super::{Clock, Env, Listener, Network, Offload, Providers, Seed, Storage, Stream};
use crate::config::{PoolConfig, ProviderConfig};
use crate::provider::chain::{Chain, Link};
use crate::provider::docker::{self, DockerProvider};
use crate::provider::process::{self, ProcessProvider};
use crate::provider::{self, Provider, Standing, exec, kubernetes, webhook};
use crate::staging::OsStager;
use async_trait::async_trait;
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tradewind_protocol::{Market, PoolName, Timestamp};

impl Env {
    /// Sockets, clock, entropy and threads of the operating system, files under `data_dir`, which
    /// is created if need be.
    pub fn real(data_dir: &Path) -> io::Result<Env> {
        std::fs::create_dir_all(data_dir)?;
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| io::Error::other("the operating system has no entropy"))?;
        Ok(Env {
            network: Arc::new(OsNetwork),
            clock: Arc::new(OsClock),
            seed: Seed::new(seed),
            crypto: Arc::new(rustls::crypto::ring::default_provider()),
            storage: Arc::new(Directory(data_dir.into())),
            offload: Offload::Threads,
            providers: Arc::new(OsProviders { data_dir: data_dir.into() }),
            stager: Arc::new(OsStager::new(data_dir)),
            opened: None,
        })
    }
}

struct OsNetwork;

#[async_trait]
impl Network for OsNetwork {
    async fn bind_udp(&self, addr: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        let socket = std::net::UdpSocket::bind(addr)?;
        quinn::Runtime::wrap_udp_socket(&quinn::TokioRuntime, socket)
    }

    async fn bind_tcp(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(OsListener(tokio::net::TcpListener::bind(addr).await?)))
    }
}

struct OsListener(tokio::net::TcpListener);

#[async_trait]
impl Listener for OsListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[derive(Debug)]
struct OsClock;

impl Clock for OsClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::EPOCH.after(since)
    }
}

struct Directory(PathBuf);

impl Storage for Directory {
    fn open(&self, name: &str) -> io::Result<Box<dyn redb::StorageBackend>> {
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.0.join(name))?;
        let backend = redb::backends::FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Box::new(backend))
    }
}

struct OsProviders {
    data_dir: PathBuf,
}

impl Providers for OsProviders {
    fn open(&self, pool: &PoolConfig) -> anyhow::Result<Arc<dyn Provider>> {
        let mut links = vec![];
        for config in pool.provider.each() {
            let provider = self.one(pool, config)?;
            links.push(Link { kind: config.kind(), provider, market: Market::OnDemand, standing: Standing::Configured });
        }
        // What the pool ran by other providers before its configuration changed.
        let configured =
            |name: &PoolName, kind: &str| *name != pool.name || pool.provider.each().iter().any(|config| config.kind() == kind);
        links.extend(self.retired(configured)?.into_iter().map(|(_, link)| link));
        Ok(as_one(links))
    }

    fn open_retired(&self, configured: &BTreeSet<PoolName>) -> anyhow::Result<Vec<(PoolName, Arc<dyn Provider>)>> {
        let mut pools: BTreeMap<PoolName, Vec<Link>> = BTreeMap::new();
        for (pool, link) in self.retired(|pool, _| configured.contains(pool))? {
            pools.entry(pool).or_default().push(link);
        }
        Ok(pools.into_iter().map(|(pool, links)| (pool, as_one(links))).collect())
    }
}

impl OsProviders {
    fn one(&self, pool: &PoolConfig, config: &ProviderConfig) -> anyhow::Result<Arc<dyn Provider>> {
        match config {
            ProviderConfig::Process(config) => Ok(Arc::new(ProcessProvider::open(&self.data_dir, pool, config)?)),
            ProviderConfig::Docker(config) => Ok(Arc::new(DockerProvider::open(&self.data_dir, pool, config)?)),
            ProviderConfig::Exec(config) => Ok(Arc::new(exec::open(&self.data_dir, pool, config)?)),
            ProviderConfig::Kubernetes(config) => Ok(Arc::new(kubernetes::open(&self.data_dir, pool, config)?)),
            ProviderConfig::Webhook(config) => Ok(Arc::new(webhook::open(&self.data_dir, pool, config)?)),
            ProviderConfig::Chain(_) => anyhow::bail!("a pool's providers are one list"),
        }
    }

    /// The providers that may still run something, but for the `configured` ones.
    fn retired(&self, configured: impl Fn(&PoolName, &str) -> bool) -> anyhow::Result<Vec<(PoolName, Link)>> {
        let link = |kind, provider: Arc<dyn Provider>| Link { kind, provider, market: Market::OnDemand, standing: Standing::Retired };
        let mut retired = vec![];
        for pool in process::known_pools(&self.data_dir)?.into_iter().filter(|pool| !configured(pool, process::KIND)) {
            let provider = ProcessProvider::open_retired(&self.data_dir, &pool)?;
            retired.push((pool, link(process::KIND, Arc::new(provider))));
        }
        for (pool, provider) in docker::retired(&self.data_dir, |pool| configured(pool, docker::KIND))? {
            retired.push((pool, link(docker::KIND, Arc::new(provider))));
        }
        retired.extend(provider::retired(&self.data_dir, configured)?);
        Ok(retired)
    }
}

/// The one that there is, or all of them as one.
fn as_one(mut links: Vec<Link>) -> Arc<dyn Provider> {
    match links.pop() {
        Some(only) if links.is_empty() => only.provider,
        last => {
            links.extend(last);
            Arc::new(Chain::new(links))
        }
    }
}
