//! Stability under noise that is barely visible.

use super::{Bench, CheckedMethod, Measurement, PanelKind, Test, Threshold};
use crate::engine::Batch;
use crate::error::Result;
use crate::map::Reduction;
use crate::random::Stream;
use crate::reliability::stability::{Comparison, Scale, compare};
use crate::score::top;
use crate::tensor::Tensor;

/// Standard deviation of the noise, as a share of the picture's range.
const SIGMA: f64 = 0.02;

/// How maps are compared, here and under attack.
pub(super) const HOW: Comparison = Comparison { scale: Scale::Paper, k: 0.1, reduction: Reduction::MaxAbs };

pub(super) const TEST: Test = Test {
    id: "noise",
    title: "Small noise",
    question: "Does the map stay when the picture gets noise of 2 % of its range?",
    paper: "Alvarez-Melis, Jaakkola 2018: On the robustness of interpretability methods (the question; noise and bound are \
            this project's)",
    measure: "Spearman of both maps' magnitudes",
    threshold: Threshold::AtLeast(0.5),
    run,
};

fn run(bench: &mut Bench<'_>, examined: &CheckedMethod<'_>) -> Result<Measurement> {
    if let Some(nothing) = examined.shows_nothing()? {
        return Ok(nothing);
    }
    let (x, target) = (bench.scene.x.clone(), bench.scene.target);
    let noisy = noisy(&x, bench.options.seed)?;
    let logits = bench.engine.forward(bench.graph, &noisy)?.to_f64().into_owned();
    if top(&logits) != Some(target) {
        return Ok(Measurement::not_applicable("the noise changes what the net predicts"));
    }
    let map = bench.map(examined, bench.graph, &noisy, target)?;
    let moved = compare([examined.map, &map], [&x.items()[0], &noisy.items()[0]], &HOW)?;
    let sentences = ["noise that hardly shows hardly shows in the map", "noise that hardly shows makes another map"];
    let measured = Measurement::number(moved.spearman.unwrap_or(0.0), sentences)
        .note_of("share of the top tenth in common", moved.top())
        .note("S_S = |E(x) - E(x')| / |x - x'|", moved.ratio.unwrap_or(0.0));
    let picture = noisy.items().first().cloned();
    Ok(measured.panel(examined.panel(TEST.id, PanelKind::Noisy, "with noise of 2 %", map, picture)))
}

/// The picture with noise, drawn from its own key.
fn noisy(x: &Batch, seed: u64) -> Result<Batch> {
    let one = |i: usize| {
        let (picture, draws) = (&x.items()[i], x.draws()[i]);
        let mut normals = vec![0f32; picture.len()];
        Stream::SmallNoise.normals(seed, draws.key, 0, &mut normals);
        let sigma = SIGMA * draws.range;
        let values = picture.to_f64().iter().zip(&normals).map(|(v, &z)| v + sigma * f64::from(z)).collect();
        Tensor::rounded(picture.dims(), values, picture.precision())
    };
    Batch::of((0..x.len()).map(one).collect::<Result<_>>()?)?.drawn_as(x)
}
