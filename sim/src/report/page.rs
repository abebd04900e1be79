//! A run's report as one HTML page.

use super::chart::{Line, bars, escape, lines, number};
use super::survey::{CapacityFigures, ForecastFigures};
use crate::report::Report;
use std::fmt::Write as _;

const STYLE: &str = "
:root{color-scheme:light dark;--paper:#fff;--card:#f6f7f9;--ink:#1b2330;--dim:#5c6675;--grid:#dfe3e9;--a:#1f6feb;--b:#d97706;--c:#0f9d68;--bad:#c62828;--good:#0f7a52}
@media(prefers-color-scheme:dark){:root{--paper:#12161d;--card:#1a202a;--ink:#e6eaf0;--dim:#98a3b3;--grid:#2c3543;--a:#6cb0ff;--b:#f5b041;--c:#4cd3a0;--bad:#ff7b72;--good:#4cd3a0}}
*{box-sizing:border-box}body{margin:0 auto;padding:28px 20px 60px;max-width:1240px;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
h1{font-size:26px;margin:0 0 2px}h2{font-size:18px;margin:34px 0 10px}p{margin:0 0 8px;color:var(--dim);max-width:80ch}
.verdict{font-weight:600}.good{color:var(--good)}.bad{color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:12px;margin:18px 0}
.tile,figure{background:var(--card);border:1px solid var(--grid);border-radius:8px}
.tile{padding:12px 14px}.tile b{display:block;font-size:22px;font-variant-numeric:tabular-nums}.tile span{color:var(--dim);font-size:13px}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,520px),1fr));gap:14px}
figure{margin:0;padding:12px 14px}figcaption{font-weight:600;margin-bottom:2px}svg{display:block;width:100%;height:auto}
.legend{font-size:13px;color:var(--dim);min-height:20px}.legend span{margin-right:16px}.key{display:inline-block;width:14px;height:3px;border-radius:2px;vertical-align:middle;margin-right:6px}
.key.a{background:var(--a)}.key.b{background:var(--b)}.key.c{background:var(--c)}.key.dashed{height:0;border-top:2px dashed var(--dim)}
.axis,.value{font-size:12px;fill:var(--dim)}.value{fill:var(--ink)}.grid{stroke:var(--grid)}.mark{stroke:var(--dim);stroke-dasharray:4 4}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.line.a{stroke:var(--a)}.line.b{stroke:var(--b)}.line.c{stroke:var(--c)}
.bar.a{fill:var(--a)}.bar.b{fill:var(--b)}.bar.c{fill:var(--c)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}td,th{text-align:left;padding:5px 10px;border-bottom:1px solid var(--grid);vertical-align:top}th{color:var(--dim);font-weight:600}
code{font-size:12px;overflow-wrap:anywhere}.scroll{overflow-x:auto}
";

/// The page of a run of the scenario that is `about` something.
pub fn html(report: &Report, about: &str) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{name}, seed {seed}</title><style>{STYLE}</style></head><body><h1>{name}</h1><p>{about}</p>",
        name = escape(&report.scenario),
        seed = report.seed,
        about = escape(about),
    );
    page.push_str(&verdict(report));
    page.push_str(&tiles(report));
    page.push_str(&mesh(report));
    report.figures.forecast.iter().for_each(|forecast| page.push_str(&forecasts(report, forecast)));
    report.figures.capacity.iter().for_each(|figures| page.push_str(&capacity(report, figures)));
    let _ = writeln!(
        page,
        "<h2>The run</h2><p>The same seed gives the same run: <code>tradewind-sim run {} --seed {}</code>. SHA-256 of everything that happened ({} lines): <code>{}</code></p></body></html>",
        escape(&report.scenario),
        report.seed,
        report.trace.lines,
        escape(&report.trace.digest)
    );
    page
}

fn verdict(report: &Report) -> String {
    let run = format!(
        "{} agents, {:.0} s of the simulation in {:.1} s of one processor ({:.0} times real time), seed {}",
        report.agents,
        report.simulated_s,
        report.cpu_s,
        report.speed(),
        report.seed
    );
    if report.passed() {
        return format!("<p><span class=\"verdict good\">Passed: {}.</span> {run}</p>", report.held());
    }
    let rows: String = report
        .violations
        .iter()
        .map(|violation| {
            format!(
                "<tr><td>{:.1} s</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                violation.first_s,
                escape(&violation.subject),
                escape(violation.rule.text()),
                escape(&violation.what)
            )
        })
        .collect();
    format!(
        "<p><span class=\"verdict bad\">{} violations.</span> {run}</p><div class=\"scroll\"><table><tr><th>first at</th><th>of whom</th><th>rule</th><th>what was seen</th></tr>{rows}</table></div>",
        report.violations.len()
    )
}

