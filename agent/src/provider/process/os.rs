//! Processes of this machine, told apart beyond doubt.
//!
//! A pid is used again after its process has ended, so no pid is ever trusted alone: an
//! [`Identity`] adds the boot and the start time, and whoever signals checks it first.
//!
//! On Linux, start times come from `/proc` in clock ticks, exits are noticed through a pidfd, and
//! what bears our mark is found through `/proc/<pid>/environ`. Elsewhere (macOS) start times come
//! from `ps` in seconds, exits are polled, and nothing is found by its mark: there, a worker whose
//! agent was killed between starting it and noting its pid is only known again when it says hello,
//! and otherwise ends by its orphan timeout.

use super::control::{ENV_CONTROL, ENV_INSTANCE};
use rustix::process::{Pid, Signal, WaitOptions};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;
use tradewind_protocol::InstanceId;

/// One process and no other: `started` is unique among all processes that had the pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) pid: u32,
    pub(super) started: String,
}

/// Whether a process still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    /// It has ended and waits to be reaped; its pid is not free yet.
    Zombie,
}

/// A process that we started or found.
#[derive(Debug)]
pub(super) struct Process {
    identity: Identity,
    #[cfg(target_os = "linux")]
    pidfd: Option<tokio::io::unix::AsyncFd<rustix::fd::OwnedFd>>,
}

/// How often an exit is looked for where the system does not announce it.
const EXIT_POLL: Duration = Duration::from_millis(200);

impl Process {
    /// The process with `identity`, unless it is gone. Needs a tokio runtime.
    pub(super) fn attach(identity: Identity) -> Option<Self> {
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{PidfdFlags, pidfd_open};
            // Opened before the check below: what passes it is what the descriptor stands for.
            let pidfd = pidfd_open(pid(identity.pid)?, PidfdFlags::NONBLOCK).ok();
            #[expect(deprecated, reason = "its successor is unsafe for types whose descriptor may change; an OwnedFd's does not")]
            let pidfd = pidfd.and_then(|fd| tokio::io::unix::AsyncFd::with_interest(fd, tokio::io::Interest::READABLE).ok());
            (look(identity.pid)?.0 == identity).then_some(Self { identity, pidfd })
        }
        #[cfg(not(target_os = "linux"))]
        (look(identity.pid)?.0 == identity).then_some(Self { identity })
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity.clone()
    }

    pub(super) fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// Completes when the process has ended.
    pub(super) async fn exited(&self) {
        #[cfg(target_os = "linux")]
        if let Some(pidfd) = &self.pidfd
            && pidfd.readable().await.is_ok()
        {
            return;
        }
        while self.life() == Some(Life::Running) {
            tokio::time::sleep(EXIT_POLL).await;
        }
    }

    fn life(&self) -> Option<Life> {
        look(self.identity.pid).filter(|(identity, _)| *identity == self.identity).map(|(_, life)| life)
    }

    /// Asks the process to drain. Nothing happens if it has ended.
    pub(super) fn terminate(&self) {
        if let (Some(Life::Running), Some(pid)) = (self.life(), pid(self.identity.pid)) {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
    }

    /// Ends the process and its whole group. A zombie's group can still be ended: until it is
    /// reaped, nobody else can have its id.
    pub(super) fn kill_group(&self) {
        if let (Some(_), Some(pid)) = (self.life(), pid(self.identity.pid)) {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }

    /// Lets the system forget the process after it ended. How it ended, if we started it.
    pub(super) fn reap(&self) -> Option<String> {
        let (_, status) = rustix::process::waitpid(Some(pid(self.identity.pid)?), WaitOptions::NOHANG).ok()??;
        Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "unknown status".into(),
        })
    }
}

fn pid(raw: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(raw).ok()?)
}

/// Ends the process group that `leader` leads, or `leader` alone when it leads none. Only for a
/// process that was just found by its mark.
pub(super) fn kill_marked(leader: u32) {
    let Some(pid) = pid(leader) else { return };
    match rustix::process::getpgid(Some(pid)) {
        Ok(group) if group == pid => drop(rustix::process::kill_process_group(pid, Signal::KILL)),
        Ok(_) | Err(_) => drop(rustix::process::kill_process(pid, Signal::KILL)),
    }
}

