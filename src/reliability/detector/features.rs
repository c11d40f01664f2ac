//! The detector's input: a stack of maps of one size.

use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::map::channel_max_abs;
use crate::method::haf::Haf;
use crate::method::{Context, Method, Spec};
use crate::tensor::Tensor;
use crate::tensor::resample::taps;

/// Height and width of every map in a stack.
pub const SIDE: usize = 32;

/// Computes stacks of maps with one method.
pub struct Features {
    source: FeatureSource,
    side: usize,
}

enum FeatureSource {
    /// The masks of all stages by `haf`, as in Wang et al. 2020.
    Masks(Haf),
    /// The single map of any other method.
    Map(Box<dyn Method>),
}

impl std::fmt::Debug for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.source {
            FeatureSource::Masks(_) => "masks",
            FeatureSource::Map(_) => "map",
        };
        f.debug_struct("Features").field("source", &kind).field("side", &self.side).finish()
    }
}

impl Features {
    /// Features by the method `spec`, resized to `side` by `side`.
    ///
    /// # Errors
    /// When a parameter of the method is out of its range.
    pub fn new(spec: &Spec, context: &Context<'_>, side: usize) -> Result<Self> {
        let source = match spec.entry.id {
            "haf" => FeatureSource::Masks(Haf::new(spec.values(), context.score)?),
            _ => FeatureSource::Map(spec.build(context)?),
        };
        Ok(Self { source, side })
    }

    /// `[T, side, side]` per picture, for the class explained on it, in the engine's precision.
    ///
    /// For `haf`, `T` is the number of stages, and each map is the mean over the channels of a stage's mask. For other
    /// methods `T` is 1, and the map is the method's, with the largest magnitude over channels. Maps are enlarged by
    /// linear interpolation and reduced by area averaging. They are not scaled per picture, because a map's magnitude
    /// is informative.
    ///
    /// # Errors
    /// As [`Method::explain`].
    pub fn of(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Tensor>> {
        let precision = engine.describe().precision;
        let stacks: Vec<Vec<f64>> = match &self.source {
            FeatureSource::Masks(haf) => {
                let found = haf.stage_masks(engine, graph, x, targets)?;
                let stack = |masks: &[Tensor]| -> Result<Vec<f64>> {
                    let mut stack = Vec::with_capacity(masks.len() * self.side * self.side);
                    for mask in masks {
                        let &[c, h, w] = mask.dims() else {
                            return Err(Error::model("a stage's mask has not the axes [C, H, W]"));
                        };
                        let mut mean = vec![0.0; h * w];
                        for channel in mask.to_f64().chunks(h * w) {
                            mean.iter_mut().zip(channel).for_each(|(sum, m)| *sum += m / c as f64);
                        }
                        stack.extend(resized(&mean, [h, w], self.side));
                    }
                    Ok(stack)
                };
                found.iter().map(|f| stack(&f.masks)).collect::<Result<_>>()?
            }
            FeatureSource::Map(method) => {
                let maps = method.explain(engine, graph, x, targets)?;
                let one = |map: &crate::map::Map| -> Result<Vec<f64>> {
                    let plane = channel_max_abs(&map.values)?;
                    let &[h, w] = plane.dims() else { return Err(Error::model("a map has not the axes [H, W]")) };
                    Ok(resized(&plane.to_f64(), [h, w], self.side))
                };
                maps.iter().map(one).collect::<Result<_>>()?
            }
        };
        let tensor = |stack: Vec<f64>| {
            Tensor::rounded([stack.len() / (self.side * self.side), self.side, self.side], stack, precision)
        };
        stacks.into_iter().map(tensor).collect()
    }
}

/// `values` (`[h, w]`) resized to `side` by `side`: each axis is enlarged linearly or reduced by averaging.
fn resized(values: &[f64], [h, w]: [usize; 2], side: usize) -> Vec<f64> {
    let (rows, columns) = (axis(h, side), axis(w, side));
    let mut narrow = vec![0.0; h * side];
    for (row, out) in values.chunks(w).zip(narrow.chunks_mut(side)) {
        out.iter_mut().zip(&columns).for_each(|(o, c)| *o = c.iter().map(|&(i, share)| share * row[i]).sum());
    }
    let mut out = Vec::with_capacity(side * side);
    for row in &rows {
        out.extend((0..side).map(|x| row.iter().map(|&(i, share)| share * narrow[i * side + x]).sum::<f64>()));
    }
    out
}

/// For each of `to` output elements of an axis, the input elements (of `from`) and their weights.
fn axis(from: usize, to: usize) -> Vec<Vec<(usize, f64)>> {
    if from <= to {
        return taps(from, to).into_iter().map(|(low, high, at)| vec![(low, 1.0 - at), (high, at)]).collect();
    }
    // In units of 1 / `to` of an input element, so that the ends are integers.
    let cell = |i: usize| {
        let (start, end) = (i * from, (i + 1) * from);
        let overlap = move |k: usize| ((k + 1) * to).min(end).saturating_sub((k * to).max(start));
        (start / to..end.div_ceil(to)).map(|k| (k, overlap(k) as f64 / from as f64)).collect()
    };
    (0..to).map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_reduced_by_areas_and_enlarged_linearly() {
        // Three columns to two: each combines one and a half.
        assert_eq!(axis(3, 2), [vec![(0, 2.0 / 3.0), (1, 1.0 / 3.0)], vec![(1, 1.0 / 3.0), (2, 2.0 / 3.0)]]);
        assert_eq!(resized(&[1.0, 2.0, 3.0, 4.0], [4, 1], 2), [1.5, 1.5, 3.5, 3.5]);
        assert_eq!(resized(&[1.0, 3.0], [1, 2], 4)[..4], [1.0, 1.5, 2.5, 3.0]);
        let values: Vec<f64> = (0..35).map(|i| f64::from(i * i % 17)).collect();
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let small = resized(&values, [5, 7], 4);
        assert!((mean(&small) - mean(&values)).abs() < 1e-12);
        assert_eq!(resized(&values[..25], [5, 5], 5), values[..25]);
    }
}
