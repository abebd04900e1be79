//! Every way in which `tradewind` fails, each with what to do about it and its exit code.

use std::io;
use std::path::PathBuf;
use tradewind_protocol::api::Problem;
use tradewind_protocol::pki::PkiError;

/// Why a command failed. Only `tls` and `scale --apply` change anything, and each says so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The connection options contradict each other, or are not enough.
    #[error("{0}")]
    Usage(String),
    /// The agent understood and answered with a problem.
    #[error("the agent refused: {} ({})", .0.detail.as_deref().unwrap_or(&.0.title), .0.status)]
    Refused(Problem),
    /// Nothing answers at the address.
    #[error(
        "no agent answers at {agent}: {cause}\nIs tradewind-agent running there? Another address is given by --agent URL or TRADEWIND_AGENT."
    )]
    Unreachable { agent: String, cause: String },
    /// The answer broke off.
    #[error("the connection to {agent} broke: {cause}")]
    Broken { agent: String, cause: String },
    /// TLS found no trust.
    #[error("{agent} and this client do not trust each other: {cause}\nCheck --ca, --cert and --key against the mesh's authority.")]
    Untrusted { agent: String, cause: String },
    /// The answer is not what this version expects.
    #[error(
        "the answer of {agent} to {route} is not understood: {cause}\nThis is tradewind {}; use the one of the agent's version, and check \
         that the address is an agent's.",
        env!("CARGO_PKG_VERSION")
    )]
    NotUnderstood { agent: String, route: String, cause: String },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {cause}", path.display())]
    File { action: &'static str, path: PathBuf, cause: io::Error },
    /// A file is not what its option says.
    #[error("{} is not {wanted}: {cause}", path.display())]
    BadFile { path: PathBuf, wanted: &'static str, cause: String },
    /// A file would have been replaced. Nothing was written.
    #[error("{} exists already, and nothing was written; --force replaces it", .0.display())]
    Exists(PathBuf),
    /// A certificate could not be issued. Nothing was written.
    #[error("cannot issue the certificate, and nothing was written: {0}")]
    Pki(#[from] PkiError),
    /// The operating system gave no random bytes. Nothing was written.
    #[error("the operating system gave no random bytes for a key, and nothing was written: {0}")]
    Entropy(String),
    /// Whoever read our output has closed it: not an error.
    #[error("the output was closed")]
    ReaderGone,
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
}

impl Failure {
    /// As `tradewind --help` documents it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::ReaderGone => 0,
            Failure::Refused(_)
            | Failure::File { .. }
            | Failure::BadFile { .. }
            | Failure::Exists(_)
            | Failure::Pki(_)
            | Failure::Entropy(_)
            | Failure::Output(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable { .. } | Failure::Broken { .. } | Failure::Untrusted { .. } => 3,
            Failure::NotUnderstood { .. } => 4,
        }
    }
}

impl From<io::Error> for Failure {
    /// Of writing the output; reading and files have their own variants.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Failure::ReaderGone } else { Failure::Output(error) }
    }
}
