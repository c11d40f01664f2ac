//! Insertion (Petsiuk, Das, Saenko 2018): how quickly the class appears as the most important pixels are added.

use super::deletion::{DeletionDirection, Pixels, STEP};
use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, reduce};
use crate::engine::Engine;
use crate::error::Result;
use crate::method::Parameter;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "insertion",
    title: "Insertion",
    paper: "Petsiuk, Das, Saenko 2018: RISE: Randomized input sampling for explanation of black-box models, BMVC",
    summary: "area under the target's softmax probability while pixels come back to a baseline, the most important first; \
              the axis runs from 0 to 1 in equal steps; none where the map is the same everywhere",
    parameters: &[
        STEP,
        Parameter {
            key: "baseline",
            unit: "zero|black|white|mean|noise|value:V|blur:SIGMA",
            default: "blur:5",
            help: "what pixels come back to; the paper blurs with a standard deviation of 5 pixels in a window of 11 and \
                   pads with zeros, here the blur is cut at 4 SIGMA and repeats the edge",
        },
        reduce("channel_sum"),
    ],
    outputs: &[Output { key: "insertion", better: Better::Higher }],
    needs: Needs::Maps,
    build: |values| Ok(Box::new(Insertion(Pixels::new(values)?))),
};

struct Insertion(Pixels);

impl Metric for Insertion {
    fn measure(&self, engine: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        self.0.measure(engine, case, DeletionDirection::ToPicture)
    }
}
