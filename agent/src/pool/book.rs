//! The ledgers of all pools, and what makes their grants durable.
//!
//! Whoever needs a promise (the pools' actor for its instances, peers for theirs) decides under one lock and
//! gets a [`Ticket`]; nothing may be said or done about it before [`Book::durable`] has returned for that
//! ticket. Changes are written in the order in which they were decided, all that wait together in one
//! commit: whoever comes first writes for those behind, so a fsync is shared and never waited for twice.
//!
//! Invariant: what is durable is always a beginning of what was decided. After a failed write nothing is
//! promised any more, by anyone, until the agent is restarted and the file read anew.

use super::store;
use crate::marks::bug;
use crate::store::{Store, StoreError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tradewind_protocol::reservation::ledger::{Change, Config, Error, Input, Ledger, Output, Reservation};
use tradewind_protocol::reservation::message::{Answer, Claim, MAX_RENEWALS, Message, Refusal};
use tradewind_protocol::reservation::{Now, Phase, ReservationId, Tier};
use tradewind_protocol::{InstanceId, PoolName, RegionId, Resources, Timestamp};

/// Notices to holders that wait to be sent: more than one commit brings about, and what is lost is said
/// again with the next refresh.
const MAX_NOTICES: usize = 1_024;

/// How far the journal must be written before a promise may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// The ledgers cannot be written any more; nothing is promised until the agent is restarted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing is promised any more: {0}")]
pub(super) struct Unwritten(String);

/// A holder is to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) holder: RegionId,
    pub(crate) pool: PoolName,
    pub(crate) number: u64,
    pub(crate) leave_by: Timestamp,
}

/// One pool's ledger, and what it takes.
struct Page {
    ledger: Ledger,
    /// What one unit is; other regions' units must be the same.
    unit: Resources,
    /// Why other regions are granted nothing, if so.
    closed: Option<String>,
}

/// A pool as its ledger sees it.
pub(super) struct PageSetup {
    pub(super) config: Config,
    pub(super) unit: Resources,
    pub(super) closed: Option<String>,
}

#[derive(Default)]
struct Inner {
    pages: BTreeMap<PoolName, Page>,
    /// Decided, and not being written yet.
    pending: Vec<(PoolName, Change)>,
    /// How many changes were decided.
    decided: u64,
    failed: Option<Unwritten>,
    /// None once the pools have been let go: the file is free for another holder then.
    store: Option<Store>,
}

/// The ledgers.
pub(super) struct Book {
    inner: Arc<Mutex<Inner>>,
    /// How many changes are written; held while writing.
    written: Arc<tokio::sync::Mutex<u64>>,
    notices: mpsc::Sender<Notice>,
    /// What another region has confirmed or given back changes what should run.
    changed: Arc<Notify>,
}

impl Book {
    /// The ledgers of `pools`, as they were made durable. Entries of other pools are forgotten, durably if `write`.
    pub(super) async fn open(
        store: Store,
        pools: BTreeMap<PoolName, PageSetup>,
        keep_others: KeepOthers,
        now: Now,
    ) -> Result<(Self, mpsc::Receiver<Notice>), StoreError> {
        let page = |PageSetup { config, unit, closed }| Page { ledger: Ledger::new(config), unit, closed };
        let mut pages: BTreeMap<PoolName, Page> = pools.into_iter().map(|(name, setup)| (name, page(setup))).collect();
        let mut unclaimed = vec![];
        for (pool, change) in store::load(&store).await? {
            match pages.get_mut(&pool) {
                Some(page) => page.ledger.restore(change, now),
                None => unclaimed.push((pool, change)),
            }
        }
        if keep_others == KeepOthers::No {
            store::forget(&store, &unclaimed).await?;
        }
        let (notices, receiver) = mpsc::channel(MAX_NOTICES);
        let inner = Arc::new(Mutex::new(Inner { pages, store: Some(store), ..Inner::default() }));
        Ok((Self { inner, written: Arc::default(), notices, changed: Arc::default() }, receiver))
    }

    /// Rings when another region's confirmed reservations change.
    pub(super) fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    /// Other regions are granted nothing from now on, and this is why.
    pub(super) fn close(&self, why: &str) {
        self.inner().pages.values_mut().for_each(|page| page.closed = Some(why.to_owned()));
    }

    /// Promises nothing more, to anyone, and lets the file go.
    pub(super) async fn let_go(&self) {
        let _writing = self.written.lock().await;
        self.inner().store = None;
    }

    /// How many changes were decided.
    pub(super) fn decided(&self) -> u64 {
        self.inner().decided
    }

    /// Adds one more instance's resources, whether it fits or not; nothing changes if it is counted already.
    pub(super) fn adopt(&self, pool: &PoolName, id: &InstanceId, unit: Resources, now: Now) {
        self.decide(pool, Input::Adopt { id: id.clone(), unit }, now);
    }

