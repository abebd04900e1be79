//! Charts as inline SVG: no script, no font, nothing fetched. Colours are the page's variables, so
//! that one chart serves light and dark.

use super::Point;
use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 38.0;

/// Points that a line is drawn with: one for each pixel pair is more than an eye resolves.
const MAX_POINTS: usize = 300;

/// About how many ticks an axis has.
const TICKS: f64 = 5.0;

/// One line.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    /// A class of the page: `a` to `d`.
    pub(crate) class: &'a str,
    pub(crate) points: &'a [Point],
}

/// Lines over time, with a dashed line upright at each of `marks`.
pub(crate) fn lines(title: &str, unit: &str, lines: &[Line<'_>], marks: &[Point], until: f64, least_top: f64) -> String {
    let highest = lines.iter().flat_map(|line| line.points).map(|point| point.1).fold(least_top, f64::max);
    let (top, tick) = axis(highest);
    let x = |t: f64| LEFT + (WIDTH - LEFT - RIGHT) * (t / until.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
    let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value / top).clamp(0.0, 1.0);
    let mut svg = open(title);
    let _ = write!(svg, "<text class=\"axis\" x=\"{LEFT}\" y=\"10\" text-anchor=\"start\">{}</text>", escape(unit));
    let mut value = 0.0;
    while value <= top * 1.001 {
        let at = y(value);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            number(value)
        );
        value += tick;
    }
    let (_, every) = axis(until);
    let mut t = 0.0;
    while t <= until * 1.001 {
        let _ = write!(
            svg,
            "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(t),
            HEIGHT - BOTTOM + 16.0,
            number(t)
        );
        t += every;
    }
    let _ = write!(
        svg,
        "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">seconds of the simulation</text>",
        WIDTH - RIGHT,
        HEIGHT - 6.0
    );
    for (at, _) in marks {
        let _ = write!(svg, "<line class=\"mark\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{1:.1}\"/>", x(*at), HEIGHT - BOTTOM);
    }
    for line in lines {
        let path: Vec<String> = thinned(line.points).iter().map(|(t, value)| format!("{:.1},{:.1}", x(*t), y(*value))).collect();
        let _ = write!(svg, "<polyline class=\"line {}\" points=\"{}\"/>", line.class, path.join(" "));
    }
    svg.push_str("</svg>");
    let legend: String =
        lines.iter().map(|line| format!("<span><i class=\"key {}\"></i>{}</span>", line.class, escape(line.name))).collect();
    let legend = if marks.is_empty() { legend } else { legend + "<span><i class=\"key dashed\"></i>a change of the world</span>" };
    format!("<figure><figcaption>{}</figcaption><div class=\"legend\">{legend}</div>{svg}</figure>", escape(title))
}

/// Bars side by side, one a name, each with its value.
pub(crate) fn bars(title: &str, unit: &str, class: &str, bars: &[(String, f64)]) -> String {
    const ROW: f64 = 20.0;
    const NAMES: f64 = 250.0;
    let highest = bars.iter().map(|bar| bar.1).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let height = ROW * bars.len() as f64 + 4.0;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">", escape(title));
    for (i, (name, value)) in bars.iter().enumerate() {
        let (y, long) = (ROW * i as f64, (WIDTH - NAMES - 90.0) * value / highest);
        let _ = write!(
            svg,
            "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><rect class=\"bar {class}\" x=\"{NAMES}\" y=\"{:.1}\" width=\"{long:.1}\" height=\"14\" rx=\"2\"/><text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{} {}</text>",
            NAMES - 8.0,
            y + 14.0,
            escape(&shortened(name)),
            y + 3.0,
            NAMES + long + 6.0,
            y + 14.0,
            number(*value),
            escape(unit)
        );
    }
    svg.push_str("</svg>");
    format!("<figure><figcaption>{}</figcaption>{svg}</figure>", escape(title))
}

fn open(title: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escape(title))
}

/// At most [`MAX_POINTS`], each the mean of its neighbours.
fn thinned(points: &[Point]) -> Vec<Point> {
    let group = points.len().div_ceil(MAX_POINTS).max(1);
    let mean = |group: &[Point]| {
        let (t, value) = group.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (t / group.len() as f64, value / group.len() as f64)
    };
    points.chunks(group).map(mean).collect()
}

/// The end of an axis that holds `highest`, and the distance of its ticks: 1, 2 or 5 times a power of ten.
fn axis(highest: f64) -> (f64, f64) {
    let rough = highest.max(1e-9) / TICKS;
    let power = 10_f64.powf(rough.log10().floor());
    let tick = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|tick| *tick >= rough * 0.999).unwrap_or(power * 10.0);
    ((highest / tick).ceil().max(1.0) * tick, tick)
}

/// A number with as many digits as matter.
pub(crate) fn number(value: f64) -> String {
    let text = match value.abs() {
        size if size >= 1e6 => return format!("{:.1} M", value / 1e6),
        size if size >= 1e4 => return format!("{:.0} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

fn shortened(name: &str) -> String {
    const LONGEST: usize = 38;
    if name.chars().count() <= LONGEST { name.into() } else { name.chars().take(LONGEST - 1).chain(['\u{2026}']).collect() }
}

/// Text as it may stand in a page.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_on_a_tick_above_the_highest_value() {
        for (highest, expected) in
            [(100.0, (100.0, 20.0)), (97.0, (100.0, 20.0)), (0.7, (0.8, 0.2)), (23.0, (25.0, 5.0)), (0.0, (1e-9, 1e-9))]
        {
            let (top, tick) = axis(highest);
            assert!((top - expected.0).abs() < 1e-6 && (tick - expected.1).abs() < 1e-6, "{highest}: {top}, {tick}");
        }
        assert_eq!([0.0, 0.25, 12.0, 250.4, 12_345.0, 2.5e6].map(number), ["0", "0.25", "12", "250", "12 k", "2.5 M"]);
    }

    #[test]
    fn long_lines_are_thinned_and_names_cannot_write_markup() {
        let points: Vec<Point> = (0..10_000).map(|i| (f64::from(i), 1.0)).collect();
        let svg = lines("a<b", "\"u\"", &[Line { name: "<script>", class: "a", points: &points }], &[], 10_000.0, 0.0);
        assert!(svg.matches(',').count() < 400 && !svg.contains("<script") && svg.contains("a&lt;b"), "{svg}");
    }
}
