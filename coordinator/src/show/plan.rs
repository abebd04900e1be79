//! `tradewind plan`, `scale` and `explain plan`: what a region means to do, and why.

use super::mode;
use crate::failure::Failure;
use crate::human::{self, clean};
use crate::output::{Output, Tone};
use crate::table::Column::{Left, Right};
use crate::table::{Table, print_pairs};
use tradewind_protocol::SpotMix;
use tradewind_protocol::api::{
    Alternative, AlternativeKind, MarginReasons, PlanExplanation, PoolExplanation, ScaleOutcome, SourceShare, SpotTerms,
};
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
    if let Some(mix) = &decision.mix {
        out.line(&format!("  {}: {}", mixed(decision, mix), clean(&mix.rule)))?;
        if let Some(exposed) = &mix.exposed {
            let exposed = out.paint(Tone::Warning, &format!("  {}", clean(exposed)));
            out.line(&exposed)?;
        }
    }
    if !reason.stale_sources.is_empty() {
        let names: Vec<&str> = reason.stale_sources.iter().map(|r| r.as_str()).collect();
        let stale = out.paint(Tone::Warning, &format!("  no fresh forecast from {}: left to the reactive floor", names.join(", ")));
        out.line(&stale)?;
    }
    Ok(())
}

/// `4 on demand and 3 spot`, with what is there for interruptions only.
fn mixed(decision: &PoolDecision, mix: &SpotMix) -> String {
    let on_demand = decision.total().saturating_sub(mix.spot);
    let reserve = if mix.reserve > 0 { format!(", {} of them a reserve for interruptions", mix.reserve) } else { String::new() };
    format!("{on_demand} on demand and {} spot{reserve}", mix.spot)
}

/// How many sources are told in a table; the other formats have them all.
const MAX_SOURCE_ROWS: usize = 10;

pub(super) fn print_explanation(explained: &PlanExplanation, out: &mut Output) -> Result<(), Failure> {
    let title = out.paint(Tone::Strong, &format!("Plan {} of {}", explained.version, explained.region));
    out.line(&format!("{title}, made {} UTC, {}", human::time(explained.made_at), mode(explained.mode)))?;
    if explained.pools.is_empty() {
        out.line("It decides nothing: the region has no pools.")?;
    }
    for pool in &explained.pools {
        out.line("")?;
        print_pool(pool, out)?;
    }
    for note in &explained.notes {
        let note = out.paint(Tone::Warning, &format!("note: {}", clean(note)));
        out.line(&note)?;
    }
    Ok(())
}

fn print_pool(pool: &PoolExplanation, out: &mut Output) -> Result<(), Failure> {
    let (decision, costs) = (&pool.decision, &pool.costs);
    let reason = &decision.reason;
    let rate = |value: f64| format!("{} /s", human::quantity(value));
    let title = format!("{}: {} active and {} warm, {} before", decision.pool, decision.active, decision.warm, pool.planned_before);
    let title = out.paint(Tone::Strong, &title);
    out.line(&title)?;
    let stated = if costs.late_cost_stated { "as stated" } else { "as the quantile has it" };
    let budget = match (costs.max_cost_per_hour, costs.region_max_cost_per_hour) {
        (None, None) => "none".to_owned(),
        (Some(own), None) => format!("{} /h", human::money(own)),
        (None, Some(all)) => format!("{} /h for all pools", human::money(all)),
        (Some(own), Some(all)) => format!("{} /h, {} /h for all pools", human::money(own), human::money(all)),
    };
    let blocked = decision.blocked.as_deref().map(|blocked| ("blocked", blocked.to_owned(), Tone::Bad));
    let facts = [
        ("decided by", reason.rule.clone(), Tone::Plain),
        (
            "demand",
            format!(
                "{} is provided for at q{}, {} was seen",
                rate(reason.demand_rate),
                quantile(reason.quantile.thousandths()),
                rate(reason.observed_rate)
            ),
            Tone::Plain,
        ),
        (
            "forecast",
            format!("{} at that quantile, median {}", rate(reason.median_rate + reason.upper_rate), rate(reason.median_rate)),
            Tone::Plain,
        ),
        (
            "own demand",
            reason.own_rate.map_or_else(|| "foretells nothing yet".to_owned(), |own| format!("foretells {}", rate(own))),
            Tone::Plain,
        ),
        ("lead time", human::millis(reason.lead_ms), Tone::Plain),
        ("price", format!("{} /h", human::money(costs.instance_hour_price)), Tone::Plain),
        ("cost of being late", format!("{} prices, {stated}", human::quantity(costs.late_cost_ratio)), Tone::Plain),
        (
            "idle instances",
            format!("kept for {} (break-even {})", human::millis(costs.scale_in_wait_ms), human::millis(costs.break_even_ms)),
            Tone::Plain,
        ),
        ("budget", budget, Tone::Plain),
    ];
    let spot = costs.spot.iter().flat_map(spot_facts);
    let mix = decision.mix.as_ref().map(|mix| ("mix", format!("{}: {}", mixed(decision, mix), mix.rule), Tone::Plain));
    let exposed = decision.mix.as_ref().and_then(|mix| mix.exposed.clone()).map(|why| ("exposed", why, Tone::Warning));
    let all = facts.into_iter().chain(mix).chain(spot).chain(exposed).chain(blocked);
    print_pairs(&all.collect::<Vec<_>>(), out)?;
    print_alternatives(&pool.alternatives, out)?;
    print_sources(&pool.sources, out)?;
    print_margin(&pool.margin, out)
}

