//! States that one agent of the simulation has opened, for the others.
//!
//! What a region publishes is opened by every other agent: the same bytes, and by a pure function, so the same state. Here the first
//! one's is remembered, and the others are given copies of their own, so that each agent holds what it would hold by itself.

use crate::memory;
use std::cell::RefCell;
use std::collections::VecDeque;
use tradewind_agent::env;
use tradewind_protocol::RegionState;

/// States that are remembered. Each is opened by all within one of the longest trips, so two a region of a large mesh are enough.
const MAX_REMEMBERED: usize = 64;

thread_local! {
    /// By the hash of their bytes, the oldest first, of this thread's simulation.
    static STATES: RefCell<VecDeque<([u8; 32], RegionState)>> = const { RefCell::new(VecDeque::new()) };
}

/// The memory of this thread's simulation.
pub(crate) struct Opened;

impl env::Opened for Opened {
    fn get(&self, hash: &[u8; 32]) -> Option<RegionState> {
        STATES.with_borrow(|states| states.iter().rev().find(|(known, _)| known == hash).map(|(_, state)| state.clone()))
    }

    fn keep(&self, hash: &[u8; 32], state: &RegionState) {
        let _unowned = memory::unowned();
        STATES.with_borrow_mut(|states| {
            if states.len() >= MAX_REMEMBERED {
                states.pop_front();
            }
            states.push_back((*hash, state.clone()));
        });
    }
}
