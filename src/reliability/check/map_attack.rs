//! Stability under an attack on the map.

use super::noise::HOW;
use super::{Bench, CheckedMethod, Measurement, PanelKind, Test, Threshold};
use crate::engine::Batch;
use crate::error::Result;
use crate::reliability::attack::{MapAttack, Objective, PictureLength};
use crate::reliability::stability::compare;

/// Steps of the attack.
const ITERATIONS: usize = 30;

pub(super) const TEST: Test = Test {
    id: "map_attack",
    title: "Map attack",
    question: "Does the map stay when a disturbance of 4/255, made to move the gradient, leaves the prediction as it is?",
    paper: "Ghorbani, Abid, Zou 2019: Interpretation of neural networks is fragile, AAAI (top-k attack on the gradient; size \
            and bound are this project's)",
    measure: "share of the top tenth in common",
    threshold: Threshold::AtLeast(0.3),
    run,
};

fn run(bench: &mut Bench<'_>, examined: &CheckedMethod<'_>) -> Result<Measurement> {
    if let Some(nothing) = examined.shows_nothing()? {
        return Ok(nothing);
    }
    let (x, target) = (bench.scene.x.clone(), bench.scene.target);
    if bench.scene.attacked.is_none() {
        let k = (HOW.k * x.shape().plane() as f64).round().max(1.0) as usize;
        let attack = MapAttack {
            epsilon: PictureLength::Levels(4.0),
            step: PictureLength::Levels(0.5),
            iterations: ITERATIONS,
            score: bench.options.score,
            seed: bench.options.seed,
            ..MapAttack::new(Objective::TopK { k: Some(k) })
        };
        let found = match attack.attack(bench.engine, bench.graph, bench.options.preprocess, &x, &[target]) {
            Ok(mut found) => found.pop().filter(|f| f.succeeded).ok_or_else(|| "the attack found nothing".to_string()),
            Err(e) if super::refused(&e) => Err(e.to_string()),
            Err(e) => return Err(e),
        };
        bench.scene.attacked = Some(found);
    }
    let attacked = match &bench.scene.attacked {
        Some(Ok(found)) => found.picture.clone(),
        Some(Err(why)) => return Ok(Measurement::not_applicable(why.clone())),
        None => return Ok(Measurement::not_applicable("there was no attack")),
    };
    let moved = Batch::of(vec![attacked.clone()])?.drawn_as(&x)?;
    let map = bench.map(examined, bench.graph, &moved, target)?;
    let compared = compare([examined.map, &map], [&x.items()[0], &attacked], &HOW)?;
    // If the attacked map is constant, nothing of the top is left.
    let kept = compared.top().unwrap_or(0.0);
    let sentences = [
        "the map keeps most of what it shows",
        "a disturbance that nobody sees moves the map away, and the prediction stays",
    ];
    let measured = Measurement::number(kept, sentences)
        .note("Spearman", compared.spearman.unwrap_or(0.0))
        .note("S_S = |E(x) - E(x')| / |x - x'|", compared.ratio.unwrap_or(0.0))
        .note("way of the mass centre, pixels", compared.mass_shift.unwrap_or(0.0));
    Ok(measured.panel(examined.panel(TEST.id, PanelKind::Attacked, "after an attack on the map", map, Some(attacked))))
}
