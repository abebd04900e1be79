//! Every bug that chaos has found stays found: the runs that showed them, made small, break nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use tradewind_sim::case::Case;

/// All cases, in order.
pub(crate) fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("bugbase");
    let mut cases: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    cases.sort();
    cases
}

#[test]
fn no_bug_of_the_bugbase_is_back() {
    for path in &cases() {
        Case::read(path).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tradewind-sim")).arg("replay").arg(path).output().unwrap();
        assert!(output.status.success(), "{}:\n{}", path.display(), String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn a_sweep_ends_with_its_summary() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tradewind-sim"));
    let output = command.args(["sweep", "power", "--seeds", "2", "--seed-base", "7"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap();
    assert!(output.status.success() && last.starts_with("power: 2 seeds from 7, 0 failed"), "{text}");
}
