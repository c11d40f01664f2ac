//! What methods share that compare a picture with a baseline: the parameter, its tensors, and the gap of completeness.

use super::{Context, Parameter, Values};
use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::map::Gap;
use crate::perturb::baseline::Baseline;
use crate::program::Score;
use crate::tensor::Tensor;

/// The parameter `baseline`.
pub(super) const PARAMETER: Parameter = Parameter {
    key: "baseline",
    unit: "zero|black|white|mean|noise|blur:SIGMA|value:V|file:PATH",
    default: "zero",
    help: "what the picture is compared with: zeros in the net's space, preprocessed black or white, the picture's mean \
           colour, uniform noise, the blurred picture, one value, a picture",
};

/// A baseline with all that it takes to make it for a picture.
pub(super) struct Start {
    baseline: Baseline,
    file: Option<Tensor>,
    preprocess: Preprocess,
    seed: u64,
}

impl Start {
    /// The value of the parameter `baseline`, its file loaded.
    pub(super) fn new(values: &Values, context: &Context<'_>) -> Result<Self> {
        let baseline: Baseline = values.text("baseline")?.parse()?;
        let file = match &baseline {
            Baseline::File(path) => Some((context.load)(path)?),
            _ => None,
        };
        Ok(Self { baseline, file, preprocess: context.preprocess.clone(), seed: context.seed })
    }

    /// One `[C, H, W]` for each picture. Errors as [`Baseline::tensors`].
    pub(super) fn tensors(&self, x: &Batch) -> Result<Vec<Tensor>> {
        self.baseline.tensors(x, &self.preprocess, self.file.as_ref(), self.seed)
    }
}

/// Score of each picture's target.
pub(super) fn scores(
    engine: &mut Engine,
    graph: &Graph,
    score: Score,
    x: &Batch,
    targets: &[usize],
) -> Result<Vec<f64>> {
    let logits = engine.forward(graph, x)?;
    let of = |(i, &t): (usize, &usize)| Ok(score.evaluate(&logits.item(i)?.to_f64(), t).0);
    targets.iter().enumerate().map(of).collect()
}

/// By how much `sum` misses `difference`, what it was promised to be.
///
/// # Errors
/// When either is not finite.
pub(super) fn completeness(sum: f64, difference: f64) -> Result<Gap> {
    let value = sum - difference;
    if !value.is_finite() {
        return Err(Error::device("the scores at the path's ends are not finite"));
    }
    // A path between equal scores has no scale of its own.
    let relative = Some(value.abs() / difference.abs()).filter(|share| share.is_finite());
    Ok(Gap { promise: "completeness".into(), value, relative })
}
