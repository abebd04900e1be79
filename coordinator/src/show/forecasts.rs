//! `tradewind forecasts`: a line a series, and charts of the busiest.
//!
//! The API counts transactions per step; people compare rates, so everything here is in
//! transactions per second.

use super::title;
use crate::chart::Chart;
use crate::failure::Failure;
use crate::human::{self, Seconds, clean};
use crate::output::{Output, Tone};
use crate::table::Column::{Left, Right};
use crate::table::Table;
use std::cmp::Reverse;
use tradewind_protocol::api::ForecastView;
use tradewind_protocol::{Quantile, QuantilePath, StepIndex, TenantName};

/// How many series get a chart: as many as fit on a screen.
const MAX_CHARTS: usize = 3;

pub(super) fn print(views: &[ForecastView], out: &mut Output) -> Result<(), Failure> {
    if views.is_empty() {
        return out.line("No forecasts: either no series matches, or none has been counted for long enough.");
    }
    let tenants = views.iter().any(|view| view.prediction.series.tenant != TenantName::default());
    let mut table = Table::new(&[
        Left("FROM"),
        Left("TO"),
        Left(if tenants { "TENANT/SERVICE/TYPE" } else { "SERVICE/TYPE" }),
        Right("SEEN"),
        Right("NEXT"),
        Right("NEXT 90 %"),
        Right("PEAK P95"),
        Left("AT (UTC)"),
        Right("LOSS/NAIVE"),
        Right("COVERAGE"),
        Left("MODEL"),
        Right("AGE"),
    ]);
    for view in views {
        let prediction = &view.prediction;
        let (series, path, score) = (&prediction.series, &prediction.path, &prediction.score);
        let rates = Rates { path };
        let (low, high) = rates.band(path.start());
        let (peak_at, peak) = rates.peak();
        let scored = score.steps > 0;
        let worse = scored && score.pinball > score.seasonal_naive_pinball;
        let tenant = if tenants { format!("{}/", series.tenant) } else { String::new() };
        table.row(
            if worse { Tone::Warning } else { Tone::Plain },
            [
                series.source.to_string(),
                series.destination.to_string(),
                format!("{tenant}{}/{}", series.service, series.transaction_type),
                human::quantity(prediction.observed / path.step().seconds()),
                human::quantity(rates.at(path.start(), Quantile::MEDIAN)),
                format!("{} to {}", human::quantity(low), human::quantity(high)),
                human::quantity(peak),
                human::clock(path.step().start(peak_at), seconds(path)),
                if scored && score.seasonal_naive_pinball > 0.0 {
                    format!("{:.2}", score.pinball / score.seasonal_naive_pinball)
                } else {
                    "-".to_owned()
                },
                if scored { human::share(score.coverage_90) } else { "-".to_owned() },
                prediction.model.clone(),
                human::millis(view.age_ms),
            ],
        );
    }
    table.print(out)?;
    out.line("")?;
    let legend = out.paint(
        Tone::Faint,
        "Rates in transactions per second. LOSS/NAIVE below 1: better than the seasonal naive forecast. COVERAGE: of the 90 % interval.",
    );
    out.line(&legend)
}

pub(super) fn print_with_charts(views: &[ForecastView], out: &mut Output) -> Result<(), Failure> {
    print(views, out)?;
    // Ties keep the agent's order.
    let mut busiest: Vec<&ForecastView> = views.iter().collect();
    busiest.sort_by(|a, b| b.prediction.mean_volume.total_cmp(&a.prediction.mean_volume));
    for view in busiest.iter().take(MAX_CHARTS) {
        out.line("")?;
        print_chart(view, out)?;
    }
    match views.len().saturating_sub(MAX_CHARTS) {
        0 => Ok(()),
        more => {
            out.line("")?;
            let hint = format!("The busiest {MAX_CHARTS} are drawn. For {} more: --from, --to, --type.", human::some(more as u64, "chart"));
            let hint = out.paint(Tone::Faint, &hint);
            out.line(&hint)
        }
    }
}

pub(super) fn print_chart(view: &ForecastView, out: &mut Output) -> Result<(), Failure> {
    let (series, path) = (&view.prediction.series, &view.prediction.path);
    let rates = Rates { path };
    let steps = (0..path.horizon()).filter_map(|ahead| i64::try_from(ahead).ok()).map(|ahead| path.start().offset(ahead));
    let median: Vec<f64> = steps.clone().map(|step| rates.at(step, Quantile::MEDIAN)).collect();
    let band: Vec<(f64, f64)> = steps.map(|step| rates.band(step)).collect();
    let history: Vec<f64> = view.recent.iter().map(|count| count / path.step().seconds()).collect();
    let (low, high) = rates.ends();
    let tone = |curve: &str, tone| out.paint(tone, curve);
    let legend = format!(
        "{} counted  {} median  ░ {} of outcomes",
        tone("⠒⠒", Tone::Plain),
        tone("⠒⠒", Tone::Accent),
        human::share(high.probability() - low.probability())
    );
    title(series, out)?;
    let model = format!("transactions/s by {}, every {}", clean(&view.prediction.model), human::duration(path.step().length()));
    out.line(&format!("{model}   {legend}"))?;
    let first = path.start().offset(-i64::try_from(history.len()).unwrap_or(0));
    let last = path.start().offset(i64::try_from(path.horizon()).unwrap_or(1) - 1);
    let clock = |step: StepIndex| human::clock(path.step().start(step), seconds(path));
    let times = [clock(first), clock(path.start()), format!("{} UTC", clock(last))];
    let chart = Chart { history: &history, median: &median, band: &band, label: human::quantity, times };
    chart.lines(out).iter().try_for_each(|line| out.line(line))
}

/// A path's values per second instead of per step.
pub(super) struct Rates<'a> {
    pub(super) path: &'a QuantilePath,
}

impl Rates<'_> {
    pub(super) fn at(&self, step: StepIndex, q: Quantile) -> f64 {
        self.path.value(step, q).unwrap_or(f64::NAN) / self.path.step().seconds()
    }

    /// The central 90 % interval, or the widest that the path carries.
    fn ends(&self) -> (Quantile, Quantile) {
        let (low, high) = Quantile::CENTRAL_90;
        let carried = self.path.quantiles();
        (carried.first().map_or(low, |q| low.max(*q)), carried.last().map_or(high, |q| high.min(*q)))
    }

    pub(super) fn band(&self, step: StepIndex) -> (f64, f64) {
        let (low, high) = self.ends();
        (self.at(step, low), self.at(step, high))
    }

    /// The first of the steps with the highest 95th percentile, and its height.
    fn peak(&self) -> (StepIndex, f64) {
        let steps = (0..self.path.horizon()).filter_map(|ahead| i64::try_from(ahead).ok()).map(|ahead| self.path.start().offset(ahead));
        let heights = steps.map(|step| (step, self.at(step, Quantile::CENTRAL_90.1)));
        heights.max_by(|a, b| a.1.total_cmp(&b.1).then(Reverse(a.0).cmp(&Reverse(b.0)))).unwrap_or((self.path.start(), f64::NAN))
    }
}

/// Minutes tell long steps apart; short ones need seconds.
pub(super) fn seconds(path: &QuantilePath) -> Seconds {
    if path.step().length().as_secs().is_multiple_of(60) && path.step().length().as_secs() > 0 { Seconds::Hidden } else { Seconds::Shown }
}
