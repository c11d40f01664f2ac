//! The grid pointing game (Böhle, Fritz, Schiele 2021).

use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, plane, reduce};
use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::map::Reduction;
use crate::reliability::localisation::positive_share;
use crate::reliability::scores::together;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "grid_pointing",
    title: "Grid pointing game",
    paper: "Böhle, Fritz, Schiele 2021: Convolutional dynamic alignment networks for interpretable classifications, CVPR",
    summary: "for each class of a mosaic, explained anew, the share of the map's positive numbers, summed, that lies in the \
              class's cell; the mean over the classes whose map has a positive number",
    parameters: &[reduce("channel_sum")],
    outputs: &[Output { key: "grid_pointing", better: Better::Higher }],
    needs: Needs::Mosaic,
    build: |values| Ok(Box::new(GridPointing(values.parse("reduce")?))),
};

struct GridPointing(Reduction);

impl Metric for GridPointing {
    fn measure(&self, engine: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        let (regions, w) = (case.regions(ENTRY.id)?, case.x.shape().w);
        // Each class of each picture once, even if it has several cells.
        let mut queries: Vec<(usize, usize)> =
            regions.iter().enumerate().flat_map(|(i, list)| list.iter().map(move |r| (i, r.class))).collect();
        queries.sort_unstable();
        queries.dedup();
        if let Some(i) = (0..regions.len()).find(|&i| queries.iter().filter(|q| q.0 == i).count() < 2) {
            return Err(Error::input(format!("picture {i} is not a mosaic: {} needs two classes at least", ENTRY.id)));
        }
        let mut shares = vec![Vec::new(); regions.len()];
        for queries in queries.chunks(together(engine, case.x.shape())) {
            let items = queries.iter().map(|&(i, _)| case.x.items()[i].clone()).collect();
            let classes: Vec<usize> = queries.iter().map(|&(_, class)| class).collect();
            let maps = case.method.explain(engine, case.graph, &Batch::of(items)?, &classes)?;
            for (&(i, class), map) in queries.iter().zip(&maps) {
                let cells: Vec<_> = regions[i].iter().filter(|r| r.class == class).map(|r| r.bounds).collect();
                shares[i].extend(positive_share(&plane(map, case.x, self.0)?.to_f64(), w, &cells));
            }
        }
        let mean = |s: &Vec<f64>| (!s.is_empty()).then(|| s.iter().sum::<f64>() / s.len() as f64);
        Ok(shares.iter().map(|s| vec![mean(s)]).collect())
    }
}
