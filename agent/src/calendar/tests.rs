use super::*;
use crate::env::Env;
use crate::store::Store;
use tradewind_protocol::api::EventOrigin;
use tradewind_protocol::forecast::ForecastScore;
use tradewind_protocol::{Quantile, RegionId};

fn minute() -> Step {
    Step::new(Duration::from_secs(60)).unwrap()
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn region(name: &str) -> RegionId {
    name.parse().unwrap()
}

fn series(from: &str, to: &str) -> SeriesKey {
    SeriesKey {
        tenant: Default::default(),
        source: region(from),
        destination: region(to),
        service: Default::default(),
        transaction_type: Default::default(),
    }
}

/// From minute 10 to minute 20 of 1970.
fn sale(effect: Option<Effect>) -> CalendarEvent {
    CalendarEvent {
        name: "sale".parse().unwrap(),
        kind: EventKind::Campaign,
        title: String::new(),
        from: minute().start(StepIndex(10)),
        until: minute().start(StepIndex(20)),
        sources: vec![],
        destinations: vec![],
        service: None,
        transaction_type: None,
        effect,
    }
}

const TRIPLE: Effect = Effect { factor: 3.0, low: 3.0, high: 3.0 };

fn entry(of: &str, effect: Effect) -> CalendarEntry {
    CalendarEntry { region: region(of), origin: EventOrigin::Api, event: sale(Some(effect)), effect }
}

fn prediction(start: i64, steps: usize, from: &str, to: &str) -> PredictionData {
    let quantiles = vec![Quantile::CENTRAL_90.0, Quantile::MEDIAN, Quantile::CENTRAL_90.1];
    PredictionData {
        series: series(from, to),
        issued_at: Timestamp::EPOCH,
        observed: 100.0,
        mean_volume: 100.0,
        path: QuantilePath::new(StepIndex(start), minute(), quantiles, [90.0, 100.0, 110.0].repeat(steps)).unwrap(),
        model: "test".into(),
        score: ForecastScore::default(),
    }
}

fn config() -> CalendarConfig {
    CalendarConfig { holidays: vec![], utc_offset_minutes: 0, holiday_effect: None, events: vec![] }
}

#[test]
fn an_event_is_in_the_path_where_it_takes_place_and_nowhere_else() {
    let calendar = Calendar::new(vec![entry("eu", TRIPLE)]);
    let with = calendar.apply(&prediction(8, 14, "eu", "us"), 77.0);
    let median = |step| with.path.value(StepIndex(step), Quantile::MEDIAN).unwrap();
    assert_eq!([median(9), median(10), median(19), median(20)], [100.0, 300.0, 300.0, 100.0]);
    assert_eq!(with.observed, 77.0);
    assert_eq!(calendar.applied(&with.series, &with.path).len(), 1);
    assert!(calendar.applied(&with.series, &prediction(20, 5, "eu", "us").path).is_empty());
    assert!(calendar.is_quiet(minute().start(StepIndex(20)), minute().start(StepIndex(30))));
    assert_eq!(calendar.clone().during(minute().start(StepIndex(19)), minute().end(StepIndex(19))), calendar);
    assert!(calendar.during(minute().start(StepIndex(20)), minute().start(StepIndex(30))).entries().is_empty());
}

#[test]
fn what_forecasts_learn_is_free_of_events() {
    let calendar = Calendar::new(vec![entry("eu", TRIPLE)]);
    let learnt = |step, count| calendar.undisturbed(&series("eu", "us"), StepIndex(step), minute(), count, 42.0);
    assert_eq!((learnt(9, 90.0), learnt(12, 300.0)), (90.0, 100.0));
    let closed = Calendar::new(vec![entry("eu", Effect { factor: 0.0, low: 0.0, high: 0.1 })]);
    let mut window = [100.0, 0.0, 0.0, 0.0];
    closed.undisturbed_window(&series("eu", "us"), StepIndex(12), minute(), &mut window);
    assert_eq!(window, [100.0, 100.0, 100.0, 100.0], "steps 10 to 12 are in the event");
    assert_eq!(closed.undisturbed(&series("eu", "us"), StepIndex(12), minute(), 0.0, 42.0), 42.0, "silence in maintenance teaches nothing");
}

#[test]
fn another_regions_event_changes_only_traffic_to_that_region() {
    let calendar = Calendar::new(vec![entry("us", TRIPLE)]);
    let factor = |to| calendar.effect(&series("eu", to), StepIndex(12), minute()).factor;
    assert_eq!((factor("us"), factor("jp"), factor("eu")), (3.0, 1.0, 1.0));
}

#[test]
fn holidays_are_local_days() {
    let config = CalendarConfig { holidays: vec!["DE".parse().unwrap()], utc_offset_minutes: 60, ..config() };
    let events = holidays_between(&config, at("2025-12-20T00:00:00Z"), at("2026-01-10T00:00:00Z"));
    let [christmas, _, new_year] = &events[..] else { panic!("{events:?}") };
    assert_eq!((christmas.from, christmas.until), (at("2025-12-24T23:00:00Z"), at("2025-12-25T23:00:00Z")));
    assert_eq!((new_year.title.as_str(), new_year.from), ("New Year (DE)", at("2025-12-31T23:00:00Z")));
    assert!(events.iter().all(|event| event.check().is_ok()));
}

#[tokio::test]
async fn events_survive_a_restart_and_only_the_apis_can_be_changed() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real(dir.path()).unwrap();
    let config = CalendarConfig { events: vec![CalendarEvent { name: "fixed".parse().unwrap(), ..sale(None) }], ..config() };
    let now = Timestamp::EPOCH;
    {
        let calendar = CalendarHandle::open(region("eu"), config.clone(), Store::open(&env).await.unwrap()).await.unwrap();
        calendar.put(sale(Some(TRIPLE)), now).await.unwrap();
        calendar.put(CalendarEvent { name: "other".parse().unwrap(), ..sale(None) }, now).await.unwrap();
        calendar.remove(&"other".parse().unwrap()).await.unwrap();
        assert!(matches!(calendar.remove(&"fixed".parse().unwrap()).await, Err(CalendarError::NotOurs(_))));
        assert!(matches!(calendar.remove(&"other".parse().unwrap()).await, Err(CalendarError::Unknown(_))));
        let nonsense = CalendarEvent { until: Timestamp::EPOCH, ..sale(None) };
        assert!(matches!(calendar.put(nonsense, now).await, Err(CalendarError::Event(_))));
    }
    let calendar = CalendarHandle::open(region("eu"), config, Store::open(&env).await.unwrap()).await.unwrap();
    let others = [(region("us"), sale(Some(TRIPLE)))];
    let entries = calendar.calendar(others, now).entries().to_vec();
    let shown: Vec<_> = entries.iter().map(|entry| (entry.region.as_str(), entry.event.name.as_str(), entry.origin)).collect();
    let wanted = [("eu", "fixed", EventOrigin::Configuration), ("eu", "sale", EventOrigin::Api), ("us", "sale", EventOrigin::Mesh)];
    assert_eq!(shown, wanted);
    let published = calendar.to_publish(now, 64 * 1024);
    assert_eq!(published.len(), 2, "nobody publishes for another region");
    assert!(published.iter().all(|event| event.effect.is_some()), "what was learnt goes along");
    assert!(calendar.to_publish(now, 0).is_empty());
    assert!(calendar.to_publish(minute().start(StepIndex(20)), 64 * 1024).is_empty(), "what is over is not news");
}

