//! The last values in order, and quantiles of them.

use std::collections::VecDeque;

/// Values that are kept. A week of five-minute steps: rare bursts are seen a few times.
const WINDOW: usize = 2016;
/// The probability of lateness where a Pareto tail begins: a full window holds 40 values beyond it.
const TAIL: f64 = 0.02;
/// The tail's index. Chosen, among 0.25, 0.35 and 0.5, on the first 60 % of eight recordings.
const TAIL_INDEX: f64 = 0.25;
/// No smaller probability is told from it.
const LEAST_LATE: f64 = 1e-6;

/// The last values, and the same in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    fifo: VecDeque<f32>,
    sorted: Vec<f32>,
}

impl Window {
    pub(super) fn push(&mut self, value: f64) {
        let value = value as f32;
        self.fifo.push_back(value);
        self.sorted.insert(self.sorted.partition_point(|v| *v < value), value);
        if self.fifo.len() > WINDOW
            && let Some(old) = self.fifo.pop_front()
        {
            self.sorted.remove(self.sorted.partition_point(|v| *v < old));
        }
    }

    /// The value that is exceeded with probability `late`: beyond [`TAIL`] the mean of what was seen and of a Pareto tail
    /// (Weissman 1978, equation 2.4 in the logarithm), since the highest of a window says little of how high it can be.
    pub(super) fn beyond(&self, late: f64) -> f64 {
        if late >= TAIL {
            return self.seen(late);
        }
        let tail = self.seen(TAIL) * (TAIL / late.max(LEAST_LATE)).powf(TAIL_INDEX);
        0.5 * (self.seen(late) + tail)
    }

    /// The value that was exceeded with probability `late` among those seen, neighbours in proportion.
    pub(super) fn seen(&self, late: f64) -> f64 {
        let Some(last) = self.sorted.len().checked_sub(1) else { return 0.0 };
        let at = (1.0 - late).clamp(0.0, 1.0) * last as f64;
        let below = at.floor() as usize;
        let above = (below + 1).min(last);
        let (below, above, part) = (f64::from(self.sorted[below]), f64::from(self.sorted[above]), at - below as f64);
        below + (above - below) * part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_values_are_forgotten_and_the_tail_reaches_beyond_what_was_seen() {
        let mut window = Window::default();
        (0..2 * WINDOW).for_each(|i| window.push(i as f64));
        assert_eq!((window.fifo.len(), window.sorted.len()), (WINDOW, WINDOW));
        assert_eq!((window.seen(1.0), window.seen(0.0)), (WINDOW as f64, (2 * WINDOW - 1) as f64));
        assert!(window.beyond(1e-6) > window.seen(0.0) && window.beyond(0.1) == window.seen(0.1));
    }
}
