//! `tradewind`: looks into a Tradewind mesh through the HTTP API of one of its agents, and issues
//! the mesh's certificates.
//!
//! It holds no state and decides nothing: [`args`] is what may be asked, [`client`] asks the agent,
//! [`show`] turns the answer into text, [`tls`] works without an agent. Every way to fail is a
//! [`failure::Failure`] with its own exit code.

mod args;
mod chart;
mod client;
mod failure;
mod human;
mod output;
mod show;
mod table;
mod tls;

use args::{Args, Command};
use clap::{CommandFactory, Parser};
use failure::Failure;
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = Output::to_stdout(args.output);
    match run(args, &mut out).and_then(|()| out.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough: `tradewind events | head`.
        Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(args: Args, out: &mut Output) -> Result<(), Failure> {
    match args.command {
        Command::Tls { command } => tls::run(command, out),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "tradewind", &mut script);
            out.raw(&script)
        }
        Command::Query(query) => show::run(query, &args.connection, out),
    }
}
