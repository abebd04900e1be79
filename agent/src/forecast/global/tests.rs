//! What all global models have in common.

use super::super::{ExpertExplanation, Explanation, LaneExplanation};
use super::blend::Blend;
use super::keep::{Effort, GlobalConfig, Globals};
use super::math::Chance;
use super::panel::Panel;
use super::window::Shape;
use super::{BRIEF, Kind, Pieces, RECENT, Silence, Trained};
use std::collections::BTreeMap;
use std::time::Duration;
use tradewind_protocol::{PredictionData, Quantile, QuantilePath, RegionId, SeriesKey, Step, StepIndex, Timestamp};

const SEASON: usize = 12;

/// Daily series of different sizes; a value `after` replaces what comes after that step.
fn counts(series: usize, steps: usize, replaced: Option<usize>) -> Vec<Vec<f64>> {
    let mut chance = Chance::new(11);
    let mut one = |number: usize| {
        let size = 10.0 * (number + 1) as f64;
        let mut drift = 0.0;
        let mut step = |at: usize| {
            drift = 0.9 * drift + 0.1 * f64::from(chance.signed());
            let wave = 1.0 + 0.5 * (at as f64 / SEASON as f64 * std::f64::consts::TAU).sin();
            let count = (size * (wave + drift + 0.1 * f64::from(chance.signed()))).max(0.0);
            if replaced.is_some_and(|from| at >= from) { 1e4 * (at % 7) as f64 } else { count }
        };
        (0..steps).map(&mut step).collect::<Vec<f64>>()
    };
    (0..series).map(&mut one).collect()
}

fn panel(counts: &[Vec<f64>], until: usize) -> Panel {
    let mut panel = Panel::new(until as i64 - 1);
    counts.iter().for_each(|series| panel.push(series[..until].iter().copied()));
    panel
}

fn key(number: usize) -> SeriesKey {
    SeriesKey {
        tenant: Default::default(),
        source: RegionId::new(&format!("source-{number:03}")).unwrap(),
        destination: RegionId::new("here").unwrap(),
        service: Default::default(),
        transaction_type: Default::default(),
    }
}

fn briefly(kinds: &[Kind], panel: &Panel) -> Trained {
    Trained::at_cost(kinds, panel, &Shape::new(4, SEASON, RECENT), BRIEF, 5, &|| true).unwrap()
}

fn trained(kind: Kind, counts: &[Vec<f64>], until: usize) -> Trained {
    briefly(&[kind], &panel(counts, until))
}

#[test]
fn each_kind_learns_more_than_the_last_season_tells_and_repeats_to_the_bit() {
    let counts = counts(6, 300, None);
    for kind in Kind::ALL {
        let trained = trained(kind, &counts, 240);
        let (mut loss, mut naive) = (0.0, 0.0);
        for until in (240..296).step_by(7) {
            let said = trained.foresee(&panel(&counts, until));
            for (series, said) in counts.iter().zip(&said) {
                let path = said[0].1.as_ref().unwrap();
                for ahead in 1..=4 {
                    let row = path.row(ahead);
                    assert!(row.is_sorted() && row[0] >= 0.0 && row[8].is_finite(), "{kind}: {row:?}");
                    let actual = series[until + ahead - 1];
                    loss += (actual - row[3]).abs() / series[0].max(1.0);
                    naive += (actual - series[until + ahead - 1 - SEASON]).abs() / series[0].max(1.0);
                }
            }
        }
        assert!(loss < 0.9 * naive, "{kind}: {loss} {naive}");
        let again = self::trained(kind, &counts, 240);
        let bits = |trained: &Trained| {
            let said = trained.foresee(&panel(&counts, 260));
            said.iter().flatten().flat_map(|(_, path)| path.as_ref().unwrap().row(3)).map(f64::to_bits).collect::<Vec<u64>>()
        };
        assert_eq!(bits(&trained), bits(&again), "{kind}");
    }
}

#[test]
fn nothing_after_the_origin_changes_what_is_learnt_and_said() {
    let (told, changed) = (counts(4, 200, None), counts(4, 200, Some(160)));
    for kind in Kind::ALL {
        let (models, others) = (trained(kind, &told, 160), trained(kind, &changed, 160));
        let said = |models: &Trained, counts, until| models.foresee(&panel(counts, until));
        assert!(said(&models, &told, 160) == said(&others, &changed, 160), "{kind} knew what comes");
        assert!(said(&models, &told, 170) != said(&others, &changed, 170), "{kind} sees nothing of what came since");
    }
}

