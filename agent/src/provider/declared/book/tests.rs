use super::*;

fn id(name: &str) -> InstanceId {
    InstanceId::new(name).unwrap()
}

fn seen(name: &str, state: InstanceState) -> Seen {
    Seen { id: id(name), state, want: None, handle: "h".into() }
}

fn states(book: &Book) -> Vec<(String, InstanceState)> {
    book.list().unwrap().into_iter().map(|seen| (seen.id.to_string(), seen.state)).collect()
}

/// With `a` warm.
fn warm() -> Book {
    let mut book = Book::default();
    let serial = book.start(&id("a"));
    book.on_seen(vec![seen("a", InstanceState::Warm)], Some(serial));
    book
}

#[test]
fn a_start_is_listed_until_it_is_seen_and_a_failed_one_never_is() {
    let mut book = Book::default();
    let serial = book.start(&id("a"));
    assert_eq!(book.start(&id("a")), serial);
    book.on_seen(vec![], Some(serial));
    assert_eq!(states(&book), [("a".into(), InstanceState::Starting)]);
    book.start(&id("b"));
    book.on_failed("no quota".into(), Instant::now(), 0.0);
    book.give_up(&id("b"));
    assert_eq!(states(&book), [("a".into(), InstanceState::Starting)]);
    // Half of it came about after all: it is ended, and seen while it lasts.
    book.on_seen(vec![seen("b", InstanceState::Starting)], None);
    assert_eq!(states(&book)[1], ("b".into(), InstanceState::Draining));
    let plan = book.plan(&PoolName::default());
    assert!(book.is_dirty() && !plan.instances.contains_key(&id("b")));
}

#[test]
fn what_ends_by_itself_is_told_apart_from_what_was_told_to() {
    let mut book = warm();
    book.on_seen(vec![], None);
    assert_eq!(book.take_ended()[0].cause, EndCause::Unexpected);
    assert!(book.is_dirty(), "the backend would make it anew from the old plan");
    let mut book = warm();
    book.drain(&id("a"), Instant::now());
    book.on_seen(vec![], None);
    assert_eq!(states(&book), [("a".into(), InstanceState::Draining)], "it is not known to be gone before it was told");
    book.on_seen(vec![], Some(book.serial));
    assert_eq!(book.take_ended()[0].cause, EndCause::Ordered);
    assert!(book.is_empty());
}

#[test]
fn what_drains_for_too_long_is_stopped() {
    let mut book = warm();
    let now = Instant::now();
    book.drain(&id("a"), now + Duration::from_secs(5));
    assert_eq!(book.hurry(now, now), Some(now + Duration::from_secs(5)));
    assert_eq!(book.plan(&PoolName::default()).instances.get(&id("a")), Some(&Want::Draining));
    assert_eq!(book.hurry(now + Duration::from_secs(5), now), None);
    assert!(book.plan(&PoolName::default()).instances.is_empty());
}

#[test]
fn the_next_life_knows_its_instances_and_takes_over_what_it_does_not_know() {
    let mut book = warm();
    book.start(&id("never-carried-out"));
    book.stop(&id("a"));
    let mut next = Book::recall(book.record(serde_json::Value::Null));
    assert!(next.is_dirty(), "the end of a may not have been told");
    assert!(next.serial >= book.serial, "a serial is never given twice");
    next.on_seen(vec![seen("a", InstanceState::Warm), seen("orphan", InstanceState::Active)], None);
    assert_eq!(states(&next), [("a".into(), InstanceState::Draining), ("orphan".into(), InstanceState::Active)]);
}

#[test]
fn what_is_taken_over_on_its_way_to_serve_is_not_called_back() {
    let wants = |book: &Book| book.plan(&PoolName::default()).instances[&id("found")];
    let mut book = warm();
    let shown = |state| vec![seen("a", InstanceState::Warm), seen("found", state)];
    book.on_seen(shown(InstanceState::Starting), None);
    assert_eq!(wants(&book), Want::Warm);
    book.on_seen(shown(InstanceState::Active), None);
    assert_eq!(wants(&book), Want::Active);
    // From the first order on it is as ordered.
    book.turn(&id("found"), Want::Warm).unwrap();
    book.on_seen(shown(InstanceState::Active), Some(book.serial));
    assert_eq!(wants(&book), Want::Warm);
    // The backend knew it from the first.
    let mut book = warm();
    book.on_seen(vec![Seen { want: Some(Want::Active), ..seen("found", InstanceState::Starting) }], None);
    assert_eq!(wants(&book), Want::Active);
}

#[test]
fn failures_pause_ever_longer_and_orders_are_told_why() {
    let (mut book, now) = (warm(), Instant::now());
    book.start(&id("b"));
    let mut pauses = vec![];
    for _ in 0..12 {
        book.on_failed("no quota".into(), now, 0.0);
        pauses.push(book.until().unwrap() - now);
    }
    assert_eq!(pauses[..3], [250, 500, 1000].map(Duration::from_millis));
    assert_eq!(pauses.last(), Some(&LONGEST_PAUSE));
    assert!(book.waits(now).unwrap().contains("no quota"));
    assert!(book.list().is_ok(), "what there is can still be read");
    book.on_seen(vec![seen("a", InstanceState::Warm)], None);
    assert!(book.waits(now).is_some(), "reading mends no plan");
    book.on_seen(vec![seen("a", InstanceState::Warm)], Some(book.serial));
    assert!(book.waits(now).is_none());
    book.on_unread("gone away".into(), now, 0.0);
    assert_eq!(book.list().unwrap_err(), "gone away");
}
