//! Deletion (Petsiuk, Das, Saenko 2018): how quickly the class is lost as the most important pixels are removed.

use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, baseline, is_flat, reduce, without};
use crate::engine::Engine;
use crate::error::Result;
use crate::map::Reduction;
use crate::method::{Parameter, ParameterValues};
use crate::perturb::baseline::Baseline;
use crate::program::Score;
use crate::reliability::ranking::ranking;
use crate::reliability::removal::{Amount, RemovalOrder, Way, area, curves};
use crate::tensor::Tensor;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "deletion",
    title: "Deletion",
    paper: "Petsiuk, Das, Saenko 2018: RISE: Randomized input sampling for explanation of black-box models, BMVC",
    summary: "area under the target's softmax probability while pixels go over to a baseline, the most important first; \
              the axis runs from 0 to 1 in equal steps; none where the map is the same everywhere",
    parameters: &PARAMETERS,
    outputs: &[Output { key: "deletion", better: Better::Lower }],
    needs: Needs::Maps,
    build: |values| Ok(Box::new(Deletion(Pixels::new(values)?))),
};

const PARAMETERS: [Parameter; 3] = [
    STEP,
    Parameter {
        key: "baseline",
        unit: "zero|black|white|mean|noise|value:V|blur:SIGMA",
        default: "zero",
        help: "what is left of a deleted pixel; zero, in the net's space, is the paper's",
    },
    reduce("channel_sum"),
];

/// Number of pixels replaced per step.
pub(super) const STEP: Parameter = Parameter {
    key: "step",
    unit: "pixels or PERCENT%",
    default: "1%",
    help: "pixels of a step, or their share; the paper has one row, 0.45% of 224 x 224. Of equally important pixels the \
           first in C order goes first",
};

/// Pixels that are replaced step by step.
pub(super) struct Pixels {
    step: Amount,
    baseline: Baseline,
    reduction: Reduction,
}

/// Which end of the sequence is the picture.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DeletionDirection {
    FromPicture,
    ToPicture,
}

impl Pixels {
    pub fn new(values: &ParameterValues) -> Result<Self> {
        Ok(Self {
            step: values.parse("step")?,
            baseline: baseline(values, "baseline")?,
            reduction: values.parse("reduce")?,
        })
    }

    /// Each picture's curve of the target's probability, most important pixels first.
    fn curves(
        &self,
        engine: &mut Engine,
        case: &Case<'_>,
        planes: &[Tensor],
        direction: DeletionDirection,
    ) -> Result<Vec<Vec<f64>>> {
        let orders: Vec<Vec<u32>> = planes.iter().map(|p| ranking(&p.to_f64())).collect();
        let baselines = self.baseline.tensors(case.x, case.preprocess, None, case.seed)?;
        let way = |i: usize| {
            let (picture, baseline, order) = (&case.x.items()[i], &baselines[i], RemovalOrder::Pixels(&orders[i]));
            let [from, to] = match direction {
                DeletionDirection::FromPicture => [picture, baseline],
                DeletionDirection::ToPicture => [baseline, picture],
            };
            Way { from, to, order, step: self.step.of(orders[i].len()), target: case.targets[i] }
        };
        curves(engine, case.graph, Score::Prob, &(0..case.x.len()).map(way).collect::<Vec<_>>())
    }

    pub fn measure(&self, engine: &mut Engine, case: &Case<'_>, direction: DeletionDirection) -> Result<Vec<Readings>> {
        let planes = case.planes(self.reduction)?;
        let flat: Vec<bool> = planes.iter().map(is_flat).collect();
        if flat.iter().all(|&flat| flat) {
            return Ok(vec![vec![None]; planes.len()]);
        }
        let curves = self.curves(engine, case, &planes, direction)?;
        Ok(without(curves.iter().map(|curve| vec![Some(area(curve))]).collect(), &flat))
    }
}

struct Deletion(Pixels);

impl Metric for Deletion {
    fn measure(&self, engine: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        self.0.measure(engine, case, DeletionDirection::FromPicture)
    }
}
