//! Global models: one for all series of the agent, which learn from each what helps with the others.
//!
//! Three kinds ([`Kind`]): gradient boosting, a network of long short-term memory, and one in the manner of N-HiTS. All see
//! the same of a series (`window`: its last values and its seasons, in units that all series share) and say the
//! same: quantiles at the lanes' horizons, as distances from a simple base. They are trained in bulk ([`Training::run`], off the
//! step) from a [`Panel`] of all series, now and then; a trained model ([`Trained`]) then speaks after every step in
//! microseconds. [`Globals`] keeps what they are trained on and says when it is time.
//!
//! Nothing here knows a clock, a thread or a random device: the same counts and seed give the same weights and the same
//! paths, to the last bit. What a model says after a step depends on the counts up to it alone, and so do its weights on those up
//! to the step at which it was trained.
//!
//! The networks are our own few hundred lines: the frameworks that offer them take 400 to 1,000 s to build, and what is needed of them
//! is a product of matrices and its gradient. Read next: `window`, then `nhits`.

mod blend;
mod boosting;
mod keep;
mod layers;
mod lstm;
mod math;
mod nhits;
mod panel;
mod quantiles;
mod snapshot;
mod train;
mod window;

pub use keep::{Effort, GlobalConfig, Globals, Said, Training};
pub use panel::Panel;
pub use snapshot::Pieces;

use super::horizon::between;
use boosting::{Boosting, Market};
use lstm::Lstm;
use nhits::Nhits;
use panel::Moment;
use quantiles::QUANTILES;
use serde::{Deserialize, Serialize};
use std::fmt;
use tradewind_protocol::{Quantile, QuantilePath, Step, StepIndex};
use train::{Budget, Network, Shown};
use window::Shape;

/// Recent values that are seen one by one. Of 24, 48 and 96 the best on recorded traffic; 96 are too many to learn from two weeks of
/// hours.
const RECENT: usize = 48;
/// Share of the steps, the last, that tell when to stop training.
const HELD: f64 = 0.2;
/// A kind of global model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Gradient boosting with pinball loss.
    Boosting,
    /// Long short-term memory.
    Lstm,
    /// In the manner of N-HiTS.
    Nhits,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Boosting, Kind::Lstm, Kind::Nhits];

    /// The expert's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Boosting => "global-boosting",
            Kind::Lstm => "global-lstm",
            Kind::Nhits => "global-nhits",
        }
    }

    /// The kind with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// How many values there have to be before an origin.
    fn needed(self, shape: &Shape) -> usize {
        match self {
            Kind::Boosting | Kind::Nhits => shape.needed(),
            Kind::Lstm => shape.needed() + lstm::STEPS - 1,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a global model says nothing of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// It was not trained yet.
    #[error("is trained once there are {needed} steps; there are {seen}")]
    Untrained {
        /// How many steps there are.
        seen: u64,
        /// How many it needs.
        needed: u64,
    },
    /// There was nothing to learn from.
    #[error("found too few examples to learn from")]
    Unlearnt,
    /// The series is too short.
    #[error("has seen {seen} of the {needed} steps of the series that it needs")]
    TooShort {
        /// How many values there are.
        seen: u64,
        /// How many it needs.
        needed: u64,
    },
    /// Nothing was counted in the last two seasons.
    #[error("has nothing to measure a series by that counted nothing for two seasons")]
    Empty,
    /// Only so many series are kept for the global models.
    #[error("is kept for the {kept} series of the highest volume, of which this is none")]
    Beyond {
        /// How many.
        kept: u64,
    },
}

/// Quantiles at a few horizons.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    lanes: Vec<usize>,
    rows: Vec<[f64; QUANTILES]>,
}

impl Path {
    /// The path of the `horizon` steps from `start` on.
    pub fn to_quantile_path(&self, start: StepIndex, step: Step, horizon: usize) -> Option<QuantilePath> {
        let values = (1..=horizon).flat_map(|ahead| self.row(ahead)).map(|value| value as f32).collect();
        // Refused only where there are more steps than there may be.
        QuantilePath::rearranged(start, step, Quantile::GRID.to_vec(), values).ok()
    }

    /// The quantiles of the count `ahead` steps after the origin: at least zero, and in order.
    pub fn row(&self, ahead: usize) -> [f64; QUANTILES] {
        let place = between(&self.lanes, ahead);
        let (low, high) = (&self.rows[place.lower], &self.rows[place.upper]);
        std::array::from_fn(|at| low[at] + place.share * (high[at] - low[at]))
    }
}

/// Models that were trained together.
#[derive(Debug, Clone)]
pub struct Trained {
    shape: Shape,
    /// On how many steps, and up to which.
    steps: usize,
    until: StepIndex,
    models: Vec<(Kind, Option<Model>)>,
}

#[derive(Debug, Clone)]
enum Model {
    Boosting(Boosting),
    Lstm(Lstm, Vec<f32>),
    /// With the weights of each member.
    Nhits(Nhits, Vec<Vec<f32>>),
}

/// How large the models are, and what their training may cost, whatever the panel.
#[derive(Debug, Clone, Copy)]
struct Cost {
    trees: usize,
    /// Of the trees.
    examples: usize,
    /// Steps down the gradient: of the memory, and of each member of N-HiTS.
    steps: (usize, usize),
    /// Examples of a step.
    batch: usize,
    /// Moments that the held-out loss is measured at.
    held: usize,
    /// Of memory.
    units: usize,
    /// Of N-HiTS's layers.
    width: usize,
    /// Networks in the manner of N-HiTS whose mean speaks: what two networks of other seeds differ by is noise (6 % of the
    /// loss on some sets), and their mean has less of it.
    members: u64,
}

