//! Parameter randomisation: does the map change when the learned weights are destroyed?

use std::sync::Arc;

use super::{Bench, CheckedMethod, Measurement, PanelKind, RANDOMISED, Test, Threshold, shows_nothing};
use crate::error::Result;
use crate::graph::NodeId;
use crate::map::{Map, Reduction, channel_max_abs, channel_sum, paper_scale};
use crate::reliability::randomise::{drawn_bytes, layers, randomised};
use crate::reliability::similarity::{hog_spearman, spearman, spearman_abs, ssim};

const PAPER: &str = "Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim 2018: Sanity checks for saliency maps, NeurIPS (the bound is \
                     this project's)";

/// Most nets in a cascade, and most layers that are randomised one at a time.
const STEPS: usize = 8;

pub(super) const CASCADING: Test = Test {
    id: "cascading_randomisation",
    title: "Cascading randomisation",
    question: "Does the map change when layers are drawn anew from the logits down to the picture?",
    paper: PAPER,
    measure: "Spearman of the maps or of their magnitudes, the larger, with the upper half of the layers drawn anew, mean over five draws",
    // Halfway between the correlation that the gradient keeps on small and large nets (at most a third) and that of
    // guided backpropagation (at least two thirds).
    threshold: Threshold::AtMost(0.5),
    run: cascading,
};

pub(super) const INDEPENDENT: Test = Test {
    id: "independent_randomisation",
    title: "Independent randomisation",
    question: "Does the map change when a single layer is drawn anew?",
    paper: PAPER,
    measure: "Spearman of the maps or of their magnitudes, the larger, mean over nets with one layer drawn anew",
    threshold: Threshold::AtMost(0.9),
    run: independent,
};

/// `STEPS` of `n` layers, evenly spread, including the last.
fn spread(n: usize) -> impl Iterator<Item = usize> {
    let steps = n.min(STEPS);
    (1..=steps).map(move |i| (n * i).div_ceil(steps))
}

/// Number of draws of the net that decides about the cascade: two coarse maps may be similar by chance.
const DRAWS: u64 = 5;

/// The subject's map by the net with `nodes` randomised, in draw `draw`.
fn map(bench: &mut Bench<'_>, examined: &CheckedMethod<'_>, nodes: &[NodeId], draw: u64) -> Result<Map> {
    let (x, target) = (bench.scene.x.clone(), bench.scene.target);
    let key = (draw, nodes.iter().map(|n| n.index()).collect());
    if let Some(net) = bench.nets.randomised.get(&key).cloned() {
        return kept(bench, 0, |bench| bench.map(examined, &net, &x, target));
    }
    let bytes = drawn_bytes(bench.graph, nodes);
    // Other pictures and methods need it too, but the cache must leave room for the largest net.
    let largest = drawn_bytes(bench.graph, &layers(bench.graph));
    let stays = bench.engine.left().is_none_or(|left| (bench.nets.bytes + bytes + largest) as u64 <= left / 4);
    kept(bench, bytes, |bench| {
        let net = Arc::new(randomised(bench.graph, nodes, bench.options.seed.wrapping_add(draw))?);
        let map = bench.map(examined, &net, &x, target);
        if stays {
            bench.nets.bytes += bytes;
            bench.nets.randomised.insert(key, net);
        } else {
            bench.engine.forget(&net);
        }
        map
    })
}

/// Returns an error if the net with all of `nodes` randomised would not fit, before any net is made.
fn check_room(bench: &mut Bench<'_>, examined: &CheckedMethod<'_>, nodes: &[NodeId]) -> Result<()> {
    if bench.engine.left().is_none_or(|left| drawn_bytes(bench.graph, nodes) as u64 <= left / 4) {
        return Ok(());
    }
    let (x, graph, target) = (bench.scene.x.clone(), bench.graph, bench.scene.target);
    kept(bench, drawn_bytes(graph, nodes), |bench| bench.map(examined, graph, &x, target)).map(|_| ())
}

/// Runs `work` while the memory of cached nets that is not counted yet, and `more` bytes, are accounted for.
fn kept<T>(bench: &mut Bench<'_>, more: usize, work: impl FnOnce(&mut Bench<'_>) -> Result<T>) -> Result<T> {
    let Bench { graph, options, engine, double, nets, scene } = bench;
    engine.keeping((RANDOMISED, nets.bytes - nets.counted + more), |engine| {
        work(&mut Bench { graph, options, engine, double, nets, scene })
    })
}

/// The sentence when no map of a randomised net can be compared.
const BLANK: &str = "the maps of the randomised nets are the same everywhere: nothing can be compared with them";

