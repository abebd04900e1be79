//! `tradewind reservations`: what is promised to whom.

use crate::failure::Failure;
use crate::human;
use crate::output::{Output, Tone};
use crate::table::Column::{Left, Right};
use crate::table::Table;
use tradewind_protocol::api::{ClaimView, ReservationView, Reservations};
use tradewind_protocol::reservation::{Phase, Terms, Tier};

pub(super) fn print(all: &Reservations, out: &mut Output) -> Result<(), Failure> {
    print_granted(all.granted.iter(), out)?;
    print_claimed(&all.claimed, out)
}

pub(super) fn print_without_instances(all: &Reservations, out: &mut Output) -> Result<(), Failure> {
    print_granted(all.granted.iter().filter(|r| !r.id.starts_with("instance/")), out)?;
    print_claimed(&all.claimed, out)
}

fn print_granted<'r>(granted: impl Iterator<Item = &'r ReservationView>, out: &mut Output) -> Result<(), Failure> {
    let mut granted = granted.peekable();
    let title = out.paint(Tone::Strong, "Promised by this region");
    out.line(&title)?;
    if granted.peek().is_none() {
        return out.line("Nothing.");
    }
    let mut table = Table::new(&[
        Left("POOL"),
        Left("HOLDER"),
        Right("UNITS"),
        Right("RUNNING"),
        Left("TIER"),
        Left("STATE"),
        Left("FROM (UTC)"),
        Left("UNTIL (UTC)"),
        Right("LAPSES IN"),
    ]);
    for reservation in granted {
        let terms = &reservation.terms;
        let (state, tone) = phase(Some(reservation.phase));
        let holder = match &reservation.serves {
            Some(served) => format!("{} (for {served})", reservation.id),
            None => reservation.id.clone(),
        };
        table.row(
            tone,
            [
                reservation.pool.to_string(),
                holder,
                terms.units.to_string(),
                reservation.placed.to_string(),
                tier(terms),
                state.to_owned(),
                human::time(terms.window.from),
                until(terms),
                reservation.lapses_in_ms.map_or("-".to_owned(), human::millis),
            ],
        );
    }
    table.print(out)
}

fn print_claimed(claimed: &[ClaimView], out: &mut Output) -> Result<(), Failure> {
    out.line("")?;
    let title = out.paint(Tone::Strong, "Promised to this region");
    out.line(&title)?;
    if claimed.is_empty() {
        return out.line("Nothing.");
    }
    let mut table = Table::new(&[
        Left("OWNER"),
        Left("POOL"),
        Right("NUMBER"),
        Right("UNITS"),
        Left("TIER"),
        Left("STATE"),
        Left("FROM (UTC)"),
        Left("UNTIL (UTC)"),
        Right("VALID FOR"),
    ]);
    for claim in claimed {
        let (state, tone) = phase(claim.phase);
        table.row(
            tone,
            [
                claim.owner.to_string(),
                claim.pool.to_string(),
                claim.number.to_string(),
                claim.terms.units.to_string(),
                tier(&claim.terms),
                state.to_owned(),
                human::time(claim.terms.window.from),
                until(&claim.terms),
                human::millis(claim.valid_for_ms),
            ],
        );
    }
    table.print(out)
}

fn tier(terms: &Terms) -> String {
    match terms.tier {
        Tier::Firm => "firm".to_owned(),
        Tier::Soft => format!("soft {}", human::share(f64::from(terms.confidence.thousandths()) / 1_000.0)),
    }
}

fn phase(phase: Option<Phase>) -> (&'static str, Tone) {
    match phase {
        None => ("asked", Tone::Faint),
        Some(Phase::Held) => ("held", Tone::Faint),
        Some(Phase::Confirmed) => ("confirmed", Tone::Plain),
        Some(Phase::Leaving) => ("leaving", Tone::Warning),
    }
}

/// An instance's has no end.
fn until(terms: &Terms) -> String {
    let end = human::time(terms.window.until);
    if end.starts_with("9999") { "-".to_owned() } else { end }
}
