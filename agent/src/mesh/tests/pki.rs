//! Certificates and states for tests.

use crate::config::TlsPaths;
use crate::mesh::identity::Identity;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tradewind_protocol::forecast::ForecastScore;
use tradewind_protocol::pki::{Issued, Subject, Validity, issue_ca, issue_leaf};
use tradewind_protocol::region::{Dropped, Health, Mode};
use tradewind_protocol::{
    PredictionData, Quantile, QuantilePath, RegionId, RegionState, SeriesKey, ServiceName, Step, StepIndex, TenantName, Timestamp,
    TransactionType,
};

pub(in crate::mesh) const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The time at which tests of pure parts take place: now, so that certificates serve both kinds.
pub(in crate::mesh) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::EPOCH.after(Duration::from_secs(since.as_secs() / 3600 * 3600))
}

/// An authority in a directory of its own.
pub(in crate::mesh) struct Pki {
    dir: tempfile::TempDir,
    ca: Issued,
}

/// No two authorities and no two leaves have the same key.
static SEEDS: AtomicU8 = AtomicU8::new(1);

fn seed() -> [u8; 32] {
    [SEEDS.fetch_add(1, Ordering::Relaxed); 32]
}

fn validity(from: Timestamp, to: Timestamp) -> Validity {
    Validity { not_before: from.as_millis() / 1000, not_after: to.as_millis() / 1000 }
}

impl Pki {
    pub(in crate::mesh) fn new(cluster: &str) -> Self {
        let ca = issue_ca(cluster, validity(now().before(3 * YEAR), now().after(3 * YEAR)), seed()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), &ca.certificate_pem).unwrap();
        Self { dir, ca }
    }

    /// The pair of `region`, valid for a year; always the same one.
    pub(in crate::mesh) fn paths(&self, region: &str) -> TlsPaths {
        self.issue(region, region, validity(now().before(Duration::from_secs(60)), now().after(YEAR)))
    }

    /// A pair for `region` that was valid until an hour ago.
    pub(in crate::mesh) fn expired(&self, region: &str) -> TlsPaths {
        let file = format!("{region}-{}-expired", SEEDS.load(Ordering::Relaxed));
        self.issue(region, &file, validity(now().before(YEAR), now().before(Duration::from_secs(3600))))
    }

    /// A pair for `region` that is valid for so long.
    pub(in crate::mesh) fn ending(&self, region: &str, after: Duration) -> TlsPaths {
        let file = format!("{region}-{}-ending", SEEDS.load(Ordering::Relaxed));
        self.issue(region, &file, validity(now().before(Duration::from_secs(60)), now().after(after)))
    }

    fn issue(&self, region: &str, file: &str, validity: Validity) -> TlsPaths {
        let path = |name: String| self.dir.path().join(name);
        let (certificate, key) = (path(format!("{file}.pem")), path(format!("{file}.key")));
        if !certificate.exists() {
            let subject = Subject::Agent(RegionId::new(region).unwrap(), vec![]);
            let leaf = issue_leaf(&self.ca, &subject, validity, seed()).unwrap();
            std::fs::write(&certificate, &leaf.certificate_pem).unwrap();
            std::fs::write(&key, &leaf.key_pem).unwrap();
        }
        TlsPaths { ca: path("ca.pem".into()), certificate, key }
    }

    /// The identity of `region`.
    pub(in crate::mesh) fn identity(&self, region: &str) -> Identity {
        Identity::load_unchecked(&self.paths(region)).unwrap()
    }
}

/// A state without forecasts.
pub(in crate::mesh) fn state(region: &str) -> RegionState {
    RegionState {
        region: RegionId::new(region).unwrap(),
        published_at: now(),
        version: "0.1.0".into(),
        api: None,
        coordinates: None,
        health: Health::Healthy,
        mode: Mode::Advisory,
        step: Step::new(Duration::from_secs(60)).unwrap(),
        pools: vec![],
        forecasts: vec![],
        dropped: Dropped::default(),
        events: vec![],
    }
}

/// A state with `count` forecasts, shuffled by volume.
pub(in crate::mesh) fn state_with(region: &str, count: u64) -> RegionState {
    let mut state = state(region);
    let step = state.step;
    state.forecasts = (0..count)
        .map(|i| {
            let volume = ((i * 7919) % 10_007) as f64 + 0.5;
            let values = (0..30 * 3).map(|v| (volume * f64::from(v % 3 + 1)) as f32 * 1.01f32.powi(v / 3)).collect();
            let quantiles = [50, 500, 950].map(|q| Quantile::per_mille(q).unwrap()).to_vec();
            PredictionData {
                series: SeriesKey {
                    tenant: TenantName::default(),
                    source: state.region.clone(),
                    destination: RegionId::new(&format!("d{i}")).unwrap(),
                    service: ServiceName::default(),
                    transaction_type: TransactionType::default(),
                },
                issued_at: now(),
                observed: volume,
                mean_volume: volume,
                path: QuantilePath::rearranged(StepIndex(1), step, quantiles, values).unwrap(),
                model: "test".into(),
                score: ForecastScore::default(),
            }
        })
        .collect();
    state
}