fn tiles(report: &Report) -> String {
    let slowest = report.settled.iter().map(|settled| settled.took_s).fold(0.0, f64::max);
    let mut tiles = vec![
        (format!("{} s", number(slowest)), "slowest convergence".to_string()),
        (format!("{} kB/s", number(report.bytes_per_agent_second / 1e3)), "sent by an agent".into()),
        (number(report.acknowledged_transactions as f64), "transactions acknowledged".into()),
    ];
    if let Some(forecast) = &report.figures.forecast {
        tiles.push((format!("{:.2}", forecast.ratio()), "forecast error, seasonal naive = 1".into()));
        tiles.push((format!("{:.1} %", 100.0 * forecast.coverage_90), "of counts inside the 90 % interval".into()));
    }
    if let Some(capacity) = &report.figures.capacity {
        let reactive = 100.0 * capacity.reactive_late_share;
        tiles.push((format!("{:.2} %", 100.0 * capacity.late_share), format!("of steps short of capacity (reactive: {reactive:.2} %)")));
    }
    let tiles: String = tiles.iter().map(|(value, name)| format!("<div class=\"tile\"><b>{value}</b><span>{name}</span></div>")).collect();
    format!("<div class=\"tiles\">{tiles}</div>")
}

fn mesh(report: &Report) -> String {
    let figures = &report.figures;
    let percent: Vec<_> = figures.right.iter().map(|(at, share)| (*at, 100.0 * share)).collect();
    let kilobytes: Vec<_> = figures.bytes_per_agent_second.iter().map(|(at, bytes)| (*at, bytes / 1e3)).collect();
    let settled: Vec<_> =
        report.settled.iter().map(|settled| (format!("{} (at {:.0} s)", settled.after, settled.at_s), settled.took_s)).collect();
    let (marks, until) = (marks(report), report.simulated_s);
    format!(
        "<h2>Mesh</h2><p>A view is right when it shows every agent that can be reached as live, in its newest life, and no other.</p><div class=\"charts\">{}{}{}</div>",
        lines("Agents whose view is right", "percent of the running ones", &[line("right views", "c", &percent)], &marks, until, 100.0),
        bars("Until every view was right, after each change", "s", "c", &settled),
        lines(
            "Bytes that an agent sends",
            "kilobytes per second, mean of all agents",
            &[line("datagrams", "a", &kilobytes)],
            &marks,
            until,
            0.0
        ),
    )
}

fn forecasts(report: &Report, forecast: &ForecastFigures) -> String {
    format!(
        "<h2>Forecasts</h2><p>{} forecasts, each made {} steps ahead and scored on what came: mean pinball loss {} transactions a step, {} for seasonal naive (the count of one season before, with the quantiles of its own errors).</p><div class=\"charts\">{}</div>",
        forecast.scored,
        forecast.lead_steps,
        number(forecast.pinball),
        number(forecast.seasonal_naive_pinball),
        lines(
            "Forecast error",
            "pinball loss a step, sum of all series, transactions",
            &[line("Tradewind", "a", &forecast.loss), line("seasonal naive", "b", &forecast.seasonal_naive_loss)],
            &marks(report),
            report.simulated_s,
            0.0,
        ),
    )
}

fn capacity(report: &Report, capacity: &CapacityFigures) -> String {
    let late: Vec<_> = capacity.late.iter().map(|(at, share)| (*at, 100.0 * share)).collect();
    let by_region: Vec<_> = capacity.by_region.iter().map(|region| (region.region.to_string(), 100.0 * region.late_share)).collect();
    let (marks, until) = (marks(report), report.simulated_s);
    format!(
        "<h2>Capacity</h2><p>{:.2} % of {} steps of regions had less capacity than load, for {} instance-hours; a reactive scaler that spends at least as much ({}) has {:.2} %.</p><div class=\"charts\">{}{}{}</div>",
        100.0 * capacity.late_share,
        capacity.region_steps,
        number(capacity.instance_hours),
        number(capacity.reactive_instance_hours),
        100.0 * capacity.reactive_late_share,
        lines(
            "Load and what stood ready for it",
            "transactions per second, all regions",
            &[line("ready", "c", &capacity.ready), line("load", "a", &capacity.load)],
            &marks,
            until,
            0.0,
        ),
        lines("Regions short of capacity", "percent of the regions", &[line("late", "b", &late)], &marks, until, 5.0),
        bars("Steps short of capacity, by region", "%", "b", &by_region),
    )
}

fn line<'a>(name: &'a str, class: &'a str, points: &'a [super::Point]) -> Line<'a> {
    Line { name, class, points }
}

/// When the world changed, but for its beginning.
fn marks(report: &Report) -> Vec<super::Point> {
    report.settled.iter().map(|settled| (settled.at_s, 0.0)).filter(|mark| mark.0 > 0.0).collect()
}
