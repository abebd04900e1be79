//! The staging of one service: what is to be done or undone next, and what is remembered of it. Pure.
//!
//! needed -> steps done in order -> ready -> no longer needed -> kept for a while -> undone in the opposite order. One thing is done at
//! a time; what fails is tried again, ever more slowly. That a step is begun is remembered before it is, so that a later life of the
//! agent undoes what an earlier one began. A step that is configured otherwise than it was done is undone first as it was.

use crate::backoff;
use crate::config::{StageAction, StageConfig, StageStep};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tradewind_protocol::api::{Severity, StageState, StageStepView, StagingState, StagingView};
use tradewind_protocol::{ServiceName, Timestamp};

/// The first pause after a failure; each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// What a mended source costs at most in lateness.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When something happens: on the clock, and since the agent's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) clock: Timestamp,
    pub(crate) uptime: Duration,
}

/// What happens to the staging of a service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Input {
    /// It is foreseen to be needed then.
    Needed(Timestamp),
    /// It is not foreseen to be needed.
    NotNeeded,
    /// The job with this number has ended; `jitter` is drawn evenly from 0 to 1.
    Ended { number: u64, result: Result<(), String>, jitter: f64 },
    /// Time has passed.
    Tick,
}

/// What is to be done about it, in this order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Output {
    /// Make this durable before anything that follows; `None` forgets the service.
    Persist(Option<Record>),
    /// Do or undo a step.
    Run(Job),
    /// End the job that runs; its end is reported all the same.
    Cut(u64),
    /// Tell the operator.
    Tell(Severity, &'static str, String),
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// For which service.
    pub service: ServiceName,
    /// Which step.
    pub step: StageStep,
    /// Whether it is done or undone.
    pub turn: Turn,
    /// Differs from try to try, also across the agent's lives.
    pub number: u64,
}

/// Whether a step is done or undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is done.
    Do,
    /// It is undone.
    Undo,
}

impl Turn {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Turn::Do => "do",
            Turn::Undo => "undo",
        }
    }
}

/// What is remembered of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The number of the last job.
    number: u64,
    /// Whether what was done is being undone.
    withdrawn: bool,
    /// The steps that were begun, in the order in which they were.
    steps: Vec<Kept>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    step: StageStep,
    done: bool,
}

/// How far a step has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Untouched,
    Begun,
    Done,
}

#[derive(Debug)]
struct Step {
    what: StageStep,
    mark: Mark,
}

/// Whether the service is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nobody has told yet in this life: what is there stays as it is.
    Unknown,
    By(Timestamp),
    /// No longer, since then.
    Gone(Duration),
    /// Not for so long that nothing is to be left.
    Withdrawn,
}

#[derive(Debug)]
struct Running {
    number: u64,
    turn: Turn,
    cut: bool,
}

#[derive(Debug)]
pub(crate) struct Track {
    service: ServiceName,
    keep: Duration,
    configured: bool,
    steps: Vec<Step>,
    /// Steps that are no longer configured so: undone before anything else, the last first.
    retired: Vec<Step>,
    need: Need,
    running: Option<Running>,
    number: u64,
    failures: u32,
    pause_until: Duration,
    reason: Option<String>,
    /// Whether the operator was told that it is late.
    late: bool,
}

impl Track {
    /// The staging of `service` as it is configured now, and as an earlier life of the agent has left it.
    pub(crate) fn recall(service: ServiceName, config: Option<&StageConfig>, record: Option<Record>) -> Self {
        let Record { number, withdrawn, steps: kept } = record.unwrap_or_default();
        let fresh = |what: &StageStep| Step { what: what.clone(), mark: Mark::Untouched };
        let mut steps: Vec<Step> = config.map(|config| config.steps.iter().map(fresh).collect()).unwrap_or_default();
        let mut retired = vec![];
        for Kept { step, done } in kept {
            let mark = if done { Mark::Done } else { Mark::Begun };
            match steps.iter_mut().find(|configured| configured.what == step) {
                Some(configured) => configured.mark = mark,
                None => retired.push(Step { what: step, mark }),
            }
        }
        let untouched = steps.iter().all(|step| step.mark == Mark::Untouched);
        let need = if withdrawn || untouched { Need::Withdrawn } else { Need::Unknown };
        Self {
            service,
            keep: config.map_or(Duration::ZERO, |config| config.keep),
            configured: config.is_some(),
            steps,
            retired,
            need,
            running: None,
            number,
            failures: 0,
            pause_until: Duration::ZERO,
            reason: None,
            late: false,
        }
    }