    /// Sets one more instance's resources aside: of a reservation that is to be served if there is one, else anew.
    pub(super) fn occupy(
        &self,
        pool: &PoolName,
        id: &InstanceId,
        unit: Resources,
        serve: Option<&ReservationId>,
        now: Now,
    ) -> Result<(), Error> {
        let input = match serve {
            Some(of) => Input::Place { of: of.clone(), id: id.clone() },
            None => Input::Occupy { id: id.clone(), unit },
        };
        let outputs = self.decide(pool, input, now);
        let refused = outputs.into_iter().find_map(|output| match output {
            Output::Reply(_, _, Err(error)) => Some(error),
            Output::Reply(_, _, Ok(_)) | Output::Persist(_) | Output::Preempted { .. } | Output::Lapsed(_) => None,
        });
        if refused.is_some() && bug!("hold-always-fits") {
            self.adopt(pool, id, unit, now);
            return Ok(());
        }
        refused.map_or(Ok(()), Err)
    }

    /// Gives back what instances hold that are no longer there, and lets lapse what is due.
    pub(super) fn settle(&self, pool: &PoolName, exists: impl Fn(&InstanceId) -> bool, now: Now) {
        self.decide(pool, Input::Tick, now);
        let gone: Vec<ReservationId> = {
            let inner = self.inner();
            let all = inner.pages.get(pool).into_iter().flat_map(|page| page.ledger.reservations());
            all.filter(|r| matches!(&r.id, ReservationId::Instance(id) if !exists(id))).map(|r| r.id.clone()).collect()
        };
        for id in gone {
            self.decide(pool, Input::Release { id }, now);
        }
    }

    /// What other regions have confirmed firmly and need within `lead` from now, the earliest first.
    pub(super) fn lent(&self, pool: &PoolName, lead: Duration, now: Now) -> Vec<Reservation> {
        let soon = now.wall.after(lead);
        let needed = |r: &&Reservation| {
            !r.id.is_instance()
                && r.phase == Phase::Confirmed
                && r.terms.tier == Tier::Firm
                && r.terms.window.from <= soon
                && now.wall < r.terms.window.until
        };
        let inner = self.inner();
        let all = inner.pages.get(pool).into_iter().flat_map(|page| page.ledger.reservations());
        let mut lent: Vec<Reservation> = all.filter(needed).cloned().collect();
        lent.sort_by_key(|r| (r.terms.window.from, r.sequence));
        lent
    }

    /// The instances that serve other regions' reservations.
    pub(super) fn serving(&self, pool: &PoolName) -> BTreeMap<InstanceId, ReservationId> {
        let inner = self.inner();
        let all = inner.pages.get(pool).into_iter().flat_map(|page| page.ledger.reservations());
        all.filter_map(|r| match (&r.id, &r.serves) {
            (ReservationId::Instance(id), Some(served)) => Some((id.clone(), served.clone())),
            (ReservationId::Instance(_) | ReservationId::Remote { .. }, _) => None,
        })
        .collect()
    }

    /// Looks at every ledger.
    pub(super) fn each<T>(&self, look: impl FnMut((&PoolName, &Ledger)) -> T) -> Vec<T> {
        self.inner().pages.iter().map(|(name, page)| (name, &page.ledger)).map(look).collect()
    }

