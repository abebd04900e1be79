//! What holds of all forecasts together.

use super::*;
use crate::testing::noise;
use proptest::prelude::*;
use std::time::Duration;
use tradewind_protocol::{RegionId, ServiceName, TenantName, TransactionType};

const SEASON: usize = 24;

fn key(source: &str) -> SeriesKey {
    SeriesKey {
        tenant: TenantName::default(),
        source: RegionId::new(source).unwrap(),
        destination: RegionId::new("dst").unwrap(),
        service: ServiceName::default(),
        transaction_type: TransactionType::default(),
    }
}

fn forecasts(horizon: usize) -> Forecasts {
    Forecasts::new(&ForecastConfig { horizon, season: SEASON }, Step::new(Duration::from_secs(300)).unwrap())
}

/// Closes steps 0, 1, ... with these counts of one series.
fn fed(counts: &[f64]) -> Forecasts {
    let (key, mut forecasts) = (key("a"), forecasts(12));
    for (at, count) in counts.iter().enumerate() {
        forecasts.close(StepIndex(at as i64), [(&key, *count)]);
    }
    forecasts
}

fn said(forecasts: &Forecasts) -> Vec<PredictionData> {
    forecasts.predictions(Timestamp::EPOCH)
}

/// A day of 24 steps around 100, with noise around it.
fn daily(at: usize) -> f64 {
    let phase = at as f64 / SEASON as f64 * std::f64::consts::TAU;
    100.0 + 60.0 * phase.sin() + 20.0 * (noise(at) - 0.5)
}

#[test]
fn nothing_said_depends_on_what_comes_later() {
    // More than eight seasons, so that what was a week ago is known.
    let past: Vec<f64> = (0..260).map(daily).collect();
    let mut forecasts = forecasts(12);
    let key = key("a");
    let mut before = vec![];
    for (at, count) in past.iter().enumerate() {
        forecasts.close(StepIndex(at as i64), [(&key, *count)]);
        before.push(said(&forecasts));
    }
    for cut in [1, 30, 100, 199, 250] {
        let changed: Vec<f64> = (0..260).map(|at| if at < cut { past[at] } else { 1e6 * noise(at) }).collect();
        let mut other = self::forecasts(12);
        for (at, count) in changed.iter().enumerate() {
            other.close(StepIndex(at as i64), [(&key, *count)]);
            assert!(at >= cut || said(&other) == before[at], "step {at} knew of step {cut}");
        }
    }
}

#[test]
fn a_daily_series_is_forecast_better_than_by_its_last_day_and_covered_as_promised() {
    let forecasts = fed(&(0..24 * 30).map(daily).collect::<Vec<_>>());
    let score = said(&forecasts)[0].score;
    assert!(score.pinball < 0.85 * score.seasonal_naive_pinball, "{score:?}");
    assert!((0.85..=0.95).contains(&score.coverage_90), "{score:?}");
    assert_eq!(score.steps, 288);
}

#[test]
fn coverage_returns_after_the_noise_has_tripled() {
    let loud = |at: usize| if at < 600 { daily(at) } else { daily(at) + 200.0 * noise(at + 9_999) };
    let forecasts = fed(&(0..2_000).map(loud).collect::<Vec<_>>());
    let score = said(&forecasts)[0].score;
    assert!((0.85..=0.95).contains(&score.coverage_90), "{score:?}");
}

#[test]
fn the_score_and_the_coverage_are_those_of_what_was_published() {
    let mut forecasts = forecasts(12);
    for at in 0..200 {
        forecasts.close(StepIndex(at), [(&key("a"), 10.0)]);
        let mut told = said(&forecasts);
        if at >= 100 {
            let path = &told[0].path;
            told[0].path = QuantilePath::rearranged(path.start(), path.step(), Quantile::GRID.to_vec(), vec![50.0; 12 * 9]).unwrap();
        }
        forecasts.published(&told);
        // Of another step.
        told[0].path =
            QuantilePath::rearranged(StepIndex(at + 9), told[0].path.step(), Quantile::GRID.to_vec(), vec![1e6; 12 * 9]).unwrap();
        forecasts.published(&told);
    }
    let (score, why) = (said(&forecasts)[0].score, forecasts.explain(&key("a")).unwrap());
    // Seasonal naive speaks from the 24th step on, and 99 of those since were published to be 50.
    assert_eq!((score.steps, score.coverage_90), (176, 77.0 / 176.0), "{score:?}");
    assert!(score.pinball > 8.0, "{score:?}");
    assert!(why.lanes.iter().all(|lane| lane.coverage_90 < 0.7 && lane.error > 15.0), "{why:?}");
    assert!(said(&forecasts)[0].path.row(0).unwrap().iter().all(|value| (9.0..11.0).contains(value)), "what is learnt is not touched");
}

