//! What the global models are trained on and speak from, and when they are trained.

use super::super::{ExpertExplanation, Explanation, SnapshotError};
use super::blend::{Blend, Part};
use super::panel::{Panel, root};
use super::snapshot::{self, Pieces};
use super::window::Shape;
use super::{BRIEF, Cost, Kind, Path, RECENT, Silence, Trained, USUAL};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tradewind_protocol::{PredictionData, SeriesKey, StepIndex};

/// Seasons that are kept of each series: the mean season is made of seven, and the first needs one before it.
const SEASONS: usize = 8;
/// Fewest seasons before the first training, as the other experts'.
const FIRST_SEASONS: usize = 2;
/// Gaps up to this many steps are filled with empty ones; beyond, the series start afresh.
const MAX_GAP: i64 = 1_000;
/// Trained again once there are half as many steps more, as long as there are few: what a model learns of twice the data is worth its time.
const GROWTH: f64 = 1.5;
/// Trained again, too, [`RECENT`] steps after so large a share of the series has changed its level: when all that models see one by one is of the new.
const SHIFTED: f64 = 0.2;

/// What training may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effort {
    /// Some ten seconds of one core for each model, whatever there is to learn from.
    Usual,
    /// Small models and few steps: for tests, which are not optimised.
    Brief,
}

impl Effort {
    pub(super) fn cost(self) -> Cost {
        match self {
            Effort::Usual => USUAL,
            Effort::Brief => BRIEF,
        }
    }
}

/// Which global models there are, and how they are trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalConfig {
    /// Which models; none: nothing is kept and nothing trained.
    pub models: Vec<Kind>,
    /// Trained again after so many steps at the latest.
    pub train_every: usize,
    /// Of each series so many of the last steps are kept, and trained on.
    pub window: usize,
    /// How many series are kept.
    pub max_series: usize,
    /// Of the models' first weights and of the order of examples.
    pub seed: u64,
    /// What training may cost.
    pub effort: Effort,
}

impl GlobalConfig {
    /// None.
    pub fn none() -> Self {
        Self { models: vec![], train_every: usize::MAX, window: 0, max_series: 0, seed: 0, effort: Effort::Usual }
    }

    /// These models, and all else as is usual for a season of so many steps.
    pub fn of(models: Vec<Kind>, season: usize) -> Self {
        // The cost of training does not grow with the window beyond what is drawn from it; memory does: 4 B a step and series.
        let window = (SEASONS * season).max(3_200);
        Self { models, train_every: (7 * season).clamp(256, 10_080), window, max_series: 500, seed: 1, effort: Effort::Usual }
    }
}

/// What one series' models say: by kind.
pub type Said = Vec<(Kind, Result<Path, Silence>)>;

/// Keeps the last steps of the series, and the trained models.
#[derive(Debug)]
pub struct Globals {
    pub(super) config: GlobalConfig,
    pub(super) horizon: usize,
    pub(super) season: usize,
    series: BTreeMap<SeriesKey, VecDeque<f32>>,
    pub(super) until: Option<StepIndex>,
    /// How many steps were seen, and how many when training last began.
    pub(super) seen: usize,
    pub(super) began: Option<usize>,
    pub(super) trained: Option<Trained>,
    /// The series that have changed their level since, and when they became many.
    shifted: BTreeSet<SeriesKey>,
    changed: Option<usize>,
    /// What the models said after the last step.
    said: Arc<BTreeMap<SeriesKey, Said>>,
    pub(super) blend: Blend,
}

/// A training that is due: everything that it needs, so that it can be done elsewhere.
#[derive(Debug)]
pub struct Training {
    kinds: Vec<Kind>,
    panel: Panel,
    horizon: usize,
    season: usize,
    seed: u64,
    effort: Effort,
}

impl Training {
    /// Trains; takes seconds.
    pub fn run(self) -> Option<Trained> {
        self.run_while(|| true)
    }

    /// The same, but ends soon with nothing once `go_on` says no.
    pub fn run_while(self, go_on: impl Fn() -> bool) -> Option<Trained> {
        let shape = Shape::new(self.horizon, self.season, RECENT);
        Trained::at_cost(&self.kinds, &self.panel, &shape, self.effort.cost(), self.seed, &go_on)
    }
}

impl Globals {
    /// Nothing yet.
    pub fn new(config: GlobalConfig, horizon: usize, season: usize) -> Self {
        let (series, said, blend) = (BTreeMap::new(), Arc::default(), Blend::new(horizon));
        let (shifted, changed) = (BTreeSet::new(), None);
        Self { config, horizon, season, series, until: None, seen: 0, began: None, trained: None, shifted, changed, said, blend }
    }

