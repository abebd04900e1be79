//! The NAB score: how early, how completely and with how few false alarms labelled anomalies are found.
//!
//! Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms: the Numenta Anomaly Benchmark"
//! (2015), sections III.B and III.C. Each labelled anomaly has a window around it. The first alarm inside
//! earns up to [`Profile::hit`], by a sigmoid of its place: nearly all of it at the window's start, nothing
//! at its end. Every alarm outside costs up to [`Profile::false_alarm`], less just after a window. A window without
//! an alarm costs [`Profile::miss`]. One threshold is chosen for the whole corpus, the one that scores
//! highest, as the published figures are. Not here: any knowledge of detectors.

use std::cmp::Ordering;

/// The share of a series that is not scored, so that a detector may learn (section III.D).
const PROBATION_SHARE: f64 = 0.15;
/// The series length beyond which probation grows no longer.
const PROBATION_ROWS: usize = 5_000;
/// How steep the sigmoid is: at the start of a window it is 0.987 of its limit.
const STEEPNESS: f64 = 5.0;
/// So many window lengths after a window, an alarm is as wrong as any.
const FAR: f64 = 3.0;

/// An application profile: what outcomes are worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// A window found at its very start.
    pub hit: f64,
    /// An alarm far from any window, as a positive cost.
    pub false_alarm: f64,
    /// A window without an alarm, as a positive cost.
    pub miss: f64,
}

impl Profile {
    /// The profile called "standard".
    pub const STANDARD: Profile = Profile { hit: 1.0, false_alarm: 0.11, miss: 1.0 };
}

/// A labelled anomaly: its first and last row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First row.
    pub first: usize,
    /// Last row.
    pub last: usize,
}

/// One labelled series with what a detector said of each row: the higher, the more anomalous.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The labels, ascending, apart from each other.
    pub windows: Vec<Window>,
    /// One score a row.
    pub scores: Vec<f64>,
}

/// What a detector achieves on a corpus.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// 0 for a detector that never speaks, 100 for a perfect one. May be negative.
    pub normalised: f64,
    /// Rows with at least this score are alarms.
    pub threshold: f64,
    /// Windows with an alarm.
    pub found: usize,
    /// All windows that can be found.
    pub windows: usize,
    /// Alarms outside of windows.
    pub false_alarms: usize,
}

/// How many of `rows` rows are not scored.
pub fn probation(rows: usize) -> usize {
    (PROBATION_SHARE * rows.min(PROBATION_ROWS) as f64).floor() as usize
}

/// The score with the threshold that serves `corpus` best.
pub fn best(corpus: &[Judged], profile: Profile) -> Score {
    let mut best: Option<Score> = None;
    sweep(corpus, profile, |score| {
        if best.is_none_or(|best| score.normalised > best.normalised) {
            best = Some(score);
        }
    });
    best.unwrap_or(Score { normalised: 0.0, threshold: f64::INFINITY, found: 0, windows: 0, false_alarms: 0 })
}

/// The score with a threshold that was fixed beforehand.
pub fn at(corpus: &[Judged], profile: Profile, threshold: f64) -> Score {
    let mut found: Option<Score> = None;
    sweep(corpus, profile, |score| {
        if found.is_none() || score.threshold >= threshold {
            found = Some(score);
        }
    });
    found.map_or_else(|| best(&[], profile), |score| Score { threshold, ..score })
}

/// Tells the score at every threshold that makes a difference, from silence downwards.
fn sweep(corpus: &[Judged], profile: Profile, mut tell: impl FnMut(Score)) {
    let mut rows: Vec<Row> = vec![];
    let mut windows = 0;
    for series in corpus {
        windows += series.rows(profile, windows, &mut rows);
    }
    rows.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal));
    let mut worth = vec![-profile.miss; windows];
    let (mut hits, mut costs, mut false_alarms) = (0, 0.0, 0);
    let told = |threshold, worth: &[f64], costs: f64, found, false_alarms| {
        let raw = worth.iter().sum::<f64>() + costs;
        let (silent, perfect) = (-profile.miss * windows as f64, profile.hit * windows as f64);
        let normalised = if windows == 0 { 0.0 } else { 100.0 * (raw - silent) / (perfect - silent) };
        Score { normalised, threshold, found, windows, false_alarms }
    };
    tell(told(f64::INFINITY, &worth, costs, 0, 0));
    for same in rows.chunk_by(|a, b| a.score == b.score) {
        for row in same {
            match row.window {
                None => {
                    costs += row.worth;
                    false_alarms += 1;
                }
                Some(window) => {
                    hits += usize::from(worth[window] == -profile.miss);
                    worth[window] = worth[window].max(row.worth);
                }
            }
        }
        tell(told(same[0].score, &worth, costs, hits, false_alarms));
    }
}

/// One row: what an alarm there would be worth, and for which window.
#[derive(Debug, Clone, Copy)]
struct Row {
    score: f64,
    worth: f64,
    window: Option<usize>,
}