fn kept(forecasts: &Forecasts) -> Vec<u8> {
    forecasts.save(None, 2).remove(0).1.unwrap()
}

#[test]
fn what_was_kept_goes_on_as_if_nothing_had_been() {
    let counts: Vec<f64> = (0..500).map(|at| daily(at).max(0.0)).collect();
    for until in [1, 30, 230, 460] {
        let bytes = kept(&fed(&counts[..until]));
        let (mut next, mut on) = (forecasts(12), fed(&counts[..480]));
        next.restore(&key("a"), StepIndex(479), &bytes, &counts[..480]).unwrap();
        assert_eq!(said(&next), said(&on), "kept after {until} steps");
        assert_eq!(next.explain(&key("a")), on.explain(&key("a")));
        for (at, count) in counts.iter().enumerate().skip(480) {
            next.close(StepIndex(at as i64), [(&key("a"), *count)]);
            on.close(StepIndex(at as i64), [(&key("a"), *count)]);
        }
        assert_eq!(said(&next), said(&on));
    }
}

#[test]
fn what_was_kept_of_other_counts_or_settings_is_refused() {
    let counts: Vec<f64> = (0..300).map(daily).collect();
    let bytes = kept(&fed(&counts));
    // A changed layout has another length, most likely: then `snapshot::LAYOUT` is to be raised.
    assert_eq!(bytes.len(), 47_853);
    let refused = |forecasts: &mut Forecasts, bytes: &[u8], until: i64, window: &[f64]| {
        let error = forecasts.restore(&key("a"), StepIndex(until), bytes, window).unwrap_err().to_string();
        assert!(forecasts.is_empty());
        error
    };
    let other = |bytes: &[u8]| refused(&mut forecasts(12), bytes, 299, &counts);
    assert!(other(&bytes[..bytes.len() - 1]).contains("cannot be read") && other(&[]).contains("layout 0"));
    let of = |horizon, season| Forecasts::new(&ForecastConfig { horizon, season }, Step::new(Duration::from_secs(300)).unwrap());
    assert!(refused(&mut of(11, SEASON), &bytes, 299, &counts).contains("another horizon"));
    assert!(refused(&mut of(12, SEASON - 1), &bytes, 299, &counts).contains("season"));
    // A late record; a step that is before it; a window that does not reach back to it.
    let mut changed = counts.clone();
    changed[290] += 1.0;
    for (until, window) in [(299, &changed[..]), (298, &counts[..299]), (700, &counts[..]), (299, &counts[280..]), (299, &[])] {
        assert!(refused(&mut forecasts(12), &bytes, until, window).contains("other counts"), "until {until}");
    }
    assert!(forecasts(12).save(None, 2).is_empty() && fed(&counts).save(Some(&key("a")), 2).is_empty());
}

#[test]
fn the_first_step_already_makes_a_forecast() {
    let first = said(&fed(&[7.0]));
    assert_eq!(first[0].path.start(), StepIndex(1));
    assert_eq!((first[0].path.horizon(), first[0].observed), (12, 7.0));
    let median = first[0].path.value(StepIndex(1), Quantile::MEDIAN).unwrap();
    assert!((median - 7.0).abs() < 1e-5, "{median}");
    assert!(said(&forecasts(12)).is_empty());
}

#[test]
fn a_series_that_began_within_a_step_is_foreseen_as_if_it_had_not() {
    let daily = |at: usize| 10.0 + 6.0 * (at as f64 / SEASON as f64 * std::f64::consts::TAU).sin() + 2.0 * noise(at);
    let width = |first: f64| {
        let forecasts = fed(&(0..60).map(|at| if at == 0 { first } else { daily(at) }).collect::<Vec<_>>());
        let row = said(&forecasts).remove(0).path.row(1).unwrap().to_vec();
        row[6] - row[0]
    };
    assert!(width(0.0) < 1.8 * width(daily(0)), "{} {}", width(0.0), width(daily(0)));
}

#[test]
fn intervals_do_not_shrink_with_the_horizon_of_a_random_walk() {
    let mut level = 1_000.0;
    let walk: Vec<f64> = (0..600)
        .map(|at| {
            level += 20.0 * (noise(at) - 0.5);
            level
        })
        .collect();
    let said = said(&fed(&walk));
    let width = |ahead: i64| {
        let of = |q| said[0].path.value(StepIndex(599 + ahead), q).unwrap();
        of(Quantile::CENTRAL_90.1) - of(Quantile::CENTRAL_90.0)
    };
    assert!(width(1) < width(4) && width(4) < width(12), "{} {} {}", width(1), width(4), width(12));
}