#[test]
fn what_is_too_short_or_empty_or_has_gone_mad_is_no_reason_to_panic() {
    let mut all = counts(4, 200, None);
    all.push(vec![0.0; 200]);
    all.push(vec![1e300; 200]);
    all.push((0..200).map(|at| if at % 50 == 49 { 3.0 } else { 0.0 }).collect());
    for kind in Kind::ALL {
        let trained = trained(kind, &all, 200);
        let mut panel = panel(&all, 200);
        panel.push([1.0; 20]);
        panel.push(std::iter::repeat_n(f64::NAN, 200));
        let said = trained.foresee(&panel);
        assert_eq!(said[4][0].1, Err(Silence::Empty), "{kind}");
        assert!(matches!(said[7][0].1, Err(Silence::TooShort { seen: 20, .. })), "{kind}");
        assert_eq!(said[8][0].1, Err(Silence::Empty), "{kind}");
        for said in &said {
            if let Ok(path) = &said[0].1 {
                assert!((1..=4).all(|ahead| path.row(ahead).iter().all(|value| value.is_finite() && *value >= 0.0)), "{kind}");
            }
        }
        assert!(said[6][0].1.as_ref().unwrap().row(1)[8] < 100.0, "{kind}: {:?}", said[6][0].1);
    }
    // Nothing to learn from at all.
    let none = briefly(&Kind::ALL, &Panel::new(0));
    let mut short = Panel::new(0);
    short.push([1.0; 200]);
    assert!(none.foresee(&short)[0].iter().all(|(_, said)| *said == Err(Silence::Unlearnt)));
}

#[test]
fn training_is_due_with_enough_steps_then_as_they_grow_and_at_the_latest_as_configured() {
    let config = GlobalConfig { train_every: 200, max_series: 3, window: 150, ..GlobalConfig::of(vec![Kind::Boosting], SEASON) };
    let mut globals = Globals::new(config, 4, SEASON);
    let counts = counts(4, 900, None);
    let keys: Vec<SeriesKey> = (0..4).map(key).collect();
    let mut due = vec![];
    for at in 0..900 {
        globals.close(StepIndex(at as i64), keys.iter().zip(&counts).map(|(key, counts)| (key, counts[at])));
        if globals.due().is_some() {
            due.push(at + 1);
        }
    }
    assert_eq!(due, [100, 150, 225, 338, 507, 707]);
    let said = globals.foresee();
    // Of four series the smallest, which is the first, goes.
    assert_eq!(said.keys().collect::<Vec<_>>(), keys[1..].iter().collect::<Vec<_>>());
    assert!(said.values().all(|said| said[0].1 == Err(Silence::Untrained { seen: 900, needed: 100 })));
    assert_eq!(globals.beyond(), [(Kind::Boosting, Err(Silence::Beyond { kept: 3 }))]);
}

#[test]
fn training_is_due_once_many_series_have_changed_their_level_and_the_new_one_is_known() {
    let config = GlobalConfig { train_every: 9_999, ..GlobalConfig::of(vec![Kind::Boosting], SEASON) };
    let due = |shifts: &[(usize, usize)]| {
        let mut globals = Globals::new(config.clone(), 4, SEASON);
        let (counts, keys) = (counts(10, 600, None), (0..10).map(key).collect::<Vec<_>>());
        let mut due = vec![];
        for at in 0..600 {
            globals.close(StepIndex(at as i64), keys.iter().zip(&counts).map(|(key, counts)| (key, counts[at])));
            globals.shift(shifts.iter().filter(|(step, _)| *step == at).map(|(_, series)| &keys[*series]));
            if globals.due().is_some() {
                due.push(at + 1);
            }
        }
        due
    };
    assert_eq!(due(&[]), [100, 150, 225, 338, 507]);
    // One of ten, twice.
    assert_eq!(due(&[(230, 0), (231, 0)]), [100, 150, 225, 338, 507]);
    // With the second, 48 steps later; the growth goes on from there.
    assert_eq!(due(&[(230, 0), (240, 1), (241, 2)]), [100, 150, 225, 289, 434]);
    // Nothing is known before the first training that could have become old.
    assert_eq!(due(&[(10, 0), (10, 1)]), [100, 150, 225, 338, 507]);
}

