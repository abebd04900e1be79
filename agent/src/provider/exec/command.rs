//! One command, run within bounds: of time, of output, and of what it may leave behind.
//!
//! The command leads a process group of its own. When its time is over the group is told to end, and ended when it does not;
//! when the agent stops waiting for it, the group is told to end, so that a tool can still save its state.

use rustix::process::{Pid, Signal, kill_process_group};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// The most that a command may say on its standard output.
const MAX_OUTPUT_BYTES: usize = 8 << 20;

/// How much of standard error a failure repeats: the end of it.
const SHOWN_ERROR_BYTES: usize = 1_000;

/// How long a command may take to end once it is told to.
const GRACE: Duration = Duration::from_secs(5);

/// What every command shares.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds<'a> {
    pub(crate) directory: Option<&'a Path>,
    pub(crate) env: &'a [(String, String)],
    pub(crate) timeout: Duration,
}

/// A process group that does not outlive whoever waits for it.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // It may be gone already.
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
    }
}

/// Runs `command` with `input` on its standard input; what it wrote to its standard output.
pub(crate) async fn run(command: &[String], input: &[u8], bounds: Bounds<'_>) -> Result<Vec<u8>, String> {
    let [program, arguments @ ..] = command else { return Err("there is no command".into()) };
    let mut child = Command::new(program);
    child.args(arguments).envs(bounds.env.iter().map(|(name, value)| (name, value))).process_group(0);
    child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(directory) = bounds.directory {
        child.current_dir(directory);
    }
    let mut child = child.spawn().map_err(|error| format!("{program:?} cannot be run: {error}"))?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let talk = async {
        let write = async {
            if let Some(mut stdin) = stdin {
                // A command need not read its input.
                let _ = stdin.write_all(input).await;
            }
        };
        let ((), output, error) = tokio::join!(write, most(stdout), end(stderr));
        (output, error, child.wait().await)
    };
    let outcome = tokio::time::timeout(bounds.timeout, talk).await;
    let (output, error, status) = match outcome {
        Ok(outcome) => outcome,
        Err(_) => {
            group.signal(Signal::TERM);
            let _ = tokio::time::timeout(GRACE, child.wait()).await;
            // Also what the command has started and left behind.
            group.signal(Signal::KILL);
            let _ = child.wait().await;
            group.0 = None;
            return Err(format!("{program:?} has not ended within {:?}, and was ended", bounds.timeout));
        }
    };
    let status = status.map_err(|error| format!("{program:?}: {error}"))?;
    // It has ended; what it left running in its group would go on unseen.
    group.signal(Signal::KILL);
    group.0 = None;
    if !status.success() {
        return Err(format!("{program:?} failed ({status}): {}", error.trim()));
    }
    output.ok_or_else(|| format!("{program:?} wrote more than {MAX_OUTPUT_BYTES} bytes"))
}

/// All of it, or `None` if it is too much; it is read to its end either way.
async fn most(from: Option<impl AsyncRead + Unpin>) -> Option<Vec<u8>> {
    let mut from = from?;
    let mut all = vec![];
    let _ = (&mut from).take(MAX_OUTPUT_BYTES as u64 + 1).read_to_end(&mut all).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    (all.len() <= MAX_OUTPUT_BYTES).then_some(all)
}

/// The end of it.
async fn end(from: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut from) = from else { return String::new() };
    let (mut kept, mut buffer) = (vec![], [0; 4096]);
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..read]);
        kept.drain(..kept.len().saturating_sub(SHOWN_ERROR_BYTES));
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(String::from).into()
    }

    fn bounds(timeout: Duration) -> Bounds<'static> {
        Bounds { directory: None, env: &[], timeout }
    }

    #[tokio::test]
    async fn input_goes_in_output_comes_back_and_failures_say_why() {
        let long = Duration::from_secs(60);
        assert_eq!(run(&shell("cat; echo done"), b"plan ", bounds(long)).await.unwrap(), b"plan done\n");
        let failed = run(&shell("echo no quota left >&2; exit 3"), b"", bounds(long)).await.unwrap_err();
        assert!(failed.contains("exit status: 3") && failed.contains("no quota left"), "{failed}");
        let missing = run(&["/no/such/tool".to_string()], b"", bounds(long)).await.unwrap_err();
        assert!(missing.contains("/no/such/tool"), "{missing}");
        let endless = run(&shell("head -c 9000000 /dev/zero"), b"", bounds(long)).await.unwrap_err();
        assert!(endless.contains("8388608"), "{endless}");
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_ended_with_all_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("sleep 1000 & echo $! > {0}/child; exec sleep 1000", dir.path().display());
        let late = run(&shell(&script), b"", bounds(Duration::from_millis(300))).await.unwrap_err();
        assert!(late.contains("was ended"), "{late}");
        let child: i32 = std::fs::read_to_string(dir.path().join("child")).unwrap().trim().parse().unwrap();
        let gone = || match std::fs::read_to_string(format!("/proc/{child}/stat")) {
            Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
            Err(_) => true,
        };
        while !gone() {
            tokio::task::yield_now().await;
        }
    }
}
