//! The energy-based pointing game (Wang, Wang, Du, Yang, Zhang, Ding, Mardziel, Hu 2020).

use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, reduce};
use crate::engine::Engine;
use crate::error::Result;
use crate::map::Reduction;
use crate::reliability::localisation::positive_share;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "energy_in_box",
    title: "Energy in the box",
    paper: "Wang, Wang, Du, Yang, Zhang, Ding, Mardziel, Hu 2020: Score-CAM, CVPR workshops, section 4.3",
    summary: "share of the map's positive numbers, summed, that lies in the boxes of the explained class; none where no \
              number is positive",
    parameters: &[reduce("channel_sum")],
    outputs: &[Output { key: "energy_in_box", better: Better::Higher }],
    needs: Needs::Regions,
    build: |values| Ok(Box::new(EnergyInBox(values.parse("reduce")?))),
};

struct EnergyInBox(Reduction);

impl Metric for EnergyInBox {
    fn measure(&self, _: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        let (regions, planes, w) = (case.regions(ENTRY.id)?, case.planes(self.0)?, case.x.shape().w);
        let one = |(i, plane): (usize, &crate::tensor::Tensor)| {
            let boxes = case.boxes(regions, i);
            vec![(!boxes.is_empty()).then(|| positive_share(&plane.to_f64(), w, &boxes)).flatten()]
        };
        Ok(planes.iter().enumerate().map(one).collect())
    }
}
