//! Lanes: the horizons at which errors are measured.
//!
//! Errors grow with the horizon, smoothly; so they are measured one, two, three, four, six, eight,
//! twelve ... steps ahead and interpolated between. That bounds memory and time by the logarithm of
//! the horizon.

/// Where a horizon lies between two lanes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Between {
    /// The lane at or before it.
    pub(crate) lower: usize,
    /// The lane at or after it.
    pub(crate) upper: usize,
    /// How far towards the upper one, 0 to 1.
    pub(crate) share: f64,
}

/// The horizons of the lanes up to `horizon` steps, which is the last: 1, 2, 3, 4, 6, 8, 12, 16 ...
pub(crate) fn lanes(horizon: usize) -> Vec<usize> {
    let horizon = horizon.max(1);
    let mut lanes = vec![];
    let mut power = 1;
    while power < horizon {
        lanes.push(power);
        let between = power + power / 2;
        if power > 1 && between < horizon {
            lanes.push(between);
        }
        power = power.saturating_mul(2);
    }
    lanes.push(horizon);
    lanes
}

/// Finds `ahead` among `lanes` (ascending, not empty); beyond the ends it is the end.
pub(crate) fn between(lanes: &[usize], ahead: usize) -> Between {
    let above = lanes.partition_point(|lane| *lane < ahead);
    let last = lanes.len().saturating_sub(1);
    if above > last {
        return Between { lower: last, upper: last, share: 0.0 };
    }
    if above == 0 || lanes[above] == ahead {
        return Between { lower: above, upper: above, share: 0.0 };
    }
    let (low, high) = (lanes[above - 1], lanes[above]);
    Between { lower: above - 1, upper: above, share: (ahead - low) as f64 / (high - low) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_dense_near_and_logarithmic_far() {
        assert_eq!(lanes(1), [1]);
        assert_eq!(lanes(12), [1, 2, 3, 4, 6, 8, 12]);
        assert_eq!(lanes(24), [1, 2, 3, 4, 6, 8, 12, 16, 24]);
        assert_eq!(lanes(30), [1, 2, 3, 4, 6, 8, 12, 16, 24, 30]);
        assert!(lanes(3_000).len() < 25);
        assert!((0..500).all(|h| lanes(h).is_sorted_by(|a, b| a < b)));
    }

    #[test]
    fn a_horizon_lies_between_its_neighbours() {
        let lanes = [1, 2, 4, 8];
        assert_eq!(between(&lanes, 2), Between { lower: 1, upper: 1, share: 0.0 });
        assert_eq!(between(&lanes, 5), Between { lower: 2, upper: 3, share: 0.25 });
        assert_eq!(between(&lanes, 9), Between { lower: 3, upper: 3, share: 0.0 });
        assert_eq!(between(&lanes, 0), Between { lower: 0, upper: 0, share: 0.0 });
    }
}
