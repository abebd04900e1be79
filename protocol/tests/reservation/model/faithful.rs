//! Whether what [`reduce`] leaves out makes no difference. Whole states, of which nothing was ever left out, are met
//! on ways short and long, some for each state of the complete space; what can follow a whole one has to be
//! what the space knows to follow its state, no more and no less. If that held for all whole states, no order of events
//! could lead to anything that the space does not have.
//!
//! As a check of the check, each of some blunders, which leave out what matters, has to be noticed.

use super::pair::{Space, State, Step};
use super::reduce;
use super::{one_request, two_requests};
use crate::reservation::naive::Chance;
use stateright::Model;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::rc::Rc;

/// What [`reduce`] leaves out wrongly on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blunder {
    None,
    /// When a clock last stood still.
    Slips,
    /// What the owner has heard.
    Heard,
    /// How long a promise still stands at the owner.
    Remaining,
    /// Confirmations that are not the newest request.
    OldConfirmations,
    /// Refusals of what is confirmed.
    Refusals,
    /// Requests about what has ended.
    AboutEnded,
    /// Answers to requests that are not the newest.
    OldAnswers,
}

/// Which keys can come next, but for its own.
fn mark(key: u64, followers: impl Iterator<Item = u64>) -> u64 {
    let keys: BTreeSet<u64> = followers.filter(|next| *next != key).collect();
    let mut hasher = DefaultHasher::new();
    keys.hash(&mut hasher);
    hasher.finish()
}

fn steps(space: &Space, state: &State) -> Vec<Step> {
    let mut steps = vec![];
    space.actions(state, &mut steps);
    steps
}

fn settled(space: &Space, mut state: State) -> State {
    reduce::settle(space, &mut state);
    state
}

/// What can follow each state of the complete space.
fn everything(space: &Space) -> BTreeMap<u64, u64> {
    let mut waiting: VecDeque<State> = space.init_states().into();
    let mut found: BTreeSet<u64> = waiting.iter().map(|state| state.key).collect();
    let mut known = BTreeMap::new();
    while let Some(state) = waiting.pop_front() {
        let next: Vec<State> = steps(space, &state).into_iter().map(|step| settled(space, space.follow(&state, step))).collect();
        known.insert(state.key, mark(state.key, next.iter().map(|next| next.key)));
        waiting.extend(next.into_iter().filter(|next| found.insert(next.key)));
    }
    known
}

/// A state of which nothing was left out, its key, and how it came about.
struct Whole {
    state: State,
    key: u64,
    way: Option<Rc<Way>>,
}

struct Way {
    step: Step,
    before: Option<Rc<Way>>,
}

fn way(mut last: &Option<Rc<Way>>) -> Vec<Step> {
    let mut steps = vec![];
    while let Some(way) = last {
        steps.insert(0, way.step.clone());
        last = &way.before;
    }
    steps
}

/// Compares so many whole states for each of the complete space, as far as there are. The length of the longest way to
/// one; or the way to one of which the space knows too little.
fn compare(space: &Space, known: &BTreeMap<u64, u64>, each: usize) -> Result<usize, Vec<Step>> {
    let mut chance = Chance(1);
    let mut met: BTreeMap<u64, usize> = BTreeMap::new();
    let mut waiting: Vec<Whole> = vec![];
    waiting.extend(space.init_states().into_iter().map(|state| Whole { key: state.key, state, way: None }));
    let mut longest = 0;
    while !waiting.is_empty() {
        // Long ways as well as short ones.
        let place = if chance.one_in(2) { waiting.len() - 1 } else { chance.below(waiting.len() as u64) as usize };
        let Whole { state, key, way: before } = waiting.swap_remove(place);
        let mut next = vec![];
        for step in steps(space, &state) {
            let state = space.follow(&state, step.clone());
            next.push(Whole { key: settled(space, state.clone()).key, state, way: Some(Rc::new(Way { step, before: before.clone() })) });
        }
        let way = way(&before);
        if known.get(&key) != Some(&mark(key, next.iter().map(|next| next.key))) {
            return Err(way);
        }
        longest = longest.max(way.len());
        waiting.extend(next.into_iter().filter(|next| {
            let met = met.entry(next.key).or_default();
            *met += 1;
            *met <= each
        }));
    }
    assert_eq!(met.len(), known.len(), "some states are only met where something was left out");
    Ok(longest)
}

#[test]
fn what_is_left_out_makes_no_difference() {
    let spaces = if super::is_deep() {
        vec![(Space { ttl: 4, ..one_request() }, 5), (two_requests(), 1)]
    } else {
        vec![(Space { ttl: 2, ..one_request() }, 2)]
    };
    for (space, each) in spaces {
        let known = everything(&space);
        match compare(&space, &known, each) {
            Ok(longest) => println!("{space}: {} states, and {each} whole ones for each, up to {longest} steps away", known.len()),
            Err(way) => panic!("{space}: what follows {way:#?} depends on what was left out"),
        }
    }
}

#[test]
fn what_is_left_out_wrongly_is_noticed() {
    use Blunder::*;
    for blunder in [Slips, Heard, Remaining, OldConfirmations, Refusals, AboutEnded, OldAnswers] {
        // Where a promise lives two ticks, an answer can be counted from for one only, which hides two of them.
        let ttl = if matches!(blunder, Heard | OldConfirmations) { 3 } else { 2 };
        let space = Space { blunder, ttl, placing: false, ..one_request() };
        let known = everything(&space);
        let Err(way) = compare(&space, &known, 20) else { panic!("{blunder:?} is not noticed in {} states", known.len()) };
        println!("{blunder:?}: noticed after {} steps; {} states of {space}", way.len(), known.len());
    }
}
