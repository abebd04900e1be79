//! What operators lay down for a pool beside its demand: bounds by schedule, step limits and freezes. Pure.
//!
//! A policy is a time and what holds then. It narrows what the pool's own keys allow and never widens it: of several in force the highest
//! minimum, the lowest maximum and the smallest step hold, so that their order means nothing. Read next: [`super::sizing`].

use tradewind_protocol::Timestamp;

/// Sixty times twenty-four.
pub const MINUTES_A_DAY: u16 = 1_440;
const MINUTES_A_WEEK: i64 = 7 * MINUTES_A_DAY as i64;
const MS_A_MINUTE: i64 = 60_000;
/// 1970-01-01 was a Thursday; weeks begin on Monday.
const EPOCH_WEEK_MINUTES: i64 = 3 * MINUTES_A_DAY as i64;

/// One policy of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its name, by which a plan gives it as a reason.
    pub name: String,
    /// When it is in force.
    pub when: When,
    /// The fewest active instances, if it says.
    pub min_instances: Option<u32>,
    /// The most instances, if it says.
    pub max_instances: Option<u32>,
    /// The fewest instances kept warm on top, if it says.
    pub min_warm: Option<u32>,
    /// How many instances more a round may bring.
    pub up: StepLimit,
    /// How many fewer.
    pub down: StepLimit,
    /// Whether everything stays as it is.
    pub freeze: bool,
}

/// When a policy is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// At a time of day of some days of the week.
    Weekly(Weekly),
    /// From one moment until another.
    Between(Timestamp, Timestamp),
}

/// A time of day on some days of the week, in a fixed distance from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weekly {
    /// On which days it begins, Monday first.
    pub days: [bool; 7],
    /// The minute of the day at which it begins.
    pub from: u16,
    /// The minute at which it ends: of the same day if that is later than `from`, else of the next.
    pub until: u16,
    /// How far its days are ahead of UTC's, in minutes.
    pub utc_offset_minutes: i32,
}

/// How far a round may go in one direction. Where both are said, the smaller holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepLimit {
    /// At most so many instances.
    pub instances: Option<u32>,
    /// At most so many percent of what was planned before, but one instance in any case.
    pub percent: Option<u32>,
}

impl When {
    /// When it ends, if it is in force at `now`; `None` inside for one that never ends.
    pub fn in_force(&self, now: Timestamp) -> Option<Option<Timestamp>> {
        match self {
            When::Always => Some(None),
            When::Weekly(weekly) => weekly.ends(now).map(Some),
            When::Between(from, until) => (*from <= now && now < *until).then_some(Some(*until)),
        }
    }
}

impl Weekly {
    /// When it ends, if it is in force at `now`.
    fn ends(&self, now: Timestamp) -> Option<Timestamp> {
        let minute = now.as_millis().div_euclid(MS_A_MINUTE);
        let of_week = (minute + i64::from(self.utc_offset_minutes) + EPOCH_WEEK_MINUTES).rem_euclid(MINUTES_A_WEEK);
        let length = i64::from(if self.until > self.from { self.until - self.from } else { MINUTES_A_DAY - self.from + self.until });
        let begun = self.days.iter().zip(0i64..).filter(|(on, _)| **on).map(|(_, day)| {
            let begins = day * i64::from(MINUTES_A_DAY) + i64::from(self.from);
            (of_week - begins).rem_euclid(MINUTES_A_WEEK)
        });
        // Windows of two days may touch (24 hours each); the one that has begun last ends last.
        let since = begun.filter(|since| *since < length).min()?;
        Some(Timestamp::saturating_from_millis((minute - since + length).saturating_mul(MS_A_MINUTE)))
    }
}

impl StepLimit {
    /// How many instances that is where `standing` were planned before; `None` without a limit.
    pub(super) fn of(self, standing: u32) -> Option<u32> {
        let share = self.percent.map(|percent| (u64::from(standing) * u64::from(percent) / 100).clamp(1, u64::from(u32::MAX)) as u32);
        self.instances.into_iter().chain(share).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_week_is_told_in_its_own_hours() {
        let nights = Weekly { days: [false, false, false, false, true, true, false], from: 22 * 60, until: 6 * 60, utc_offset_minutes: 60 };
        let ends = |text: &str| When::Weekly(nights).in_force(at(text)).map(Option::unwrap);
        // 2026-01-02 is a Friday; its night begins at 21:00 in UTC.
        assert_eq!(ends("2026-01-02T20:59:59Z"), None);
        assert_eq!(ends("2026-01-02T21:00:00Z"), Some(at("2026-01-03T05:00:00Z")));
        assert_eq!(ends("2026-01-03T04:59:00Z"), Some(at("2026-01-03T05:00:00Z")));
        assert_eq!(ends("2026-01-03T05:00:00Z"), None);
        assert_eq!(ends("2026-01-04T04:00:00Z"), Some(at("2026-01-04T05:00:00Z")), "Saturday's night runs into Sunday");
        assert_eq!(ends("2026-01-05T04:00:00Z"), None, "Sunday has none");
        let span = When::Between(at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
        assert_eq!((span.in_force(at("2026-01-02T00:00:00Z")), When::Always.in_force(Timestamp::EPOCH)), (None, Some(None)));
    }

    #[test]
    fn of_two_step_limits_the_smaller_holds_and_one_instance_may_always_move() {
        let limit = |instances, percent| StepLimit { instances, percent };
        assert_eq!(limit(None, None).of(10), None);
        assert_eq!(limit(Some(4), Some(20)).of(10), Some(2));
        assert_eq!(limit(Some(4), Some(90)).of(10), Some(4));
        assert_eq!((limit(None, Some(10)).of(3), limit(None, Some(10)).of(0), limit(Some(0), Some(50)).of(8)), (Some(1), Some(1), Some(0)));
    }

    proptest! {
        /// Minute by minute through the windows of the days before says the same.
        #[test]
        fn being_in_force_is_being_in_a_window_of_some_day(
            days in any::<[bool; 7]>(), from in 0..1_440u16, until in 0..1_440u16, utc_offset_minutes in -720..840i32, minute in -100_000..100_000i64,
        ) {
            let weekly = Weekly { days, from, until, utc_offset_minutes };
            let local = minute + i64::from(utc_offset_minutes);
            let within = (-1..=0i64).any(|back| {
                let day = local.div_euclid(1_440) + back;
                let begins = day * 1_440 + i64::from(from);
                let ends = (day + i64::from(until <= from)) * 1_440 + i64::from(until);
                days[(day + 3).rem_euclid(7) as usize] && begins <= local && local < ends
            });
            let now = Timestamp::saturating_from_millis(minute * 60_000 + 31_000);
            let ends = When::Weekly(weekly).in_force(now);
            prop_assert_eq!(ends.is_some(), within);
            if let Some(Some(ends)) = ends {
                prop_assert!(ends > now && ends.since(now).as_secs() <= 86_400);
                // Just before it is still in force, or a later one has begun meanwhile.
                prop_assert!(When::Weekly(weekly).in_force(ends.before(std::time::Duration::from_millis(1))).is_some());
            }
        }
    }
}
