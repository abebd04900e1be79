//! Numbers, times and names as people read them.

use std::time::Duration;
use tradewind_protocol::Timestamp;
use tradewind_protocol::pool::MicroUsd;

/// A duration in at most two units: `850 us`, `12 ms`, `1.2 s`, `3 min 20 s`, `5 h 12 min`, `3 d 4 h`.
pub(crate) fn duration(d: Duration) -> String {
    let seconds = d.as_secs_f64();
    let whole = d.as_secs();
    let pair = |big: u64, big_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big} {big_unit}"),
        small => format!("{big} {big_unit} {small} {small_unit}"),
    };
    match seconds {
        0.0 => "0 s".to_owned(),
        s if s < 0.001 => format!("{:.0} us", s * 1e6),
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s if s < 10.0 => {
            let text = format!("{s:.1}");
            format!("{} s", text.strip_suffix(".0").unwrap_or(&text))
        }
        _ if whole < 60 => format!("{whole} s"),
        _ if whole < 3600 => pair(whole / 60, "min", whole % 60, "s"),
        _ if whole < 86_400 => pair(whole / 3600, "h", whole % 3600 / 60, "min"),
        _ => pair(whole / 86_400, "d", whole % 86_400 / 3600, "h"),
    }
}

/// A duration given in milliseconds, as the API has them.
pub(crate) fn millis(ms: u64) -> String {
    duration(Duration::from_millis(ms))
}

/// A round-trip time: in milliseconds, two digits after the point below ten.
pub(crate) fn rtt(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

/// A time in UTC to the second: `2026-01-01 00:00:00`.
pub(crate) fn time(at: Timestamp) -> String {
    at.to_string().chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// The time of the day in UTC: `00:00`, or with seconds where the steps are short.
pub(crate) fn clock(at: Timestamp, seconds: Seconds) -> String {
    let count = match seconds {
        Seconds::Shown => 8,
        Seconds::Hidden => 5,
    };
    at.to_string().chars().skip(11).take(count).collect()
}

/// Whether a time of the day has seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seconds {
    Shown,
    Hidden,
}

/// A number in at most four digits and a suffix: `0.25`, `12.5`, `980`, `12.5k`, `3.2M`.
pub(crate) fn quantity(value: f64) -> String {
    const SUFFIXES: [(f64, &str); 5] = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    if !value.is_finite() {
        return "-".to_owned();
    }
    let size = value.abs();
    match SUFFIXES.iter().find(|(scale, _)| size >= scale * 9.9995) {
        Some((scale, suffix)) => format!("{}{suffix}", digits(value / scale)),
        None => digits(value),
    }
}

fn digits(value: f64) -> String {
    let places = match value.abs() {
        s if s == 0.0 || s >= 99.95 => 0,
        s if s >= 9.995 => 1,
        s if s >= 0.01 => 2,
        _ => 4,
    };
    format!("{value:.places$}")
}

/// A count with thousands apart: `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share of one: `93 %`, `0.4 %`.
pub(crate) fn share(part: f64) -> String {
    let percent = part * 100.0;
    if percent > 0.0 && percent < 1.0 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

/// Bytes in binary units: `512 B`, `13.2 KiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 { format!("{value:.0} {}", UNITS[unit]) } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Money: `$0.0425`, at least cents, no trailing zeros beyond them.
pub(crate) fn money(amount: MicroUsd) -> String {
    let fraction = format!("{:06}", amount.0 % 1_000_000);
    let (cents, rest) = fraction.split_at(2);
    format!("${}.{cents}{}", count(amount.0 / 1_000_000), rest.trim_end_matches('0'))
}

/// `n` things: `1 step`, `2 steps`.
pub(crate) fn some(n: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(n), if n == 1 { "" } else { "s" })
}

/// Text from outside, fit for a terminal: a control character could move the cursor, or worse.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if is_unfit(c) || c == '\n' { '\u{fffd}' } else { c }).collect()
}

/// Like [`clean`], but lines stay lines.
pub(crate) fn clean_lines(text: &str) -> String {
    text.chars().map(|c| if is_unfit(c) { '\u{fffd}' } else { c }).collect()
}

/// Control characters, and those that change the direction of what follows.
fn is_unfit(c: char) -> bool {
    (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_naturally() {
        for (ms, text) in [
            (0, "0 s"),
            (1, "1.0 ms"),
            (12, "12 ms"),
            (999, "999 ms"),
            (1000, "1 s"),
            (1234, "1.2 s"),
            (59_400, "59 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (200_000, "3 min 20 s"),
            (3_600_000, "1 h"),
            (18_720_000, "5 h 12 min"),
            (273_600_000, "3 d 4 h"),
        ] {
            assert_eq!(millis(ms), text, "{ms}");
        }
        assert_eq!(duration(Duration::from_micros(85)), "85 us");
        assert!(!duration(Duration::MAX).is_empty());
    }

    #[test]
    fn quantities_keep_their_digits_and_lose_the_rest() {
        for (value, text) in [
            (0.0, "0"),
            (0.004, "0.0040"),
            (0.25, "0.25"),
            (12.52, "12.5"),
            (980.4, "980"),
            (9_999.0, "9999"),
            (12_520.0, "12.5k"),
            (3.2e7, "32.0M"),
            (-12_520.0, "-12.5k"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(quantity(value), text, "{value}");
        }
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(13_517), "13.2 KiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(share(0.004), "0.4 %");
    }

    #[test]
    fn money_shows_cents_and_what_is_below_them() {
        assert_eq!(money(MicroUsd(42_500)), "$0.0425");
        assert_eq!(money(MicroUsd(1_500_000)), "$1.50");
        assert_eq!(money(MicroUsd(0)), "$0.00");
        assert_eq!(money(MicroUsd(12_345_000_001)), "$12,345.000001");
    }

    #[test]
    fn times_are_utc_to_the_second() {
        let at = Timestamp::from_millis(1_767_225_600_250).unwrap();
        assert_eq!(time(at), "2026-01-01 00:00:00");
        assert_eq!(clock(at, Seconds::Hidden), "00:00");
        assert_eq!(clock(at, Seconds::Shown), "00:00:00");
    }

    #[test]
    fn text_from_outside_cannot_steer_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(clean_lines("a\nb\x07"), "a\nb\u{fffd}");
    }
}
