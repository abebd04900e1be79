//! Which of a tenant's series have a place of their own where there are more than its limit. Pure.
//!
//! The *size* of a series is its count, of which half is forgotten in [`HALF_LIFE`]. Those of series with a place come from their own
//! counts; those of series that are folded into `other` are estimated by Space-Saving (Metwally, Agrawal and El Abbadi 2005, "Efficient
//! computation of frequent and top-k elements in data streams", figure 1) over counts with forward decay (Cormode, Shkapenyuk, Srivastava and Xu 2009):
//! who is large is certainly among the candidates, and of each it is known how much of its estimate may be others'. Only what is certainly its own
//! counts where it asks for a place. Memory is bounded by [`CANDIDATES`] a tenant.
//!
//! Estimates are of this life of the agent: after a restart a folded series has to show its size again. Who is folded is durable (`tables`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tradewind_protocol::api::FoldedTenant;
use tradewind_protocol::{SeriesKey, Step, StepIndex, TenantName};

/// Traffic repeats daily: a series of one busy hour a day keeps half of its size until the next. A guess.
const HALF_LIFE: Duration = Duration::from_secs(86_400);

/// And at least so many steps, where those are long.
const MIN_HALF_LIFE_STEPS: f64 = 16.0;

/// Who is not so much larger than the smallest does not get its place, so that two of a size do not take turns. A guess.
pub(crate) const CLEARLY: f64 = 1.25;

/// Folded series of a tenant that are told apart, at half a kilobyte each; one whose share of what is folded is larger than one in so many is among
/// them for certain.
const CANDIDATES: usize = 256;

/// A tenant of few places has at most so many times as many candidates, so that all together have twice `max_series`.
const CANDIDATES_A_PLACE: usize = 2;

/// Smaller series are not told of: one transaction a week ago.
const FORGOTTEN: f64 = 1.0 / 128.0;

/// Tenants that are told of, those with the most transactions first.
const TOLD: usize = 100;

/// Half-lives after which candidates begin anew: forward decay's weights must stay numbers.
const LANDMARK_HALF_LIVES: f64 = 500.0;

/// How fast sizes are forgotten, in steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct HalfLife(f64);

impl HalfLife {
    pub(crate) fn new(step: Step) -> Self {
        Self((HALF_LIFE.as_secs_f64() / step.seconds()).max(MIN_HALF_LIFE_STEPS))
    }

    /// What is left of one at `now` if it was counted at `then`.
    pub(crate) fn left(self, then: StepIndex, now: StepIndex) -> f64 {
        (-(now.0.saturating_sub(then.0).max(0) as f64) / self.0).exp2()
    }
}

/// A size as it was at some step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Size {
    pub(crate) at: StepIndex,
    pub(crate) sum: f64,
}

impl Size {
    /// Adds a count of `step`.
    pub(crate) fn add(&mut self, step: StepIndex, count: u64, half_life: HalfLife) {
        let at = if self.sum > 0.0 { self.at.max(step) } else { step };
        *self = Self { at, sum: self.left(at, half_life) + count as f64 * half_life.left(step, at) };
    }

    /// What is left of it at `now`.
    pub(crate) fn left(&self, now: StepIndex, half_life: HalfLife) -> f64 {
        self.sum * half_life.left(self.at, now)
    }
}

/// What was folded, by series and step.
pub(crate) type FoldedCounts = BTreeMap<SeriesKey, BTreeMap<StepIndex, u64>>;

/// The tenants of which something was folded in this life.
#[derive(Debug)]
pub(crate) struct Places {
    half_life: HalfLife,
    /// Weights are of this step.
    landmark: Option<StepIndex>,
    tenants: BTreeMap<TenantName, Tenant>,
    candidates: usize,
}

#[derive(Debug, Default)]
struct Tenant {
    sketch: Sketch,
    transactions: u64,
    /// The size of the smallest series with a place, at some step.
    floor: Option<(StepIndex, f64)>,
}

impl Places {
    pub(crate) fn new(half_life: HalfLife, max_series_per_tenant: usize) -> Self {
        let candidates = CANDIDATES.min(max_series_per_tenant.saturating_mul(CANDIDATES_A_PLACE)).max(1);
        Self { half_life, landmark: None, tenants: BTreeMap::new(), candidates }
    }

    /// The size at `now` that a folded series has for certain.
    pub(crate) fn size(&self, key: &SeriesKey, now: StepIndex) -> f64 {
        let certain = self.tenants.get(&key.tenant).map_or(0.0, |tenant| tenant.sketch.certain(key));
        if certain > 0.0 { certain / self.weight(now) } else { 0.0 }
    }

