//! In the manner of Prophet: a trend whose slope changes, and Fourier series for the day and the week (Taylor and Letham 2018, "Forecasting at scale",
//! equations 1 and 5), of the root of the count.
//!
//! They fit it to the whole series by a maximum a posteriori search, over changepoints with a prior; here level, slope and the harmonics are the state of a Kalman filter,
//! in which level and slope walk at random, so that a step costs the same after a year as after a day (dynamic harmonic regression: Young,
//! Pedregal and Tych 1999; the filter: Durbin and Koopman, Time Series Analysis by State Space Methods, 2nd edition, section 4.3). Variances are in
//! units of the noise, which the gain does not depend on. Holidays and events come from the calendar, for all experts. It does not follow the last hour
//! but its mean day is smooth, which a profile of single steps is not. Needs two seasons.

use super::{Forecaster, Past, Silent};
use serde::{Deserialize, Serialize};

/// Harmonics of the season and of the week.
const DAY: usize = 4;
const WEEK: usize = 3;
/// Level and slope, and a sine and a cosine for each harmonic.
const STATES: usize = 2 + 2 * (DAY + WEEK);
/// Prior variances of level, slope (by season), and the harmonics of day and week.
const PRIOR: (f64, f64, f64, f64) = (100.0, 0.1, 10.0, 0.3);
/// How far level, slope and harmonics walk in a season, squared.
const WALK: (f64, f64, f64) = (1.0, 0.002, 0.03);
/// Seasons in a week.
const SEASONS: u64 = 7;
/// Errors beyond this many times the usual are learnt as this many.
const MAX_ERROR: f64 = 4.0;
/// Memory of the usual error.
const SIZE_GAIN: f64 = 0.01;

type Vector = [f64; STATES];

/// Trend and seasons as the state of a filter.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Prophet {
    season: f64,
    state: Vector,
    covariance: [Vector; STATES],
    size: f64,
}

impl Prophet {
    /// A season of `season` steps.
    pub(crate) fn new(season: usize) -> Self {
        let season = season.max(1) as f64;
        let variance = |at: usize| match at {
            0 => PRIOR.0,
            1 => PRIOR.1 / (season * season),
            _ if at < 2 + 2 * DAY => PRIOR.2,
            _ => PRIOR.3,
        };
        let covariance = std::array::from_fn(|row| std::array::from_fn(|column| if row == column { variance(row) } else { 0.0 }));
        Self { season, state: [0.0; STATES], covariance, size: 0.0 }
    }

    /// What the harmonics are worth in step `number`, counted from 1; level 1, slope 0.
    fn harmonics(&self, number: u64) -> Vector {
        let mut at = [0.0; STATES];
        at[0] = 1.0;
        let mut place = 2;
        for (length, harmonics) in [(self.season, DAY), (self.season * SEASONS as f64, WEEK)] {
            // A season of so many steps has half as many harmonics.
            let whole = (length / 2.0) as usize;
            let (sine, cosine) = ((number as f64 % length) / length * std::f64::consts::TAU).sin_cos();
            let (mut s, mut c) = (sine, cosine);
            for harmonic in 0..harmonics {
                if harmonic < whole {
                    (at[place], at[place + 1]) = (s, c);
                }
                (s, c) = (s * cosine + c * sine, c * cosine - s * sine);
                place += 2;
            }
        }
        at
    }

    /// Lets a step pass: the level moves by the slope, and all walk.
    fn pass(&mut self) {
        self.state[0] += self.state[1];
        for column in 0..STATES {
            self.covariance[0][column] += self.covariance[1][column];
        }
        for row in &mut self.covariance {
            row[0] += row[1];
        }
        self.covariance[0][0] += WALK.0 / self.season;
        self.covariance[1][1] += WALK.1 / self.season.powi(3);
        (2..STATES).for_each(|at| self.covariance[at][at] += WALK.2 / self.season);
    }
}

impl Forecaster for Prophet {
    fn name(&self) -> &'static str {
        "prophet"
    }

    fn observe(&mut self, past: &Past) {
        let value = past.root();
        if past.seen() == 1 {
            self.state[0] = value;
        }
        self.pass();
        let features = self.harmonics(past.seen());
        let moved: Vector = std::array::from_fn(|row| self.covariance[row].iter().zip(&features).map(|(p, x)| p * x).sum());
        let scale = 1.0 + moved.iter().zip(&features).map(|(m, x)| m * x).sum::<f64>();
        let error = value - self.state.iter().zip(&features).map(|(s, x)| s * x).sum::<f64>();
        let fading_in = 1.0 / past.seen() as f64;
        let usual = if past.seen() > past.season() as u64 { MAX_ERROR * self.size } else { f64::INFINITY };
        let error = error.clamp(-usual, usual);
        self.size += SIZE_GAIN.max(fading_in) * (error.abs() - self.size);
        self.state.iter_mut().zip(&moved).for_each(|(state, m)| *state += m / scale * error);
        for (row, of) in self.covariance.iter_mut().zip(&moved) {
            row.iter_mut().zip(&moved).for_each(|(p, m)| *p -= of * m / scale);
        }
    }

    fn ready(&self, past: &Past, _ahead: usize) -> Result<(), Silent> {
        Silent::until(2 * past.season() as u64, past)
    }

    fn point(&self, past: &Past, ahead: usize) -> f64 {
        let features = self.harmonics(past.seen() + ahead as u64);
        let reach = (ahead as f64).min(self.season); // No trend is trusted for longer.
        let root = self.state.iter().zip(&features).map(|(s, x)| s * x).sum::<f64>() + reach * self.state[1];
        root.max(0.0).powi(2)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Told;
    use super::*;
    use crate::testing::noise;

    #[test]
    fn trend_day_and_week_are_taken_apart_and_put_together() {
        let tau = std::f64::consts::TAU;
        let root = |at: usize| {
            let (day, week) = (at as f64 / 24.0 * tau, at as f64 / 168.0 * tau);
            40.0 + 0.005 * at as f64 + 6.0 * day.sin() - 2.0 * (2.0 * day).cos() + 3.0 * week.cos()
        };
        let mut told = Told::new(Prophet::new(24), 24);
        for at in 0..6 * 168 {
            told.observe((root(at) + noise(at) - 0.5).powi(2));
            assert_eq!(told.ready(1).is_ok(), at >= 47);
        }
        for ahead in [1, 6, 12, 24] {
            let (said, comes) = (told.point(ahead).sqrt(), root(6 * 168 - 1 + ahead));
            assert!((said - comes).abs() < 0.7, "{said} for {comes}, {ahead} ahead");
        }
    }

    #[test]
    fn a_trend_goes_on_for_a_season() {
        let mut told = Told::new(Prophet::new(24), 24);
        let root = |at: usize| 10.0 + 0.1 * at as f64;
        (0..6_000).for_each(|at| told.observe(root(at).powi(2)));
        let said = |ahead: usize| told.point(ahead).sqrt() - root(5_999);
        for (ahead, wanted) in [(1, 0.1), (24, 2.4), (1_000, 2.4)] {
            assert!((said(ahead) - wanted).abs() < 0.01, "{} {ahead} steps ahead", said(ahead));
        }
    }

    #[test]
    fn seasons_too_short_for_harmonics_have_none() {
        for season in [1, 2, 3] {
            let mut told = Told::new(Prophet::new(season), season);
            (0..400).for_each(|_| told.observe(9.0));
            assert!((told.point(1) - 9.0).abs() < 0.1, "season {season}: {}", told.point(1));
        }
    }
}