/// Whether process `raw` leads its process group, as every worker does.
pub(super) fn leads_group(raw: u32) -> bool {
    pid(raw).is_some_and(|pid| rustix::process::getpgid(Some(pid)) == Ok(pid))
}

/// The process that has `pid` now.
#[cfg(target_os = "linux")]
pub(super) fn look(pid: u32) -> Option<(Identity, Life)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let (ticks, life) = parse_stat(&stat)?;
    Some((Identity { pid, started: format!("{}/{ticks}", boot.trim()) }, life))
}

/// Start time in clock ticks since boot, and whether the process runs (proc_pid_stat(5), fields 22
/// and 3; the second field is a name in parentheses that may itself hold anything).
#[cfg(target_os = "linux")]
fn parse_stat(stat: &str) -> Option<(u64, Life)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let life = match fields.next()? {
        "Z" | "X" | "x" => Life::Zombie,
        _ => Life::Running,
    };
    Some((fields.nth(18)?.parse().ok()?, life))
}

/// The process that has `pid` now.
#[cfg(not(target_os = "linux"))]
pub(super) fn look(pid: u32) -> Option<(Identity, Life)> {
    let out = std::process::Command::new("ps").args(["-o", "stat=,lstart=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    let (stat, started) = text.trim().split_once(char::is_whitespace)?;
    let life = if stat.starts_with('Z') { Life::Zombie } else { Life::Running };
    Some((Identity { pid, started: started.trim().into() }, life))
}

/// A running process that bears our mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marked {
    pub(super) pid: u32,
    /// Path of the control socket it was given.
    pub(super) control: String,
    pub(super) instance: InstanceId,
}

/// The longest environment that is read: twice what Linux gives a program by default.
#[cfg(target_os = "linux")]
const MAX_ENVIRON_BYTES: u64 = 256 << 10;

/// All running processes whose control socket lies under `dir`, ascending by pid.
#[cfg(target_os = "linux")]
pub(super) fn marked_under(dir: &Path) -> Vec<Marked> {
    use std::io::Read;
    let mut found = vec![];
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let mut environ = vec![];
        let read = std::fs::File::open(entry.path().join("environ")).and_then(|f| f.take(MAX_ENVIRON_BYTES).read_to_end(&mut environ));
        if read.is_err() || pid == std::process::id() {
            continue;
        }
        let variable = |name: &str| {
            let value = environ.split(|b| *b == 0).find_map(|var| var.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
            value.and_then(|value| std::str::from_utf8(value).ok())
        };
        if let (Some(control), Some(id)) = (variable(ENV_CONTROL), variable(ENV_INSTANCE))
            && Path::new(control).starts_with(dir)
            && let Ok(instance) = InstanceId::new(id)
        {
            found.push(Marked { pid, control: control.into(), instance });
        }
    }
    found.sort_by_key(|marked| marked.pid);
    found
}

/// Other systems do not let us read another process's environment: nothing is found.
#[cfg(not(target_os = "linux"))]
pub(super) fn marked_under(_dir: &Path) -> Vec<Marked> {
    let _ = (ENV_CONTROL, ENV_INSTANCE);
    vec![]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself_and_no_other() {
        let (me, life) = look(std::process::id()).unwrap();
        assert_eq!((look(me.pid).unwrap().0, life), (me.clone(), Life::Running));
        assert_ne!(look(1).unwrap().0.started, me.started);
        assert_eq!(look(u32::MAX), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_program_cannot_hide_its_start_time_behind_its_name() {
        let fields = (4..=21).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let stat = format!("7 (a) Z 1 2 (b)) S {fields} 4711 23");
        assert_eq!(parse_stat(&stat), Some((4711, Life::Running)));
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[tokio::test]
    async fn an_identity_that_does_not_match_is_not_attached_to() {
        let (me, _) = look(std::process::id()).unwrap();
        assert!(Process::attach(me.clone()).is_some());
        assert!(Process::attach(Identity { started: "another boot/1".into(), ..me }).is_none());
    }
}
