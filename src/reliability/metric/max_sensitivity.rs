//! Max-sensitivity (Yeh, Hsieh, Suggala, Inouye, Ravikumar 2019).

use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, within};
use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::method::Parameter;
use crate::random::Stream;
use crate::reliability::draws::{MetricDraws, Noise, sample};
use crate::reliability::stability::distance;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "max_sensitivity",
    title: "Max-sensitivity",
    paper: "Yeh, Hsieh, Suggala, Inouye, Ravikumar 2019: On the (in)fidelity and sensitivity of explanations, NeurIPS",
    summary: "largest (and mean) ‖E(x + δ) − E(x)‖₂ / ‖E(x)‖₂ over n draws of uniform noise |δ| ≤ radius, explained anew; \
              the paper does not divide, Captum and Quantus do. None where the map is 0 everywhere",
    parameters: &[
        Parameter { key: "n", unit: "copies", default: "10", help: "noisy copies, each explained anew" },
        Parameter {
            key: "radius",
            unit: "share of max x − min x",
            default: "0.02",
            help: "largest change of an element; Captum's default is 0.02 in the net's space",
        },
    ],
    outputs: &[
        Output { key: "max_sensitivity", better: Better::Lower },
        Output { key: "avg_sensitivity", better: Better::Lower },
    ],
    needs: Needs::Maps,
    build: |values| {
        let n = values.count("n")?;
        if n == 0 {
            return Err(Error::settings(format!("{values}: there must be at least 1 copy")));
        }
        let radius = within(values, "radius", |v| v > 0.0 && v.is_finite(), "a finite number above 0")?;
        Ok(Box::new(MaxSensitivity { n, radius }))
    },
};

struct MaxSensitivity {
    n: usize,
    radius: f64,
}

impl Metric for MaxSensitivity {
    fn measure(&self, engine: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        case.check()?;
        let draws = MetricDraws { stream: Stream::MaxSensitivity, seed: case.seed };
        let x = case.x;
        let mut moves = vec![Vec::with_capacity(self.n); x.len()];
        for k in 0..self.n {
            let k = sample(k)?;
            let noisy =
                (0..x.len()).map(|i| draws.noisy(Noise::Uniform, x, i, k, self.radius)).collect::<Result<_>>()?;
            let maps = case.method.explain(engine, case.graph, &Batch::of(noisy)?, case.targets)?;
            for ((moves, before), after) in moves.iter_mut().zip(case.maps).zip(&maps) {
                if before.values.dims() != after.values.dims() {
                    return Err(Error::input(format!(
                        "a map of {:?} where {} makes {:?}",
                        before.values.dims(),
                        after.method,
                        after.values.dims()
                    )));
                }
                if let Some(at) = before.values.first_not_finite() {
                    return Err(Error::input(format!("element {at} of a map is not a finite number")));
                }
                moves.push(distance(&after.values, &before.values));
            }
        }
        let reading = |(moves, map): (&Vec<f64>, &crate::map::Map)| {
            let size = distance(&map.values, &map.values.clone().map(|_| 0.0));
            if size == 0.0 {
                return vec![None, None];
            }
            let largest = moves.iter().copied().fold(0.0, f64::max);
            vec![Some(largest / size), Some(moves.iter().sum::<f64>() / self.n as f64 / size)]
        };
        Ok(moves.iter().zip(case.maps).map(reading).collect())
    }
}
