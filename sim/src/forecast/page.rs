//! The bench's result as a page: tables, and a few paths beside what came.

use super::score::{QUANTILES, Scores};
use super::{Report, Sample, SetReport};
use std::fmt::Write;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 190.0;
const STYLE: &str = "
:root{color-scheme:light dark;--paper:#fff;--ink:#1b2330;--dim:#5c6675;--line:#dfe3e9;--a:#1f6feb}
@media(prefers-color-scheme:dark){:root{--paper:#12161d;--ink:#e6eaf0;--dim:#98a3b3;--line:#2c3543;--a:#6cb0ff}}
body{margin:0 auto;padding:28px 20px;max-width:1200px;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
p{color:var(--dim);max-width:80ch}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{text-align:right;padding:3px 10px;border-bottom:1px solid var(--line)}td:first-child,th:first-child{text-align:left}
.paths{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,480px),1fr));gap:14px}figure{margin:0}svg{width:100%;height:auto}
.band{fill:var(--a);opacity:.2}.median{fill:none;stroke:var(--a);stroke-width:2}.past{fill:none;stroke:var(--dim);stroke-width:1.5}.came{fill:var(--ink)}
";

pub(super) fn html(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Forecasts</title><style>{STYLE}</style></head><body><h1>Forecasts</h1>\
         <p>Ratio: scaled pinball loss beside seasonal naive's; below 1 is better. Coverage: how often the 90 % interval held. \
         The charts show some paths at the middle origin: the band is the 90 % interval, dots are what came.</p>"
    );
    for (name, set) in &report.sets {
        let _ = write!(page, "<h2>{}, {} series</h2>{}", escape(name), set.series, table(set));
        let charts: String = set.samples.iter().map(chart).collect();
        let _ = write!(page, "<div class=\"paths\">{charts}</div>");
    }
    page + "</body></html>\n"
}

fn table(set: &SetReport) -> String {
    let mut table = String::from("<table><tr><th></th><th>ratio</th><th>MASE</th><th>coverage</th>");
    for h in set.scores.by_horizon.keys() {
        let _ = write!(table, "<th>{h} ahead</th>");
    }
    table.push_str("</tr>");
    let mut row = |name: String, scores: &Scores| {
        let all = scores.overall;
        let _ =
            write!(table, "<tr><td>{}</td><td>{:.3}</td><td>{:.3}</td><td>{:.3}</td>", escape(&name), all.ratio, all.mase, all.coverage_90);
        for f in scores.by_horizon.values() {
            let _ = write!(table, "<td>{:.3} ({:.0} %)</td>", f.ratio, 100.0 * f.coverage_90);
        }
        table.push_str("</tr>");
    };
    row("combination".into(), &set.scores);
    set.plain_mean.iter().for_each(|scores| row("plain mean of the experts".into(), scores));
    set.experts.iter().for_each(|(name, scores)| row(format!("{name} alone"), scores));
    set.ablation.iter().for_each(|(name, scores)| row(format!("without {name}"), scores));
    set.baselines.iter().for_each(|(name, scores)| row(name.clone(), scores));
    table + "</table>"
}

fn chart(sample: &Sample) -> String {
    let (before, ahead) = (sample.before.len(), sample.before.len() / 2);
    let top =
        sample.before.iter().chain(&sample.after).chain(sample.rows.iter().map(|row| &row[QUANTILES - 3])).copied().fold(1e-9, f64::max);
    let x = |at: f64| WIDTH * at / (before + ahead).max(1) as f64;
    let y = |value: f64| HEIGHT - 4.0 - (HEIGHT - 8.0) * value / top;
    // The rows stand at their horizons, which are not kept; spread as powers of two they would mislead, so they are spread evenly.
    let place = |at: usize| before as f64 + (at + 1) as f64 * ahead as f64 / sample.rows.len().max(1) as f64;
    let line =
        |values: &mut dyn Iterator<Item = (f64, f64)>| values.map(|(at, v)| format!("{:.1},{:.1} ", x(at), y(v))).collect::<String>();
    let past = line(&mut sample.before.iter().enumerate().map(|(at, v)| (at as f64, *v)));
    let median = line(&mut sample.rows.iter().enumerate().map(|(at, row)| (place(at), row[3])));
    let low = line(&mut sample.rows.iter().enumerate().map(|(at, row)| (place(at), row[0])));
    let high = line(&mut sample.rows.iter().enumerate().rev().map(|(at, row)| (place(at), row[6])));
    let dots: String = sample.after.iter().enumerate().fold(String::new(), |mut dots, (at, v)| {
        let _ = write!(dots, "<circle class=\"came\" r=\"3\" cx=\"{:.1}\" cy=\"{:.1}\"/>", x(place(at)), y(*v));
        dots
    });
    format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><polygon class=\"band\" points=\"{low}{high}\"/>\
         <polyline class=\"past\" points=\"{past}\"/><polyline class=\"median\" points=\"{median}\"/>{dots}</svg></figure>",
        escape(&sample.title)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
