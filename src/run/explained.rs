//! Explains inputs in memory: the maps and records that [`Explain`](super::Explain) writes into a folder, for a host
//! program.

use super::recorded::{PICTURES, SMALL, Seen};
use super::said::Said;
use crate::data::{Item, Source, Targets};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::map::{Map, ONE_POSITION};
use crate::method::Method;
use crate::report::{RECORD_VERSION, Record};
use crate::session::{Scored, Session};
use crate::tensor::Tensor;

/// What became of one input.
pub struct Explained {
    /// The input.
    pub item: Item,
    /// Its record, as `verilume explain` writes it; it names no files.
    pub record: Record,
    /// The map, or the error that the record names.
    pub made: Result<Map>,
}

/// Explains `items` in one call, each for the first of its `targets`. `sources` name the items, `id` is the method's
/// name in records, and `said` are the remarks on the run. An item that fails does not fail its neighbours.
pub fn explain_items(
    session: &mut Session,
    (id, method): (&str, &dyn Method),
    items: Vec<Item>,
    (sources, targets): (&[Source], &[Targets]),
    said: &Said,
) -> Vec<Explained> {
    let scored = session.score(&items.iter().map(|item| &item.input).collect::<Vec<_>>());
    let target = |item: &Item, scored: &Scored| {
        let classes = targets[item.source].of(&sources[item.source], item.row, &scored.logits)?;
        classes.first().copied().ok_or_else(|| Error::settings("no class to explain"))
    };
    let chosen: Vec<Result<(usize, Scored)>> = items
        .iter()
        .zip(scored)
        .map(|(item, scored)| scored.and_then(|scored| Ok((target(item, &scored)?, scored))))
        .collect();
    let of_scored = items.iter().zip(&chosen).filter_map(|(item, chosen)| Some((&item.input, chosen.as_ref().ok()?.0)));
    let (inputs, classes): (Vec<&Tensor>, Vec<usize>) = of_scored.unzip();
    let mut made = session.explain_timed(method, &inputs, &classes).into_iter();
    let mut all = Vec::with_capacity(items.len());
    for (item, chosen) in items.into_iter().zip(chosen) {
        let shown = &sources[item.source].shown;
        let mut explained = match chosen {
            Err(e) => {
                let noticed = said.of_item(&item);
                let failed = Record::failed(shown, item.row, e.to_string());
                let record = Record { assumed: noticed.assumed, warnings: noticed.warnings, ..failed };
                Explained { item, record, made: Err(e) }
            }
            Ok((class, scored)) => {
                let (made, seconds) = made.next().unwrap_or_else(|| (Err(Error::device("no result")), 0.0));
                let made = made.and_then(|map| map.fits_single_precision().map(|()| map));
                let seen = Seen { item, scored, targets: vec![class] };
                let mut record = of_seen(session, said, (shown, &seen), (id, 0), seconds);
                match &made {
                    Ok(map) => {
                        describe(&mut record, map);
                        let graph = session.graph(seen.item.input.dims()).ok();
                        record.warnings.extend(graph.and_then(|graph| places(&graph, id, map)));
                    }
                    Err(e) => record.error = Some(e.to_string()),
                }
                Explained { item: seen.item, record, made }
            }
        };
        said.write(&mut explained.record.assumed, &mut explained.record.warnings);
        all.push(explained);
    }
    all
}

/// How many pictures of this preparation are best passed to [`explain_items`] together.
#[must_use]
pub fn together(preparation: &Preprocess) -> usize {
    if preparation.crop.iter().product::<usize>() <= SMALL { PICTURES } else { 1 }
}

/// The record of an item's `rank`-th target, before there is a map. `shown` names the item's source, `id` the method.
pub(super) fn of_seen(
    session: &Session,
    said: &Said,
    (shown, s): (&str, &Seen),
    (id, rank): (&str, usize),
    seconds: f64,
) -> Record {
    let target = s.targets[rank];
    let noticed = said.of_item(&s.item);
    Record {
        input: shown.to_owned(),
        index: s.item.row,
        method: Some(id.to_owned()),
        target: Some(target),
        target_label: session.label(target),
        score: Some(s.scored.scores[target]),
        prediction: session.prediction(&s.scored.logits, session.explained()),
        seconds,
        peak_bytes: session.peak_bytes(),
        assumed: noticed.assumed,
        warnings: noticed.warnings,
        record_version: RECORD_VERSION,
        ..Record::default()
    }
}

/// Adds what a record says of a map.
pub(super) fn describe(record: &mut Record, map: &Map) {
    record.gap.clone_from(&map.gap);
    record.notes = map.all_notes();
    record.shares = map.shares;
}

/// A warning about a map read from a layer with one position: it is flat because of a setting, not because of the
/// picture.
pub(super) fn places(graph: &Graph, id: &str, map: &Map) -> Option<String> {
    map.notes.iter().find(|(name, _)| name == ONE_POSITION)?;
    let shape = graph.input_shape();
    let layer = graph.stages().iter().rev().find(|(_, node)| graph.node(*node).shape.plane() > 1);
    let other = layer.map_or_else(String::new, |(name, _)| format!("; layer={name} has more"));
    Some(format!(
        "{id}: its layer has one position at inputs of {}x{}, so the map says nothing of places{other}",
        shape.h, shape.w
    ))
}
