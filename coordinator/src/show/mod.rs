//! Questions to an agent and how the answers look.

mod calendar;
mod events;
mod explain;
mod forecasts;
mod history;
mod mesh;
mod plan;
mod reservations;
mod staging;
mod status;

use crate::args::{Connection, Explain, ExplainWhat, History, Query};
use crate::client::{Answer, Client};
use crate::failure::Failure;
use crate::output::{Format, Output, Tone};
use serde::de::{DeserializeOwned, IgnoredAny};
use tradewind_protocol::SeriesKey;
use tradewind_protocol::region::{Health, Mode};

/// Asks and prints.
pub(crate) fn run(query: Query, connection: &Connection, out: &mut Output) -> Result<(), Failure> {
    let client = Client::new(connection)?;
    match query {
        Query::Status => present(&client.get("/v1/status", &[])?, out, status::print),
        Query::Regions => present_all(&client.get("/v1/regions", &[])?, out, mesh::print_regions),
        Query::Pools => present_all(&client.get("/v1/pools", &[])?, out, mesh::print_pools),
        Query::Prices => present_all(&client.get("/v1/prices", &[])?, out, mesh::print_prices),
        Query::Instances => present_all(&client.get("/v1/instances", &[])?, out, mesh::print_instances),
        Query::Reservations { no_instances } => {
            let print = if no_instances { reservations::print_without_instances } else { reservations::print };
            present(&client.get("/v1/reservations", &[])?, out, print)
        }
        Query::Staging => present_all(&client.get("/v1/staging", &[])?, out, staging::print),
        Query::Forecasts { from, to, transaction_type, chart, no_chart } => {
            let query = [
                ("from", from.map(|r| r.to_string())),
                ("to", to.map(|r| r.to_string())),
                ("type", transaction_type.map(|t| t.to_string())),
            ];
            let charts = chart || (out.terminal && !no_chart);
            let print = if charts { forecasts::print_with_charts } else { forecasts::print };
            present_all(&client.get("/v1/forecasts", &query)?, out, print)
        }
        Query::Explain(Explain { what: Some(ExplainWhat::Plan { pool }), .. }) => {
            let query = [("pool", pool.map(|pool| pool.to_string()))];
            present(&client.get("/v1/plan/explain", &query)?, out, plan::print_explanation)
        }
        Query::Explain(Explain { what: None, from, to, service, transaction_type, tenant, chart, no_chart }) => {
            let query = [
                ("from", from.map(|r| r.to_string())),
                ("to", to.map(|r| r.to_string())),
                ("service", service.map(|s| s.to_string())),
                ("type", transaction_type.map(|t| t.to_string())),
                ("tenant", tenant.map(|t| t.to_string())),
            ];
            let print = if chart || (out.terminal && !no_chart) { explain::print_with_charts } else { explain::print };
            present_all(&client.get("/v1/forecasts/explain", &query)?, out, print)
        }
        Query::History(History { from, to, service, transaction_type, tenant, resolution, buckets }) => {
            let query = [
                ("from", Some(from.to_string())),
                ("to", Some(to.to_string())),
                ("service", service.map(|s| s.to_string())),
                ("type", transaction_type.map(|t| t.to_string())),
                ("tenant", tenant.map(|t| t.to_string())),
                ("resolution", Some(resolution)),
                ("buckets", Some(buckets.to_string())),
            ];
            present_all(&client.get("/v1/history", &query)?, out, history::print)
        }
        Query::Plan => present(&client.get("/v1/plan", &[])?, out, plan::print),
        Query::Scale { region, apply } => {
            let query = [("dry_run", Some((!apply).to_string()))];
            present(&client.post(&format!("/regions/{region}/predictiveScale"), &query)?, out, plan::print_outcome)
        }
        Query::Anomalies => present_all(&client.get("/v1/anomalies", &[])?, out, calendar::print_anomalies),
        Query::Calendar { command } => calendar::run(command, &client, out),
        Query::Events { follow: false, since } => present_all(&client.get("/v1/events", &events::query(since, None))?, out, events::print),
        Query::Events { follow: true, since } => events::follow(&client, since, out),
    }
}

/// Prints an answer in the format that was asked for. Only the table needs to know what it says, so
/// that scripts go on working across versions.
fn present<T: DeserializeOwned>(
    answer: &Answer,
    out: &mut Output,
    table: impl FnOnce(&T, &mut Output) -> Result<(), Failure>,
) -> Result<(), Failure> {
    match out.format {
        Format::Table => table(&answer.parse()?, out),
        Format::Json => {
            answer.parse::<IgnoredAny>()?;
            out.raw(answer.body.trim_ascii_end())?;
            out.raw(b"\n")
        }
        Format::Yaml => out.raw(yaml(answer)?.as_bytes()),
    }
}

/// Like [`present`], for the answers that are lists.
fn present_all<T: DeserializeOwned>(
    answer: &Answer,
    out: &mut Output,
    table: fn(&[T], &mut Output) -> Result<(), Failure>,
) -> Result<(), Failure> {
    present(answer, out, |all: &Vec<T>, out| table(all, out))
}

/// The JSON document as YAML, its keys in the same order.
fn yaml(answer: &Answer) -> Result<String, Failure> {
    let document: serde_norway::Value = answer.parse()?;
    serde_norway::to_string(&document).map_err(|e| Failure::Output(std::io::Error::other(e)))
}

/// The line above what is told of one series.
fn title(series: &SeriesKey, out: &mut Output) -> Result<(), Failure> {
    let title = format!("{} > {}  {}/{}/{}", series.source, series.destination, series.tenant, series.service, series.transaction_type);
    let title = out.paint(Tone::Strong, &title);
    out.line(&title)
}

fn health(health: Health) -> (&'static str, Tone) {
    match health {
        Health::Healthy => ("healthy", Tone::Plain),
        Health::Degraded => ("degraded", Tone::Warning),
        Health::Draining => ("draining", Tone::Warning),
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Advisory => "advisory",
        Mode::Active => "active",
    }
}