    /// Takes `input` in; what follows from it.
    pub(crate) fn handle(&mut self, input: Input, now: Now) -> Vec<Output> {
        let mut out = vec![];
        match input {
            Input::Needed(by) => self.on_needed(by, &mut out),
            Input::NotNeeded => match self.need {
                Need::Unknown | Need::By(_) => (self.need, self.late) = (Need::Gone(now.uptime), false),
                Need::Gone(_) | Need::Withdrawn => {}
            },
            Input::Ended { number, result, jitter } => self.on_ended(number, result, jitter, now, &mut out),
            Input::Tick => {}
        }
        self.withdraw(now, &mut out);
        self.tell_if_late(now, &mut out);
        self.next(now, &mut out);
        out
    }

    /// When [`Input::Tick`] is due.
    pub(crate) fn next_deadline(&self, now: Now) -> Option<Duration> {
        let kept = match self.need {
            Need::Gone(since) => Some(since.saturating_add(self.keep)),
            Need::By(by) if !self.late && !self.is_ready() => Some(now.uptime.saturating_add(by.since(now.clock))),
            Need::Unknown | Need::By(_) | Need::Withdrawn => None,
        };
        let pause = (self.running.is_none() && now.uptime < self.pause_until).then_some(self.pause_until);
        kept.into_iter().chain(pause).min()
    }

    /// Whether there is nothing left to look after.
    pub(crate) fn is_over(&self) -> bool {
        !self.configured && self.retired.is_empty() && self.running.is_none()
    }

    /// As the API shows it, without the bytes of what runs.
    pub(crate) fn view(&self) -> StagingView {
        let (undoing, needed_by) = match self.need {
            Need::By(by) => (false, Some(by)),
            Need::Unknown | Need::Gone(_) => (false, None),
            Need::Withdrawn => (true, None),
        };
        let touched = self.steps.iter().any(|step| step.mark != Mark::Untouched);
        let state = if needed_by.is_some() {
            if self.is_ready() { StagingState::Ready } else { StagingState::Staging }
        } else if !self.retired.is_empty() || (undoing && touched) {
            StagingState::Undoing
        } else if touched {
            StagingState::Waning
        } else {
            StagingState::Idle
        };
        let target = self.target();
        let shown = |(at, step): (At, &Step)| {
            let running = self.running.as_ref().filter(|_| target.is_some_and(|(next, _)| next == at));
            let state = match (running.map(|running| running.turn), step.mark) {
                (Some(Turn::Do), _) => StageState::Running,
                (Some(Turn::Undo), _) => StageState::Undoing,
                (None, Mark::Untouched) => StageState::Pending,
                (None, Mark::Begun) => StageState::Begun,
                (None, Mark::Done) => StageState::Done,
            };
            let kind = step.what.action.kind().to_string();
            StageStepView { name: step.what.name.clone(), kind, state, bytes: None, total_bytes: None }
        };
        let steps = self.steps.iter().enumerate().map(|(at, step)| (At::Configured(at), step));
        let retired = self.retired.iter().enumerate().map(|(at, step)| (At::Retired(at), step));
        StagingView {
            service: self.service.clone(),
            state,
            needed_by,
            late: self.late,
            failures: self.failures,
            reason: self.reason.clone(),
            steps: steps.chain(retired).map(shown).collect(),
        }
    }

    fn is_ready(&self) -> bool {
        self.retired.is_empty() && self.steps.iter().all(|step| step.mark == Mark::Done)
    }

    fn on_needed(&mut self, by: Timestamp, out: &mut Vec<Output>) {
        if self.need == Need::Withdrawn {
            let words = format!("{} is foreseen to be needed by {by}: {} steps", self.service, self.steps.len());
            out.push(Output::Tell(Severity::Info, "staging.needed", words));
            self.turn_round();
        }
        self.need = Need::By(by);
    }

    /// What failed in the one direction says nothing of the other.
    fn turn_round(&mut self) {
        self.failures = 0;
        self.pause_until = Duration::ZERO;
        self.reason = None;
    }

