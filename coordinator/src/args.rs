//! What may be asked on the command line.

use crate::output::Format;
use clap::{Args as ClapArgs, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;
use tradewind_protocol::wire::MAX_CLUSTER_BYTES;
use tradewind_protocol::{EventName, PoolName, RegionId, ServiceName, TenantName, Timestamp, TransactionType};

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  the agent refused or has no such thing, or a file could not be read or written
  2  the command line is wrong
  3  no agent answers there, or the connection broke
  4  the answer is not understood: another version, or not a Tradewind agent";

/// Look into a Tradewind mesh through one of its agents, and issue its certificates.
#[derive(Debug, Parser)]
#[command(name = "tradewind", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Args {
    /// How to print the answer: a table for people, or the API's document.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which agent to ask, and as whom.
#[derive(Debug, Clone, ClapArgs)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Base URL of the agent's HTTP API.
    #[arg(long, global = true, env = "TRADEWIND_AGENT", default_value = "http://127.0.0.1:7480", value_name = "URL", value_parser = agent_url)]
    pub(crate) agent: String,
    /// The mesh's authority (PEM), needed for https.
    #[arg(long, global = true, env = "TRADEWIND_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Your certificate (PEM), for an agent that asks for one.
    #[arg(long, global = true, env = "TRADEWIND_CERT", value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Your certificate's private key (PEM).
    #[arg(long, global = true, env = "TRADEWIND_KEY", value_name = "FILE", hide_env_values = true)]
    pub(crate) key: Option<PathBuf>,
    /// How long to wait for an answer, in seconds.
    #[arg(long, global = true, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Query(Query),
    /// Issue the certificates by which agents and clients know each other.
    Tls {
        #[command(subcommand)]
        command: Tls,
    },
    /// Print a completion script for a shell.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// What is asked of an agent.
#[derive(Debug, Subcommand)]
pub(crate) enum Query {
    /// The agent in brief.
    Status,
    /// The regions of the mesh as the agent sees them: round-trip time, health, age.
    Regions,
    /// What every region can run, at which price, and how much of it stands ready.
    Pools,
    /// What instances cost, by price: as last read, and when that was.
    Prices,
    /// The instances of the agent's own pools.
    Instances,
    /// What the agent's pools are promised to, and what other regions have promised it.
    Reservations {
        /// Leave the agent's own instances out.
        #[arg(long)]
        no_instances: bool,
    },
    /// What is made ready for services before they are needed, and how far it has come.
    Staging,
    /// What the agent foresees, with a chart of the busiest series.
    Forecasts {
        /// Only of transactions from this region.
        #[arg(long, value_name = "REGION")]
        from: Option<RegionId>,
        /// Only of transactions to this region.
        #[arg(long, value_name = "REGION")]
        to: Option<RegionId>,
        /// Only of this transaction type.
        #[arg(long = "type", value_name = "TYPE")]
        transaction_type: Option<TransactionType>,
        /// Draw charts also where the output is not a terminal.
        #[arg(long, conflicts_with = "no_chart")]
        chart: bool,
        /// Draw no charts.
        #[arg(long)]
        no_chart: bool,
    },
    /// Why the forecasts of a pair of regions are what they are: who has how much to say, who is silent and why, how good it was.
    /// `explain plan` does the same for the plan.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Explain(Explain),
    /// What the agent has counted of a pair of regions, in buckets.
    History(History),
    /// The latest plan and its reasons.
    Plan,
    /// Run a planning round for a region now, and show the plan.
    Scale {
        /// Which region.
        region: RegionId,
        /// Carry the plan out. Without this, nothing is changed.
        #[arg(long)]
        apply: bool,
    },
    /// What is out of the ordinary in the agent's series.
    Anomalies,
    /// Holidays, maintenance and campaigns that forecasts take into account.
    Calendar {
        #[command(subcommand)]
        command: Option<Calendar>,
    },
    /// What happened in the agent.
    Events {
        /// Wait for more, until interrupted.
        #[arg(short, long)]
        follow: bool,
        /// Only events after the one with this id.
        #[arg(long, value_name = "ID")]
        since: Option<u64>,
    },
}

/// Whose past is to be told.
#[derive(Debug, ClapArgs)]
pub(crate) struct History {
    /// Traffic from this region: the agent's own.
    pub(crate) from: RegionId,
    /// Traffic to this region.
    pub(crate) to: RegionId,
    /// Only of this service.
    pub(crate) service: Option<ServiceName>,
    /// Only of this transaction type.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) transaction_type: Option<TransactionType>,
    /// Only of this tenant.
    #[arg(long)]
    pub(crate) tenant: Option<TenantName>,
    /// How long a bucket is. Longer ones are kept for longer.
    #[arg(long, value_parser = ["step", "5m", "1h"], default_value = "5m")]
    pub(crate) resolution: String,
    /// How many buckets, up to now.
    #[arg(long, value_name = "N", default_value_t = 24)]
    pub(crate) buckets: u32,
}

/// What is to be explained.
#[derive(Debug, ClapArgs)]
pub(crate) struct Explain {
    #[command(subcommand)]
    pub(crate) what: Option<ExplainWhat>,
    /// Traffic from this region.
    #[arg(required = true)]
    pub(crate) from: Option<RegionId>,
    /// Traffic to this region.
    #[arg(required = true)]
    pub(crate) to: Option<RegionId>,
    /// Only of this service.
    pub(crate) service: Option<ServiceName>,
    /// Only of this transaction type.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) transaction_type: Option<TransactionType>,
    /// Only of this tenant.
    #[arg(long)]
    pub(crate) tenant: Option<TenantName>,
    /// Draw charts also where the output is not a terminal.
    #[arg(long, conflicts_with = "no_chart")]
    pub(crate) chart: bool,
    /// Draw no charts.
    #[arg(long)]
    pub(crate) no_chart: bool,
}

/// What is to be explained instead of forecasts.
#[derive(Debug, Subcommand)]
pub(crate) enum ExplainWhat {
    /// Why the latest plan is what it is: sources, costs, what else was possible and why it was rejected.
    Plan {
        /// Only of this pool.
        pool: Option<PoolName>,
    },
}

/// What is done with the calendar. Without any of them, it is shown.
#[derive(Debug, Subcommand)]
pub(crate) enum Calendar {
    /// Show it.
    List,
    /// Add an event, or replace one of the same name.
    Add(NewEvent),
    /// Remove an event.
    Remove {
        /// Its name.
        name: EventName,
    },
}

/// An event as it is typed.
#[derive(Debug, ClapArgs)]
pub(crate) struct NewEvent {
    /// Its name, unique in the region.
    pub(crate) name: EventName,
    /// When it begins, like 2026-03-01T08:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    pub(crate) from: Timestamp,
    /// When it is over.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    pub(crate) until: Timestamp,
    /// What kind of event.
    #[arg(long, value_enum, default_value_t = Kind::Other)]
    pub(crate) kind: Kind,
    /// In words; events of the same kind and title are learnt from together.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) title: String,
    /// Only traffic from this region; may be repeated.
    #[arg(long = "source", value_name = "REGION")]
    pub(crate) sources: Vec<RegionId>,
    /// Only traffic to this region; may be repeated.
    #[arg(long = "destination", value_name = "REGION")]
    pub(crate) destinations: Vec<RegionId>,
    /// Only of this service.
    #[arg(long)]
    pub(crate) service: Option<ServiceName>,
    /// Only of this transaction type.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) transaction_type: Option<TransactionType>,
    /// What traffic is multiplied by. Without it, the effect is learnt.
    #[arg(long)]
    pub(crate) factor: Option<f64>,
    /// With 95 % certainty the factor is at least this; unless told otherwise, FACTOR.
    #[arg(long, requires = "factor")]
    pub(crate) low: Option<f64>,
    /// With 95 % certainty the factor is at most this; unless told otherwise, FACTOR.
    #[arg(long, requires = "factor")]
    pub(crate) high: Option<f64>,
}

/// What kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// A public holiday.
    Holiday,
    /// Something is taken out of service.
    Maintenance,
    /// Something draws people.
    Campaign,
    /// Anything else.
    Other,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tls {
    /// The mesh's authority: once per mesh. Whoever has its key can join as any region.
    Ca {
        /// The mesh's name, `cluster` in the agents' configuration.
        #[arg(long, value_name = "NAME", value_parser = cluster)]
        cluster: String,
        #[command(flatten)]
        files: Files,
    },
    /// One agent's certificate.
    Agent {
        /// The agent's region.
        region: RegionId,
        /// Where `tradewind tls ca` put the authority's files.
        #[arg(long, value_name = "DIR")]
        ca_dir: PathBuf,
        /// A host name or address under which the agent's HTTP API is reached; may be repeated.
        #[arg(long = "name", value_name = "HOST", default_values = ["localhost", "127.0.0.1"])]
        names: Vec<String>,
        #[command(flatten)]
        files: Files,
    },
    /// A certificate for a user of the HTTP API.
    Client {
        /// The user's name.
        name: ServiceName,
        /// Where `tradewind tls ca` put the authority's files.
        #[arg(long, value_name = "DIR")]
        ca_dir: PathBuf,
        #[command(flatten)]
        files: Files,
    },
}

/// Where to put what is issued, and for how long it is valid.
#[derive(Debug, ClapArgs)]
pub(crate) struct Files {
    /// Where to put the files. Made if it is missing.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// For how many days the certificate is valid; without it an authority's is for 3650, any other for 365.
    // No default of clap's: it would be one for all commands that have these options.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MAX_DAYS))]
    pub(crate) days: Option<u32>,
    /// Replace files that exist.
    #[arg(long)]
    pub(crate) force: bool,
}

/// A hundred years: far inside what a certificate's two-digit and four-digit years can say.
const MAX_DAYS: i64 = 36_500;

/// An hour: longer than that, nobody waits for one answer.
const MAX_TIMEOUT_SECONDS: f64 = 3600.0;

fn agent_url(text: &str) -> Result<String, String> {
    let wanted = || format!("{text:?} must be like http://127.0.0.1:7480 or https://agent.example:7480");
    let url = text.trim_end_matches('/');
    let uri: ureq::http::Uri = url.parse().map_err(|_| wanted())?;
    let scheme = uri.scheme_str().is_some_and(|s| s == "http" || s == "https");
    let host = uri.host().is_some_and(|h| !h.is_empty());
    if scheme && host && uri.query().is_none() { Ok(url.to_owned()) } else { Err(wanted()) }
}

/// What agents take, too.
fn cluster(text: &str) -> Result<String, String> {
    match text.len() {
        1..=MAX_CLUSTER_BYTES => Ok(text.to_owned()),
        _ => Err(format!("{text:?} must have 1 to {MAX_CLUSTER_BYTES} bytes")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(s) if s > 0.0 && s <= MAX_TIMEOUT_SECONDS => Ok(Duration::from_secs_f64(s)),
        Ok(_) | Err(_) => Err(format!("{text:?} must be a number of seconds above 0 and up to {MAX_TIMEOUT_SECONDS}")),
    }
}
