//! One seed is one run: two processes, compared line by line, every packet and every trace event.

use std::path::Path;
use tradewind_sim::meta::compare;

fn two_processes_agree(seed: u64) {
    let compared = compare(Path::new(env!("CARGO_BIN_EXE_tradewind-sim")), "smoke", seed).unwrap();
    assert_eq!(compared.difference, None, "after {} equal lines", compared.equal_lines);
    assert!(compared.equal_lines > 10_000, "the agents run, and are traced: {} lines", compared.equal_lines);
}

#[test]
fn the_first_seed_gives_the_same_run_in_another_process() {
    two_processes_agree(1);
}

#[test]
fn the_second_seed_gives_the_same_run_in_another_process() {
    two_processes_agree(2);
}
