//! Common parts of methods that compare a picture with a baseline: the parameter, its tensors, and the gap of
//! completeness.

use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::map::{Gap, Map};
use crate::method::{Context, Parameter, ParameterValues, Promise, When};
use crate::perturb::baseline::Baseline;
use crate::program::Score;
use crate::tensor::{Tensor, are_equal_but_for_rounding};

/// The parameter `baseline`.
pub(crate) const PARAMETER: Parameter = Parameter {
    key: "baseline",
    unit: "zero|black|white|mean|noise|blur:SIGMA|value:V|file:PATH",
    default: "zero",
    help: "what the picture is compared with: zeros in the net's space, preprocessed black or white, the picture's mean \
           colour, uniform noise, the blurred picture, one value, a picture",
};

/// The parameter `gap`; `help` states the cost of the gap.
pub(crate) const fn gap(help: &'static str) -> Parameter {
    Parameter { key: "gap", unit: "yes|no", default: "yes", help }
}

/// The parameter `gap` of methods with one baseline per picture.
pub(crate) const GAP: Parameter = gap("measure the completeness gap, two more forward passes");

/// The promise of methods with the parameter `gap`.
pub(crate) const PROMISES: [(Promise, When); 1] = [(Promise::Completeness, When::With("gap", "yes"))];

/// Whether the gap of completeness is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gaps {
    Measured,
    Unmeasured,
}

impl Gaps {
    /// The value of the parameter `gap` of method `id`.
    pub(crate) fn new(id: &str, values: &ParameterValues) -> Result<Self> {
        match values.text("gap")? {
            "yes" => Ok(Gaps::Measured),
            "no" => Ok(Gaps::Unmeasured),
            other => Err(Error::settings(format!("{id}:gap={other}: there are yes and no"))),
        }
    }

    /// For each of `sums`, one per picture, its difference from the score difference between the path's ends. If gaps
    /// are not measured: `None`, and no pass is run.
    pub(crate) fn of(self, sums: &[f64], differences: impl FnOnce() -> Result<Vec<f64>>) -> Result<Vec<Option<Gap>>> {
        match self {
            Gaps::Unmeasured => Ok(vec![None; sums.len()]),
            Gaps::Measured => {
                let differences = differences()?;
                sums.iter().zip(differences).map(|(&sum, d)| completeness(sum, d).map(Some)).collect()
            }
        }
    }
}

/// A baseline with everything needed to make it for a picture.
pub(crate) struct BaselineStart {
    baseline: Baseline,
    file: Option<Tensor>,
    preprocess: Preprocess,
    seed: u64,
}

impl BaselineStart {
    /// Parses the parameter `baseline` and loads its file.
    pub(crate) fn new(values: &ParameterValues, context: &Context<'_>) -> Result<Self> {
        let baseline: Baseline = values.text("baseline")?.parse()?;
        let file = match &baseline {
            Baseline::File(path) => Some((context.load)(path)?),
            _ => None,
        };
        Ok(Self { baseline, file, preprocess: context.preprocess.clone(), seed: context.seed })
    }

    /// One `[C, H, W]` per picture. Errors as [`Baseline::tensors`].
    pub(crate) fn tensors(&self, x: &Batch) -> Result<Vec<Tensor>> {
        self.baseline.tensors(x, &self.preprocess, self.file.as_ref(), self.seed)
    }
}

/// Maps of paths from `starts` to the pictures; zero if the path's length is within rounding error.
pub(crate) fn settled(maps: Vec<Map>, x: &Batch, starts: &[Tensor]) -> Vec<Map> {
    let ends = x.items().iter().zip(starts);
    maps.into_iter()
        .zip(ends)
        .map(|(map, (x, b))| if are_equal_but_for_rounding(x, b) { map.blank() } else { map })
        .collect()
}

/// Logits of each picture, all in one call; equal pictures are computed once.
pub(crate) fn logits(engine: &mut Engine, graph: &Graph, pictures: &[&Tensor]) -> Result<Vec<Vec<f64>>> {
    let mut apart: Vec<Tensor> = Vec::with_capacity(pictures.len());
    let mut rows = Vec::with_capacity(pictures.len());
    for &picture in pictures {
        rows.push(apart.iter().position(|other| other == picture).unwrap_or_else(|| {
            apart.push(picture.clone());
            apart.len() - 1
        }));
    }
    let logits = engine.forward(graph, &Batch::of(apart)?)?;
    rows.into_iter().map(|row| Ok(logits.item(row)?.to_f64().into_owned())).collect()
}

/// Score of each picture's target, all in one call; equal pictures are computed once.
pub(crate) fn scores(
    engine: &mut Engine,
    graph: &Graph,
    score: Score,
    pictures: &[&Tensor],
    targets: &[usize],
) -> Result<Vec<f64>> {
    let logits = logits(engine, graph, pictures)?;
    Ok(logits.iter().zip(targets).map(|(logits, &target)| score.linked(graph.link(), logits, target).0).collect())
}

/// For each picture, the score of its target minus that at the path's start, all in one call.
pub(crate) fn differences(
    engine: &mut Engine,
    graph: &Graph,
    score: Score,
    x: &Batch,
    starts: &[Tensor],
    targets: &[usize],
) -> Result<Vec<f64>> {
    let ends: Vec<&Tensor> = x.items().iter().chain(starts).collect();
    let scores = scores(engine, graph, score, &ends, &[targets, targets].concat())?;
    let (here, there) = scores.split_at(x.len());
    Ok(here.iter().zip(there).map(|(here, there)| here - there).collect())
}

/// The gap between `sum` and the promised `difference`.
///
/// # Errors
/// When either is not finite.
pub(crate) fn completeness(sum: f64, difference: f64) -> Result<Gap> {
    let value = sum - difference;
    if !value.is_finite() {
        return Err(Error::device("the scores at the path's ends are not finite"));
    }
    // A path between equal scores defines no scale.
    let relative = Some(value.abs() / difference.abs()).filter(|share| share.is_finite());
    Ok(Gap { promise: "completeness".into(), value, relative })
}