#[test]
fn what_is_said_of_a_series_is_explained_by_all_who_said_it() {
    let (globals, _) = spoken(200);
    let others = || Explanation {
        until: StepIndex(199),
        steps: 200,
        season: SEASON as u64,
        trained_ago: None,
        lanes: crate::forecast::horizon::lanes(4)
            .into_iter()
            .map(|ahead| LaneExplanation {
                ahead,
                judged: 0,
                coverage_90: 0.0,
                error: 0.0,
                seasonal_naive_error: 0.0,
                experts: vec![ExpertExplanation { name: "others".into(), weight: 1.0, error: None, silent: None }],
            })
            .collect(),
    };
    let mut why = others();
    globals.explain(&key(1), &mut why);
    assert!(why.trained_ago.is_some_and(|ago| (1..100).contains(&ago)), "{:?}", why.trained_ago);
    for lane in &why.lanes {
        let names: Vec<&str> = lane.experts.iter().map(|expert| expert.name.as_str()).collect();
        assert_eq!(names, ["others", "global-boosting", "global-lstm", "global-nhits"]);
        assert!((lane.experts.iter().map(|expert| expert.weight).sum::<f64>() - 1.0).abs() < 1e-9, "{lane:?}");
        assert!(lane.experts.iter().all(|expert| expert.weight > 0.0 && expert.silent.is_none()), "{lane:?}");
        assert!(lane.experts[1..].iter().all(|expert| expert.error.is_some_and(|error| error > 0.0)), "{lane:?}");
    }
    // Of a series that is not kept, and before there is a model.
    for (globals, reason) in [(&globals, "is kept for the 500 series"), (&Globals::new(globals.config.clone(), 4, SEASON), "is kept for")] {
        let mut why = others();
        globals.explain(&key(9), &mut why);
        let experts = &why.lanes[0].experts;
        assert_eq!((experts[0].weight, experts[1].weight), (1.0, 0.0));
        assert!(experts[1].silent.as_ref().is_some_and(|silent| silent.starts_with(reason)), "{experts:?}");
    }
    let mut untrained = Globals::new(globals.config.clone(), 4, SEASON);
    untrained.close(StepIndex(199), [(&key(1), 1.0)]);
    let mut why = others();
    untrained.explain(&key(1), &mut why);
    assert_eq!(why.lanes[0].experts[3].silent.as_deref(), Some("is trained once there are 100 steps; there are 1"));
}

#[test]
fn a_rebuilt_series_is_as_one_that_was_never_interrupted() {
    let counts = counts(1, 120, None);
    let make = || Globals::new(GlobalConfig { window: 100, ..GlobalConfig::of(vec![Kind::Boosting], SEASON) }, 4, SEASON);
    let (mut whole, mut rebuilt) = (make(), make());
    for (at, count) in counts[0].iter().enumerate() {
        whole.close(StepIndex(at as i64), [(&key(0), *count)]);
    }
    rebuilt.rebuild(&key(0), StepIndex(119), &counts[0]);
    let trained = trained(Kind::Boosting, &self::counts(3, 200, None), 200);
    whole.install(trained.clone());
    rebuilt.install(trained);
    let said = whole.foresee();
    assert!(said[&key(0)][0].1.is_ok());
    assert_eq!(said, rebuilt.foresee());
    // Silence counts as nothing; a clock that jumps by years starts afresh.
    whole.close(StepIndex(130), []);
    assert_ne!(said, whole.foresee());
    whole.close(StepIndex(1_000_000), [(&key(0), 1.0)]);
    assert!(matches!(whole.foresee()[&key(0)][0].1, Err(Silence::TooShort { seen: 1, .. })));
    assert_eq!(Globals::new(GlobalConfig::none(), 4, SEASON).foresee(), BTreeMap::new());
}

