//! What is left of a body: sums per series and step, the ids to count once, and what was refused.

use super::record::{Element, Given, RawRecord};
use crate::config::IngestConfig;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use tradewind_protocol::api::{IngestReceipt, MAX_REFUSALS_SHOWN, Refusal};
use tradewind_protocol::record::{MAX_COUNT, RecordError};
use tradewind_protocol::{RecordId, RegionId, SeriesKey, ServiceName, Step, StepIndex, TenantName, Timestamp, TransactionType, UserId};

/// What a record is checked against.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'r> {
    /// The agent's region: it counts the records that come from there.
    pub region: &'r RegionId,
    /// The length of a step.
    pub step: Step,
    /// The agent's clock.
    pub now: Timestamp,
    /// How late, how early, how much.
    pub config: &'r IngestConfig,
}

/// The records of one request, folded.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The distinct series, in the order in which they came.
    pub(crate) series: Vec<BatchSeries>,
    /// Records without an id, by place in `series` and step.
    pub(crate) sums: BTreeMap<(usize, StepIndex), Sum>,
    /// Records with an id, in the order in which they came: some may turn out to be repetitions.
    pub(crate) identified: Vec<Identified>,
    /// How many records were refused so far, and the first of them.
    pub(crate) refused: u64,
    pub(crate) refusals: Vec<Refusal>,
}

/// One series of a batch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BatchSeries {
    pub(crate) key: SeriesKey,
    /// Where it first came.
    pub(crate) line: u64,
}

/// Records added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sum {
    /// Transactions.
    pub(crate) count: u64,
    /// Records that stand for them.
    pub(crate) records: u64,
}

impl Sum {
    pub(crate) fn add(&mut self, count: u64, records: u64) {
        // A record's count is bounded by MAX_COUNT: it takes 2^24 records to come near the end.
        self.count = self.count.saturating_add(count);
        self.records = self.records.saturating_add(records);
    }
}

/// A record with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identified {
    /// Stands for the tenant and the id.
    pub(crate) id: IdHash,
    /// Its place in the batch's series.
    pub(crate) series: usize,
    pub(crate) step: StepIndex,
    pub(crate) count: u64,
    pub(crate) line: u64,
}

/// The first 128 bits of an id's SHA-256: nobody finds two ids with one hash, and a remembered id
/// takes 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IdHash(pub(crate) u128);

impl IdHash {
    /// The hash of `parts`; a part never contains a zero byte.
    pub(crate) fn of(parts: &[&str]) -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        for part in parts {
            context.update(part.as_bytes());
            context.update(&[0]);
        }
        let digest = context.finish();
        Self(digest.as_ref().iter().take(16).fold(0, |hash, byte| hash << 8 | u128::from(*byte)))
    }
}

impl Batch {
    /// How many records wait to be counted.
    pub fn records(&self) -> usize {
        let summed: u64 = self.sums.values().map(|sum| sum.records).sum();
        usize::try_from(summed).unwrap_or(usize::MAX).saturating_add(self.identified.len())
    }

    /// The newest step of the batch.
    pub(crate) fn newest(&self) -> Option<StepIndex> {
        self.sums.keys().map(|(_, step)| *step).chain(self.identified.iter().map(|record| record.step)).max()
    }

    /// Refuses `records` more, the first of them at `line`.
    pub(crate) fn refuse(&mut self, line: u64, records: u64, reason: impl FnOnce() -> String) {
        self.refused += records;
        if self.refusals.len() < MAX_REFUSALS_SHOWN {
            self.refusals.push(Refusal { line, reason: reason() });
        }
    }

    /// What became of the batch, with `accepted` and `duplicates` counted by whoever knows.
    pub(crate) fn receipt(self, accepted: u64, duplicates: u64) -> IngestReceipt {
        IngestReceipt { accepted, duplicates, replayed: false, refused: self.refused, refusals: self.refusals }
    }
}

/// Builds a [`Batch`] from raw records.
pub(super) struct Folder<'a, 'r> {
    rules: Rules<'r>,
    oldest: Timestamp,
    newest: Timestamp,
    /// Never iterated: `batch.series` has the order.
    places: HashMap<SeriesText<'a>, usize>,
    batch: Batch,
}

/// The text of a series' key. All its parts but the source, which is always the agent's region.
type SeriesText<'a> = [Cow<'a, str>; 4];

/// What remains of one good record.
struct Checked<'a> {
    series: SeriesText<'a>,
    id: Option<IdHash>,
    step: StepIndex,
    count: u64,
}

impl<'a, 'r> Folder<'a, 'r> {
    pub(super) fn new(rules: &Rules<'r>) -> Self {
        let batch = Batch { series: Vec::new(), sums: BTreeMap::new(), identified: Vec::new(), refused: 0, refusals: Vec::new() };
        Self {
            rules: *rules,
            oldest: rules.now.before(rules.config.lateness),
            newest: rules.now.after(rules.config.max_ahead),
            places: HashMap::new(),
            batch,
        }
    }

    pub(super) fn finish(self) -> Batch {
        self.batch
    }

    pub(super) fn refuse(&mut self, line: u64, reason: String) {
        self.batch.refuse(line, 1, || reason);
    }

    /// Counts the record in `element`, or refuses it.
    pub(super) fn add(&mut self, line: u64, element: Element<'a>) {
        let checked = match element {
            Element::Record(raw) => self.check(raw),
            Element::Other(given) => Err(format!("{given} is no record: wanted a JSON object")),
        };
        let placed = checked.and_then(|record| {
            let place = self.place(line, record.series)?;
            Ok((place, record.id, record.step, record.count))
        });
        match placed {
            Ok((series, Some(id), step, count)) => self.batch.identified.push(Identified { id, series, step, count, line }),
            Ok((series, None, step, count)) => self.batch.sums.entry((series, step)).or_default().add(count, 1),
            Err(reason) => self.refuse(line, reason),
        }
    }