    /// The moment until which everything that was decided so far is written.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket(self.inner().decided)
    }

    /// Answers another region, once what the answer says is durable.
    pub(super) async fn answer(&self, from: &RegionId, message: Message, now: Now) -> Answer {
        let refused = |claim: Claim, reason: Refusal| Answer::Refused { claim, reason };
        let (answer, ticket) = match message {
            Message::Hold { pool, number, nonce, terms, ttl_ms, settled_below } => {
                let claim = Claim { number, nonce };
                if let Err(reason) = self.takes(&pool, Some(terms.unit)) {
                    return refused(claim, reason);
                }
                self.decide(&pool, Input::Settled { holder: from.clone(), below: settled_below.min(number) }, now);
                let id = ReservationId::remote(from, number);
                self.one(&pool, claim, Input::Hold { id, terms, ttl: Duration::from_millis(ttl_ms), nonce }, now)
            }
            Message::Confirm { pool, claim } => {
                let answered =
                    self.one(&pool, claim, Input::Confirm { id: ReservationId::remote(from, claim.number), nonce: claim.nonce }, now);
                self.changed.notify_one();
                answered
            }
            Message::Refresh { pool, claims } => {
                let refresh = |claim: Claim| Input::Refresh { id: ReservationId::remote(from, claim.number), nonce: claim.nonce };
                let answers = claims.into_iter().take(MAX_RENEWALS).map(|claim| self.one(&pool, claim, refresh(claim), now).0).collect();
                (Answer::Many(answers), self.ticket())
            }
            Message::Release { pool, number } => {
                let claim = Claim { number, nonce: 0 };
                if self.is_idle(&pool, &ReservationId::remote(from, number)) {
                    // No hold of it can be granted that might still be on its way.
                    return Answer::Released { number };
                }
                let answered = self.one(&pool, claim, Input::Release { id: ReservationId::remote(from, number) }, now);
                self.changed.notify_one();
                answered
            }
            // The other side's.
            Message::Preempted { .. } => return Answer::Noted,
        };
        match self.durable(ticket).await {
            Ok(()) => answer,
            Err(error) => {
                let claim = match answer {
                    Answer::Held { claim, .. } | Answer::Countered { claim, .. } | Answer::Refused { claim, .. } => claim,
                    Answer::Released { number } => Claim { number, nonce: 0 },
                    Answer::Many(_) | Answer::Noted => return Answer::Noted,
                };
                refused(claim, Refusal::NotGranting(error.to_string()))
            }
        }
    }

    /// Whether other regions may be granted anything of a pool.
    fn takes(&self, pool: &PoolName, unit: Option<Resources>) -> Result<(), Refusal> {
        let inner = self.inner();
        let page = inner.pages.get(pool).ok_or(Refusal::NoSuchPool)?;
        if let Some(why) = &page.closed {
            return Err(Refusal::NotGranting(why.clone()));
        }
        if unit.is_some_and(|unit| unit != page.unit) {
            return Err(Refusal::NotGranting(format!("a unit of this pool is {}", page.unit)));
        }
        Ok(())
    }

    /// Whether a pool grants nothing and holds nothing under this id.
    fn is_idle(&self, pool: &PoolName, id: &ReservationId) -> bool {
        self.inner().pages.get(pool).is_some_and(|page| page.closed.is_some() && page.ledger.get(id).is_none())
    }

    fn one(&self, pool: &PoolName, claim: Claim, input: Input, now: Now) -> (Answer, Ticket) {
        if !self.inner().pages.contains_key(pool) {
            return (Answer::Refused { claim, reason: Refusal::NoSuchPool }, Ticket(0));
        }
        let outputs = self.decide(pool, input, now);
        let reply = outputs.into_iter().find_map(|output| match output {
            Output::Reply(_, _, reply) => Some(reply),
            Output::Persist(_) | Output::Preempted { .. } | Output::Lapsed(_) => None,
        });
        (Answer::of(claim, reply), self.ticket())
    }

    /// Has a ledger decide, queues what is to be written, and tells whom it concerns.
    fn decide(&self, pool: &PoolName, input: Input, now: Now) -> Vec<Output> {
        let now = if bug!("reservations-never-lapse") { Now { uptime: Duration::ZERO, ..now } } else { now };
        let mut inner = self.inner();
        let Some(page) = inner.pages.get_mut(pool) else { return vec![] };
        let outputs = page.ledger.handle(input, now);
        let mut others = Vec::with_capacity(outputs.len());
        for output in outputs {
            match output {
                Output::Persist(change) => {
                    inner.decided += 1;
                    inner.pending.push((pool.clone(), change));
                }
                Output::Preempted { id: ReservationId::Remote { holder, number }, leave_by } => {
                    // Where the queue is full, the holder learns it with its next refresh.
                    let _ = self.notices.try_send(Notice { holder, pool: pool.clone(), number, leave_by });
                    self.changed.notify_one();
                }
                Output::Lapsed(id) => {
                    self.changed.notify_one();
                    others.push(Output::Lapsed(id));
                }
                output @ (Output::Reply(..) | Output::Preempted { .. }) => others.push(output),
            }
        }
        others
    }

    /// Returns once everything up to the ticket is written.
    pub(super) async fn durable(&self, ticket: Ticket) -> Result<(), Unwritten> {
        if bug!("ledger-not-written") {
            return Ok(());
        }
        let mut written = self.written.clone().lock_owned().await;
        if let Some(failed) = self.inner().failed.clone() {
            return Err(failed);
        }
        if *written >= ticket.0 {
            return Ok(());
        }
        let inner = self.inner.clone();
        let Some(store) = self.inner().store.clone() else { return Err(Unwritten("the agent has let its pools go".into())) };
        // A task of its own: whoever waits may be cancelled, what was taken to be written may not.
        let writing = tokio::spawn(async move {
            let (changes, decided) = {
                let mut inner = lock(&inner);
                (std::mem::take(&mut inner.pending), inner.decided)
            };
            match store::commit(&store, &changes).await {
                Ok(()) => {
                    *written = decided;
                    Ok(())
                }
                Err(error) => {
                    // Not tried again: what a failed fsync left on the disk is unknown until it is read anew.
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    let failed = Unwritten(format!("{error}: {cause}"));
                    lock(&inner).failed = Some(failed.clone());
                    Err(failed)
                }
            }
        });
        writing.await.unwrap_or_else(|error| Err(Unwritten(error.to_string())))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether entries of pools that are no longer there are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeepOthers {
    /// In advisory mode nothing is written.
    Yes,
    No,
}
