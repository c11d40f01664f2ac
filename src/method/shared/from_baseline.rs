//! Common parts of methods that compare a picture with a baseline: the parameter, its tensors, and the gap of
//! completeness.

use crate::device::Spare;
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
    pub(crate) fn of(
        self,
        engine: &mut Engine,
        sums: Vec<f64>,
        differences: impl FnOnce(&mut Engine) -> Result<Vec<f64>>,
    ) -> Result<Vec<Option<Gap>>> {
        let mut gaps = engine.spare().of(sums.iter().map(|_| None));
        if self == Gaps::Measured {
            let differences = differences(engine)?;
            for ((gap, &sum), &difference) in gaps.iter_mut().zip(&sums).zip(&differences) {
                *gap = Some(completeness(sum, difference)?);
            }
            engine.spare().keep(differences);
        }
        engine.spare().keep(sums);
        Ok(gaps)
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
    pub(crate) fn tensors(&self, spare: &mut Spare, x: &Batch) -> Result<Vec<Tensor>> {
        self.baseline.tensors_within(spare, x, &self.preprocess, self.file.as_ref(), self.seed)
    }
}

/// Maps of paths from `starts` to the pictures; zero if the path's length is within rounding error.
pub(crate) fn settled(mut maps: Vec<Map>, x: &Batch, starts: &[Tensor]) -> Vec<Map> {
    let ends = x.items().iter().zip(starts);
    maps.iter_mut().zip(ends).filter(|(_, (x, b))| are_equal_but_for_rounding(x, b)).for_each(|(map, _)| map.clear());
    maps
}

/// Logits of each picture, all in one call; equal pictures are computed once.
pub(crate) fn logits(engine: &mut Engine, graph: &Graph, pictures: &[&Tensor]) -> Result<Vec<Vec<f64>>> {
    each_logits(engine, graph, pictures.iter().copied(), |_, logits| logits.to_vec())
}

/// As [`logits`], with what `of` makes of each picture's position and logits.
fn each_logits<'a, T: Send + 'static>(
    engine: &mut Engine,
    graph: &Graph,
    pictures: impl ExactSizeIterator<Item = &'a Tensor>,
    mut of: impl FnMut(usize, &[f64]) -> T,
) -> Result<Vec<T>> {
    let spare = engine.spare();
    let (mut apart, mut rows): (Vec<Tensor>, _) = (spare.take(pictures.len()), spare.take(pictures.len()));
    for picture in pictures {
        rows.push(match apart.iter().position(|other| other == picture) {
            Some(row) => row,
            None => {
                apart.push(spare.copy(picture)?);
                apart.len() - 1
            }
        });
    }
    let apart = Batch::of(apart)?;
    let logits = engine.forward(graph, &apart)?;
    let (spare, classes) = (engine.spare(), graph.classes());
    let row = |(i, row): (usize, &usize)| of(i, &logits.to_f64()[row * classes..][..classes]);
    let made = spare.of(rows.iter().enumerate().map(row));
    spare.keep(rows);
    spare.keep_tensors(apart.into_items());
    spare.keep_tensor(logits);
    Ok(made)
}

/// Score of each picture's target, all in one call; equal pictures are computed once.
pub(crate) fn scores<'a>(
    engine: &mut Engine,
    graph: &Graph,
    score: Score,
    pictures: impl ExactSizeIterator<Item = &'a Tensor>,
    target: impl Fn(usize) -> usize,
) -> Result<Vec<f64>> {
    let mut gradient = engine.spare().take(graph.classes().max(2));
    let of = |i: usize, logits: &[f64]| score.linked_into(graph.link(), logits, target(i), &mut gradient);
    let scores = each_logits(engine, graph, pictures, of)?;
    engine.spare().keep(gradient);
    Ok(scores)
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
    let n = x.len();
    let picture = |i: usize| if i < n { &x.items()[i] } else { &starts[i - n] };
    let mut scores = scores(engine, graph, score, (0..n + starts.len()).map(picture), |i| targets[i % n])?;
    let (here, there) = scores.split_at_mut(n);
    here.iter_mut().zip(there).for_each(|(here, there)| *here -= *there);
    scores.truncate(n);
    Ok(scores)
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
