//! Infrastructure as code: the plan is handed to commands, and what there is is read back from one.
//!
//! The plan is on the commands' standard input as JSON, and in the variables file if one is configured (with Terraform or
//! OpenTofu: `tradewind.auto.tfvars.json`). `plan` runs first and may refuse; `apply` carries it out, or `destroy` once nothing
//! is wanted; `output` says what there is ([`reading`]). All of them end with code 0 or their standard error is reported.

mod command;

use super::Standing;
use super::declared::{Backend, DeclaredProvider, OpenError, Opening, Pace, Plan, Seen, reading};
use crate::config::{ExecConfig, PoolConfig};
use async_trait::async_trait;
pub(crate) use command::{Bounds, run};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tradewind_protocol::PoolName;

/// How long a drain may take in a pool that is no longer configured.
const RETIRED_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The name under which a record tells whose it is.
pub(crate) const ORIGIN: &str = "exec";

/// Opens the provider of `pool`.
pub fn open(data_dir: &Path, pool: &PoolConfig, exec: &ExecConfig) -> Result<DeclaredProvider, OpenError> {
    open_as(data_dir, &pool.name, exec.clone(), pool.drain_timeout, Standing::Configured)
}

/// Opens the provider of a pool that is no longer configured so.
pub(crate) fn open_retired(data_dir: &Path, pool: &PoolName, exec: ExecConfig) -> Result<DeclaredProvider, OpenError> {
    open_as(data_dir, pool, exec, RETIRED_DRAIN_TIMEOUT, Standing::Retired)
}

fn open_as(
    data_dir: &Path,
    pool: &PoolName,
    exec: ExecConfig,
    drain_timeout: Duration,
    standing: Standing,
) -> Result<DeclaredProvider, OpenError> {
    let pace = Pace { refresh: exec.refresh, drain_timeout };
    let origin = super::origin(ORIGIN, &exec);
    DeclaredProvider::open(Opening { data_dir, pool, kind: ORIGIN, origin, pace, standing }, Arc::new(Exec(exec)))
}

struct Exec(ExecConfig);

impl Exec {
    fn bounds(&self) -> Bounds<'_> {
        Bounds { directory: self.0.directory.as_deref(), env: &self.0.env, timeout: self.0.timeout }
    }

    fn variables(&self, text: &[u8]) -> io::Result<()> {
        let Some(path) = &self.0.variables_file else { return Ok(()) };
        let path = self.0.directory.as_ref().map_or_else(|| path.clone(), |directory| directory.join(path));
        let partial = path.with_extension("partial");
        std::fs::write(&partial, text)?;
        std::fs::rename(partial, path)
    }
}

#[async_trait]
impl Backend for Exec {
    async fn apply(&self, plan: &Plan) -> Result<Vec<Seen>, String> {
        let text = plan.to_json().to_string().into_bytes();
        self.variables(&text).map_err(|error| format!("the variables file cannot be written: {error}"))?;
        if let Some(check) = &self.0.plan {
            run(check, &text, self.bounds()).await.map_err(|error| format!("plan: {error}"))?;
        }
        match (&self.0.destroy, plan.instances.is_empty()) {
            (Some(destroy), true) => run(destroy, &text, self.bounds()).await.map_err(|error| format!("destroy: {error}"))?,
            (Some(_) | None, _) => run(&self.0.apply, &text, self.bounds()).await.map_err(|error| format!("apply: {error}"))?,
        };
        self.read(plan).await
    }

    async fn read(&self, plan: &Plan) -> Result<Vec<Seen>, String> {
        let text = plan.to_json().to_string().into_bytes();
        let output = run(&self.0.output, &text, self.bounds()).await.map_err(|error| format!("output: {error}"))?;
        reading::instances(&output).map_err(|error| format!("output: {error}"))
    }
}
