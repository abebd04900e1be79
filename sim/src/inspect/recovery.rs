//! After every restart: asks an agent for everything durable that its API shows, and has the reference model judge it.
//!
//! And before: gives it something to remember that no traffic brings, events of the calendar, long past and so without any effect on
//! forecasts or on what is published; and notes what it shows of the rest.

use super::{Inspector, PATIENCE};
use crate::clock::{virtual_now, wall_time};
use crate::model::End;
use crate::oracle::Rule;
use anyhow::bail;
use std::time::Duration;
use tradewind_agent::staging::Turn;
use tradewind_protocol::api::{CalendarEntry, ForecastView, PlanExplanation, StagingView, Status};
use tradewind_protocol::region::Mode;
use tradewind_protocol::{CalendarEvent, EventName};

/// Looks from one change of the calendar to the next.
const LOOKS_PER_EVENT: u64 = 4;

/// Events that there are by name: each is made, changed, removed, and made again.
const EVENTS: u64 = 3;

/// Looks from one at what the margins have learned from to the next: the answer explains all of a plan, and takes some work.
const LOOKS_PER_EXPLANATION: u64 = 5;

/// How long ago the calendar's events were: long enough that nothing is learnt from them, and not so long that they are forgotten.
const AGO: Duration = Duration::from_secs(30 * 86_400);

/// What is left to be looked at in this life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Left {
    /// All of it.
    #[default]
    Everything,
    /// What is shown only once a step is closed.
    Counts,
    /// That, and it was wrong so many times in a row.
    Again(u32),
    /// Nothing.
    Nothing,
}

/// What an inspector knows of its agent's restarts.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    left: Left,
    looks: u64,
    changes: u64,
    /// When the agent last answered.
    heard: Duration,
    losses: u64,
    /// Jobs of staging that had been carried out when it answered.
    jobs: usize,
    /// When the life that runs ended in order, if it did.
    pub(super) ended: Option<Duration>,
}

impl Inspector {
    /// Notes that the agent has ended in order, on a healthy disk.
    pub(super) fn see_end(&mut self) {
        let machine = &self.client.machine;
        let ended = self.client.book.borrow().ended.get(&self.client.region).and_then(|ended| ended());
        if self.life == machine.boots() && !machine.disk.was_ill() && !machine.lost_power() {
            self.recovery.ended = ended.filter(|at| *at >= self.since);
        }
    }

    /// A new life has begun: whether the last one ended in order.
    pub(super) fn begin_recovery(&mut self) -> bool {
        let ended = self.recovery.ended.take();
        let losses = self.client.machine.disk.losses();
        let lost = std::mem::replace(&mut self.recovery.losses, losses) != losses;
        let mut book = self.client.book.borrow_mut();
        let model = book.model(&self.client.region);
        if lost {
            model.lose(losses);
        } else {
            model.on_restart(if ended.is_some() { End::InOrder } else { End::After(self.recovery.heard) });
        }
        self.recovery.left = Left::Everything;
        ended.is_some() && !lost
    }

    /// A look. An error means that the agent has not answered.
    pub(super) async fn recover(&mut self) -> anyhow::Result<()> {
        match self.recovery.left {
            Left::Everything => self.judge_beginning().await,
            Left::Counts => self.judge_counts(0).await,
            Left::Again(times) => self.judge_counts(times).await,
            Left::Nothing => self.note().await,
        }
    }

    /// The agent has answered.
    pub(super) fn hear(&mut self) {
        if self.is_same_life().is_ok() {
            self.recovery.heard = virtual_now();
        }
    }

    /// Whether what was answered was answered by this life.
    fn is_same_life(&self) -> anyhow::Result<()> {
        if self.life != self.client.machine.boots() || self.recovery.losses != self.client.machine.disk.losses() {
            bail!("it was restarted meanwhile");
        }
        Ok(())
    }

    /// What it shows as soon as it is up.
    async fn judge_beginning(&mut self) -> anyhow::Result<()> {
        let counted = self.client.book.borrow_mut().model(&self.client.region).series();
        let status: Status = self.client.get("/v1/status").await?;
        let calendar: Vec<CalendarEntry> = self.client.get("/v1/calendar").await?;
        let staging: Vec<StagingView> = self.client.get("/v1/staging").await?;
        self.is_same_life()?;
        let log = self.client.machine.stager.log();
        let since = log.get(self.recovery.jobs.min(log.len())..).unwrap_or_default();
        let wrong = {
            let mut book = self.client.book.borrow_mut();
            let model = book.model(&self.client.region);
            let mut wrong = model.judge_calendar(&self.client.region, &calendar);
            wrong.extend(model.judge_series(status.series, counted));
            // On a lost disk the numbers begin anew, and are raised once others tell of former lives: another rule's matter.
            if self.recovery.losses == 0 {
                wrong.extend(model.judge_generation(status.generation));
            }
            let undone = |service: &_, step: &_| since.iter().any(|(turn, of, name)| (*turn, of, name) == (Turn::Undo, service, step));
            wrong.extend(model.judge_staging(&staging, undone));
            wrong
        };
        wrong.into_iter().for_each(|what| self.broken(Rule::Recovers, what));
        self.recovery.left = Left::Counts;
        Ok(())
    }

