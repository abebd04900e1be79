//! Whether a pool's plans go up and down without a need. Pure.
//!
//! Two questions, of the plans of one life in their order. Does a plan rise and fall again within the time that scale-in waits? What the
//! risen one needed would have kept it up, so it rose for nothing, or was forgotten. And over all of them: do plans swing more often than
//! the demand that was seen? That is how a planner oscillates whose every single step is well-founded, because what it takes to be needed does.

use tradewind_protocol::StepIndex;

/// How far a plan must go before it counts as a swing, in instances, beside what is to be warm.
const SWING: u32 = 2;

/// Swings that plans may have beyond those of the demand: the first plans of a life know little, and a forecast errs.
const SPARE_SWINGS: usize = 3;

/// What one plan says of one pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    /// Which plan of its life it is: a step can have several.
    pub(crate) version: u64,
    /// The last step that it knows.
    pub(crate) known_until: StepIndex,
    /// Instances that are to be there.
    pub(crate) total: u32,
    /// Instances that the demand seen last needs, in parts of one.
    pub(crate) seen: f64,
    /// Whether a limit has cut it.
    pub(crate) blocked: bool,
}

/// A rise and a fall within `waits` steps up to the last point, in words.
pub(crate) fn flap(points: &[Point], waits: u32) -> Option<String> {
    let (last, before) = points.split_last()?;
    let previous = before.last()?;
    if last.blocked || last.total >= previous.total {
        return None;
    }
    let from = last.known_until.offset(-i64::from(waits));
    // A rise is known only where no plan was missed.
    let mut rises = before.windows(2).filter(|pair| {
        let [low, high] = pair else { return false };
        let next = low.version + 1 == high.version && low.known_until.offset(1) >= high.known_until;
        next && high.known_until >= from && !high.blocked && !low.blocked && high.total > low.total
    });
    let high = rises.find(|pair| pair.last().is_some_and(|high| high.total > last.total))?.last()?;
    let after = last.known_until.0 - high.known_until.0;
    Some(format!("{} planned, {after} steps after it was raised to {}, and scale-in waits for {waits}", last.total, high.total))
}

/// What is wrong with how often the plans swing, in words.
pub(crate) fn oscillation(points: &[Point], min_warm: u32) -> Option<String> {
    let planned = swings(points.iter().map(|point| f64::from(point.total)), f64::from(SWING + min_warm));
    let seen = swings(points.iter().map(|point| point.seen), 1.0);
    (planned > seen + SPARE_SWINGS).then(|| format!("{} plans go up and down {planned} times, the demand seen {seen} times", points.len()))
}

/// How often `values` turn and go the other way by `least` or more.
fn swings(values: impl Iterator<Item = f64>, least: f64) -> usize {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    let (mut rising, mut swings) = (None, 0);
    for value in values {
        (low, high) = (value.min(low), value.max(high));
        if rising != Some(true) && value >= low + least {
            (rising, high) = (Some(true), value);
            swings += 1;
        } else if rising != Some(false) && value <= high - least {
            (rising, low) = (Some(false), value);
            swings += 1;
        }
        match rising {
            Some(true) => low = high,
            Some(false) => high = low,
            None => {}
        }
    }
    swings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(totals: &[u32], seen: impl Fn(usize) -> f64) -> Vec<Point> {
        let point = |(at, total): (usize, &u32)| {
            let (version, known_until) = (at as u64, StepIndex(at as i64));
            Point { version, known_until, total: *total, seen: seen(at), blocked: false }
        };
        totals.iter().enumerate().map(point).collect()
    }

    #[test]
    fn a_plan_that_rises_for_less_than_scale_in_waits_flaps() {
        let flaps = |totals: &[u32]| flap(&points(totals, |_| 0.0), 5).is_some();
        assert!(flaps(&[3, 4, 3]) && flaps(&[3, 5, 5, 5, 4]));
        assert!(!flaps(&[3, 4, 4, 4, 4, 4, 4, 3]), "it has waited");
        assert!(!flaps(&[5, 4, 3]), "it only falls");
        assert!(!flaps(&[3, 4, 3, 4]), "it rises");
        let mut blocked = points(&[3, 5, 3], |_| 0.0);
        blocked[2].blocked = true;
        assert_eq!(flap(&blocked, 5), None, "a limit took it away");
        let mut missed = points(&[3, 5, 3], |_| 0.0);
        missed[0].known_until = StepIndex(-1);
        assert_eq!(flap(&missed, 5), None, "it may have risen before");
        let mut unseen = points(&[3, 5, 3], |_| 0.0);
        (unseen[1].version, unseen[2].version) = (2, 3);
        assert_eq!(flap(&unseen, 5), None, "another plan of the first step may have risen");
    }

    #[test]
    fn plans_may_swing_as_often_as_the_demand_does() {
        let wave = |length: usize| move |at: usize| if (at / length).is_multiple_of(2) { 4.0 } else { 8.0 };
        let totals: Vec<u32> = (0..60).map(|at| wave(6)(at) as u32 + 1).collect();
        assert_eq!(oscillation(&points(&totals, wave(6)), 0), None);
        let told = oscillation(&points(&totals, |_| 6.0), 0).unwrap();
        assert_eq!(told, "60 plans go up and down 9 times, the demand seen 0 times");
        let small: Vec<u32> = (0..60).map(|at| 5 + at % 2).collect();
        assert_eq!(oscillation(&points(&small, |_| 6.0), 0), None, "by less than a swing");
    }

    #[test]
    fn swings_are_turns_that_go_far_enough() {
        let count = |values: &[f64]| swings(values.iter().copied(), 2.0);
        assert_eq!(count(&[1.0, 2.0, 1.0, 2.0]), 0);
        assert_eq!(count(&[1.0, 2.0, 3.0, 4.0]), 1);
        assert_eq!(count(&[1.0, 3.0, 2.0, 5.0, 3.5, 3.0, 4.0, 5.0]), 3);
        assert_eq!(count(&[]), 0);
    }
}
