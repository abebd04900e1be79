//! `tradewind tls`: the mesh's authority and the certificates under it, as files.
//!
//! Every file is written whole or not at all (beside its place, synced, then moved there), private
//! keys are readable by their owner only, and nothing that exists is replaced without `--force`. The
//! authority's key never leaves its directory.

use crate::args::{Files, Tls};
use crate::client::read;
use crate::failure::Failure;
use crate::output::Output;
use rand::{TryRng, rngs::SysRng};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tradewind_protocol::UserId;
use tradewind_protocol::pki::{self, Issued, Subject, Validity};

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";

/// How long an authority's certificate is valid unless told otherwise: to replace it is to touch every agent.
const AUTHORITY_DAYS: u32 = 3650;

/// The same of every other certificate.
const LEAF_DAYS: u32 = 365;

/// Certificates are valid from this long before they are made: the clocks of a mesh's hosts differ
/// by less, or other things fail first.
const BACKDATED_SECONDS: i64 = 3600;

pub(crate) fn run(command: Tls, out: &mut Output) -> Result<(), Failure> {
    match command {
        Tls::Ca { cluster, files } => {
            let issued = pki::issue_ca(&cluster, validity(files.days.unwrap_or(AUTHORITY_DAYS))?, seed()?)?;
            let set = FileSet { certificate: files.out.join(CA_CERTIFICATE), key: files.out.join(CA_KEY), ca: None };
            set.write(&issued, &files)?;
            out.line(&format!("The authority of {cluster} is in {} and {}.", shown(&set.certificate), shown(&set.key)))?;
            out.line("Keep the key where no agent runs: whoever has it can join as any region. Agents need the certificate only.")?;
            out.line("")?;
            out.line(&format!("Next: tradewind tls agent REGION --ca-dir {} --out DIR", shown(&files.out)))
        }
        Tls::Agent { region, ca_dir, names, files } => {
            let ca = authority(&ca_dir)?;
            let issued = pki::issue_leaf(&ca, &Subject::Agent(region.clone(), names), validity(files.days.unwrap_or(LEAF_DAYS))?, seed()?)?;
            let set = FileSet::leaf(&format!("agent-{region}"), &ca_dir, &files.out);
            set.write_leaf(&issued, &ca, &files)?;
            out.line(&format!("The certificate of {region} is in {}. In its agent's configuration:", shown(&set.certificate)))?;
            out.line("")?;
            out.line("[mesh.tls]")?;
            for (key, path) in [("ca", set.ca_path(&ca_dir)), ("certificate", set.certificate.clone()), ("key", set.key.clone())] {
                out.line(&format!("{key} = {:?}", absolute(&path)))?;
            }
            out.line("")?;
            out.line("The same under [api.tls] makes its HTTP API speak TLS, to clients with a certificate of the authority.")
        }
        Tls::Client { name, ca_dir, files } => {
            let ca = authority(&ca_dir)?;
            // A service's name is also a user's, and fit for a file.
            let user = UserId::new(name.as_str()).map_err(|e| Failure::Usage(e.to_string()))?;
            let issued = pki::issue_leaf(&ca, &Subject::Client(user), validity(files.days.unwrap_or(LEAF_DAYS))?, seed()?)?;
            let set = FileSet::leaf(&format!("client-{name}"), &ca_dir, &files.out);
            set.write_leaf(&issued, &ca, &files)?;
            out.line(&format!("The certificate of {name} is in {}. To use it:", shown(&set.certificate)))?;
            out.line("")?;
            for (variable, path) in [("CA", set.ca_path(&ca_dir)), ("CERT", set.certificate.clone()), ("KEY", set.key.clone())] {
                out.line(&format!("export TRADEWIND_{variable}={:?}", absolute(&path)))?;
            }
            Ok(())
        }
    }
}

/// The files that one command writes.
struct FileSet {
    certificate: PathBuf,
    key: PathBuf,
    /// Where a copy of the authority's certificate goes, so that the directory is all that a host
    /// needs. None where it is the authority's own directory.
    ca: Option<PathBuf>,
}

impl FileSet {
    fn leaf(stem: &str, ca_dir: &Path, out: &Path) -> Self {
        let same = match (fs::canonicalize(ca_dir), fs::canonicalize(out)) {
            (Ok(a), Ok(b)) => a == b,
            // What does not exist yet is not the authority's directory.
            (Err(_), _) | (_, Err(_)) => false,
        };
        Self {
            certificate: out.join(format!("{stem}.pem")),
            key: out.join(format!("{stem}-key.pem")),
            ca: (!same).then(|| out.join(CA_CERTIFICATE)),
        }
    }

    fn ca_path(&self, ca_dir: &Path) -> PathBuf {
        self.ca.clone().unwrap_or_else(|| ca_dir.join(CA_CERTIFICATE))
    }

    fn write_leaf(&self, issued: &Issued, ca: &Issued, files: &Files) -> Result<(), Failure> {
        // The copy of the same authority may be there from the last certificate.
        let held = self.ca.as_ref().filter(|path| path.exists());
        if let Some(path) = held
            && !files.force
            && read(path)? != ca.certificate_pem.as_bytes()
        {
            return Err(Failure::Exists(path.clone()));
        }
        self.write(issued, files)?;
        match &self.ca {
            Some(path) => write_file(path, ca.certificate_pem.as_bytes(), PUBLIC),
            None => Ok(()),
        }
    }

    /// The key first: a certificate without its key looks complete and is not.
    fn write(&self, issued: &Issued, files: &Files) -> Result<(), Failure> {
        if !files.force
            && let Some(taken) = [&self.certificate, &self.key].into_iter().find(|path| path.symlink_metadata().is_ok())
        {
            return Err(Failure::Exists(taken.clone()));
        }
        fs::create_dir_all(&files.out).map_err(|cause| Failure::File { action: "make", path: files.out.clone(), cause })?;
        write_file(&self.key, issued.key_pem.as_bytes(), PRIVATE)?;
        write_file(&self.certificate, issued.certificate_pem.as_bytes(), PUBLIC)
    }
}

const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Writes beside the place, syncs, and moves there.
fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let failed = |cause| Failure::File { action: "write", path: path.to_owned(), cause };
    let beside = path.with_extension("pem.new");
    let written = (|| {
        // What an interrupted run left behind may have another mode.
        match fs::remove_file(&beside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // The directory too, or a crash may forget the name.
        File::open(path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))?.sync_all()
    })();
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&beside);
    }
    written.map_err(failed)
}

fn authority(dir: &Path) -> Result<Issued, Failure> {
    let text = |name: &str, wanted: &'static str| {
        let path = dir.join(name);
        String::from_utf8(read(&path)?).map_err(|e| Failure::BadFile { path, wanted, cause: e.to_string() })
    };
    Ok(Issued {
        certificate_pem: text(CA_CERTIFICATE, "the authority's certificate (PEM)")?,
        key_pem: text(CA_KEY, "the authority's key (PEM)")?,
    })
}

/// From a little before now, for `days` days.
fn validity(days: u32) -> Result<Validity, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_secs()).ok().and_then(|s| i64::try_from(s).ok());
    let now = now.ok_or_else(|| Failure::Usage("the clock of this host stands before 1970: set it first".to_owned()))?;
    Ok(Validity { not_before: now - BACKDATED_SECONDS, not_after: now + i64::from(days) * 86_400 })
}

fn seed() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    SysRng.try_fill_bytes(&mut seed).map_err(|e| Failure::Entropy(e.to_string()))?;
    Ok(seed)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
