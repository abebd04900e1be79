//! Both sides exhaustively: the real cores of one owner and one holder, every order of everything
//! that can happen.
//!
//! The network is the set of all messages ever sent: any of them may arrive at any time, again and again, or
//! never, so that loss, repetition, reordering and delay need no steps of their own. Both machines may crash
//! after any step, any number of times; a step is atomic, because a shell answers only what is durable, and a crash in
//! between is one before the step, or one after it whose answer is lost. A machine that is down is one that does not look
//! and is not heard until it crashes. Time passes in ticks of one second, without end; at any of them one of the two
//! clocks may stand still, once in the ticks that a promise lives, which is the drift that the holder is told to expect.
//! Neither side looks at its clock unless that step is taken: a pause is a row of ticks without it. At any of its
//! steps the owner's wall clock may be wrong by so much that all windows seem to be over, if by less than the guard.
//!
//! A space is bounded by the number of requests, and by nothing else: `reduce` tells states apart only by what can
//! make a difference, and of those there is an end. Not in it: soft reservations, counted sums of several units, requests of several
//! parts, a second holder that goes on living (an earlier life of the one is another to the owner), windows that end,
//! and more numbers than are kept one by one; `faults` and `naive` have those, not exhaustively.
//!
//! `TRADEWIND_MODEL=deep cargo test --release -p tradewind-protocol --test main model -- --nocapture` looks at the
//! larger spaces, too.

mod faithful;
mod letters;
mod mutants;
mod pair;
mod reduce;
mod sides;

use faithful::Blunder;
use mutants::Mutant;
use pair::{Seen, Space};
use stateright::{Checker, HasDiscoveries, Model};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// One request, and an instance for what is agreed.
fn one_request() -> Space {
    let (mutant, blunder) = (Mutant::None, Blunder::None);
    Space { mutant, ttl: 3, asks: 1, drift: true, jumps: true, placing: true, blunder, seen: Arc::new(Seen::default()) }
}

/// Two of one holder, for room that is enough for one of them.
fn two_requests() -> Space {
    Space { asks: 2, ttl: 2, placing: false, ..one_request() }
}

fn is_deep() -> bool {
    std::env::var("TRADEWIND_MODEL").is_ok_and(|depth| depth == "deep")
}

/// All of it, or as far as a rule is broken.
fn check(space: &Space) -> impl Checker<Space> {
    space.clone().checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "it says how long it took")]
fn no_order_of_events_breaks_a_rule() {
    let more = [
        Space { ttl: 4, ..one_request() },
        Space { ttl: 5, ..one_request() },
        two_requests(),
        Space { ttl: 3, ..two_requests() },
        Space { ttl: 4, jumps: false, ..two_requests() },
    ];
    let more = if is_deep() { &more[..] } else { &[] };
    for space in [one_request()].iter().chain(more) {
        let begin = Instant::now();
        let checker = check(space);
        println!(
            "{space}: {} states, all there are; {} generated, {} steps deep, {:.1?}",
            checker.unique_state_count(),
            checker.state_count(),
            checker.max_depth() - 1,
            begin.elapsed()
        );
        if let Some(path) = checker.discovery("no rule is broken") {
            let rule = path.last_state().broken;
            panic!("{rule:?}: {:#?}", path.into_actions());
        }
        let Seen { granted, lapsed, placed } = &*space.seen;
        assert!(granted.load(Ordering::Relaxed) && lapsed.load(Ordering::Relaxed));
        assert_eq!(placed.load(Ordering::Relaxed), space.placing);
    }
}