    fn on_ended(&mut self, number: u64, result: Result<(), String>, jitter: f64, now: Now, out: &mut Vec<Output>) {
        let Some(running) = self.running.take_if(|running| running.number == number) else { return };
        let Some((at, _)) = self.target_of(running.turn) else { return };
        match result {
            Ok(()) => {
                self.turn_round();
                self.mark(at, running.turn);
                out.push(Output::Persist(self.record()));
                let untouched = self.steps.iter().all(|step| step.mark == Mark::Untouched);
                if self.is_ready() && matches!((running.turn, self.need), (Turn::Do, Need::By(_))) {
                    out.push(Output::Tell(Severity::Info, "staging.ready", format!("everything for {} is staged", self.service)));
                }
                if running.turn == Turn::Undo && self.need == Need::Withdrawn && self.retired.is_empty() && untouched {
                    out.push(Output::Tell(Severity::Info, "staging.undone", format!("nothing for {} is staged any more", self.service)));
                }
            }
            // It did not fail: it was ended.
            Err(_) if running.cut => {}
            Err(reason) => {
                self.failures = self.failures.saturating_add(1);
                let pause = backoff::jittered(backoff::pause(self.failures, FIRST_PAUSE, LONGEST_PAUSE), jitter);
                self.pause_until = now.uptime.saturating_add(pause);
                let name = &self.step(at).what.name;
                let words = format!("{}: cannot {} step {name}: {reason}", self.service, running.turn.word());
                out.push(Output::Tell(Severity::Warning, "staging.failed", words.clone()));
                self.reason = Some(words);
            }
        }
    }

    /// Gives up what has not been needed for long enough.
    fn withdraw(&mut self, now: Now, out: &mut Vec<Output>) {
        if let Need::Gone(since) = self.need
            && now.uptime >= since.saturating_add(self.keep)
        {
            self.need = Need::Withdrawn;
            self.turn_round();
            if self.steps.iter().any(|step| step.mark != Mark::Untouched) {
                let words = format!("{} is not foreseen to be needed any more: what was staged for it is undone", self.service);
                out.push(Output::Tell(Severity::Info, "staging.withdrawn", words));
            }
        }
        let doing = self.target_of(Turn::Do).map(|(at, _)| at);
        if self.need == Need::Withdrawn
            && let Some(at) = doing
            && may_be_cut(&self.step(at).what.action)
            && let Some(running) = self.running.as_mut().filter(|running| running.turn == Turn::Do && !running.cut)
        {
            running.cut = true;
            out.push(Output::Cut(running.number));
        }
    }

    fn tell_if_late(&mut self, now: Now, out: &mut Vec<Output>) {
        let Need::By(by) = self.need else { return };
        let late = by <= now.clock && !self.is_ready();
        if late && !self.late {
            let missing = self.steps.iter().filter(|step| step.mark != Mark::Done).count();
            let words = format!("{} is needed now, and {missing} steps are not done", self.service);
            out.push(Output::Tell(Severity::Warning, "staging.late", words));
        }
        self.late = late;
    }

    fn next(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.running.is_some() || now.uptime < self.pause_until {
            return;
        }
        let Some((at, turn)) = self.target() else { return };
        if let (At::Configured(at), Turn::Do) = (at, turn) {
            self.steps[at].mark = Mark::Begun;
        }
        self.number += 1;
        self.running = Some(Running { number: self.number, turn, cut: false });
        let job = Job { service: self.service.clone(), step: self.step(at).what.clone(), turn, number: self.number };
        out.push(Output::Persist(self.record()));
        out.push(Output::Run(job));
    }

    /// What is to be done next, or is being done.
    fn target(&self) -> Option<(At, Turn)> {
        if let Some(running) = &self.running {
            return self.target_of(running.turn);
        }
        match self.need {
            _ if !self.retired.is_empty() => self.target_of(Turn::Undo),
            Need::By(_) => self.target_of(Turn::Do),
            Need::Unknown | Need::Gone(_) => None,
            Need::Withdrawn => self.target_of(Turn::Undo),
        }
    }

    /// The first step that is not done, or the last one that can be undone.
    fn target_of(&self, turn: Turn) -> Option<(At, Turn)> {
        let at = match turn {
            Turn::Do => self.steps.iter().position(|step| step.mark != Mark::Done).map(At::Configured),
            Turn::Undo => match self.retired.len() {
                0 => self.steps.iter().rposition(|step| step.mark != Mark::Untouched).map(At::Configured),
                many => Some(At::Retired(many - 1)),
            },
        };
        at.map(|at| (at, turn))
    }

    fn step(&self, at: At) -> &Step {
        match at {
            At::Configured(at) => &self.steps[at],
            At::Retired(at) => &self.retired[at],
        }
    }

