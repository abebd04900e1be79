//! What the holder shows of its claims. `protocol/tests/reservation` has both sides, under faults and exhaustively.

use super::*;
use crate::reservation::{Confidence, Tier, Window};
use crate::{Resources, TenantName};

fn part() -> Part {
    let unit = Resources { cpu_millis: 1, ..Resources::ZERO };
    let window = Window { from: Timestamp::EPOCH, until: Timestamp::EPOCH.after(Duration::from_secs(3_600)) };
    let (tenant, tier, confidence) = (TenantName::default(), Tier::Firm, Confidence::CERTAIN);
    let terms = Terms { tenant, unit, units: 1, window, tier, confidence };
    Part { owner: "owner".parse().unwrap(), pool: "web".parse().unwrap(), terms }
}

/// A holder that was granted a request half a second after it was made, as it is two seconds later.
fn courses(uptime: Duration) -> Vec<Course> {
    let mut holder = Holder::new(Config::default(), 7);
    let now = |ms| Now { wall: Timestamp::EPOCH, uptime: uptime + Duration::from_millis(ms) };
    holder.handle(Input::Ask { request: RequestId(0), parts: vec![part()], needs: Needs::Any }, now(0));
    let claim = super::super::message::Claim { number: 7, nonce: 1 };
    let answer = Answer::Held { claim, phase: Phase::Held, ttl_ms: 30_000 };
    holder.handle(Input::Answered { owner: part().owner, answer }, now(500));
    holder.courses(now(2_500)).collect()
}

#[test]
fn a_course_is_the_same_whenever_the_machine_was_started() {
    let young = courses(Duration::ZERO);
    assert_eq!(young, courses(Duration::from_secs(1_000_000)));
    let [course] = &young[..] else { panic!("{young:?}") };
    let (stage, needs, nonce) = (course.stage, course.needs, course.nonce);
    assert_eq!((stage, needs, nonce), (Stage::Confirming, Some(Needs::Any), 2), "it was granted, and asks to agree");
    assert_eq!(course.sent, [(2, Duration::from_secs(2))], "the first request was answered");
    assert_eq!(course.send_in, Duration::ZERO, "and the second has to be sent again");
    assert!(course.valid_for > Duration::from_secs(27) && course.valid_for < Duration::from_millis(27_500));
}
