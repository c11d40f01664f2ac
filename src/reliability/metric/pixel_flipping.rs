//! Pixel flipping: see [`crate::reliability::pixel_flipping()`], which gives the curve.

use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, baseline, is_flat, without};
use crate::engine::Engine;
use crate::error::Result;
use crate::method::Parameter;
use crate::perturb::baseline::Baseline;
use crate::reliability::pixel_flipping;
use crate::reliability::removal::{Amount, area};

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "pixel_flipping",
    title: "Pixel flipping",
    paper: "Bach, Binder, Montavon, Klauschen, Müller, Samek 2015: On pixel-wise explanations for non-linear classifier \
            decisions by layer-wise relevance propagation, PLOS ONE; as in Hedström et al. 2023: Quantus, JMLR",
    summary: "area under the target's softmax probability after each step of elements (channels of pixels) set to a \
              baseline, the largest in the map first, the untouched picture left out; the axis runs from 0 to 1 (Quantus \
              counts it in steps); none where the map is the same everywhere",
    parameters: &[
        Parameter {
            key: "features_in_step",
            unit: "elements or PERCENT%",
            default: "1%",
            help: "elements of a step, or their share; a map without channels speaks for each of them, and of equal \
                   elements the first in C order goes first",
        },
        Parameter {
            key: "baseline",
            unit: "zero|black|white|mean|noise|value:V|blur:SIGMA",
            default: "black",
            help: "what is left of an element; black is the preprocessed 0 (in Quantus the picture's smallest number)",
        },
    ],
    outputs: &[Output { key: "pixel_flipping", better: Better::Lower }],
    needs: Needs::Maps,
    build: |values| {
        Ok(Box::new(PixelFlipping { step: values.parse("features_in_step")?, baseline: baseline(values, "baseline")? }))
    },
};

struct PixelFlipping {
    step: Amount,
    baseline: Baseline,
}

impl Metric for PixelFlipping {
    fn measure(&self, engine: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        case.check()?;
        let baselines = self.baseline.tensors(case.x, case.preprocess, None, case.seed)?;
        let step = self.step.of(case.x.shape().len());
        let curves = pixel_flipping(engine, case.graph, [case.x.items(), &baselines], case.maps, step)?;
        let flat: Vec<bool> = case.maps.iter().map(|map| is_flat(&map.values)).collect();
        Ok(without(curves.iter().map(|curve| vec![Some(area(curve))]).collect(), &flat))
    }
}