#[tokio::test]
async fn the_effect_of_an_event_is_learnt_and_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real(dir.path()).unwrap();
    let learnt = |calendar: &CalendarHandle| calendar.calendar([], Timestamp::EPOCH).entries()[0].effect;
    {
        let calendar = CalendarHandle::open(region("eu"), config(), Store::open(&env).await.unwrap()).await.unwrap();
        let mut before = Effect::NONE;
        for week in 0..4 {
            let shift = Duration::from_secs(week * 7 * 86_400);
            let event = CalendarEvent { from: sale(None).from.after(shift), until: sale(None).until.after(shift), ..sale(None) };
            calendar.put(event, Timestamp::EPOCH).await.unwrap();
            if week == 0 {
                before = learnt(&calendar);
                assert_eq!(before.factor, 1.0, "nothing is known");
            }
            let first = week as i64 * 7 * 1_440;
            for step in first + 8..first + 22 {
                let during = (first + 10..first + 20).contains(&step);
                let count = if during { 250.0 } else { 100.0 };
                let foreseen = [prediction(step, 14, "eu", "us")];
                calendar.observe((StepIndex(step), minute()), &foreseen, &[(series("eu", "us"), count)]).await;
            }
        }
        let after = learnt(&calendar);
        assert!(after.factor > 1.9 && after.factor < 2.5, "{after:?}");
        assert!(before.low < 1.0 && after.low > 1.2, "surer than before: {after:?}");
    }
    let calendar = CalendarHandle::open(region("eu"), config(), Store::open(&env).await.unwrap()).await.unwrap();
    assert!(learnt(&calendar).factor > 1.9);
}
