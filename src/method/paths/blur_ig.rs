//! Blur integrated gradients (Xu et al. 2020): the gradient integrated along the path from the blurred to the sharp
//! picture.

use crate::engine::{self, Batch, Engine, Job};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::map::{Map, MapDims, Sign, Space};
use crate::method::shared::from_baseline::{self, Gaps};
use crate::method::{Entry, Method, Parameter, When, numbers_of};
use crate::perturb::baseline::blur;
use crate::program::Score;
use crate::tensor::{Precision, Shape, Tensor, differ_by_rounding};

pub(crate) const ENTRY: Entry = Entry {
    id: "blur_ig",
    aliases: &[],
    title: "Blur integrated gradients",
    paper: "Xu, Venugopalan, Sundararajan 2020: Attribution in scale and space, CVPR, equation 4",
    summary: "Σ_k g(L((k + ½)σ/n)) ∘ (L(kσ/n) − L((k + 1)σ/n)), L(s) the picture blurred by a Gaussian of s pixels",
    passes: "steps forward, steps backward; 2 forward with gap=yes",
    parameters: &[
        Parameter { key: "steps", unit: "points", default: "50", help: "n, points on the path" },
        Parameter {
            key: "sigma",
            unit: "pixels|auto",
            default: "auto",
            help: "of the strongest blur, where the path starts; auto is a sixth of the larger side, the paper's 50 of 299",
        },
        from_baseline::GAP,
    ],
    promises: &from_baseline::PROMISES,
    draws: When::Never,
    caution: "compares with the blurred picture: its mean colour gets nothing. Our choices: equal steps of σ, the gradient at \
              the middle of each, whole differences of the blurred pictures in place of derivatives, edges repeated",
    build: |values, context| {
        let steps = values.count("steps")?;
        if steps == 0 {
            return Err(Error::settings("blur_ig:steps=0: at least one step is needed"));
        }
        let sigma = match values.text("sigma")? {
            "auto" => None,
            _ => match values.parse::<f64>("sigma")? {
                sigma if sigma > 0.0 && sigma.is_finite() => Some(sigma),
                sigma => {
                    return Err(Error::settings(format!("blur_ig:sigma={sigma}: not a positive number of pixels")));
                }
            },
        };
        let gaps = Gaps::new(ENTRY.id, values)?;
        Ok(Box::new(BlurIg { score: context.score, steps, sigma, gaps }))
    },
};

struct BlurIg {
    score: Score,
    steps: usize,
    sigma: Option<f64>,
    gaps: Gaps,
}

impl BlurIg {
    /// Sigma of the strongest blur.
    fn strongest(&self, shape: Shape) -> Result<f64> {
        let side = shape.h.max(shape.w);
        if shape.plane() == 1 {
            return Err(Error::shape(format!("blur_ig needs a picture; an input of {shape} cannot be blurred")));
        }
        let sigma = self.sigma.unwrap_or(side as f64 / 6.0);
        if sigma > side as f64 {
            return Err(Error::shape(format!(
                "blur_ig:sigma={sigma:?} blurs over more than the larger side of {shape}"
            )));
        }
        Ok(sigma)
    }
}

/// Path points per call, which bounds the memory however many steps there are.
const CHUNK: usize = 16;

impl Method for BlurIg {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(numbers_of(graph))
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        engine::check(graph, x, targets)?;
        let shape = x.shape();
        let sigma = self.strongest(shape)?;
        let precision = engine.describe().precision;
        let job = Job::gradient(self.score);
        let (mut maps, mut starts) = (Vec::with_capacity(x.len()), Vec::with_capacity(x.len()));
        let mut still = vec![true; x.len()];
        for (i, &target) in targets.iter().enumerate() {
            let picture = x.items()[i].to_f64();
            let at = |k: f64| {
                if k == 0.0 { picture.to_vec() } else { blur(&picture, shape, sigma * k / self.steps as f64) }
            };
            let mut map = vec![0.0; shape.len()];
            let mut sharp = at(0.0);
            for first in (0..self.steps).step_by(CHUNK) {
                let (mut points, mut ways) = (Vec::new(), Vec::new());
                for k in first..self.steps.min(first + CHUNK) {
                    points.push(Tensor::rounded(shape.dims(), at(k as f64 + 0.5), precision)?);
                    let blurred = at((k + 1) as f64);
                    ways.push(sharp.iter().zip(&blurred).map(|(a, b)| a - b).collect::<Vec<f64>>());
                    // Blurring uses double precision, whatever the engine's precision.
                    let pairs = picture.iter().copied().zip(blurred.iter().copied());
                    still[i] = still[i] && differ_by_rounding(pairs, Precision::F64);
                    sharp = blurred;
                }
                let all = vec![target; points.len()];
                let gradients = engine.explain(graph, &job, &Batch::of(points)?, &all)?.maps;
                for (gradient, way) in gradients.iter().zip(&ways) {
                    let gradient = gradient.to_f64();
                    map.iter_mut().zip(gradient.iter().zip(way)).for_each(|(m, (g, d))| *m += g * d);
                }
            }
            starts.push(Tensor::rounded(shape.dims(), sharp, precision)?);
            maps.push(map);
        }
        let sums: Vec<f64> = maps.iter().map(|map| map.iter().sum()).collect();
        let differences =
            |engine: &mut Engine| from_baseline::differences(engine, graph, self.score, x, &starts, targets);
        let gaps = self.gaps.of(engine, sums, differences)?;
        let maps = maps.into_iter().zip(gaps).zip(targets).zip(still).map(|(((map, gap), &target), still)| {
            let values = Tensor::rounded(shape.dims(), map, precision)?;
            let map = Map { gap, ..Map::new(values, Sign::Signed, Space::Input, target, ENTRY.id) };
            Ok(if still { map.blank() } else { map })
        });
        maps.collect()
    }
}
