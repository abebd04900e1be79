//! Looking at processes from outside.

use std::path::Path;
use std::process::Command;

/// The processes that carry `text` in their environment or command line, this one excepted.
///
/// Linux only: elsewhere a foreign process' environment cannot be read, and the answer is empty.
pub fn carrying(text: &str) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        eprintln!("NOT CHECKED: without /proc nobody can tell which processes were left behind");
        return vec![];
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let carries = |pid: &u32| {
        let holds = |file: &str| {
            std::fs::read(Path::new("/proc").join(pid.to_string()).join(file))
                .is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
        };
        *pid != std::process::id() && (holds("environ") || holds("cmdline"))
    };
    pids.filter(carries).collect()
}

/// Sends `signal` (`KILL`, `TERM`, `INT`) to the process.
pub fn signal(pid: u32, signal: &str) {
    let sent = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
    assert!(sent.is_ok_and(|status| status.success()), "cannot send {signal} to {pid}");
}