    fn check(&self, raw: RawRecord<'a>) -> Result<Checked<'a>, String> {
        if let Some(reason) = raw.malformed {
            return Err(reason);
        }
        let source = required("source_region", raw.source_region)?;
        if source != self.rules.region.as_str() {
            RegionId::check(&source).map_err(|error| format!("source_region: {error}"))?;
            let own = self.rules.region;
            return Err(format!(
                "source_region {source:?} is not this agent's region {own:?}: a record belongs to the agent of the region it comes from, \
                 send it to the agent of {source:?}"
            ));
        }
        let destination = required("destination_region", raw.destination_region)?;
        let tenant = or_default("tenant", raw.tenant)?;
        let service = or_default("service", raw.service)?;
        let transaction_type = or_default("transaction_type", raw.transaction_type)?;
        if let Some(user) = optional("user", raw.user)? {
            UserId::check(&user).map_err(|error| format!("user: {error}"))?;
        }
        let count = match raw.count {
            None => 1,
            Some(Given::Unsigned(count)) if count <= MAX_COUNT => count,
            Some(Given::Unsigned(count)) => return Err(RecordError::CountTooLarge(count).to_string()),
            Some(other) => return Err(format!("count is {other}: wanted an integer from 0 to {MAX_COUNT}")),
        };
        check_latency(raw.latency_ms)?;
        let step = self.step_of(raw.timestamp)?;
        let id = match optional("id", raw.id)? {
            None => None,
            Some(id) => {
                RecordId::check(&id).map_err(|error| format!("id: {error}"))?;
                Some(IdHash::of(&[&tenant, &id]))
            }
        };
        Ok(Checked { series: [tenant, destination, service, transaction_type], id, step, count })
    }

    fn step_of(&self, given: Option<Given<'a>>) -> Result<StepIndex, String> {
        const WANTED: &str = "wanted RFC 3339 text (2026-01-01T00:00:00Z) or integer milliseconds since 1970";
        let parsed = match &given {
            Some(Given::Text(text)) => Timestamp::parse(text),
            Some(Given::Unsigned(millis)) => Timestamp::from_millis(i64::try_from(*millis).unwrap_or(i64::MAX)),
            Some(Given::Negative(millis)) => Timestamp::from_millis(*millis),
            Some(other) => return Err(format!("timestamp is {other}: {WANTED}")),
            None => return Err(format!("timestamp is missing: {WANTED}")),
        };
        let at = parsed.map_err(|error| error.to_string())?;
        if at < self.oldest {
            let lateness = self.rules.config.lateness;
            return Err(format!("timestamp {at} is more than {lateness:?} old (ingest.lateness): wanted {} or later", self.oldest));
        }
        if at > self.newest {
            let ahead = self.rules.config.max_ahead;
            return Err(format!(
                "timestamp {at} is more than {ahead:?} ahead of the agent's clock (ingest.max_ahead): wanted {} or earlier",
                self.newest
            ));
        }
        Ok(self.rules.step.index(at))
    }

    /// The series' place in the batch. Its names are checked when they first come.
    fn place(&mut self, line: u64, text: SeriesText<'a>) -> Result<usize, String> {
        if let Some(place) = self.places.get(&text) {
            return Ok(*place);
        }
        let [tenant, destination, service, transaction_type] = &text;
        let key = SeriesKey {
            tenant: TenantName::new(tenant).map_err(|error| format!("tenant: {error}"))?,
            source: self.rules.region.clone(),
            destination: RegionId::new(destination).map_err(|error| format!("destination_region: {error}"))?,
            service: ServiceName::new(service).map_err(|error| format!("service: {error}"))?,
            transaction_type: TransactionType::new(transaction_type).map_err(|error| format!("transaction_type: {error}"))?,
        };
        let place = self.batch.series.len();
        self.batch.series.push(BatchSeries { key, line });
        self.places.insert(text, place);
        Ok(place)
    }
}

fn required<'a>(field: &str, given: Option<Given<'a>>) -> Result<Cow<'a, str>, String> {
    match given {
        Some(Given::Text(text)) => Ok(text),
        Some(other) => Err(format!("{field} is {other}: wanted text")),
        None => Err(format!("{field} is missing: wanted text")),
    }
}

fn or_default<'a>(field: &str, given: Option<Given<'a>>) -> Result<Cow<'a, str>, String> {
    match given {
        None => Ok(Cow::Borrowed("default")),
        given => required(field, given),
    }
}

fn optional<'a>(field: &str, given: Option<Given<'a>>) -> Result<Option<Cow<'a, str>>, String> {
    match given {
        None | Some(Given::Null) => Ok(None),
        given => required(field, given).map(Some),
    }
}

fn check_latency(given: Option<Given<'_>>) -> Result<(), String> {
    let ms = match given {
        None | Some(Given::Null | Given::Unsigned(_)) => return Ok(()),
        Some(Given::Float(ms)) => ms,
        Some(Given::Negative(ms)) => ms as f64,
        Some(other @ (Given::Text(_) | Given::Bool(_) | Given::Array | Given::Object)) => {
            return Err(format!("latency_ms is {other}: wanted a number of milliseconds"));
        }
    };
    if ms.is_finite() && ms >= 0.0 { Ok(()) } else { Err(RecordError::BadLatency(ms).to_string()) }
}
