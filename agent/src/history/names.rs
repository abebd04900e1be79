//! Each name once: a hundred thousand series share a few thousand names. Pure.

use std::collections::BTreeSet;
use tradewind_protocol::{RegionId, SeriesKey, ServiceName, TenantName, TransactionType};

/// The names in use.
#[derive(Debug, Default)]
pub(super) struct Names {
    tenants: BTreeSet<TenantName>,
    regions: BTreeSet<RegionId>,
    services: BTreeSet<ServiceName>,
    types: BTreeSet<TransactionType>,
}

impl Names {
    /// The same key, made of the names that are here already.
    pub(super) fn share(&mut self, key: SeriesKey) -> SeriesKey {
        SeriesKey {
            tenant: shared(&mut self.tenants, key.tenant),
            source: shared(&mut self.regions, key.source),
            destination: shared(&mut self.regions, key.destination),
            service: shared(&mut self.services, key.service),
            transaction_type: shared(&mut self.types, key.transaction_type),
        }
    }

    /// Begins anew: series that come later share among each other, and names that nobody has any more are gone.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn shared<T: Ord + Clone>(known: &mut BTreeSet<T>, name: T) -> T {
    if let Some(found) = known.get(&name) {
        return found.clone();
    }
    known.insert(name.clone());
    name
}