    /// What it shows after its first step. Twice in vain is patience, the third time a finding.
    async fn judge_counts(&mut self, times: u32) -> anyhow::Result<()> {
        let region = self.client.region.clone();
        let status: Status = self.client.get("/v1/status").await?;
        let Some(closed) = status.last_closed_step else { return Ok(()) };
        let before = self.client.book.borrow_mut().model(&region).acknowledged();
        let forecasts: Vec<ForecastView> = self.client.get(&format!("/v1/forecasts?from={region}")).await?;
        let plan: Option<PlanExplanation> = if self.plans_count() { Some(self.client.get("/v1/plan/explain").await?) } else { None };
        self.is_same_life()?;
        let wrong = {
            let mut book = self.client.book.borrow_mut();
            let model = book.model(&region);
            let mut wrong = model.judge_counts(&before, &forecasts, closed, self.config.step);
            wrong.extend(plan.iter().flat_map(|plan| model.judge_plan(plan)));
            if wrong.is_empty() || times + 1 >= PATIENCE {
                model.settle_plan();
            }
            wrong
        };
        self.recovery.left = if wrong.is_empty() || times + 1 >= PATIENCE { Left::Nothing } else { Left::Again(times + 1) };
        if self.recovery.left == Left::Nothing {
            wrong.into_iter().for_each(|what| self.broken(Rule::Recovers, what));
            self.client.book.borrow_mut().recovered += 1;
        }
        Ok(())
    }

    /// Whether the agent's plans teach it anything.
    fn plans_count(&self) -> bool {
        self.config.mode == Mode::Active && !self.config.pools.is_empty()
    }

    /// What it shows meanwhile; and something new to be remembered.
    async fn note(&mut self) -> anyhow::Result<()> {
        self.recovery.looks += 1;
        if self.recovery.looks.is_multiple_of(LOOKS_PER_EVENT) {
            self.change_calendar().await?;
        }
        if self.plans_count() && self.recovery.looks.is_multiple_of(LOOKS_PER_EXPLANATION) {
            let asked = virtual_now();
            let plan: PlanExplanation = self.client.get("/v1/plan/explain").await?;
            self.is_same_life()?;
            let durable = !self.client.machine.disk.was_ill();
            self.client.book.borrow_mut().model(&self.client.region).see_plan(asked, &plan, durable);
        }
        if !self.config.staging.is_empty() {
            let jobs = self.client.machine.stager.log().len();
            let staging: Vec<StagingView> = self.client.get("/v1/staging").await?;
            self.is_same_life()?;
            if !self.client.machine.disk.was_ill() {
                self.recovery.jobs = jobs;
                self.client.book.borrow_mut().model(&self.client.region).see_staging(&staging);
            }
        }
        Ok(())
    }

    /// Makes, changes or removes an event.
    async fn change_calendar(&mut self) -> anyhow::Result<()> {
        let number = self.recovery.changes;
        self.recovery.changes += 1;
        let name = EventName::new(&format!("drill-{}", number % EVENTS))?;
        let from = wall_time(Duration::ZERO).before(AGO);
        let event = CalendarEvent {
            name: name.clone(),
            kind: Default::default(),
            title: format!("number {number}"),
            from,
            until: from.after(Duration::from_secs(60)),
            sources: vec![],
            destinations: vec![],
            service: None,
            transaction_type: None,
            effect: None,
        };
        let event = (number / EVENTS % EVENTS != EVENTS - 1).then_some(event);
        let body = event.as_ref().map(serde_json::to_vec).transpose()?;
        self.client.book.borrow_mut().model(&self.client.region).ask_event(&name, event);
        let status = match body {
            Some(body) => self.client.api.post("/v1/calendar", &body).await?.status,
            None => self.client.api.delete(&format!("/v1/calendar/{name}")).await?.status,
        };
        self.is_same_life()?;
        // Where there is nothing to be removed, it is as it is to be.
        if !matches!(status, 204 | 404) {
            bail!("the calendar answers {status}");
        }
        self.client.book.borrow_mut().model(&self.client.region).acknowledge_event(&name);
        Ok(())
    }
}
