//! Weakly supervised localisation (Zhou, Khosla, Lapedriza, Oliva, Torralba 2016).

use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, reduce, within};
use crate::engine::Engine;
use crate::error::Result;
use crate::map::Reduction;
use crate::method::Parameter;
use crate::reliability::localisation::largest_component;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "wsol",
    title: "Weakly supervised localisation",
    paper: "Zhou, Khosla, Lapedriza, Oliva, Torralba 2016: Learning deep features for discriminative localization, CVPR",
    summary: "1 where the box around the largest 4-connected component of the pixels of at least a share of the map's \
              maximum overlaps a box of the explained class by an intersection over union above 0.5; and the largest such \
              overlap. A map without a positive number has no box: 0",
    parameters: &[
        Parameter {
            key: "threshold",
            unit: "share of the maximum",
            default: "0.2",
            help: "from which number on a pixel counts; the paper's",
        },
        reduce("channel_sum"),
    ],
    outputs: &[Output { key: "wsol", better: Better::Higher }, Output { key: "wsol_iou", better: Better::Higher }],
    needs: Needs::Regions,
    build: |values| {
        Ok(Box::new(Wsol {
            threshold: within(values, "threshold", |v| (0.0..=1.0).contains(&v), "a share from 0 to 1")?,
            reduction: values.parse("reduce")?,
        }))
    },
};

/// Overlap from which an object counts as found (Russakovsky et al. 2015).
const FOUND: f64 = 0.5;

struct Wsol {
    threshold: f64,
    reduction: Reduction,
}

impl Metric for Wsol {
    fn measure(&self, _: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        let (regions, planes, shape) = (case.regions(ENTRY.id)?, case.planes(self.reduction)?, case.x.shape());
        let one = |(i, plane): (usize, &crate::tensor::Tensor)| {
            let boxes = case.boxes(regions, i);
            if boxes.is_empty() {
                return vec![None, None];
            }
            let found = largest_component(&plane.to_f64(), [shape.h, shape.w], self.threshold);
            let iou = found.map_or(0.0, |found| boxes.iter().map(|b| b.iou(&found)).fold(0.0, f64::max));
            vec![Some(f64::from(u8::from(iou > FOUND))), Some(iou)]
        };
        Ok(planes.iter().enumerate().map(one).collect())
    }
}
