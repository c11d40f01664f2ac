//! Sparseness (Chalasani, Chen, Chowdhury, Wu, Jha 2020).

use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, reduce};
use crate::engine::Engine;
use crate::error::Result;
use crate::map::Reduction;
use crate::reliability::concentration::gini;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "sparseness",
    title: "Sparseness",
    paper: "Chalasani, Chen, Chowdhury, Wu, Jha 2020: Concise explanations of neural networks using adversarial training, ICML",
    summary: "Gini index of the map's magnitudes, one a pixel: 0 where all are equal, near 1 where one has it all; none where all are 0",
    parameters: &[reduce("channel_sum")],
    outputs: &[Output { key: "sparseness", better: Better::Higher }],
    needs: Needs::Maps,
    build: |values| Ok(Box::new(Sparseness(values.parse("reduce")?))),
};

struct Sparseness(Reduction);

impl Metric for Sparseness {
    fn measure(&self, _: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        Ok(case.reduced(self.0)?.iter().map(|map| vec![gini(&map.to_f64())]).collect())
    }
}
