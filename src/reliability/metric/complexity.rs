//! Complexity (Bhatt, Weller, Moura 2020).

use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, reduce};
use crate::engine::Engine;
use crate::error::Result;
use crate::map::Reduction;
use crate::reliability::concentration::entropy;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "complexity",
    title: "Complexity",
    paper: "Bhatt, Weller, Moura 2020: Evaluating and aggregating feature-based model explanations, IJCAI",
    summary: "entropy in nats of the map's magnitudes, one a pixel, as shares of their sum: ln n where all n are equal; none where all are 0",
    parameters: &[reduce("channel_sum")],
    outputs: &[Output { key: "complexity", better: Better::Lower }],
    needs: Needs::Maps,
    build: |values| Ok(Box::new(Complexity(values.parse("reduce")?))),
};

struct Complexity(Reduction);

impl Metric for Complexity {
    fn measure(&self, _: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        Ok(case.reduced(self.0)?.iter().map(|map| vec![entropy(&map.to_f64())]).collect())
    }
}
