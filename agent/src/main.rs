//! The `tradewind-agent` program.

use clap::{Parser, Subcommand};

/// One agent of the Tradewind mesh.
#[derive(Parser)]
#[command(name = "tradewind-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A worker process that keeps the worker contract and serves nothing: an agent starts it
    Worker,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Worker => tradewind_agent::worker::run(),
    }
}
