//! The pointing game (Zhang, Bargal, Lin, Brandt, Shen, Sclaroff 2016).

use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, reduce};
use crate::engine::Engine;
use crate::error::Result;
use crate::map::Reduction;
use crate::method::Parameter;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "pointing",
    title: "Pointing game",
    paper: "Zhang, Bargal, Lin, Brandt, Shen, Sclaroff 2016: Top-down neural attention by excitation backprop, ECCV",
    summary: "1 where the map's largest pixel lies in a box of the explained class, else 0; of several equal ones the share \
              that does, so a constant map gets the boxes' share of the picture",
    parameters: &[
        Parameter {
            key: "tolerance",
            unit: "pixels",
            default: "0",
            help: "how far beside a box still counts; the paper allows 15 on pictures of their own size",
        },
        reduce("channel_sum"),
    ],
    outputs: &[Output { key: "pointing", better: Better::Higher }],
    needs: Needs::Regions,
    build: |values| {
        Ok(Box::new(Pointing { tolerance: values.not_negative("tolerance")?, reduction: values.parse("reduce")? }))
    },
};

struct Pointing {
    tolerance: f64,
    reduction: Reduction,
}

impl Metric for Pointing {
    fn measure(&self, _: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        let (regions, planes, w) = (case.regions(ENTRY.id)?, case.planes(self.reduction)?, case.x.shape().w);
        let one = |(i, plane): (usize, &crate::tensor::Tensor)| {
            let (boxes, values) = (case.boxes(regions, i), plane.to_f64());
            let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let (mut all, mut hits) = (0u32, 0u32);
            for (at, _) in values.iter().enumerate().filter(|(_, v)| **v == largest) {
                all += 1;
                hits += u32::from(boxes.iter().any(|b| b.is_near(at / w, at % w, self.tolerance)));
            }
            vec![(!boxes.is_empty()).then(|| f64::from(hits) / f64::from(all))]
        };
        Ok(planes.iter().enumerate().map(one).collect())
    }
}