#[test]
fn a_flood_after_silence_does_not_explode() {
    let mut counts = vec![0.0; 100];
    counts.push(1e9);
    counts.extend(vec![0.0; 10]);
    for until in 100..counts.len() {
        for prediction in said(&fed(&counts[..until])) {
            let highest = prediction.path.row(11).unwrap().last().copied().unwrap();
            assert!(highest <= 1e10, "{highest} after step {until}");
        }
    }
    let quiet = fed(&[0.0; 200]);
    assert!(said(&quiet)[0].path.row(11).unwrap().iter().all(|value| *value <= 1.0), "{:?}", said(&quiet)[0].path.row(11));
}

#[test]
fn skipped_steps_and_left_out_series_count_nothing() {
    let (a, b) = (key("a"), key("b"));
    let (mut skipped, mut told) = (forecasts(4), forecasts(4));
    for one in [&mut skipped, &mut told] {
        one.close(StepIndex(0), [(&a, 5.0), (&b, 3.0)]);
    }
    skipped.close(StepIndex(3), [(&b, 1.0)]);
    for (step, count) in [(1, 0.0), (2, 0.0), (3, 1.0)] {
        told.close(StepIndex(step), [(&a, 0.0), (&b, count)]);
    }
    assert_eq!(said(&skipped), said(&told));
}

#[test]
fn a_step_is_closed_once() {
    let mut forecasts = fed(&[5.0, 6.0]);
    let before = said(&forecasts);
    forecasts.close(StepIndex(1), [(&key("a"), 99.0)]);
    forecasts.close(StepIndex(0), [(&key("a"), 99.0)]);
    assert_eq!(said(&forecasts), before);
}

#[test]
fn a_clock_that_jumps_by_years_starts_afresh() {
    let mut forecasts = fed(&[5.0; 50]);
    forecasts.close(StepIndex(i64::MAX), [(&key("a"), 7.0)]);
    assert_eq!(said(&forecasts).len(), 1);
    assert_eq!(said(&forecasts)[0].score.steps, 0);
}

#[test]
fn a_rebuilt_series_is_as_if_never_interrupted() {
    let counts: Vec<f64> = (0..150).map(daily).collect();
    let whole = fed(&counts);
    let mut rebuilt = forecasts(12);
    rebuilt.rebuild(&key("a"), StepIndex(149), &counts);
    assert_eq!(said(&rebuilt), said(&whole));
    // A correction of the past that ends before the last closed step is followed by silence.
    let mut corrected = fed(&counts);
    corrected.rebuild(&key("a"), StepIndex(147), &counts[..148]);
    assert_eq!(said(&corrected)[0].observed, 0.0);
    assert_eq!(corrected.until(), Some(StepIndex(149)));
    corrected.rebuild(&key("a"), StepIndex(149), &[]);
    assert!(corrected.is_empty());
}

/// What all series have learnt of their widths is part of what each says, also after a restart.
#[test]
fn series_that_are_learnt_afresh_in_another_order_say_the_same() {
    let (a, b) = (key("a"), key("b"));
    let counts: [Vec<f64>; 2] = [(0..300).map(daily).collect(), (0..300).map(|at| 40.0 * noise(at * at)).collect()];
    let mut whole = forecasts(12);
    for at in 0..300 {
        whole.close(StepIndex(at), [(&a, counts[0][at as usize]), (&b, counts[1][at as usize])]);
    }
    let mut rebuilt = forecasts(12);
    rebuilt.rebuild(&b, StepIndex(299), &counts[1]);
    let alone = said(&rebuilt);
    rebuilt.rebuild(&a, StepIndex(299), &counts[0]);
    assert_eq!(said(&rebuilt), said(&whole));
    assert_ne!(alone[0].path, said(&whole)[1].path, "the company tells nothing");
}

/// No level, no season, bursts: nothing is to be known but how often what comes.
#[test]
fn where_nothing_is_to_be_foreseen_it_says_about_the_quantiles_of_the_last_values() {
    let burst = |at: usize| if noise(at) < 0.8 { (10.0 * noise(at + 77_777)).floor() } else { 200.0 + 50.0 * noise(at + 55_555) };
    let counts: Vec<f64> = (0..2_000).map(burst).collect();
    let mut sorted = counts.clone();
    sorted.sort_by(f64::total_cmp);
    let path = &said(&fed(&counts))[0].path;
    let plain = |q: f64| sorted[(q * 2_000.0) as usize];
    for q in [Quantile::GRID[1], Quantile::MEDIAN] {
        let value = path.value(StepIndex(2_001), q).unwrap();
        assert!((value - plain(q.probability())).abs() < 12.0, "{q:?}: {value}, plainly {}", plain(q.probability()));
    }
    let why = fed(&counts).explain(&key("a")).unwrap();
    let share: f64 = why.lanes[1].experts.iter().filter(|expert| expert.name.starts_with("quantiles")).map(|expert| expert.weight).sum();
    assert!(share > 0.04 && (why.lanes[1].experts.iter().map(|expert| expert.weight).sum::<f64>() - 1.0).abs() < 1e-9, "{share}");
}