/// Models of all kinds that were trained, and have spoken for so many steps; with the counts of some more.
fn spoken(steps: usize) -> (Globals, Vec<Vec<f64>>) {
    let counts = counts(3, steps + 30, None);
    let mut globals = Globals::new(GlobalConfig { effort: Effort::Brief, ..GlobalConfig::of(Kind::ALL.into(), SEASON) }, 4, SEASON);
    for at in 0..steps {
        told(&mut globals, &counts, at);
        if let Some(training) = globals.due() {
            globals.install(training.run().unwrap());
        }
    }
    (globals, counts)
}

/// Tells of one step, and lets the models speak; what is published then.
fn told(globals: &mut Globals, counts: &[Vec<f64>], at: usize) -> Vec<PredictionData> {
    let step = Step::new(Duration::from_secs(60)).unwrap();
    let until = StepIndex(at as i64);
    let keys: Vec<SeriesKey> = (0..counts.len()).map(key).collect();
    globals.close(until, keys.iter().zip(counts).map(|(key, counts)| (key, counts[at])));
    globals.speak();
    let others = keys.iter().zip(counts).map(|(key, counts)| {
        let row = Quantile::GRID.map(|q| (counts[at] * (0.5 + q.probability())) as f32);
        PredictionData {
            series: key.clone(),
            issued_at: Timestamp::EPOCH,
            observed: counts[at],
            mean_volume: 1.0,
            path: QuantilePath::rearranged(until.offset(1), step, Quantile::GRID.to_vec(), row.repeat(4)).unwrap(),
            model: "others".into(),
            score: Default::default(),
        }
    });
    globals.blend(others.collect())
}

#[test]
fn the_next_life_speaks_with_the_models_and_the_trust_of_the_one_before() {
    let (mut globals, counts) = spoken(200);
    let pieces = globals.save().unwrap();
    let config = globals.config.clone();
    let restored = |pieces: &Pieces| {
        let mut next = Globals::new(config.clone(), 4, SEASON);
        next.restore(StepIndex(199), pieces).map(|()| {
            counts.iter().enumerate().for_each(|(number, counts)| next.rebuild(&key(number), StepIndex(199), &counts[..200]));
            next
        })
    };
    let mut next = restored(&pieces).unwrap();
    assert_eq!((next.trained_on(), next.due().is_some()), (globals.trained_on(), false), "nothing is to be trained");
    assert_eq!(next.foresee(), globals.foresee());
    next.speak();
    // Nearly, since what waits for its step is not kept, and far from what they say who have learnt nothing of whom to believe.
    let mut forgetful = restored(&pieces).unwrap();
    forgetful.blend = Blend::new(4);
    forgetful.speak();
    let mut off = (0.0, 0.0);
    for at in 200..230 {
        let said = [&mut globals, &mut next, &mut forgetful].map(|globals| {
            let values: Vec<f64> = told(globals, &counts, at).iter().flat_map(|p| p.path.row(3).unwrap().to_vec()).map(f64::from).collect();
            values
        });
        let far = |of: &[f64]| said[0].iter().zip(of).map(|(a, b)| (a - b).abs()).sum::<f64>();
        off = (off.0 + far(&said[1]), off.1 + far(&said[2]));
    }
    assert!(off.0 < 0.1 * off.1, "{off:?}");
    assert_eq!(next.due().is_some(), globals.due().is_some());
    // What is missing, cut short, of another horizon or of no sense is refused.
    for name in pieces.keys() {
        let mut some = pieces.clone();
        some.get_mut(name).unwrap().pop();
        assert!(restored(&some).is_err(), "{name} is cut");
        some.remove(name);
        assert!(restored(&some).is_err(), "{name} is missing");
        let mut some = pieces.clone();
        let bytes = some.get_mut(name).unwrap();
        let length = bytes.len();
        bytes[length / 2..].fill(0xff);
        // Nothing to say of it but that nothing panics.
        if let Ok(mut next) = restored(&some) {
            next.speak();
        }
    }
    assert!(Globals::new(config.clone(), 5, SEASON).restore(StepIndex(199), &pieces).is_err());
    assert_eq!(Globals::new(config, 4, SEASON).save().unwrap(), Pieces::new());
}

#[test]
fn a_training_that_is_not_wanted_any_more_ends() {
    let all = panel(&counts(2, 200, None), 200);
    for kind in Kind::ALL {
        assert!(Trained::at_cost(&[kind], &all, &Shape::new(4, SEASON, RECENT), BRIEF, 5, &|| false).is_none(), "{kind}");
    }
}
