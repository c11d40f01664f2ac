//! Fidelity (Lu, Guo, Xing, Noble, ICML 2021): does the net still recognise the class in the picture masked by the map?

use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::map::{Map, paper_scale};
use crate::program::Score;
use crate::tensor::Tensor;

/// Pictures per batch.
const TOGETHER: usize = 16;

/// `S_F = −log p_c(E∘x) + log p_c(mean(E)·x)` of each map; lower is better. `E` is the map scaled to 0 to 1 by
/// [`paper_scale`], the same for all channels; `x` is the picture in the net's space; `c` is the explained class. The
/// second term is the result of a constant map with the same mean.
///
/// # Errors
/// Input when there is not one map per picture, or a map has another size than its picture or is not finite; the errors
/// of [`Engine::forward`].
pub fn fidelity(engine: &mut Engine, graph: &Graph, x: &Batch, maps: &[Map]) -> Result<Vec<f64>> {
    if maps.len() != x.len() {
        return Err(Error::input(format!("{} maps of {} pictures", maps.len(), x.len())));
    }
    if let Some(map) = maps.iter().find(|m| m.target >= graph.classes()) {
        return Err(Error::input(format!("a map of class {}: the net has {}", map.target, graph.classes())));
    }
    let mut out = Vec::with_capacity(maps.len());
    let together = engine.together(4 * 4 * x.shape().len(), TOGETHER);
    for (pictures, maps) in x.items().chunks(together).zip(maps.chunks(together)) {
        let mut both = Vec::with_capacity(2 * maps.len());
        for (picture, map) in pictures.iter().zip(maps) {
            both.extend(masked(picture, map)?);
        }
        let logits = engine.forward(graph, &Batch::of(both)?)?;
        for (i, map) in maps.iter().enumerate() {
            let log = |at: usize| -> Result<f64> {
                Ok(Score::LogProb.linked(graph.link(), &logits.item(at)?.to_f64(), map.target).0)
            };
            out.push(log(2 * i + 1)? - log(2 * i)?);
        }
    }
    Ok(out)
}

/// `E∘x` and `mean(E)·x`.
fn masked(picture: &Tensor, map: &Map) -> Result<[Tensor; 2]> {
    let scaled = paper_scale(&map.values)?;
    let (mask, plane) = (scaled.to_f64(), scaled.len());
    if !matches!(picture.dims(), [_, h, w] if [*h, *w] == *scaled.dims()) {
        return Err(Error::input(format!(
            "a map of {:?} for a picture of {:?}: fidelity needs one in the picture's space",
            map.values.dims(),
            picture.dims()
        )));
    }
    let mean = mask.iter().sum::<f64>() / plane as f64;
    let values = picture.to_f64();
    let times = |weight: &dyn Fn(usize) -> f64| {
        let product = values.iter().enumerate().map(|(i, v)| v * weight(i % plane)).collect();
        Tensor::rounded(picture.dims(), product, picture.precision())
    };
    Ok([times(&|i| mask[i])?, times(&|_| mean)?])
}
