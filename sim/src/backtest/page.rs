//! The frontiers as one page that needs nothing else.

use super::Report;
use crate::report::Point;
use crate::report::chart::{Line, escape, lines};
use std::fmt::Write as _;

const STYLE: &str = "
:root{color-scheme:light dark;--paper:#fff;--card:#f6f7f9;--ink:#1b2330;--dim:#5c6675;--grid:#dfe3e9;--a:#1f6feb;--b:#d97706;--c:#0f9d68}
@media(prefers-color-scheme:dark){:root{--paper:#12161d;--card:#1a202a;--ink:#e6eaf0;--dim:#98a3b3;--grid:#2c3543;--a:#6cb0ff;--b:#f5b041;--c:#4cd3a0}}
body{margin:0 auto;padding:28px 20px;max-width:1100px;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
figure{margin:14px 0;padding:12px;background:var(--card);border:1px solid var(--grid);border-radius:8px}svg{width:100%;height:auto}
.legend{font-size:13px;color:var(--dim)}.legend span{margin-right:16px}.key{display:inline-block;width:14px;height:3px;margin-right:6px}
.key.a{background:var(--a)}.key.b{background:var(--b)}.key.c{background:var(--c)}.axis{font-size:12px;fill:var(--dim)}.grid{stroke:var(--grid)}
.line{fill:none;stroke-width:2}.line.a{stroke:var(--a)}.line.b{stroke:var(--b)}.line.c{stroke:var(--c)}
table{border-collapse:collapse}td,th{text-align:right;padding:4px 12px;border-bottom:1px solid var(--grid)}td:first-child{text-align:left}
";

/// Our frontier beside each rival's, and the table.
pub(crate) fn html(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Policy backtest</title><style>{STYLE}</style></head><body><h1>Policy backtest, lead {}</h1><p>Demand that found no ready unit (decades of its share, 0 being 0.001 %) over the bill in per cent above the cheapest without lateness.</p>",
        report.lead
    );
    let points = |name: &str| -> Vec<Point> {
        let frontier = report.policies.get(name).map_or(&[][..], |standing| &standing.frontier);
        let shown = frontier.iter().filter(|point| (1.0..=2.0).contains(&point.cost_ratio));
        shown.map(|point| ((point.cost_ratio - 1.0) * 100.0, (point.late_share.max(1e-5) / 1e-5).log10())).collect()
    };
    let ours = points("tradewind");
    let best = points("best-rival");
    for name in report.policies.keys().filter(|name| !["tradewind", "clairvoyant", "best-rival"].contains(&name.as_str())) {
        let theirs = points(name);
        let mut shown = vec![Line { name, class: "b", points: &theirs }];
        if !best.is_empty() {
            shown.push(Line { name: "best-rival", class: "c", points: &best });
        }
        if !ours.is_empty() {
            shown.push(Line { name: "tradewind", class: "a", points: &ours });
        }
        page.push_str(
            &lines(name, "decades of late share", &shown, &[], 100.0, 3.0)
                .replace("seconds of the simulation", "% above the cheapest bill"),
        );
    }
    page.push_str("<table><tr><th></th><th>tuned to</th><th>bill</th><th>late %</th><th>unit-hours</th><th>unserved</th><th>slack</th><th>churn</th></tr>");
    for (name, standing) in &report.policies {
        for (target, tuned) in &standing.tuned {
            let _ = write!(
                page,
                "<tr><td>{}</td><td>{target}</td><td>{:.3}</td><td>{:.4}</td><td>{:.1}</td><td>{:.1}</td><td>{:.3}</td><td>{:.3}</td></tr>",
                escape(name),
                tuned.cost_ratio,
                tuned.late_share * 100.0,
                tuned.resource_hours,
                tuned.unserved,
                tuned.slack,
                tuned.churn
            );
        }
    }
    page.push_str("</table></body></html>\n");
    page
}
