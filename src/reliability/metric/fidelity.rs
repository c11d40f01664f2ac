//! `S_F`: see [`crate::reliability::fidelity()`].

use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, is_flat, without};
use crate::engine::Engine;
use crate::error::Result;
use crate::map::Reduction;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "fidelity",
    title: "Fidelity S_F",
    paper: "Lu, Guo, Xing, Noble 2021: DANCE: Enhancing saliency maps using decoys, ICML",
    summary: "−log p(E ∘ x) + log p(mean(E) · x), E the map's largest magnitude over the channels, winsorised at the 95th \
              percentile, scaled to 0 to 1; x as the net sees it; none where E is the same everywhere",
    parameters: &[],
    outputs: &[Output { key: "fidelity", better: Better::Lower }],
    needs: Needs::Maps,
    build: |_| Ok(Box::new(Fidelity)),
};

struct Fidelity;

impl Metric for Fidelity {
    fn measure(&self, engine: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        // Refuses maps in another space; paper_scale itself reduces the channels.
        let planes = case.planes(Reduction::MaxAbs)?;
        let flat: Vec<bool> = planes.iter().map(is_flat).collect();
        let found = crate::reliability::fidelity(engine, case.graph, case.x, case.maps)?;
        Ok(without(found.into_iter().map(|v| vec![Some(v)]).collect(), &flat))
    }
}
