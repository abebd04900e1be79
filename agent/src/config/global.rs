//! `[forecast.global]`: models that are trained on all series at once.

use super::section::{Section, texts, whole};
use crate::forecast::global::{GlobalConfig, Kind};

/// The longest window, and the most series: 4 B a step and series.
const MAX_WINDOW: usize = 100_000;
const MAX_SERIES: usize = 20_000;

pub(super) fn read(s: &mut Section, season: usize) -> GlobalConfig {
    // What they add to all other experts on recorded traffic is in the README. The memory adds least, and costs as much again.
    let default = GlobalConfig::of(vec![Kind::Boosting, Kind::Nhits], season);
    let models = s.or("models", default.models.clone(), |v| {
        let wanted = || format!("must be a list of {}", Kind::ALL.map(|kind| format!("{:?}", kind.name())).join(", "));
        let mut models =
            texts(v).map_err(|_| wanted())?.iter().map(|name| Kind::named(name)).collect::<Option<Vec<_>>>().ok_or_else(wanted)?;
        models.sort();
        models.dedup();
        Ok::<_, String>(models)
    });
    // A week, where the season is a day. A guess: what was trained on the first four fifths of two weeks was still good at their end.
    let train_every = s.or("train_every_steps", default.train_every as i64, whole(16, 1_000_000)) as usize;
    // Eight seasons: the mean season that the models see is made of seven.
    let window = s.or("window_steps", default.window as i64, whole(96, MAX_WINDOW as i64)) as usize;
    // 23 MB of windows for a day of minutes, and 60 ms of forecasts a step.
    let max_series = s.or("max_series", default.max_series as i64, whole(1, MAX_SERIES as i64)) as usize;
    let seed = s.or("seed", default.seed as i64, whole(0, i64::MAX)) as u64;
    GlobalConfig { models, train_every, window, max_series, seed, effort: default.effort }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    const BASE: &str = "region = \"eu\"\ndata_dir = \"/tmp/x\"\n[mesh]\nlisten = \"127.0.0.1:1\"\n\
                        tls = { ca = \"a\", certificate = \"b\", key = \"c\" }\n";

    #[test]
    fn models_are_chosen_by_name_and_every_mistake_is_told() {
        let parse = |more: &str| Config::parse(&format!("{BASE}{more}"), []);
        assert_eq!(parse("").unwrap().global, GlobalConfig::of(vec![Kind::Boosting, Kind::Nhits], 1_440));
        let config =
            parse("[forecast.global]\nmodels = [\"global-nhits\", \"global-boosting\"]\nwindow_steps = 500\nseed = 7\n").unwrap().global;
        assert_eq!((config.models, config.window, config.seed), (vec![Kind::Boosting, Kind::Nhits], 500, 7));
        assert!(parse("[forecast.global]\nmodels = []\n").unwrap().global.models.is_empty());
        let error = parse("[forecast.global]\nmodels = [\"oracle\"]\nmax_series = 0\nepochs = 3\n").unwrap_err().to_string();
        for told in ["forecast.global.models", "\"global-lstm\"", "forecast.global.max_series = 0", "forecast.global.epochs"] {
            assert!(error.contains(told), "{told}: {error}");
        }
    }
}
