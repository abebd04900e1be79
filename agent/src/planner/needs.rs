//! When services will be needed: by then, what is staged for them has to be ready. Pure.

use super::Snapshot;
use super::demand::{Demand, Incoming};
use crate::config::StageConfig;
use std::collections::BTreeMap;
use std::time::Duration;
use tradewind_protocol::{RegionalResourcePlan, ServiceName, Timestamp};

/// When each of the `staged` services is needed that is: now if the plan wants an instance that serves it or demand on it was seen last;
/// else when the plan wants one warm, or when the first step begins, of those that begin within the service's lead, in which as many
/// transactions are foreseen as make a need, at the quantile that is provisioned for. The earliest counts.
pub fn needs(
    snapshot: &Snapshot,
    plan: &RegionalResourcePlan,
    staged: &BTreeMap<ServiceName, StageConfig>,
) -> BTreeMap<ServiceName, Timestamp> {
    let steps = |lead: Duration| (snapshot.step.count_covering(lead) as usize).saturating_add(1);
    let steps = |lead| steps(lead).min(tradewind_protocol::forecast::MAX_HORIZON);
    let Some(most) = staged.values().map(|config| steps(config.lead)).max() else { return BTreeMap::new() };
    let incoming = Incoming::of(snapshot, most, [snapshot.config.quantile].into());
    let need = |(service, config): (&ServiceName, &StageConfig)| {
        let planned =
            plan.decisions.iter().filter(|decision| decision.service == *service).filter_map(|decision| {
                if decision.active > 0 { Some(snapshot.now) } else { (decision.warm > 0).then_some(decision.ready_by) }
            });
        let demand = Demand::on(service, &incoming, steps(config.lead), snapshot.config.quantile);
        let is_need = |rate: f64| rate * snapshot.step.seconds() >= config.from;
        let seen = is_need(demand.observed_rate).then_some(snapshot.now);
        let until = snapshot.now.after(config.lead);
        let begins = |at: usize| snapshot.step.start(snapshot.known_until.offset(at as i64 + 1));
        let foreseen = demand.steps.iter().position(|step| is_need(step.median_rate + step.upper_rate));
        let foreseen = foreseen.map(begins).filter(|begins| *begins <= until);
        Some((service.clone(), planned.chain(seen).chain(foreseen).min()?.max(snapshot.now)))
    };
    staged.iter().filter_map(need).collect()
}
