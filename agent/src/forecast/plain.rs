//! Quantiles of the last values, whatever level or season they had: all that can be said of a series that has neither.
//!
//! The empirical distribution function of a window, read at the grid of quantiles: what a forecast of a distribution is compared with
//! where there is next to nothing to foresee (climatology: Gneiting and Katzfuss 2014, "Probabilistic forecasting"). Two windows: a long one, whose
//! tails are known, and a short one, which follows a level that moves. It says the same of all horizons. Needs [`NEEDED`] values.

use super::errors::ErrorWindow;
use super::experts::Silent;
use super::lane::QUANTILES;
use serde::{Deserialize, Serialize};
use tradewind_protocol::Quantile;

/// How many values the two windows hold: twenty of the long one lie beyond its 99 % quantile.
const WINDOWS: [usize; MEMBERS] = [2_000, 60];
/// How many windows there are.
pub(super) const MEMBERS: usize = 2;
/// With fewer values than this it would say little else than the last value.
const NEEDED: usize = 5;

/// The last values of one series.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PlainQuantiles {
    windows: [ErrorWindow; MEMBERS],
    said: [[f32; QUANTILES]; MEMBERS],
}

impl PlainQuantiles {
    /// The members' names.
    pub(super) const NAMES: [&'static str; MEMBERS] = ["quantiles-long", "quantiles-short"];

    pub(super) fn new() -> Self {
        Self { windows: WINDOWS.map(ErrorWindow::new), said: [[0.0; QUANTILES]; MEMBERS] }
    }

    /// Learns the next step's count.
    pub(super) fn observe(&mut self, count: f64) {
        for (window, said) in self.windows.iter_mut().zip(&mut self.said) {
            window.push(count);
            *said = Quantile::GRID.map(|q| window.quantile(q.probability()).unwrap_or(0.0) as f32);
        }
    }

    /// Whether there is anything to say yet.
    pub(super) fn ready(&self) -> Result<(), Silent> {
        let seen = self.windows[0].len();
        if seen < NEEDED { Err(Silent::TooShort { seen: seen as u64, needed: NEEDED as u64 }) } else { Ok(()) }
    }

    /// The quantiles of any step to come, by window. Only asked when ready.
    pub(super) fn rows(&self) -> &[[f32; QUANTILES]; MEMBERS] {
        &self.said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_window_remembers_what_the_short_one_has_forgotten() {
        let mut plain = PlainQuantiles::new();
        (0..NEEDED - 1).for_each(|at| plain.observe(at as f64));
        assert_eq!(plain.ready(), Err(Silent::TooShort { seen: 4, needed: 5 }));
        (0..100).for_each(|at| plain.observe(f64::from(at % 10)));
        (0..60).for_each(|_| plain.observe(50.0));
        assert_eq!(plain.ready(), Ok(()));
        let [long, short] = plain.rows();
        assert_eq!(short, &[50.0; QUANTILES]);
        assert!(long[0] < 2.0 && long[3] < 10.0 && long[8] == 50.0, "{long:?}");
    }
}
