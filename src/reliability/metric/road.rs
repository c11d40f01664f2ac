//! ROAD (Rong, Leemann, Borisov, Kasneci, Kasneci 2022): pixels are removed such that the removal is not visible.

use super::{Better, Case, Metric, MetricEntry, Needs, Output, Readings, is_flat, reduce, without};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::map::Reduction;
use crate::method::{Parameter, ParameterValues};
use crate::program::Score;
use crate::random::Stream;
use crate::reliability::draws::{MetricDraws, Noise, sample};
use crate::reliability::imputation::impute;
use crate::reliability::ranking::ranking;
use crate::reliability::scores::{Scores, together};
use crate::tensor::Tensor;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    id: "road",
    title: "ROAD",
    paper: "Rong, Leemann, Borisov, Kasneci, Kasneci 2022: A consistent and efficient evaluation strategy for attribution \
            methods, ICML",
    summary: "the target's softmax probability, the mean over shares of pixels, after removing the most relevant (morf) or \
              the least relevant ones (lerf): each becomes the weighted mean of its neighbours, removed ones among them, and \
              noise; and (lerf − morf)/2; none where the map is the same everywhere. The paper's figure is the accuracy over a data \
              set",
    parameters: &[
        Parameter {
            key: "shares",
            unit: "percentages, joined by +",
            default: "10+20+30+40+50+60+70+80+90",
            help: "how much is removed, each below 100; written in one word: 10+50",
        },
        Parameter {
            key: "noise",
            unit: "in the net's space",
            default: "0.01",
            help: "standard deviation of the noise on removed pixels",
        },
        reduce("channel_sum"),
    ],
    outputs: &[
        Output { key: "road", better: Better::Higher },
        Output { key: "road_morf", better: Better::Lower },
        Output { key: "road_lerf", better: Better::Higher },
    ],
    needs: Needs::Maps,
    build: |values| {
        let shares = shares(values)?;
        Ok(Box::new(Road { shares, noise: values.not_negative("noise")?, reduction: values.parse("reduce")? }))
    },
};

/// Shares from 0 to 1.
fn shares(values: &ParameterValues) -> Result<Vec<f64>> {
    let one = |part: &str| {
        let percent = part.parse::<f64>().ok().filter(|p| *p > 0.0 && *p < 100.0);
        percent.map(|p| p / 100.0).ok_or_else(|| {
            Error::settings(format!("{values}: shares={part} is not a percentage above 0 and below 100"))
        })
    };
    values.text("shares")?.split('+').map(one).collect()
}

struct Road {
    shares: Vec<f64>,
    noise: f64,
    reduction: Reduction,
}

impl Road {
    /// Picture `i` with some pixels imputed; `draw` selects the noise.
    fn without(&self, case: &Case<'_>, i: usize, pixels: &[u32], draw: usize) -> Result<Tensor> {
        let (picture, shape) = (&case.x.items()[i], case.x.shape());
        let mut removed = vec![false; shape.plane()];
        pixels.iter().for_each(|&p| removed[p as usize] = true);
        let mut values = impute(&picture.to_f64(), [shape.h, shape.w], &removed)?;
        let noise = MetricDraws { stream: Stream::Road, seed: case.seed }.noise(
            Noise::Gaussian,
            case.x.keys()[i],
            sample(draw)?,
            values.len(),
        );
        for (e, v) in values.iter_mut().enumerate().filter(|(e, _)| removed[e % shape.plane()]) {
            *v += self.noise * f64::from(noise[e]);
        }
        Tensor::rounded(picture.dims(), values, picture.precision())
    }
}

impl Metric for Road {
    fn measure(&self, engine: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>> {
        let planes = case.planes(self.reduction)?;
        let flat: Vec<bool> = planes.iter().map(is_flat).collect();
        if flat.iter().all(|&flat| flat) {
            return Ok(vec![vec![None; ENTRY.outputs.len()]; planes.len()]);
        }
        let orders: Vec<Vec<u32>> = planes.iter().map(|p| ranking(&p.to_f64())).collect();
        let total = case.x.shape().plane();
        let shares = self.shares.len();
        // By picture, end of the order and share.
        let jobs: Vec<(usize, usize)> =
            (0..case.x.len()).flat_map(|i| (0..2 * shares).map(move |draw| (i, draw))).collect();
        let one = |(i, draw): (usize, usize)| {
            // At least one pixel stays, if there are two.
            let n = ((self.shares[draw % shares] * total as f64).round() as usize).clamp(1, (total - 1).max(1));
            let pixels = if draw < shares { &orders[i][..n] } else { &orders[i][total - n..] };
            self.without(case, i, pixels, draw)
        };
        let room = together(engine, case.x.shape());
        let mut scores = Scores::new(engine, case.graph, Score::Prob);
        for jobs in jobs.chunks(room) {
            // Each system is solved independently, so the results do not depend on threads.
            let pictures = scores.spread(jobs.to_vec(), one);
            for (&(i, _), picture) in jobs.iter().zip(pictures) {
                scores.push(picture?, case.targets[i])?;
            }
        }
        let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len() as f64;
        let reading = |scores: &[f64]| {
            let (morf, lerf) = (mean(&scores[..shares]), mean(&scores[shares..]));
            vec![Some((lerf - morf) / 2.0), Some(morf), Some(lerf)]
        };
        Ok(without(scores.finish()?.chunks(2 * shares).map(reading).collect(), &flat))
    }
}