    /// Closes a step with these counts, as [`super::super::Forecasts::close`] does.
    pub fn close<'a>(&mut self, step: StepIndex, counts: impl IntoIterator<Item = (&'a SeriesKey, f64)>) {
        if self.config.models.is_empty() {
            return;
        }
        let gap = match self.until {
            Some(until) if step <= until => return,
            Some(until) => step.0.saturating_sub(until.0) - 1,
            None => 0,
        };
        if gap > MAX_GAP {
            self.series.clear();
        }
        let steps = if gap > MAX_GAP { 1 } else { gap as usize + 1 };
        let window = self.config.window.max(1);
        let mut counts: BTreeMap<&SeriesKey, f64> = counts.into_iter().collect();
        self.blend.learn(step, &counts);
        for (key, roots) in &mut self.series {
            roots.extend(std::iter::repeat_n(0.0, steps - 1));
            roots.push_back(counts.remove(key).map_or(0.0, root));
            let excess = roots.len().saturating_sub(window);
            roots.drain(..excess);
        }
        for (key, count) in counts {
            self.series.insert(key.clone(), VecDeque::from([root(count)]));
        }
        self.until = Some(step);
        self.seen = self.seen.saturating_add(steps);
        self.bound();
    }

    /// Takes the counts of one series up to `until` instead of what is kept of it.
    pub fn rebuild(&mut self, key: &SeriesKey, until: StepIndex, window: &[f64]) {
        if self.config.models.is_empty() {
            return;
        }
        match self.until {
            Some(closed) if closed >= until => {}
            Some(_) => self.close(until, []),
            None => self.until = Some(until),
        }
        let behind = self.until.map_or(0, |closed| closed.0.saturating_sub(until.0));
        if window.is_empty() || behind > MAX_GAP {
            self.series.remove(key);
            return;
        }
        let kept = &window[window.len().saturating_sub(self.config.window)..];
        let mut roots: VecDeque<f32> = kept.iter().map(|count| root(*count)).collect();
        roots.extend(std::iter::repeat_n(0.0, behind as usize));
        self.seen = self.seen.max(roots.len());
        self.series.insert(key.clone(), roots);
        self.bound();
    }

    /// The models, and how far each is believed, to be [restored](Self::restore) by a later life of the agent. Nothing before the first training.
    pub fn save(&self) -> Result<Pieces, SnapshotError> {
        snapshot::save(self)
    }

    /// Goes on with the models in `pieces` after step `until`; before anything else is told. As it was, if they are refused.
    pub fn restore(&mut self, until: StepIndex, pieces: &Pieces) -> Result<(), SnapshotError> {
        snapshot::restore(self, until, pieces)
    }

    /// Forgets a series.
    pub fn remove(&mut self, key: &SeriesKey) {
        self.series.remove(key);
    }

    /// Is told that series have changed their level in the last step: what the models have learnt of them is of the past.
    pub fn shift<'a>(&mut self, keys: impl IntoIterator<Item = &'a SeriesKey>) {
        self.shifted.extend(keys.into_iter().filter(|key| self.series.contains_key(key)).cloned());
        if self.changed.is_none() && !self.shifted.is_empty() && self.shifted.len() as f64 >= SHIFTED * self.series.len() as f64 {
            self.changed = Some(self.seen);
        }
    }

    /// The series that are known to have changed their level since the last training.
    #[cfg(test)]
    pub(crate) fn shifted(&self) -> &BTreeSet<SeriesKey> {
        &self.shifted
    }

    /// The training that is due now, if one is. None other is due until as many steps more have passed, whether it is done or not.
    pub fn due(&mut self) -> Option<Training> {
        let due = match self.began {
            None => self.first(),
            Some(began) => {
                let grown = (GROWTH * began as f64).ceil().min((began.saturating_add(self.config.train_every)) as f64) as usize;
                self.changed.map_or(grown, |changed| grown.min(changed.saturating_add(RECENT)))
            }
        };
        if self.config.models.is_empty() || self.seen < due {
            return None;
        }
        self.began = Some(self.seen);
        (self.shifted, self.changed) = (BTreeSet::new(), None);
        let GlobalConfig { models: kinds, seed, effort, .. } = self.config.clone();
        Some(Training { kinds, panel: self.panel()?, horizon: self.horizon, season: self.season, seed, effort })
    }

    /// Uses these models from now on.
    pub fn install(&mut self, trained: Trained) {
        self.trained = Some(trained);
    }

    /// On how many steps the models were trained that speak.
    pub fn trained_on(&self) -> Option<usize> {
        self.trained.as_ref().map(|trained| trained.steps)
    }

    /// What the models say after the last step of every series that is kept, ascending. Nothing if there are no models.
    pub fn foresee(&self) -> BTreeMap<SeriesKey, Said> {
        let (false, Some(panel)) = (self.config.models.is_empty(), self.panel()) else { return BTreeMap::new() };
        let said = match &self.trained {
            Some(trained) => trained.foresee(&panel),
            None => vec![self.untrained(); self.series.len()],
        };
        self.series.keys().cloned().zip(said).collect()
    }

    /// Lets the models speak after the last step: what [`blend`](Self::blend) then puts into predictions. Takes a fraction of a
    /// millisecond for each series.
    pub fn speak(&mut self) {
        self.repeat(Arc::new(self.foresee()));
    }

    /// What the models said last.
    pub fn said(&self) -> Arc<BTreeMap<SeriesKey, Said>> {
        self.said.clone()
    }

    /// Says after the last step what others have said after it: see [`said`](Self::said). To measure the same models in another company.
    pub fn repeat(&mut self, said: Arc<BTreeMap<SeriesKey, Said>>) {
        self.blend.retain(|key| said.contains_key(key));
        self.said = said;
    }

    /// `predictions` of the same steps, with what the models said last.
    pub fn blend(&mut self, predictions: Vec<PredictionData>) -> Vec<PredictionData> {
        let begins = self.until.map(|until| until.offset(1));
        let one = |prediction: PredictionData| match self.said.get(&prediction.series) {
            // What was said after another step is of other steps.
            Some(said) if Some(prediction.path.start()) == begins => self.blend.blend(prediction, said),
            Some(_) | None => prediction,
        };
        predictions.into_iter().map(one).collect()
    }

    /// Adds the models to the `explanation` of a series, which is that of the other experts.
    pub fn explain(&self, key: &SeriesKey, explanation: &mut Explanation) {
        let said = match self.said.get(key) {
            Some(said) => said.clone(),
            None if self.series.contains_key(key) => self.untrained(),
            None => self.beyond(),
        };
        let ago = |trained: &Trained| u64::try_from(explanation.until.0.saturating_sub(trained.until.0)).unwrap_or(0);
        explanation.trained_ago = self.trained.as_ref().map(ago);
        for (lane, parts) in explanation.lanes.iter_mut().zip(self.blend.parts(key, &said)) {
            lane.experts.iter_mut().for_each(|expert| expert.weight *= parts[0].weight);
            lane.experts.extend(said.iter().map(|(kind, said)| {
                let Part { weight, error } = parts[1 + *kind as usize];
                ExpertExplanation { name: kind.name().into(), weight, error, silent: said.as_ref().err().map(Silence::to_string) }
            }));
        }
    }

    /// What is to be said of every series before the first training.
    fn untrained(&self) -> Said {
        self.silent(Silence::Untrained { seen: self.seen as u64, needed: self.first() as u64 })
    }

    /// What is to be said of a series that is not among those of [`foresee`](Self::foresee).
    pub(super) fn beyond(&self) -> Said {
        self.silent(Silence::Beyond { kept: self.config.max_series as u64 })
    }

    /// All models say nothing, for this reason.
    fn silent(&self, silence: Silence) -> Said {
        self.config.models.iter().map(|kind| (*kind, Err(silence))).collect()
    }

    /// How many steps there have to be before the first training: two seasons, and as much again to be held out and asked for as
    /// makes it worth while.
    fn first(&self) -> usize {
        FIRST_SEASONS * self.season.max(RECENT) + Shape::new(self.horizon, self.season, RECENT).lanes.last().copied().unwrap_or(1)
    }

    fn panel(&self) -> Option<Panel> {
        let mut panel = Panel::new(self.until?.0);
        self.series.values().for_each(|roots| panel.push_roots(roots.iter().copied().collect()));
        Some(panel)
    }

    /// Drops the series of the lowest volume beyond the limit, once they are a tenth more than are to be kept, so that not each
    /// new one costs a look at all.
    fn bound(&mut self) {
        let most = self.config.max_series;
        if self.series.len() <= most + most / 10 {
            return;
        }
        let volume = |roots: &VecDeque<f32>| roots.iter().rev().take(2 * self.season).map(|root| f64::from(*root).powi(2)).sum::<f64>();
        let mut volumes: Vec<(f64, SeriesKey)> = self.series.iter().map(|(key, roots)| (volume(roots), key.clone())).collect();
        volumes.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        volumes.iter().skip(most).for_each(|(_, key)| {
            self.series.remove(key);
        });
    }
}
