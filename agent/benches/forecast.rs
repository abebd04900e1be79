//! What closing a step costs: `cargo bench -p tradewind-agent --bench forecast`. One core.
//!
//! A thousand series (or as many as the first argument says) with a season of 96 steps and a history of eleven days learn
//! one more step, and give their next paths of 24 steps and 9 quantiles. Then all are learnt afresh, and the models of all series trained. At last a
//! few long series are kept, and taken up as by the next life of the agent, beside what learning them from their counts takes.

use std::time::{Duration, Instant};
use tradewind_agent::config::ForecastConfig;
use tradewind_agent::forecast::Forecasts;
use tradewind_agent::forecast::global::{Kind, Panel, Trained};
use tradewind_protocol::{RegionId, SeriesKey, Step, StepIndex, Timestamp};

const SEASON: usize = 96;
const HISTORY: usize = 1_056;
const MEASURED: usize = 20;

fn main() {
    let series = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1_000_usize);
    let Ok(step) = Step::new(Duration::from_secs(900)) else { return };
    let keys: Vec<SeriesKey> = (0..series).filter_map(key).collect();
    let mut forecasts = Forecasts::new(&ForecastConfig { horizon: 24, season: SEASON }, step);
    let mut chance = 1_u64;
    let mut close = |forecasts: &mut Forecasts, at: usize| {
        let counts: Vec<f64> = (0..series)
            .map(|series| {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let noise = (chance >> 11) as f64 / (1_u64 << 53) as f64;
                100.0 + 50.0 * ((at + series) as f64 / SEASON as f64 * std::f64::consts::TAU).sin() + 40.0 * noise
            })
            .collect();
        forecasts.close(StepIndex(at as i64), keys.iter().zip(counts));
    };
    (0..HISTORY).for_each(|at| close(&mut forecasts, at));
    let (mut closing, mut telling, mut rows) = (Duration::ZERO, Duration::ZERO, 0);
    for at in HISTORY..HISTORY + MEASURED {
        let started = Instant::now();
        close(&mut forecasts, at);
        closing += started.elapsed();
        let started = Instant::now();
        rows += forecasts.predictions(Timestamp::EPOCH).iter().map(|prediction| prediction.path.horizon()).sum::<usize>();
        telling += started.elapsed();
    }
    let each = |time: Duration| time.as_secs_f64() * 1e6 / (MEASURED * series.max(1)) as f64;
    println!(
        "{series} series, {} steps ahead: closing a step {:.1} us a series, the next path {:.1} us; 10,000 series: {:.2} s",
        rows / (MEASURED * series.max(1)),
        each(closing),
        each(telling),
        (each(closing) + each(telling)) / 100.0
    );
    refreshed(&mut forecasts, &keys);
    taken_up(series, step);
}

/// Learns all of them afresh, and trains the models of all series, as an agent does on its schedule.
fn refreshed(forecasts: &mut Forecasts, keys: &[SeriesKey]) {
    let shape = |at: usize| 100.0 + 50.0 * (at as f64 / SEASON as f64 * std::f64::consts::TAU).sin() + (at * 7_919 % 40) as f64;
    let windows: Vec<Vec<f64>> = (0..keys.len()).map(|series| (0..HISTORY).map(|at| shape(at + series)).collect()).collect();
    let until = StepIndex(HISTORY as i64 - 1);
    let started = Instant::now();
    keys.iter().zip(&windows).for_each(|(key, window)| forecasts.rebuild(key, until, window));
    let learning = started.elapsed();
    let mut panel = Panel::new(HISTORY as i64);
    windows.into_iter().for_each(|window| panel.push(window));
    let started = Instant::now();
    Trained::train(&[Kind::Boosting, Kind::Nhits], &panel, 24, SEASON, 1);
    println!(
        "{} series afresh: {:.1} s learning, {:.1} s training on all of them",
        keys.len(),
        learning.as_secs_f64(),
        started.elapsed().as_secs_f64()
    );
}

/// Takes up a few series of eight days of minutes.
fn taken_up(series: usize, step: Step) {
    const DAY: usize = 1_440;
    let Some((key, few)) = key(0).zip(std::num::NonZeroUsize::new(series.min(20))) else { return };
    let config = ForecastConfig { horizon: 24, season: DAY };
    let window: Vec<f64> = (0..8 * DAY).map(|at| (at * 7_919 % 1_000) as f64).collect();
    let until = StepIndex(window.len() as i64 - 1);
    let (mut learnt, mut taken) = (Forecasts::new(&config, step), Forecasts::new(&config, step));
    let per = |started: Instant| started.elapsed().as_secs_f64() * 1e3 / few.get() as f64;
    let started = Instant::now();
    (0..few.get()).for_each(|_| learnt.rebuild(&key, until, &window));
    let learning = per(started);
    let Some((_, Ok(kept))) = learnt.save(None, 1).pop() else { return };
    let started = Instant::now();
    let refused = (0..few.get()).filter(|_| taken.restore(&key, until, &kept, &window).is_err()).count();
    println!(
        "a series of minutes: {} KB kept; taking it up {:.2} ms ({refused} refused), learning it {learning:.0} ms",
        kept.len() / 1_000,
        per(started)
    );
}

fn key(number: usize) -> Option<SeriesKey> {
    Some(SeriesKey {
        tenant: Default::default(),
        source: RegionId::new(&format!("source-{number:06}")).ok()?,
        destination: RegionId::new("here").ok()?,
        service: Default::default(),
        transaction_type: Default::default(),
    })
}