fn spot_facts(spot: &SpotTerms) -> [(&'static str, String, Tone); 3] {
    // A rate may be small.
    let rate = |per_hour: f64| format!("{per_hour:.4} an hour");
    let price = format!("{} /h, taken above {}", human::money(spot.instance_hour_price), human::money(spot.bid));
    let limits = format!(
        "at most {} of the pool is spot, of which {} may be taken at once",
        human::share(spot.max_share),
        human::share(spot.at_once)
    );
    let taken = format!(
        "{} expected, missing for {} each; {} before anything was seen, {} taken in {} instance-hours, price above the bid {} times in {} h",
        rate(spot.interruptions_per_hour),
        human::millis(spot.outage_ms),
        rate(spot.prior_per_hour),
        human::quantity(spot.interruptions),
        human::quantity(spot.instance_hours),
        human::quantity(spot.crossings),
        human::quantity(spot.market_hours)
    );
    [("spot price", price, Tone::Plain), ("spot limits", limits, Tone::Plain), ("interruptions", taken, Tone::Plain)]
}

fn print_alternatives(alternatives: &[Alternative], out: &mut Output) -> Result<(), Failure> {
    if alternatives.is_empty() {
        return Ok(());
    }
    out.line("")?;
    let mut table = Table::new(&[Right("INSTANCES"), Left("WHAT"), Right("MISSING"), Right("COST"), Left("WHY NOT")]);
    for alternative in alternatives {
        let what = match (alternative.kind, alternative.quantile) {
            (AlternativeKind::Chosen, _) => "chosen".to_owned(),
            (AlternativeKind::OneFewer, _) => "one fewer".to_owned(),
            (AlternativeKind::OneMore, _) => "one more".to_owned(),
            (AlternativeKind::AsBefore, _) => "as before".to_owned(),
            (AlternativeKind::AllOnDemand, _) => "all on demand".to_owned(),
            (AlternativeKind::AllSpot, _) => "all spot".to_owned(),
            (AlternativeKind::LowerQuantile | AlternativeKind::HigherQuantile, Some(level)) => {
                format!("q{}", quantile(level.thousandths()))
            }
            (AlternativeKind::LowerQuantile, None) => "lower quantile".to_owned(),
            (AlternativeKind::HigherQuantile, None) => "higher quantile".to_owned(),
        };
        table.row(
            if alternative.kind == AlternativeKind::Chosen { Tone::Strong } else { Tone::Plain },
            [
                alternative.instances.to_string(),
                what,
                human::quantity(alternative.expected_missing),
                human::quantity(alternative.expected_cost),
                alternative.rejected.clone().unwrap_or_default(),
            ],
        );
    }
    table.print(out)
}

fn print_sources(sources: &[SourceShare], out: &mut Output) -> Result<(), Failure> {
    if sources.is_empty() {
        return out.line("No region forecasts traffic to it.");
    }
    out.line("")?;
    let mut table = Table::new(&[Left("SOURCE"), Left("ENTERS AT"), Right("TIMES"), Right("MEDIAN"), Right("SHARE"), Right("AGE")]);
    for source in sources.iter().take(MAX_SOURCE_ROWS) {
        table.row(
            if source.stale { Tone::Warning } else { Tone::Plain },
            [
                source.region.to_string(),
                source.service.to_string(),
                human::quantity(source.factor),
                format!("{} /s", human::quantity(source.median_rate)),
                human::share(source.share),
                format!("{}{}", human::millis(source.age_ms), if source.stale { ", stale" } else { "" }),
            ],
        );
    }
    table.print(out)?;
    match sources.len().saturating_sub(MAX_SOURCE_ROWS) {
        0 => Ok(()),
        more => out.line(&format!("and {} with less", human::some(more as u64, "source"))),
    }
}

fn print_margin(margin: &MarginReasons, out: &mut Output) -> Result<(), Failure> {
    out.line("")?;
    let choices = margin.choices.iter().filter(|choice| choice.weight >= 0.005);
    let choices = choices.map(|choice| {
        let tuned = if choice.tuned { " (tuned)" } else { "" };
        format!("x{:.2}{tuned} {}", choice.margin, human::share(choice.weight))
    });
    let choices = choices.collect::<Vec<_>>().join(", ");
    let learned = human::some(margin.learned_steps, "step");
    let regret = human::quantity(margin.regret);
    let own = format!("the pool's own demand {}", human::share(margin.own_weight));
    out.line(&format!(
        "margin x{:.2} over the median, learned from {learned}: {own}, {choices}; regret {regret} instance-steps",
        margin.margin
    ))
}