    /// Below this no series of the tenant that has a place was when that was last looked at, if it was in the step `now`.
    pub(crate) fn floor(&self, tenant: &TenantName, now: StepIndex) -> Option<f64> {
        self.tenants.get(tenant)?.floor.filter(|(at, _)| *at == now).map(|(_, floor)| floor)
    }

    /// Takes in what was found of the tenant's smallest series.
    pub(crate) fn set_floor(&mut self, tenant: &TenantName, now: StepIndex, floor: f64) {
        self.tenants.entry(tenant.clone()).or_default().floor = Some((now, floor));
    }

    /// Takes in what was folded.
    pub(crate) fn fold(&mut self, counts: FoldedCounts) {
        for (key, counts) in counts {
            let weighted = counts.iter().map(|(step, count)| *count as f64 * self.begun(*step)).sum();
            let tenant = self.tenants.entry(key.tenant.clone()).or_default();
            tenant.transactions = counts.values().fold(tenant.transactions, |sum, count| sum.saturating_add(*count));
            tenant.sketch.add(&key, weighted, self.candidates);
        }
    }

    /// Takes in a series that has lost its place, of this size at `now`.
    pub(crate) fn enter(&mut self, key: &SeriesKey, size: f64, now: StepIndex) {
        let weighted = size * self.begun(now);
        self.tenants.entry(key.tenant.clone()).or_default().sketch.enter(key, weighted, self.candidates);
    }

    /// The series has a place.
    pub(crate) fn leave(&mut self, key: &SeriesKey) {
        if let Some(tenant) = self.tenants.get_mut(&key.tenant) {
            tenant.sketch.remove(key);
        }
    }

    /// Forgets tenants.
    pub(crate) fn retain(&mut self, is_known: impl Fn(&TenantName) -> bool) {
        self.tenants.retain(|tenant, _| is_known(tenant));
    }

    /// What is folded, the most transactions first.
    pub(crate) fn report(&self, now: Option<StepIndex>) -> Vec<FoldedTenant> {
        let least = FORGOTTEN * now.map_or(0.0, |now| self.weight(now));
        let folded = self.tenants.iter().map(|(name, tenant)| FoldedTenant {
            tenant: name.clone(),
            series: tenant.sketch.larger_than(least),
            and_more: tenant.sketch.has_replaced,
            transactions: tenant.transactions,
        });
        let mut folded: Vec<_> = folded.filter(|folded| folded.transactions > 0).collect();
        folded.sort_by_key(|folded| std::cmp::Reverse(folded.transactions));
        folded.truncate(TOLD);
        folded
    }

    /// The weight of `step`, from which weights are counted if they are not yet, or too large.
    fn begun(&mut self, step: StepIndex) -> f64 {
        if self.landmark.is_some_and(|from| (step.0.saturating_sub(from.0) as f64).abs() > LANDMARK_HALF_LIVES * self.half_life.0) {
            self.tenants.values_mut().for_each(|tenant| tenant.sketch = Sketch::default());
            self.landmark = None;
        }
        self.landmark.get_or_insert(step);
        self.weight(step)
    }

    fn weight(&self, step: StepIndex) -> f64 {
        self.landmark.map_or(1.0, |from| (step.0.saturating_sub(from.0) as f64 / self.half_life.0).min(LANDMARK_HALF_LIVES * 2.0).exp2())
    }
}

/// Space-Saving over weighted counts. Invariant: `order` has exactly the estimates of `known`.
#[derive(Debug, Default)]
struct Sketch {
    known: BTreeMap<Arc<SeriesKey>, Estimate>,
    /// The bits of an estimate, which sort as the numbers do since none is negative.
    order: BTreeSet<(u64, Arc<SeriesKey>)>,
    /// Whether there were more than fit.
    has_replaced: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Estimate {
    /// At least what the series has counted.
    sum: f64,
    /// At most so much of it is others'.
    others: f64,
}

impl Sketch {
    fn certain(&self, key: &SeriesKey) -> f64 {
        self.known.get(key).map_or(0.0, |estimate| estimate.sum - estimate.others)
    }

    fn add(&mut self, key: &SeriesKey, weighted: f64, room: usize) {
        let before = match self.take(key) {
            Some(known) => known,
            // What was replaced may have been this one.
            None => {
                let sum = self.make_room(room);
                Estimate { sum, others: sum }
            }
        };
        self.put(key, Estimate { sum: before.sum + weighted, ..before });
    }

