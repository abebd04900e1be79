//! The mean week: its level plus its shape, whatever happened of late. Where [`super::seasonal_mean`] knows a mean day, this knows that days
//! differ: what people ask for follows the week (seasonal decomposition with the longer period; Hyndman and Athanasopoulos, Forecasting: Principles and
//! Practice, 3rd edition, sections 3.4 and 12.1). Needs a week.

use super::{Forecaster, Past, Silent};

/// The mean of the last week and the shape of all.
#[derive(Debug)]
pub(crate) struct WeeklyMean;

impl Forecaster for WeeklyMean {
    fn name(&self) -> &'static str {
        "weekly-mean"
    }

    fn ready(&self, past: &Past, _ahead: usize) -> Result<(), Silent> {
        Silent::until(past.week_needs(), past)
    }

    fn point(&self, past: &Past, ahead: usize) -> f64 {
        let root = past.mean_week(ahead).unwrap_or_else(|| past.mean()).max(0.0);
        root * root
    }
}

#[cfg(test)]
mod tests {
    use super::super::seasonal_mean::SeasonalMean;
    use super::super::tests::Told;
    use super::*;

    #[test]
    fn it_knows_the_day_off_that_the_mean_day_does_not_know() {
        let (mut week, mut day) = (Told::new(WeeklyMean, 24), Told::new(SeasonalMean, 24));
        let value = |step: usize| if step / 24 % 7 == 6 { 25.0 } else { [400.0, 900.0][step / 12 % 2] };
        let until = (3 * 7 - 1) * 24;
        for step in 0..until {
            assert_eq!(week.ready(1).is_ok(), step >= 7 * 24, "step {step}");
            week.observe(value(step));
            day.observe(value(step));
        }
        let error = |said: &dyn Fn(usize) -> f64| (1..=48).map(|ahead| (said(ahead) - value(until - 1 + ahead)).abs()).sum::<f64>();
        let (week, day) = (error(&|ahead| week.point(ahead)), error(&|ahead| day.point(ahead)));
        assert!(week < 1e-3 && day > 1_000.0, "{week} {day}");
    }
}
