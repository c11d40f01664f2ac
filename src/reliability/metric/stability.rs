//! `S_S` under noise: see [`crate::reliability::stability`], which also compares with pictures moved in other ways.

use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, reduce, within, without};
use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::method::Parameter;
use crate::random::Stream;
use crate::reliability::draws::{MetricDraws, Noise, sample};
use crate::reliability::stability::{Comparison, Explained, Stability, stability};

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "stability",
    title: "Stability S_S",
    paper: "Lu, Guo, Xing, Noble 2021: DANCE: Enhancing saliency maps using decoys, ICML; top-k and mass centre as \
            Ghorbani, Abid, Zou 2019: Interpretation of neural networks is fragile, AAAI",
    summary: "‖E(x) − E(x̂)‖₂ / ‖x − x̂‖₂ for noisy x̂, the mean over n of them; how much of the map's top stays, the rank \
              correlation of the maps and how far the mass centre moves in pixels; none where the map is 0 everywhere, nor top and \
              correlation where a map is the same everywhere",
    parameters: &[
        Parameter { key: "n", unit: "copies", default: "4", help: "noisy copies, each explained anew" },
        Parameter {
            key: "noise",
            unit: "gaussian|uniform",
            default: "gaussian",
            help: "normal deviates, or uniform within ± the size",
        },
        Parameter {
            key: "size",
            unit: "share of max x − min x",
            default: "0.02",
            help: "standard deviation, or half the width, of the noise; this project's own choice",
        },
        Parameter {
            key: "scale",
            unit: "paper|raw",
            default: "paper",
            help: "paper scales maps as S_F does, so that methods of different units compare; raw leaves them as they are",
        },
        Parameter { key: "k", unit: "share of the pixels", default: "0.1", help: "how many are a map's top" },
        reduce("channel_mean_abs"),
    ],
    outputs: &[
        Output { key: "stability", better: Better::Lower },
        Output { key: "stability_top_k", better: Better::Higher },
        Output { key: "stability_spearman", better: Better::Higher },
        Output { key: "stability_mass_shift", better: Better::Lower },
    ],
    needs: Needs::Maps,
    build: |values| {
        let n = values.count("n")?;
        if n == 0 {
            return Err(Error::settings(format!("{values}: there must be at least 1 copy")));
        }
        Ok(Box::new(UnderNoise {
            n,
            noise: values.parse("noise")?,
            size: within(values, "size", |v| v > 0.0 && v.is_finite(), "a finite number above 0")?,
            how: Comparison {
                scale: values.parse("scale")?,
                k: within(values, "k", |v| v > 0.0 && v <= 1.0, "a share above 0 and up to 1")?,
                reduction: values.parse("reduce")?,
            },
        }))
    },
};

struct UnderNoise {
    n: usize,
    noise: Noise,
    size: f64,
    how: Comparison,
}

impl Metric for UnderNoise {
    fn measure(&self, engine: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        case.check()?;
        let draws = MetricDraws { stream: Stream::Stability, seed: case.seed };
        let &Case { graph, method, x, targets, maps, .. } = case;
        let explained = Explained { graph, method, x, targets, maps };
        let mut rounds = Vec::with_capacity(self.n);
        for k in 0..self.n {
            let k = sample(k)?;
            let noisy = (0..x.len()).map(|i| draws.noisy(self.noise, x, i, k, self.size)).collect::<Result<_>>()?;
            rounds.push(stability(engine, &explained, &Batch::of(noisy)?, &self.how)?);
        }
        let readings = |i: usize| {
            let mean = |of: fn(&Stability) -> Option<f64>| mean(rounds.iter().map(|round| of(&round[i])));
            vec![mean(|s| s.ratio), mean(Stability::top), mean(|s| s.spearman), mean(|s| s.mass_shift)]
        };
        Ok(without((0..x.len()).map(readings).collect(), &case.blank()))
    }
}

/// The mean of the numbers that are present; `None` without any.
fn mean(numbers: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let (sum, n) = numbers.flatten().fold((0.0, 0), |(sum, n), v| (sum + v, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}
