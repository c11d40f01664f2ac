//! Sensitivity-n (Ancona, Ceolini, Öztireli, Gross 2018).

use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, SCORE, baseline, score};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::map::Reduction;
use crate::method::Parameter;
use crate::perturb::baseline::Baseline;
use crate::program::Score;
use crate::random::Stream;
use crate::reliability::draws::{MetricDraws, sample};
use crate::reliability::removal::{Amount, replaced};
use crate::reliability::scores::Scores;
use crate::reliability::similarity::correlation;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "sensitivity_n",
    title: "Sensitivity-n",
    paper: "Ancona, Ceolini, Öztireli, Gross 2018: Towards better understanding of gradient-based attribution methods for \
            deep neural networks, ICLR",
    summary: "Pearson's correlation, over random sets of n pixels, of the set's sum of attributions (all channels) and the \
              score's fall when the set is replaced by a baseline; none where either is the same for all sets",
    parameters: &[
        Parameter {
            key: "n",
            unit: "pixels or PERCENT%",
            default: "10%",
            help: "size of the sets; the paper draws the curve over n from one pixel to 80% of them",
        },
        Parameter { key: "subsets", unit: "sets", default: "100", help: "how many are drawn" },
        Parameter {
            key: "baseline",
            unit: "zero|black|white|mean|noise|value:V|blur:SIGMA",
            default: "zero",
            help: "what replaces a pixel; zero, in the net's space, is the paper's",
        },
        SCORE,
    ],
    outputs: &[Output { key: "sensitivity_n", better: Better::Higher }],
    needs: Needs::Maps,
    build: |values| {
        let subsets = values.count("subsets")?;
        if subsets < 2 {
            return Err(Error::settings(format!("{values}: a correlation needs at least 2 subsets")));
        }
        Ok(Box::new(SensitivityN {
            n: values.parse("n")?,
            subsets,
            baseline: baseline(values, "baseline")?,
            score: score(values)?,
        }))
    },
};

struct SensitivityN {
    n: Amount,
    subsets: usize,
    baseline: Baseline,
    score: Score,
}

impl Metric for SensitivityN {
    fn measure(&self, engine: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        let planes = case.planes(Reduction::Sum)?;
        let baselines = self.baseline.tensors(case.x, case.preprocess, None, case.seed)?;
        let draws = MetricDraws { stream: Stream::SensitivityN, seed: case.seed };
        let total = case.x.shape().plane();
        let n = self.n.of(total);
        let mut sums = Vec::with_capacity(case.x.len() * self.subsets);
        let mut scores = Scores::new(engine, case.graph, self.score);
        for (i, plane) in planes.iter().enumerate() {
            for k in 0..self.subsets {
                let set = draws.subset(case.x.keys()[i], sample(k)?, total, n);
                sums.push(set.iter().map(|&p| plane.at(p as usize)).sum::<f64>());
                scores.push(replaced(&case.x.items()[i], &baselines[i], &set)?, case.targets[i])?;
            }
        }
        // The untouched picture's score is a constant offset, which a correlation ignores.
        let falls: Vec<f64> = scores.finish()?.into_iter().map(|s| -s).collect();
        let pairs = sums.chunks(self.subsets).zip(falls.chunks(self.subsets));
        Ok(pairs.map(|(sums, falls)| vec![correlation(sums, falls)]).collect())
    }
}