impl Judged {
    /// Adds the rows that are scored to `out`, numbering windows from `base`; says how many windows can be found.
    fn rows(&self, profile: Profile, base: usize, out: &mut Vec<Row>) -> usize {
        let from = probation(self.scores.len());
        let findable: Vec<&Window> = self.windows.iter().filter(|window| window.last >= from).collect();
        for (at, score) in self.scores.iter().enumerate().skip(from) {
            if score.is_nan() {
                continue;
            }
            let inside = findable.iter().position(|window| (window.first..=window.last).contains(&at));
            let worth = match inside {
                Some(window) => findable[window].hit(at) * profile.hit,
                None => {
                    let before = self.windows.iter().rev().find(|window| window.last < at);
                    before.map_or(-1.0, |window| window.aftermath(at)) * profile.false_alarm
                }
            };
            out.push(Row { score: *score, worth, window: inside.map(|window| base + window) });
        }
        findable.len()
    }
}

impl Window {
    fn rows(self) -> f64 {
        (self.last - self.first + 1) as f64
    }

    /// 1 at the first row, falling to 0 after the last.
    fn hit(self, at: usize) -> f64 {
        let place = -((self.last - at + 1) as f64) / self.rows();
        sigmoid(place) / sigmoid(-1.0)
    }

    /// 0 at the last row, falling to -1 far from it.
    fn aftermath(self, at: usize) -> f64 {
        let place = (at - self.last) as f64 / (self.rows() - 1.0).max(1.0);
        if place >= FAR { -1.0 } else { sigmoid(place) }
    }
}

/// Equation 1: 1 long before a window's end, 0 at it, -1 long after.
fn sigmoid(place: f64) -> f64 {
    2.0 / (1.0 + (STEEPNESS * place).exp()) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: [Window; 2] = [Window { first: 400, last: 499 }, Window { first: 800, last: 899 }];

    fn judged(score: impl Fn(usize) -> f64) -> Vec<Judged> {
        vec![Judged { windows: WINDOWS.to_vec(), scores: (0..1_000).map(score).collect() }]
    }

    #[test]
    fn silence_scores_nothing_and_perfection_a_hundred() {
        let silent = best(&judged(|_| 0.5), Profile::STANDARD);
        assert_eq!((silent.normalised, silent.found), (0.0, 0), "an alarm at every row is worse than none");
        let perfect = best(&judged(|at| f64::from(u8::from([400, 800].contains(&at)))), Profile::STANDARD);
        assert!((perfect.normalised - 100.0).abs() < 1e-9, "{perfect:?}");
        assert_eq!((perfect.found, perfect.windows, perfect.false_alarms), (2, 2, 0));
    }

    #[test]
    fn chance_is_near_nothing() {
        // A linear congruential generator: any will do.
        let mut state = 7_u64;
        let mut chance = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let windows = vec![Window { first: 1_900, last: 2_099 }, Window { first: 3_000, last: 3_199 }];
        let corpus: Vec<Judged> =
            (0..20).map(|_| Judged { windows: windows.clone(), scores: (0..4_000).map(&mut chance).collect() }).collect();
        let random = best(&corpus, Profile::STANDARD);
        assert!((0.0..25.0).contains(&random.normalised), "the paper's random detector scores 11: {random:?}");
        let often = at(&corpus, Profile::STANDARD, 0.5);
        assert!(often.normalised < -300.0, "half of all rows are alarms: {often:?}");
    }

    #[test]
    fn an_alarm_is_worth_less_the_later_it_comes_and_counts_once() {
        let hit = |rows: &[usize]| at(&judged(|at| f64::from(u8::from(rows.contains(&at)))), Profile::STANDARD, 1.0).normalised;
        assert!((hit(&[400]) - 50.0).abs() < 1e-9);
        assert!(hit(&[400]) > hit(&[450]) && hit(&[450]) > hit(&[499]) && hit(&[499]) > 25.0);
        assert!((hit(&[450, 460, 470]) - hit(&[450])).abs() < 1e-9);
        // Just after the window it costs little, far from it all of 0.11 of the 4 between null and perfect.
        assert!((hit(&[799]) - 100.0 * -0.11 / 4.0).abs() < 1e-9);
        assert!(hit(&[500]) > hit(&[600]) && hit(&[500]) < 0.0);
    }

    #[test]
    fn probation_is_not_scored_and_has_an_upper_limit() {
        assert_eq!((probation(1_000), probation(5_000), probation(50_000)), (150, 750, 750));
        let early = at(&judged(|at| f64::from(u8::from(at < 150))), Profile::STANDARD, 1.0);
        assert_eq!((early.normalised, early.false_alarms), (0.0, 0));
    }

    #[test]
    fn the_threshold_is_one_for_the_whole_corpus() {
        let mut corpus = judged(|at| if at == 400 || at == 800 { 0.9 } else { 0.0 });
        corpus.extend(judged(|at| if at == 400 || at == 800 { 0.3 } else { 0.0 }));
        let score = best(&corpus, Profile::STANDARD);
        assert_eq!((score.threshold, score.found, score.windows), (0.3, 4, 4));
    }
}
