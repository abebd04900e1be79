//! `tradewind plan` and `scale`: what a region means to do, and why.

use super::mode;
use crate::failure::Failure;
use crate::human::{self, clean};
use crate::output::{Output, Tone};
use crate::table::Column::{Left, Right};
use crate::table::Table;
use tradewind_protocol::api::ScaleOutcome;
use tradewind_protocol::plan::{PoolDecision, RegionalResourcePlan};
use tradewind_protocol::region::Mode;

pub(super) fn print(plan: &RegionalResourcePlan, out: &mut Output) -> Result<(), Failure> {
    let carried_out = match plan.mode {
        Mode::Advisory => ", not carried out",
        Mode::Active => "",
    };
    let facts = format!("made {} UTC, {}{carried_out}", human::time(plan.made_at), mode(plan.mode));
    let title = out.paint(Tone::Strong, &format!("Plan {} of {}", plan.version, plan.region));
    out.line(&format!("{title}, {facts}"))?;
    if plan.decisions.is_empty() {
        out.line("It decides nothing: the region has no pools.")?;
    } else {
        out.line("")?;
        print_decisions(&plan.decisions, out)?;
        out.line("")?;
        for decision in &plan.decisions {
            print_reason(decision, out)?;
        }
    }
    for note in &plan.notes {
        let note = out.paint(Tone::Warning, &format!("note: {}", clean(note)));
        out.line(&note)?;
    }
    Ok(())
}

pub(super) fn print_outcome(outcome: &ScaleOutcome, out: &mut Output) -> Result<(), Failure> {
    print(&outcome.plan, out)?;
    out.line("")?;
    let by = if outcome.planned_by == outcome.plan.region { String::new() } else { format!(" by {}", outcome.planned_by) };
    match (outcome.dry_run, outcome.plan.mode) {
        (true, _) => out.line(&format!("Planned{by} as a dry run: nothing was changed; --apply carries it out.")),
        (false, Mode::Active) => out.line(&format!("Planned{by}, and being carried out.")),
        (false, Mode::Advisory) => out.line(&format!(
            "Planned{by}, but the agent is advisory and changes nothing: mode = \"active\" in its configuration lets it act."
        )),
    }
}

fn print_decisions(decisions: &[PoolDecision], out: &mut Output) -> Result<(), Failure> {
    let mut table = Table::new(&[
        Left("POOL"),
        Left("SERVICE"),
        Right("ACTIVE"),
        Right("WARM"),
        Right("FLOOR"),
        Right("SEEN"),
        Right("MEDIAN"),
        Right("PROVISIONED FOR"),
        Right("LEAD"),
        Left("READY BY (UTC)"),
    ]);
    for decision in decisions {
        let reason = &decision.reason;
        let rate = |value: f64| format!("{} /s", human::quantity(value));
        table.row(
            if decision.blocked.is_some() { Tone::Bad } else { Tone::Plain },
            [
                decision.pool.to_string(),
                decision.service.to_string(),
                change(decision.current.active, decision.active),
                change(decision.current.warm, decision.warm),
                reason.reactive_floor.to_string(),
                rate(reason.observed_rate),
                rate(reason.median_rate),
                format!("{} (q{})", rate(reason.demand_rate), quantile(reason.quantile.thousandths())),
                human::millis(reason.lead_ms),
                human::time(decision.ready_by),
            ],
        );
    }
    table.print(out)
}

/// `3`, or `3 -> 5`.
fn change(from: u32, to: u32) -> String {
    if from == to { to.to_string() } else { format!("{from} -> {to}") }
}

/// `95`, `97.5`.
fn quantile(thousandths: u16) -> String {
    format!("{}", f64::from(thousandths) / 10.0)
}

fn print_reason(decision: &PoolDecision, out: &mut Output) -> Result<(), Failure> {
    let reason = &decision.reason;
    let name = out.paint(Tone::Strong, decision.pool.as_str());
    out.line(&format!("{name}: {} ({})", clean(&reason.rule), human::some(reason.forecasts.into(), "forecast")))?;
    if let Some(blocked) = &decision.blocked {
        let blocked = out.paint(Tone::Bad, &format!("  blocked: {}", clean(blocked)));
        out.line(&blocked)?;
    }
    if !reason.stale_sources.is_empty() {
        let names: Vec<&str> = reason.stale_sources.iter().map(|r| r.as_str()).collect();
        let stale = out.paint(Tone::Warning, &format!("  no fresh forecast from {}: left to the reactive floor", names.join(", ")));
        out.line(&stale)?;
    }
    Ok(())
}