/// The usual: 600 x 32 walks of 4 M multiplications there and back for the memory, 3 x 2,000 x 32 windows of 0.4 M for N-HiTS.
const USUAL: Cost = Cost { trees: 200, examples: 60_000, steps: (600, 2_000), batch: 32, held: 1_024, units: 64, width: 128, members: 3 };

/// Enough to see that something is learnt, where nothing is optimised: in tests.
const BRIEF: Cost = Cost { trees: 10, examples: 1_500, steps: (20, 80), batch: 8, held: 8, units: 8, width: 16, members: 1 };

/// Whether a training is still wanted; asked several times a second.
type GoOn<'a> = &'a dyn Fn() -> bool;

impl Model {
    fn train(kind: Kind, panel: &Panel, shape: &Shape, cost: Cost, seed: u64, go_on: GoOn<'_>) -> Option<Self> {
        let budget = |steps, rate| Budget { steps, rate, batch: cost.batch, share: HELD, held: cost.held };
        match kind {
            Kind::Boosting => {
                let budget = boosting::Budget { trees: cost.trees, examples: cost.examples, held: HELD };
                Boosting::train(panel, shape, budget, seed, go_on).map(Model::Boosting)
            }
            Kind::Lstm => {
                let network = Lstm::new(shape, cost.units);
                let weights = train::train(&network, panel, shape, budget(cost.steps.0, 3e-3), seed, go_on)?;
                Some(Model::Lstm(network, weights))
            }
            Kind::Nhits => {
                let network = Nhits::new(shape, cost.width);
                let budget = budget(cost.steps.1, 1e-3);
                let member = |number| train::train(&network, panel, shape, budget, seed.wrapping_add(number), go_on);
                let members = (0..cost.members).map(member).collect::<Option<Vec<_>>>()?;
                Some(Model::Nhits(network, members))
            }
        }
    }
}

impl Trained {
    /// Trains models of these kinds for paths of `horizon` steps.
    pub fn train(kinds: &[Kind], panel: &Panel, horizon: usize, season: usize, seed: u64) -> Self {
        let shape = Shape::new(horizon, season, RECENT);
        Self::at_cost(kinds, panel, &shape, USUAL, seed, &|| true).unwrap_or(Self { shape, steps: 0, until: panel.until(), models: vec![] })
    }

    /// Nothing if `go_on` says no while it is trained.
    fn at_cost(kinds: &[Kind], panel: &Panel, shape: &Shape, cost: Cost, seed: u64, go_on: GoOn<'_>) -> Option<Self> {
        let models = kinds.iter().map(|kind| (*kind, Model::train(*kind, panel, shape, cost, seed, go_on))).collect();
        go_on().then(|| Self { shape: shape.clone(), steps: panel.longest(), until: panel.until(), models })
    }

    /// What each model says after the last step of each series, series by series.
    pub fn foresee(&self, panel: &Panel) -> Vec<Vec<(Kind, Result<Path, Silence>)>> {
        let market = Market::new(panel, &self.shape);
        let shown = Shown { panel, shape: &self.shape, held: 0 };
        let of = |series: usize| {
            let say = |(kind, model): &(Kind, Option<Model>)| (*kind, self.say(*kind, model.as_ref(), &shown, &market, series));
            self.models.iter().map(say).collect()
        };
        (0..panel.series().len()).map(of).collect()
    }

    fn say(&self, kind: Kind, model: Option<&Model>, shown: &Shown<'_>, market: &Market, series: usize) -> Result<Path, Silence> {
        let model = model.ok_or(Silence::Unlearnt)?;
        let roots = &shown.panel.series()[series];
        let (seen, needed) = (roots.len(), kind.needed(&self.shape));
        if seen < needed {
            return Err(Silence::TooShort { seen: seen as u64, needed: needed as u64 });
        }
        let moment = Moment { series, origin: seen };
        let view = self.shape.view(roots, shown.panel.number(moment)).ok_or(Silence::Empty)?;
        let said = match model {
            Model::Boosting(trees) => trees.say(&self.shape, &view, market),
            Model::Lstm(network, weights) => network.say(weights, shown, &[moment]),
            Model::Nhits(network, members) => {
                let mut sum = vec![0.0; self.shape.lanes.len() * QUANTILES];
                for weights in members {
                    sum.iter_mut().zip(network.say(weights, shown, &[moment])).for_each(|(sum, said)| *sum += said);
                }
                sum.iter_mut().for_each(|said| *said /= members.len() as f32);
                sum
            }
        };
        if said.is_empty() {
            return Err(Silence::Empty);
        }
        let rows = said.chunks_exact(QUANTILES).enumerate().map(|(lane, row)| {
            let mut row = std::array::from_fn(|at| view.count(lane, row[at]));
            // What crosses is put in order, which never costs pinball loss (Chernozhukov, Fernandez-Val and Galichon 2010).
            row.sort_by(f64::total_cmp);
            row
        });
        Ok(Path { lanes: self.shape.lanes.clone(), rows: rows.collect() })
    }
}

#[cfg(test)]
mod tests;
