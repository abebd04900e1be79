//! The step function against one that adds up every window at every instant.

use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms).unwrap()
}

fn window(from: i64, until: i64) -> Window {
    Window { from: at(from), until: at(until) }
}

fn cpu(amount: u64) -> Resources {
    Resources { cpu_millis: amount, memory_bytes: amount / 2, ..Resources::ZERO }
}

const END: i64 = 400;

fn naive(windows: &[(Window, Load)], instant: i64) -> Load {
    let inside = windows.iter().filter(|(window, _)| window.contains(at(instant)));
    inside.fold(Load::ZERO, |sum, (_, load)| sum.plus(load))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Far more windows than a chunk has places, so that chunks split and join.
    #[test]
    fn sums_peaks_and_searches_are_those_of_the_windows(
        windows in prop::collection::vec((0..END, 1..60i64, 1..9u64, any::<bool>()), 1..400),
        kept in prop::collection::vec(any::<bool>(), 400),
        asked in prop::collection::vec((-5..END, 1..90i64, 0..40u64), 30),
    ) {
        let mut timeline = Timeline::default();
        let mut live = vec![];
        for (from, length, amount, firm) in windows {
            let load = if firm { Load::firm(cpu(amount)) } else { Load::soft(cpu(amount)) };
            timeline.add(window(from, from + length), load);
            live.push((window(from, from + length), load));
        }
        let mut kept = kept.into_iter();
        live.retain(|(window, load)| {
            let keep = kept.next().unwrap_or(true);
            if !keep {
                timeline.remove(*window, *load);
            }
            keep
        });
        let levels: Vec<Load> = (-5..END + 100).map(|instant| naive(&live, instant)).collect();
        let level = |instant: i64| levels[(instant + 5) as usize];
        for (from, length, room) in asked {
            let window = window(from, from + length);
            let peak = (from..from + length).fold(level(from), |peak, instant| peak.max(&level(instant)));
            prop_assert_eq!(timeline.peak(window), peak);
            let room = Load::room(cpu(room), cpu(room + 3));
            let excess = (from..from + length).find(|instant| !level(*instant).fits(&room));
            prop_assert_eq!(timeline.first_excess(window, &room).map(|(at, _)| at), excess.map(at));
            if let Some((instant, found)) = timeline.first_excess(window, &room) {
                prop_assert_eq!(found, level(instant.as_millis()));
            }
            let fit = (from..from + length).find(|instant| level(*instant).fits(&room));
            prop_assert_eq!(timeline.first_fit(window, &room), fit.map(at));
            let starts = window;
            let free = |start: i64| (start..start + 7).all(|instant| level(instant).fits(&room));
            let earliest = (from..=from + length).find(|start| free(*start));
            prop_assert_eq!(timeline.earliest(starts, Duration::from_millis(7), &room, 1_000), earliest.map(at));
        }
        for (window, load) in live.drain(..) {
            timeline.remove(window, load);
        }
        prop_assert!(timeline.is_empty(), "nothing is left of what was taken back");
    }
}

#[test]
fn amounts_beyond_any_pool_are_counted_as_the_most() {
    let mut timeline = Timeline::default();
    timeline.add(window(0, 5), Load::firm(Resources { cpu_millis: u64::MAX, ..Resources::ZERO }));
    assert_eq!(timeline.peak(window(0, 1)).firm_part().cpu_millis, MAX_AMOUNT);
    assert_eq!(timeline.peak(window(5, 6)), Load::ZERO, "windows that touch share no instant");
}
