//! `tradewind status`.

use super::{health, mode};
use crate::failure::Failure;
use crate::human;
use crate::output::{Output, Tone};
use crate::table::print_pairs;
use std::time::Duration;
use tradewind_protocol::Timestamp;
use tradewind_protocol::api::{FoldedTenant, Status};
use tradewind_protocol::pki::ENDS_SOON;
use tradewind_protocol::region::Mode;

fn certificate(ends: Timestamp, now: Timestamp) -> (&'static str, String, Tone) {
    let (left, at) = (ends.since(now), human::time(ends));
    let mend = "issue a new one with `tradewind tls agent`, and restart the agent with it";
    let (words, tone) = match left {
        Duration::ZERO => (format!("ended {at} UTC: {mend}"), Tone::Bad),
        left if left < ENDS_SOON => (format!("ends in {}, {at} UTC: {mend}", human::duration(left)), Tone::Warning),
        _ => (format!("until {at} UTC"), Tone::Plain),
    };
    ("certificate", words, tone)
}

/// What is counted of a tenant in series of the type `other`.
fn folded(tenant: &FoldedTenant) -> (&'static str, String, Tone) {
    let FoldedTenant { tenant, series, and_more, transactions } = tenant;
    let (transactions, more, series) =
        (human::count(*transactions), if *and_more { "more than " } else { "" }, human::count(*series as u64));
    let words =
        format!("{tenant}: {transactions} transactions of {more}{series} series are counted as `other` (ingest.max_series_per_tenant)");
    ("folded", words, Tone::Warning)
}

pub(super) fn print(status: &Status, out: &mut Output) -> Result<(), Failure> {
    let (word, tone) = health(status.health);
    let reasons = status.health_reasons.join("; ");
    let acting = match status.mode {
        Mode::Advisory => "it plans, and changes nothing",
        Mode::Active => "it carries its plans out",
    };
    let closed = match status.last_closed_step {
        Some(step) => format!("last closed {} UTC", human::time(status.step.end(step))),
        None => "none closed yet".to_owned(),
    };
    let regions_tone = if status.regions_live < status.regions_known { Tone::Warning } else { Tone::Plain };
    let refused_tone = if status.records_refused > 0 { Tone::Warning } else { Tone::Plain };
    let mut pairs = vec![
        ("region", status.region.to_string(), Tone::Strong),
        ("cluster", status.cluster.clone(), Tone::Plain),
        ("health", if reasons.is_empty() { word.to_owned() } else { format!("{word}: {reasons}") }, tone),
        ("mode", format!("{}: {acting}", mode(status.mode)), Tone::Plain),
        ("version", status.version.clone(), Tone::Plain),
        (
            "up",
            format!("{}, since {} UTC", human::duration(status.now.since(status.started_at)), human::time(status.started_at)),
            Tone::Plain,
        ),
        ("step", format!("{}, {closed}", human::duration(status.step.length())), Tone::Plain),
        ("regions", format!("{} of {} live", status.regions_live, status.regions_known), regions_tone),
        ("series", human::count(status.series as u64), Tone::Plain),
        (
            "records",
            format!("{} accepted, {} refused", human::count(status.records_accepted), human::count(status.records_refused)),
            refused_tone,
        ),
    ];
    pairs.extend(status.folded.iter().map(folded));
    pairs.push(("instances", format!("{} ready", human::count(status.instances_ready.into())), Tone::Plain));
    pairs.extend(status.certificate_ends_at.map(|ends| certificate(ends, status.now)));
    print_pairs(&pairs, out)
}
