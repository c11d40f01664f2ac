//! Smooths any method: the mean of its maps over noisy copies (Smilkov et al. 2017 for the gradient).

use crate::device::Perturbation;
use crate::engine::{Batch, Engine, Progress};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::map::{Map, MapDims, Sign, Space};
use crate::method::shared::base::{self, BaseMethod, TOGETHER};
use crate::method::shared::noisy;
use crate::method::{Entry, METHOD, Method, Parameter, Promise, When};
use crate::perturb::noise;
use crate::random::Stream;
use crate::tensor::{Precision, Tensor};

const SHARED: [Parameter; 2] = noisy::parameters("noisy copies");

pub(crate) const ENTRY: Entry = Entry {
    id: "smooth",
    aliases: &[],
    title: "Any method, smoothed",
    paper: "Smilkov, Thorat, Kim, Viégas, Wattenberg 2017: SmoothGrad: removing noise by adding noise, ICML workshop; for any \
            method here",
    summary: "mean of a method's maps over noisy copies; smooth:base=gradient is SmoothGrad",
    passes: "n times the base's",
    parameters: &[
        Parameter {
            key: "base",
            unit: METHOD,
            default: "gradient",
            help: "whose maps are averaged, with its own parameters in parentheses: base=(ig:steps=8); each copy is \
                   explained by itself, so a baseline or layer of the base is the copy's",
        },
        SHARED[0],
        SHARED[1],
    ],
    promises: &[(Promise::NotNegative, When::Of(base::not_negative, "where the base is"))],
    draws: When::Always,
    caution: "what the base gets wrong on every copy stays",
    build: |values, context| {
        Ok(Box::new(SmoothedMethod {
            base: BaseMethod::new("smooth", values, context)?,
            n: values.count("n")?,
            sigma: values.parse("sigma")?,
            seed: context.seed,
        }))
    },
};

/// `(1/n) Σ_k E(x + σ z_k)`, with the draws of SmoothGrad.
struct SmoothedMethod {
    base: BaseMethod,
    n: usize,
    sigma: f64,
    seed: u64,
}

impl Method for SmoothedMethod {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        self.base.map_dims(graph)
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        if targets.len() != x.len() {
            return Err(Error::settings(format!("{} pictures need one class each, got {targets:?}", x.len())));
        }
        let copies = noise::gaussian(x, self.n, self.sigma, self.seed)?;
        let Perturbation::Noise { sigmas, .. } = &copies.perturbation else {
            return Err(Error::device("noise is no noise"));
        };
        let precision = engine.describe().precision;
        let all: Vec<(usize, usize)> =
            (0..x.len()).flat_map(|item| (0..self.n).map(move |copy| (item, copy))).collect();
        let mut means: Vec<Vec<f64>> = vec![Vec::new(); x.len()];
        let (mut signs, mut dims) = (vec![Sign::Signed; x.len()], Vec::new());
        let mut progress = Progress { method: ENTRY.id, done: 0, total: all.len(), objective: None };
        engine.progress(&progress);
        let plane = x.shape().len() * size_of::<f64>();
        let together = engine.together(2 * plane, TOGETHER);
        for chunk in all.chunks(together) {
            let noisy = |&(item, copy): &(usize, usize)| {
                noisy(&x.items()[item], sigmas[item], [self.seed, x.draws()[item].key], copy as u32, precision)
            };
            let classes: Vec<usize> = chunk.iter().map(|&(item, _)| targets[item]).collect();
            // The means, and the copies with their draws.
            let maps = engine.keeping((ENTRY.id, plane * (x.len() + chunk.len())), |engine| {
                let pictures = Batch::of(chunk.iter().map(noisy).collect::<Result<_>>()?)?;
                self.base.explain(engine, graph, &pictures, &classes)
            })?;
            for (&(item, _), map) in chunk.iter().zip(maps) {
                means[item].resize(map.values.len(), 0.0);
                let values = map.values.to_f64();
                means[item].iter_mut().zip(values.iter()).for_each(|(mean, v)| *mean += v / self.n as f64);
                (signs[item], dims) = (map.sign, map.values.dims().to_vec());
            }
            progress.done += chunk.len();
            engine.progress(&progress);
        }
        let map = |((values, sign), &target)| {
            Ok(Map::new(Tensor::rounded(dims.clone(), values, precision)?, sign, Space::Input, target, ENTRY.id))
        };
        means.into_iter().zip(signs).zip(targets).map(map).collect()
    }
}

/// A copy as devices compute it: `x + σ z`, rounded once.
fn noisy(picture: &Tensor, sigma: f64, [seed, key]: [u64; 2], copy: u32, precision: Precision) -> Result<Tensor> {
    let mut z = vec![0f32; picture.len()];
    Stream::Copies.normals(seed, key, copy, &mut z);
    match precision {
        Precision::F32 => {
            let values = picture.to_f32();
            let at = |(x, z): (&f32, &f32)| (sigma as f32).mul_add(*z, *x);
            Tensor::f32(picture.dims(), values.iter().zip(&z).map(at).collect())
        }
        Precision::F64 => {
            let values = picture.to_f64();
            let at = |(x, z): (&f64, &f32)| sigma.mul_add(f64::from(*z), *x);
            Tensor::f64(picture.dims(), values.iter().zip(&z).map(at).collect())
        }
    }
}
