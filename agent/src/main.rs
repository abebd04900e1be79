//! The `tradewind-agent` program.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tradewind_agent::config::Config;
use tradewind_agent::{agent, demo, http, worker};
use tradewind_protocol::region::Mode;

/// One region's part in a Tradewind mesh: forecasts demand, shares the forecast, provisions ahead.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent until SIGTERM or SIGINT.
    Run {
        /// The configuration file.
        #[arg(long, short, default_value = "tradewind.toml")]
        config: PathBuf,
        /// Also stop when standard input ends: for programs that start agents and must not leave any.
        #[arg(long)]
        until_stdin_closes: bool,
    },
    /// Check a configuration and print every mistake in it.
    Check {
        /// The configuration file.
        #[arg(default_value = "tradewind.toml")]
        config: PathBuf,
    },
    /// Show the main job: a mesh of agents on recorded traffic, in about a minute.
    Demo(demo::Options),
    /// Print the HTTP API as an OpenAPI document.
    Openapi,
    /// Be a worker process of the `process` provider: what the demo's pools run.
    Worker,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run { config, until_stdin_closes } => block_on(agent::run(&config, until_stdin_closes)),
        Command::Check { config } => check(&config),
        Command::Demo(options) => block_on(demo::run(options)),
        Command::Openapi => say(&http::openapi_json()),
        Command::Worker => worker::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tradewind-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let outcome = runtime.block_on(work);
    // Not waiting for a thread that still reads standard input.
    runtime.shutdown_background();
    outcome
}

fn check(path: &std::path::Path) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    let pools = match config.pools.len() {
        1 => "1 pool".to_owned(),
        n => format!("{n} pools"),
    };
    let mode = match config.mode {
        Mode::Advisory => "advisory",
        Mode::Active => "active",
    };
    say(&format!("{}: good; region {}, {pools}, {mode} mode", path.display(), config.region))
}

/// Prints to standard output; whoever has stopped reading is no error.
fn say(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write the output"),
        _ => Ok(()),
    }
}
