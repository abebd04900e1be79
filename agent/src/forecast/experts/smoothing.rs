//! Exponential smoothing with every choice of parameters at once: level, damped trend, and how much of the season and of the week is believed.
//!
//! The error-correction form of additive exponential smoothing with a damped trend (Hyndman and Athanasopoulos, Forecasting: Principles and
//! Practice, 3rd edition, sections 8.2 and 8.5). The parameters are the grid's member with the smallest recent absolute one-step error, tracked
//! online: an update costs the same after a year as after a day. What is a season and a week is told from outside.

use serde::{Deserialize, Serialize};

/// Smoothing of the level: 0.1 for noise around a level, 0.9 for a random walk.
const ALPHAS: [f64; 4] = [0.1, 0.3, 0.6, 0.9];
/// Smoothing of the trend, as a share of alpha; 0 is no trend.
const BETAS: [f64; 2] = [0.0, 0.1];
/// Damping of the trend. The book keeps it between 0.8 and 0.98; at 0.9 a trend is spent after ten
/// steps, which keeps long horizons sane.
const DAMPING: f64 = 0.9;
/// Memory of the one-step errors that choose the parameters: about 100 steps.
const LOSS_GAIN: f64 = 0.01;

/// What is known of a step beforehand, beside the level.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// How far it lies above the level by the shape of the season.
    pub(super) season: f64,
    /// And by the week.
    pub(super) week: f64,
}

/// All choices of parameters.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Grid {
    members: Vec<Smoother>,
    best: usize,
}

/// One choice and its state.
#[derive(Debug, Serialize, Deserialize)]
struct Smoother {
    alpha: f64,
    beta: f64,
    /// How much of the season and of the week is believed.
    shares: (f64, f64),
    level: f64,
    trend: f64,
    /// Recent mean absolute one-step error.
    loss: f64,
}

impl Grid {
    /// With each of these shares of the season and of the week.
    pub(super) fn new(shares: &[(f64, f64)]) -> Self {
        let choices = shares.iter().flat_map(|shares| ALPHAS.map(|alpha| BETAS.map(|beta| (*shares, alpha, alpha * beta))));
        let member = |(shares, alpha, beta)| Smoother { alpha, beta, shares, level: 0.0, trend: 0.0, loss: 0.0 };
        Self { members: choices.flatten().map(member).collect(), best: 0 }
    }

    /// Whether it has so many shares' members.
    pub(super) fn fits(&self, shares: usize) -> bool {
        self.members.len() == shares * ALPHAS.len() * BETAS.len() && self.best < self.members.len()
    }

    /// Learns the next value, of which this was known.
    pub(super) fn observe(&mut self, value: f64, known: Known, first: bool) {
        self.members.iter_mut().for_each(|member| member.observe(value, known, first));
        let best = self.members.iter().enumerate().min_by(|(_, a), (_, b)| a.loss.total_cmp(&b.loss));
        self.best = best.map_or(0, |(at, _)| at);
    }

    /// The value of the step `ahead`, of which this is known.
    pub(super) fn point(&self, ahead: usize, known: Known) -> f64 {
        self.members[self.best].point(ahead, known)
    }
}

impl Smoother {
    fn observe(&mut self, value: f64, known: Known, first: bool) {
        if first {
            self.level = value;
            return;
        }
        let error = value - self.point(1, known);
        self.loss += LOSS_GAIN * (error.abs() - self.loss);
        self.level += DAMPING * self.trend + self.alpha * error;
        self.trend = DAMPING * self.trend + self.beta * error;
    }

    fn point(&self, ahead: usize, known: Known) -> f64 {
        // DAMPING + DAMPING^2 + ... + DAMPING^ahead.
        let reach = DAMPING * (1.0 - DAMPING.powi(i32::try_from(ahead).unwrap_or(i32::MAX))) / (1.0 - DAMPING);
        self.level + reach * self.trend + self.shares.0 * known.season + self.shares.1 * known.week
    }
}