    fn enter(&mut self, key: &SeriesKey, weighted: f64, room: usize) {
        let replaced = match self.take(key) {
            Some(_) => 0.0,
            None => self.make_room(room),
        };
        self.put(key, Estimate { sum: replaced + weighted, others: replaced });
    }

    fn remove(&mut self, key: &SeriesKey) {
        self.take(key);
    }

    fn larger_than(&self, least: f64) -> usize {
        self.order.iter().rev().take_while(|(sum, _)| f64::from_bits(*sum) > least).count()
    }

    /// The estimate that the next one has to begin with.
    fn make_room(&mut self, room: usize) -> f64 {
        if self.known.len() < room {
            return 0.0;
        }
        self.has_replaced = true;
        let Some((_, least)) = self.order.first().cloned() else { return 0.0 };
        self.take(&least).map_or(0.0, |least| least.sum)
    }

    fn take(&mut self, key: &SeriesKey) -> Option<Estimate> {
        let (key, estimate) = self.known.remove_entry(key)?;
        self.order.remove(&(estimate.sum.to_bits(), key));
        Some(estimate)
    }

    fn put(&mut self, key: &SeriesKey, estimate: Estimate) {
        let key = Arc::new(key.clone());
        self.order.insert((estimate.sum.to_bits(), key.clone()));
        self.known.insert(key, estimate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tradewind_protocol::TransactionType;

    fn key(number: u64) -> SeriesKey {
        SeriesKey {
            tenant: Default::default(),
            source: "de".parse().unwrap(),
            destination: "fr".parse().unwrap(),
            service: Default::default(),
            transaction_type: TransactionType::new(&format!("t{number}")).unwrap(),
        }
    }

    fn half_life() -> HalfLife {
        HalfLife::new(Step::new(Duration::from_secs(60)).unwrap())
    }

    #[test]
    fn half_of_a_size_is_left_after_a_day_however_it_is_counted() {
        let day = StepIndex(1_440);
        let mut size = Size::default();
        size.add(StepIndex(0), 100, half_life());
        assert!((size.left(day, half_life()) - 50.0).abs() < 1e-9);
        let mut late = Size::default();
        late.add(day, 7, half_life());
        size.add(day, 7, half_life());
        late.add(StepIndex(0), 100, half_life());
        assert!((size.sum - late.sum).abs() < 1e-9 && size.at == late.at, "{size:?} {late:?}");
        let mut places = Places::new(half_life(), 10);
        places.fold(FoldedCounts::from([(key(1), BTreeMap::from([(StepIndex(0), 100), (day, 7)]))]));
        assert!((places.size(&key(1), day) - 57.0).abs() < 1e-9, "{}", places.size(&key(1), day));
    }

    #[test]
    fn candidates_are_bounded_and_what_was_folded_is_told() {
        let mut places = Places::new(half_life(), 1_000);
        for number in 0..1_000 {
            places.fold(FoldedCounts::from([(key(number), BTreeMap::from([(StepIndex(5), 1)]))]));
        }
        let tenant = &places.tenants[&TenantName::default()];
        assert_eq!((tenant.sketch.known.len(), tenant.sketch.order.len()), (CANDIDATES, CANDIDATES));
        let report = places.report(Some(StepIndex(5)));
        assert_eq!((report[0].series, report[0].and_more, report[0].transactions), (CANDIDATES, true, 1_000));
        // After weeks nobody is there any more.
        assert_eq!(places.report(Some(StepIndex(60 * 1_440)))[0].series, 0);
    }

    proptest! {
        #[test]
        fn nobody_is_certain_of_more_than_it_counted_and_who_is_large_is_known(
            counts in proptest::collection::vec((0u64..40, 0i64..5_000, 0u64..100), 1..300)
        ) {
            let (mut places, now) = (Places::new(half_life(), 4), StepIndex(5_000));
            let (mut sizes, mut total) = (BTreeMap::<u64, Size>::new(), 0.0);
            for (number, step, count) in counts {
                places.fold(FoldedCounts::from([(key(number), BTreeMap::from([(StepIndex(step), count)]))]));
                sizes.entry(number).or_default().add(StepIndex(step), count, half_life());
                total += count as f64 * half_life().left(StepIndex(step), now);
            }
            let sketch = &places.tenants[&TenantName::default()].sketch;
            for (number, size) in sizes {
                let size = size.left(now, half_life());
                prop_assert!(places.size(&key(number), now) <= size + 1e-6 * total);
                prop_assert!(size <= total / 8.0 + 1e-6 * total || sketch.known.contains_key(&key(number)));
            }
        }
    }
}
