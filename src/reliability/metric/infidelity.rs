//! Infidelity (Yeh, Hsieh, Suggala, Inouye, Ravikumar 2019).

use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, SCORE, plane, score, within, without};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::map::{Map, Reduction};
use crate::method::Parameter;
use crate::program::Score;
use crate::random::Stream;
use crate::reliability::draws::{MetricDraws, Noise, sample};
use crate::reliability::scores::Scores;
use crate::tensor::Tensor;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "infidelity",
    title: "Infidelity",
    paper: "Yeh, Hsieh, Suggala, Inouye, Ravikumar 2019: On the (in)fidelity and sensitivity of explanations, NeurIPS",
    summary: "mean over noise I of (⟨I, E⟩ − (f(x) − f(x − I)))²; scaled: the same with the map times the number that \
              makes it least, for maps whose units are not those of a gradient; none where the map is 0 everywhere",
    parameters: &[
        Parameter { key: "n", unit: "copies", default: "100", help: "draws of the noise; the paper has 1000" },
        Parameter {
            key: "sigma",
            unit: "share of max x − min x",
            default: "0.1",
            help: "standard deviation of the normal noise; this project's own choice",
        },
        SCORE,
    ],
    outputs: &[
        Output { key: "infidelity", better: Better::Lower },
        Output { key: "infidelity_scaled", better: Better::Lower },
    ],
    needs: Needs::Maps,
    build: |values| {
        let n = values.count("n")?;
        if n == 0 {
            return Err(Error::settings(format!("{values}: there must be at least 1 draw")));
        }
        let sigma = within(values, "sigma", |v| v > 0.0 && v.is_finite(), "a finite number above 0")?;
        Ok(Box::new(Infidelity { n, sigma, score: score(values)? }))
    },
};

struct Infidelity {
    n: usize,
    sigma: f64,
    score: Score,
}

/// `⟨x − moved, E⟩`; a map without channels applies to every channel.
fn product(map: &Map, x: &Tensor, moved: &Tensor) -> f64 {
    let n = map.values.len();
    (0..x.len()).map(|e| (x.at(e) - moved.at(e)) * map.values.at(e % n)).sum()
}

impl Metric for Infidelity {
    fn measure(&self, engine: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        case.check()?;
        let draws = MetricDraws { stream: Stream::Infidelity, seed: case.seed };
        let mut products = Vec::with_capacity(self.n * case.x.len());
        let mut scores = Scores::new(engine, case.graph, self.score);
        for (i, (x, map)) in case.x.items().iter().zip(case.maps).enumerate() {
            // Refuses maps in another space; channels are not reduced here.
            plane(map, case.x, Reduction::Sum)?;
            scores.push(x.clone(), case.targets[i])?;
            for k in 0..self.n {
                let moved = draws.noisy(Noise::Gaussian, case.x, i, sample(k)?, self.sigma)?;
                products.push(product(map, x, &moved));
                scores.push(moved, case.targets[i])?;
            }
        }
        let scores = scores.finish()?;
        let reading = |(scores, products): (&[f64], &[f64])| {
            let falls: Vec<f64> = scores[1..].iter().map(|s| scores[0] - s).collect();
            let miss = |factor: f64| {
                let squares = products.iter().zip(&falls).map(|(p, fall)| (factor * p - fall).powi(2));
                squares.sum::<f64>() / self.n as f64
            };
            let squares: f64 = products.iter().map(|p| p * p).sum();
            let shared: f64 = products.iter().zip(&falls).map(|(p, fall)| p * fall).sum();
            // A map of zeros stays one.
            let best = if squares > 0.0 { shared / squares } else { 0.0 };
            vec![Some(miss(1.0)), Some(miss(best))]
        };
        Ok(without(scores.chunks(self.n + 1).zip(products.chunks(self.n)).map(reading).collect(), &case.blank()))
    }
}