/// Rank correlations of two maps.
#[derive(Debug, Clone, Copy)]
struct Likeness {
    /// Correlation of the magnitudes.
    magnitudes: f64,
    /// Correlation of the sums over channels, with their sign.
    signed: f64,
}

impl Likeness {
    /// `None` if the second map is constant: it then says nothing about the method.
    fn of(before: &Map, after: &Map) -> Result<Option<Self>> {
        if shows_nothing(after, Reduction::MaxAbs)?.is_some() {
            return Ok(None);
        }
        Ok(Some(Self {
            magnitudes: spearman_abs(&channel_max_abs(&before.values)?, &channel_max_abs(&after.values)?)?
                .unwrap_or(0.0),
            signed: spearman(&channel_sum(&before.values)?, &channel_sum(&after.values)?)?.unwrap_or(0.0),
        }))
    }

    fn most(self) -> f64 {
        self.magnitudes.max(self.signed)
    }
}

fn cascading(bench: &mut Bench<'_>, examined: &CheckedMethod<'_>) -> Result<Measurement> {
    if let Some(nothing) = examined.shows_nothing()? {
        return Ok(nothing);
    }
    let all = layers(bench.graph);
    check_room(bench, examined, &all)?;
    let mut course = Vec::new();
    let mut judged = None;
    for n in spread(all.len()) {
        let mut of = |draw: u64| -> Result<(Option<Likeness>, Map)> {
            let map = map(bench, examined, &all[..n], draw)?;
            Ok((Likeness::of(examined.map, &map)?, map))
        };
        let (likeness, map) = of(0)?;
        course.extend(likeness.map(|l| (n, l)));
        if judged.is_none() && 2 * n >= all.len() {
            let mut drawn: Vec<f64> = likeness.map(Likeness::most).into_iter().collect();
            for draw in 1..DRAWS {
                drawn.extend(of(draw)?.0.map(Likeness::most));
            }
            judged = Some((drawn, map));
        }
    }
    let Some((drawn, map)) = judged else {
        return Ok(Measurement::not_applicable("the net has no layer with weights"));
    };
    if drawn.is_empty() {
        return Ok(Measurement::not_applicable(BLANK));
    }
    let likeness = drawn.iter().sum::<f64>() / drawn.len() as f64;
    let sentences = [
        "without the upper half of the net it is another map",
        "much of the map stays when the upper half of the net is forgotten: it shows the picture rather than the class",
    ];
    let mut measured = Measurement::number(likeness, sentences);
    for (n, Likeness { magnitudes, signed }) in course {
        measured = measured
            .note(&format!("|Spearman| with {n} of {} layers drawn anew", all.len()), magnitudes)
            .note(&format!("Spearman with {n} of {} layers drawn anew", all.len()), signed);
    }
    let hog = hog_spearman(&channel_max_abs(&examined.map.values)?, &channel_max_abs(&map.values)?)?;
    measured = measured
        .note("SSIM", ssim(&paper_scale(&examined.map.values)?, &paper_scale(&map.values)?)?)
        .note("Spearman of histograms of gradients", hog.unwrap_or(0.0));
    Ok(measured.panel(examined.panel(CASCADING.id, PanelKind::Randomised, "upper half drawn anew", map, None)))
}

fn independent(bench: &mut Bench<'_>, examined: &CheckedMethod<'_>) -> Result<Measurement> {
    if let Some(nothing) = examined.shows_nothing()? {
        return Ok(nothing);
    }
    let all = layers(bench.graph);
    if let Some(largest) = all.iter().max_by_key(|&&layer| drawn_bytes(bench.graph, &[layer])) {
        check_room(bench, examined, &[*largest])?;
    }
    let mut notes = Vec::new();
    for n in spread(all.len()) {
        let layer = all[n - 1];
        let map = map(bench, examined, &[layer], 0)?;
        if let Some(likeness) = Likeness::of(examined.map, &map)? {
            notes.push((format!("with '{}' drawn anew", bench.graph.node(layer).name), likeness.most()));
        }
    }
    if notes.is_empty() {
        return Ok(Measurement::not_applicable(BLANK));
    }
    let value = notes.iter().map(|(_, v)| v).sum::<f64>() / notes.len().max(1) as f64;
    let sentences = ["single layers matter to it", "the map hardly notices when a single layer is drawn anew"];
    let measured = Measurement::number(value, sentences);
    Ok(notes.into_iter().fold(measured, |measured, (name, value)| measured.note(&name, value)))
}
