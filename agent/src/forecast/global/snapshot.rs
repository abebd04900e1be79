//! Trained models as pieces of bytes, so that the next life of the agent speaks with them at once instead of training first.
//!
//! In them are weights and trees, what each series' members have lost lately, the widths, and when to train again. What the models see is
//! not: that is what was counted. Nor is what was said and waits for its step, so that a lane of `h` steps learns nothing from the `h` steps
//! around a restart. Pieces of another layout, of other settings or of no sense are refused, and the models are trained afresh.

use super::super::SnapshotError;
use super::blend::{Blend, Losses, Row};
use super::boosting::Boosting;
use super::keep::{Effort, Globals};
use super::lstm::Lstm;
use super::nhits::Nhits;
use super::window::Shape;
use super::{Kind, Model, RECENT, Trained};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tradewind_protocol::wire::codec;
use tradewind_protocol::{SeriesKey, StepIndex};

/// Raise it whenever what a piece holds changes, or what it means: also what the models see of a series.
const LAYOUT: u32 = 2;
/// How many series' losses are in one piece: below half a mebibyte.
const SERIES_A_PIECE: usize = 128;
const HEAD: &str = "head";

/// Bytes by name.
pub type Pieces = BTreeMap<String, Vec<u8>>;

#[derive(Serialize, Deserialize)]
struct Head {
    effort: Effort,
    horizon: usize,
    season: usize,
    until: StepIndex,
    /// How many steps had been seen, and how many when training last began.
    seen: usize,
    began: Option<usize>,
    /// On how many steps the models were trained, and up to which.
    steps: usize,
    trained_until: StepIndex,
    /// Which models there are, and of how many pieces each is made.
    models: Vec<(Kind, usize)>,
    losses: usize,
    widths: Vec<Row>,
}

/// Everything that the next life needs of `globals`; nothing if nothing was trained.
pub(super) fn save(globals: &Globals) -> Result<Pieces, SnapshotError> {
    let (Some(trained), Some(until)) = (&globals.trained, globals.until) else { return Ok(Pieces::new()) };
    let mut pieces = Pieces::new();
    let mut models = vec![];
    for (kind, model) in &trained.models {
        let parts = match model {
            None => vec![],
            Some(Model::Boosting(trees)) => vec![codec::encode(trees)?],
            Some(Model::Lstm(_, weights)) => vec![bytes(weights)],
            Some(Model::Nhits(_, members)) => members.iter().map(|weights| bytes(weights)).collect(),
        };
        models.push((*kind, parts.len()));
        pieces.extend(parts.into_iter().enumerate().map(|(at, part)| (piece(kind.name(), at), part)));
    }
    let losses: Vec<(&SeriesKey, Losses)> = globals.blend.losses().collect();
    for (at, some) in losses.chunks(SERIES_A_PIECE).enumerate() {
        pieces.insert(piece("losses", at), codec::encode(&some)?);
    }
    let head = Head {
        effort: globals.config.effort,
        horizon: globals.horizon,
        season: globals.season,
        until,
        seen: globals.seen,
        began: globals.began,
        steps: trained.steps,
        trained_until: trained.until,
        models,
        losses: losses.len().div_ceil(SERIES_A_PIECE),
        widths: globals.blend.widths().to_vec(),
    };
    pieces.insert(HEAD.into(), codec::encode(&(LAYOUT, head))?);
    Ok(pieces)
}

/// Has `globals`, which know nothing yet, go on from `pieces` after step `until`.
pub(super) fn restore(globals: &mut Globals, until: StepIndex, pieces: &Pieces) -> Result<(), SnapshotError> {
    let get = |name: &str| pieces.get(name).ok_or(SnapshotError::Damaged);
    let bytes = get(HEAD)?;
    // A small number is one byte, whatever comes behind it.
    let found = bytes.first().copied().map_or(0, u32::from);
    if found != LAYOUT {
        return Err(SnapshotError::Layout { found });
    }
    let (_, head): (u32, Head) = codec::decode(bytes)?;
    let kinds = head.models.iter().map(|(kind, _)| kind);
    if (head.effort, head.horizon, head.season) != (globals.config.effort, globals.horizon, globals.season)
        || !kinds.eq(&globals.config.models)
    {
        return Err(SnapshotError::Settings);
    }
    let shape = Shape::new(head.horizon, head.season, RECENT);
    let cost = globals.config.effort.cost();
    let mut models = vec![];
    for (kind, parts) in head.models {
        let part = |at: usize| get(&piece(kind.name(), at));
        let all = |count: usize| (0..parts).map(|at| weights(part(at)?, count)).collect::<Result<Vec<_>, _>>();
        let model = match kind {
            _ if parts == 0 => None,
            Kind::Boosting => {
                let trees: Boosting = codec::decode(part(0)?)?;
                Some(Model::Boosting(trees.checked(&shape).ok_or(SnapshotError::Damaged)?))
            }
            Kind::Lstm => {
                let network = Lstm::new(&shape, cost.units);
                let weights = all(network.weights)?.pop();
                weights.map(|weights| Model::Lstm(network, weights))
            }
            Kind::Nhits => {
                let network = Nhits::new(&shape, cost.width);
                let members = all(network.weights)?;
                Some(Model::Nhits(network, members))
            }
        };
        models.push((kind, model));
    }
    let mut losses: Vec<(SeriesKey, Losses)> = vec![];
    for at in 0..head.losses {
        losses.extend(codec::decode::<Vec<_>>(get(&piece("losses", at))?)?);
    }
    globals.blend = Blend::restored(head.horizon, head.widths, losses).ok_or(SnapshotError::Damaged)?;
    // As many as have passed since, counted or not.
    let since = usize::try_from(until.0.saturating_sub(head.until.0)).unwrap_or(0);
    (globals.seen, globals.began) = (head.seen.saturating_add(since), head.began);
    globals.trained = Some(Trained { shape, steps: head.steps, until: head.trained_until, models });
    Ok(())
}

fn piece(name: &str, at: usize) -> String {
    format!("{name}/{at}")
}

fn bytes(weights: &[f32]) -> Vec<u8> {
    weights.iter().flat_map(|weight| weight.to_le_bytes()).collect()
}

/// So many weights, all of them finite.
fn weights(bytes: &[u8], count: usize) -> Result<Vec<f32>, SnapshotError> {
    let (weights, rest) = bytes.as_chunks::<4>();
    let weights: Vec<f32> = weights.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let sound = rest.is_empty() && weights.len() == count && weights.iter().all(|weight| weight.is_finite());
    sound.then_some(weights).ok_or(SnapshotError::Damaged)
}
