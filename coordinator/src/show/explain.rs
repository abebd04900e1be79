//! `tradewind explain`: one series after another, with its path, and for each horizon who had how much to say.

use super::forecasts::{Rates, print_chart, seconds};
use super::title;
use crate::failure::Failure;
use crate::human::{self, clean};
use crate::output::{Output, Tone};
use crate::table::Column::{Left, Right};
use crate::table::Table;
use std::collections::BTreeMap;
use tradewind_protocol::Quantile;
use tradewind_protocol::api::{ExpertReasons, ForecastExplanation, ForecastReasons, HorizonReasons};

/// How many steps of the path are told in numbers; the chart and the other formats have them all.
const MAX_PATH_ROWS: usize = 8;

pub(super) fn print(all: &[ForecastExplanation], out: &mut Output) -> Result<(), Failure> {
    each(all, out, |_, _| Ok(()))
}

pub(super) fn print_with_charts(all: &[ForecastExplanation], out: &mut Output) -> Result<(), Failure> {
    each(all, out, |one, out| {
        print_chart(&one.view, out)?;
        out.line("")
    })
}

fn each(
    all: &[ForecastExplanation],
    out: &mut Output,
    chart: impl Fn(&ForecastExplanation, &mut Output) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for (at, one) in all.iter().enumerate() {
        if at > 0 {
            out.line("")?;
        }
        title(&one.view.prediction.series, out)?;
        out.line(&summary(one))?;
        for applied in &one.view.events_applied {
            let effect = applied.effect;
            let times = format!("x{} (90 %: {} to {})", number(effect.factor), number(effect.low), number(effect.high));
            out.line(&format!("  event {} of {}: {times}", applied.event, applied.region))?;
        }
        out.line("")?;
        chart(one, out)?;
        print_path(one, out)?;
        match &one.reasons {
            Some(reasons) => print_reasons(reasons, one.view.prediction.path.step().seconds(), out)?,
            None => out.line(&format!("Published by {}: ask its agent for the reasons.", one.region))?,
        }
    }
    Ok(())
}

fn summary(one: &ForecastExplanation) -> String {
    let (prediction, score) = (&one.view.prediction, &one.view.prediction.score);
    let age = one.reasons.as_ref().map_or_else(String::new, |reasons| {
        let seasons = reasons.steps as f64 / reasons.season.max(1) as f64;
        let trained =
            reasons.trained_ago.map_or_else(String::new, |ago| format!(", those of all series trained {} ago", human::some(ago, "step")));
        format!(", a model of {} ({seasons:.1} seasons){trained}", human::some(reasons.steps, "step"))
    });
    let made = format!("made by {} {} ago, best expert {}{age}", one.region, human::millis(one.view.age_ms), clean(&prediction.model));
    if score.steps == 0 {
        return format!("  {made}; nothing was judged yet");
    }
    let ratio = if score.seasonal_naive_pinball > 0.0 {
        format!("{:.2} of seasonal naive's", score.pinball / score.seasonal_naive_pinball)
    } else {
        "none, as seasonal naive's".to_owned()
    };
    let steps = human::some(u64::from(score.steps), "step");
    format!("  {made}\n  one step ahead, over the last {steps}: loss {ratio}, 90 % interval held {}", human::share(score.coverage_90))
}

fn print_path(one: &ForecastExplanation, out: &mut Output) -> Result<(), Failure> {
    let path = &one.view.prediction.path;
    let rates = Rates { path };
    let mut table = Table::new(&[Left("AT (UTC)"), Right("AHEAD"), Right("MEDIAN /s"), Right("90 % /s")]);
    let every = path.horizon().div_ceil(MAX_PATH_ROWS).max(1);
    for ahead in (1..=path.horizon()).filter(|ahead| *ahead == 1 || ahead % every == 0) {
        let step = path.start().offset(i64::try_from(ahead).unwrap_or(1) - 1);
        let (low, high) = rates.band(step);
        table.row(
            Tone::Plain,
            [
                human::clock(path.step().start(step), seconds(path)),
                ahead.to_string(),
                human::quantity(rates.at(step, Quantile::MEDIAN)),
                format!("{} to {}", human::quantity(low), human::quantity(high)),
            ],
        );
    }
    table.print(out)?;
    out.line("")
}

fn print_reasons(reasons: &ForecastReasons, step_seconds: f64, out: &mut Output) -> Result<(), Failure> {
    let mut table =
        Table::new(&[Right("AHEAD"), Right("JUDGED"), Right("ERROR /s"), Right("NAIVE /s"), Right("COVERAGE"), Left("EXPERTS BY WEIGHT")]);
    for HorizonReasons { ahead, judged, coverage_90, error, seasonal_naive_error, experts } in &reasons.horizons {
        let known = *judged > 0;
        let figure = |value: f64| if known { human::quantity(value / step_seconds) } else { "-".to_owned() };
        table.row(
            if known && error > seasonal_naive_error { Tone::Warning } else { Tone::Plain },
            [
                ahead.to_string(),
                human::count(*judged),
                figure(*error),
                figure(*seasonal_naive_error),
                if known { human::share(*coverage_90) } else { "-".to_owned() },
                weights(experts),
            ],
        );
    }
    table.print(out)?;
    for (name, why) in silent(reasons) {
        out.line(&format!("silent: {}: {}", clean(name), clean(why)))?;
    }
    Ok(())
}

/// Those who have something to say, the weightiest first.
fn weights(experts: &[ExpertReasons]) -> String {
    let mut speaking: Vec<&ExpertReasons> = experts.iter().filter(|expert| expert.silent.is_none() && expert.weight >= 0.005).collect();
    speaking.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    let told: Vec<String> = speaking.iter().map(|expert| format!("{} {}", clean(&expert.name), human::share(expert.weight))).collect();
    if told.is_empty() { "-".to_owned() } else { told.join(", ") }
}

/// Why experts are silent, each told once: horizons share their reasons.
fn silent(reasons: &ForecastReasons) -> BTreeMap<&str, &str> {
    let experts = reasons.horizons.iter().flat_map(|horizon| &horizon.experts);
    experts.filter_map(|expert| Some((expert.name.as_str(), expert.silent.as_deref()?))).collect()
}

fn number(value: f64) -> String {
    format!("{value:.2}")
}