    fn mark(&mut self, at: At, turn: Turn) {
        match at {
            At::Configured(at) => {
                self.steps[at].mark = match turn {
                    Turn::Do => Mark::Done,
                    Turn::Undo => Mark::Untouched,
                };
            }
            At::Retired(at) => drop(self.retired.remove(at)),
        }
    }

    fn record(&self) -> Option<Record> {
        let kept = |step: &Step| Kept { step: step.what.clone(), done: step.mark == Mark::Done };
        let touched = self.retired.iter().chain(&self.steps).filter(|step| step.mark != Mark::Untouched);
        let steps: Vec<Kept> = touched.map(kept).collect();
        let record = Record { number: self.number, withdrawn: self.need == Need::Withdrawn, steps };
        (self.configured || !record.steps.is_empty()).then_some(record)
    }
}

/// Where a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Configured(usize),
    Retired(usize),
}

/// Whether a step can be ended half-way: what a hook has begun only the hook can finish.
fn may_be_cut(action: &StageAction) -> bool {
    match action {
        StageAction::Preload(_) | StageAction::Connect(_) | StageAction::Storage(_) => true,
        StageAction::Hook(_) | StageAction::Webhook(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{StageHookConfig, StorageConfig};
    use tradewind_protocol::StageName;

    const KEEP: u64 = 60;

    fn hook(name: &str) -> StageStep {
        let hook = StageHookConfig { run: vec![name.into()], undo: None, directory: None, env: vec![], timeout: Duration::from_secs(1) };
        StageStep { name: StageName::new(name).unwrap(), action: StageAction::Hook(hook) }
    }

    fn storage(name: &str) -> StageStep {
        let storage = StorageConfig { file: name.into(), bytes: 1 };
        StageStep { name: StageName::new(name).unwrap(), action: StageAction::Storage(storage) }
    }

    fn at(seconds: u64) -> Now {
        let uptime = Duration::from_secs(seconds);
        Now { clock: Timestamp::EPOCH.after(uptime), uptime }
    }

    /// A track, and what was asked of the world so far.
    struct Story {
        track: Track,
        config: StageConfig,
        kept: Option<Record>,
        running: Option<Job>,
        log: Vec<String>,
    }

    impl Story {
        fn of(steps: Vec<StageStep>) -> Self {
            let config = StageConfig { lead: Duration::ZERO, keep: Duration::from_secs(KEEP), from: 1.0, steps };
            let track = Track::recall(ServiceName::default(), Some(&config), None);
            Self { track, config, kept: None, running: None, log: vec![] }
        }

        fn restart(&mut self, steps: Vec<StageStep>) {
            self.config.steps = steps;
            self.running = None;
            self.track = Track::recall(ServiceName::default(), Some(&self.config), self.kept.clone());
        }

        fn take(&mut self, input: Input, now: u64) {
            for output in self.track.handle(input, at(now)) {
                match output {
                    Output::Persist(record) => self.kept = record,
                    Output::Run(job) => {
                        assert!(self.running.is_none(), "one thing at a time");
                        let kept = self.kept.as_ref().expect("durable before it is begun");
                        assert!(kept.steps.iter().any(|kept| kept.step == job.step) && kept.number == job.number);
                        self.log.push(format!("{} {}", job.turn.word(), job.step.name));
                        self.running = Some(job);
                    }
                    Output::Cut(number) => {
                        assert_eq!(self.running.as_ref().map(|job| job.number), Some(number));
                        self.log.push("cut".into());
                    }
                    Output::Tell(_, kind, _) => self.log.push(kind.into()),
                }
            }
        }

        fn end(&mut self, result: Result<(), &str>, now: u64) {
            let number = self.running.take().expect("a job runs").number;
            self.take(Input::Ended { number, result: result.map_err(String::from), jitter: 0.0 }, now);
        }

        fn said(&mut self) -> Vec<String> {
            std::mem::take(&mut self.log)
        }
    }

    #[test]
    fn steps_are_done_in_order_kept_for_a_while_and_undone_in_the_opposite_order() {
        let mut story = Story::of(vec![hook("a"), hook("b")]);
        story.take(Input::Needed(at(100).clock), 1);
        story.end(Ok(()), 2);
        story.end(Ok(()), 3);
        assert_eq!(story.said(), ["staging.needed", "do a", "do b", "staging.ready"]);
        story.take(Input::NotNeeded, 10);
        assert_eq!(story.track.next_deadline(at(10)), Some(Duration::from_secs(10 + KEEP)));
        story.take(Input::Needed(at(200).clock), 20);
        story.take(Input::NotNeeded, 30);
        story.take(Input::Tick, 30 + KEEP - 1);
        assert_eq!(story.said(), [""; 0], "a need that comes back in time changes nothing");
        story.take(Input::Tick, 30 + KEEP);
        story.end(Ok(()), 100);
        story.end(Ok(()), 101);
        assert_eq!(story.said(), ["staging.withdrawn", "undo b", "undo a", "staging.undone"]);
        assert_eq!(story.track.view().state, StagingState::Idle);
    }

    #[test]
    fn failures_are_tried_again_ever_more_slowly_and_lateness_is_told_once() {
        let mut story = Story::of(vec![hook("a")]);
        story.take(Input::Needed(at(4).clock), 0);
        story.end(Err("no"), 0);
        assert_eq!(story.track.next_deadline(at(0)), Some(Duration::from_secs(1)));
        story.take(Input::Tick, 1);
        story.end(Err("no"), 1);
        story.take(Input::Tick, 2);
        assert_eq!(story.track.next_deadline(at(2)), Some(Duration::from_secs(3)));
        assert!(story.track.view().reason.is_some_and(|reason| reason.contains("cannot do step a: no")));
        story.take(Input::Tick, 4);
        story.take(Input::Tick, 5);
        assert!(story.track.view().late);
        story.end(Ok(()), 6);
        assert!(!story.track.view().late);
        let told = ["staging.needed", "do a", "staging.failed", "do a", "staging.failed", "staging.late", "do a", "staging.ready"];
        assert_eq!(story.said(), told);
    }

    #[test]
    fn what_is_withdrawn_half_way_is_cut_unless_it_is_a_hook_and_then_undone() {
        let mut story = Story::of(vec![storage("a"), hook("b")]);
        story.take(Input::Needed(at(9).clock), 0);
        story.take(Input::NotNeeded, 1);
        story.take(Input::Tick, 1 + KEEP);
        story.end(Err("ended"), 70);
        assert_eq!(story.said(), ["staging.needed", "do a", "staging.withdrawn", "cut", "undo a"]);
        // Needed again while it is undone: that is finished first.
        story.take(Input::Needed(at(90).clock), 71);
        story.end(Ok(()), 72);
        story.end(Ok(()), 73);
        assert_eq!(story.said(), ["staging.needed", "do a", "do b"]);
        story.take(Input::NotNeeded, 74);
        story.take(Input::Tick, 74 + KEEP);
        assert_eq!(story.said(), ["staging.withdrawn"], "a hook is left to finish");
        story.end(Ok(()), 140);
        assert_eq!(story.said(), ["undo b"]);
    }

    #[test]
    fn a_later_life_goes_on_and_undoes_what_is_not_needed_or_no_longer_configured() {
        let mut story = Story::of(vec![hook("a"), hook("b"), hook("c")]);
        story.take(Input::Needed(at(9).clock), 0);
        story.end(Ok(()), 1);
        story.said();
        // Killed in the middle of b: the next life begins it again, under another number.
        let number = story.running.as_ref().unwrap().number;
        story.restart(vec![hook("a"), hook("b"), hook("c")]);
        story.take(Input::Tick, 10 * KEEP);
        assert_eq!(story.said(), [""; 0], "before the first plan nothing is known to be needed");
        story.take(Input::Needed(at(9).clock), 2);
        assert!(story.running.as_ref().is_some_and(|job| job.number > number));
        story.end(Ok(()), 3);
        assert_eq!(story.said(), ["do b", "do c"]);
        // Now b is gone from the file: it is undone, whatever is needed; c, which was begun, goes on.
        story.restart(vec![hook("a"), hook("c")]);
        story.take(Input::Needed(at(9).clock), 1);
        story.end(Ok(()), 2);
        story.end(Ok(()), 3);
        assert_eq!(story.said(), ["undo b", "do c", "staging.ready"]);
        // And never needed again: undone once it has been kept for long enough.
        story.restart(vec![hook("a"), hook("c")]);
        story.take(Input::NotNeeded, 0);
        story.take(Input::Tick, KEEP);
        story.restart(vec![hook("a"), hook("c")]);
        story.take(Input::Tick, 0);
        story.end(Ok(()), 1);
        story.end(Ok(()), 2);
        assert_eq!(story.said(), ["staging.withdrawn", "undo c", "undo c", "undo a", "staging.undone"]);
    }
}