/// Three series of 1, 10 and 100, of which two have all experts.
fn three(steps: std::ops::Range<i64>, forecasts: &mut Forecasts) {
    let keys = ["a", "b", "c"].map(key);
    steps.for_each(|at| forecasts.close(StepIndex(at), keys.iter().zip([1.0, 10.0, 100.0])));
}

fn lean(forecasts: &Forecasts) -> Vec<String> {
    let lean = said(forecasts).into_iter().filter(|prediction| prediction.model == LEAN);
    lean.map(|prediction| prediction.series.source.to_string()).collect()
}

#[test]
fn beyond_the_limit_series_are_forecast_leanly_in_order_of_size() {
    let mut forecasts = forecasts(12).limited_to(2);
    three(0..60, &mut forecasts);
    assert_eq!(lean(&forecasts), ["c"], "the last that came");
    let sizes = |sizes: [f64; 3]| ["a", "b", "c"].map(key).into_iter().zip(sizes).collect::<Vec<_>>();
    forecasts.choose(&sizes([1.0, 10.0, 100.0]));
    assert_eq!((lean(&forecasts), forecasts.waiting(9)), (vec!["a".into(), "c".into()], vec![key("c")]));
    three(60..61, &mut forecasts);
    forecasts.rebuild(&key("c"), StepIndex(60), &[100.0; 61]);
    assert_eq!((lean(&forecasts), forecasts.waiting(9)), (vec!["a".into()], vec![]));
    // It is told why, and what it says is what one that was always lean would.
    let why = forecasts.explain(&key("a")).unwrap();
    let silent =
        why.lanes[0].experts.iter().filter(|expert| expert.silent.as_deref().is_some_and(|why| why.starts_with("lean: beyond max_series")));
    assert_eq!((why.steps, silent.count(), why.lanes[0].experts[0].weight), (61, EXPERTS.len() + 2, 1.0));
    let mut restarted = self::forecasts(12).limited_to(2);
    restarted.choose(&sizes([1.0, 10.0, 100.0]));
    for (name, count) in [("a", 1.0), ("b", 10.0), ("c", 100.0)] {
        restarted.rebuild(&key(name), StepIndex(60), &[count; 61]);
    }
    assert_eq!(said(&restarted), said(&forecasts));
    // Who is a little larger waits, who is clearly larger does not; and who is gone leaves its place to the next.
    forecasts.choose(&sizes([12.0, 10.0, 100.0]));
    assert_eq!(forecasts.waiting(9), []);
    forecasts.choose(&sizes([13.0, 10.0, 100.0]));
    assert_eq!((forecasts.waiting(9), lean(&forecasts)), (vec![key("a")], vec!["a".into(), "b".into()]));
    forecasts.remove(&key("a"));
    assert_eq!(forecasts.len(), 2);
    forecasts.rebuild(&key("b"), StepIndex(60), &[10.0; 61]);
    assert_eq!(lean(&forecasts), [""; 0]);
}

#[test]
fn what_was_kept_of_a_series_beyond_the_limit_is_not_taken_up() {
    let counts: Vec<f64> = (0..300).map(daily).collect();
    let bytes = kept(&fed(&counts));
    let mut forecasts = forecasts(12).limited_to(1);
    forecasts.choose(&[(key("a"), 1.0), (key("b"), 2.0)]);
    forecasts.restore(&key("a"), StepIndex(299), &bytes, &counts).unwrap();
    assert_eq!((lean(&forecasts), forecasts.save(None, 9).len()), (vec!["a".to_owned()], 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever is counted, the paths are paths: finite, not negative, not crossing (their type
    /// checks it) and within sight of the highest count there was.
    #[test]
    fn nothing_explodes(counts in proptest::collection::vec(prop_oneof![
        Just(0.0), 0.0..10.0f64, 0.0..1e6f64, Just(1.1e12), Just(f64::NAN), Just(-5.0), Just(f64::INFINITY)
    ], 1..120)) {
        let highest = counts.iter().copied().filter(|c| c.is_finite()).fold(1.0, f64::max);
        let forecasts = fed(&counts);
        for prediction in said(&forecasts) {
            prop_assert_eq!(prediction.path.horizon(), 12);
            prop_assert!(prediction.mean_volume.is_finite() && prediction.score.pinball.is_finite());
            for ahead in 0..12 {
                for value in prediction.path.row(ahead).unwrap() {
                    prop_assert!(f64::from(*value) <= 100.0 * highest, "{} of at most {}", value, highest);
                }
            }
        }
    }
}
