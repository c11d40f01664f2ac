//! Guided integrated gradients (Kapishnikov et al. 2021): a path from the baseline that first moves the pixels to which
//! the score is least sensitive, within a corridor around the straight line.

use crate::engine::{self, Batch, Engine, Job};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::map::{Map, MapDims, Sign, Space};
use crate::method::shared::from_baseline::{self, BaselineStart, Gaps};
use crate::method::{Entry, Method, Parameter, ParameterValues, When, numbers_of};
use crate::program::Score;
use crate::tensor::Tensor;

pub(crate) const ENTRY: Entry = Entry {
    id: "guided_ig",
    aliases: &[],
    title: "Guided integrated gradients",
    paper: "Kapishnikov, Venugopalan, Avci, Wedin, Terry, Bolukbasi 2021: Guided integrated gradients, CVPR, algorithm 1",
    summary: "Σ over steps of g ∘ Δx along a path that in each step moves the pixels of least |g|, until the L1 distance to x \
              has shrunk by one step's share; no pixel strays farther than max_dist from the straight path",
    passes: "steps forward, steps backward, one after the other; 2 forward with gap=yes",
    parameters: &[
        Parameter { key: "steps", unit: "points", default: "200", help: "steps of the path" },
        Parameter {
            key: "fraction",
            unit: "share",
            default: "0.25",
            help: "of the pixels that move at a time, those of the least gradient; at least 0.001",
        },
        Parameter {
            key: "max_dist",
            unit: "share of the path",
            default: "0.02",
            help: "how far a pixel may run ahead of the straight path or lag behind it; 1 for no bound",
        },
        from_baseline::PARAMETER,
        from_baseline::GAP,
    ],
    promises: &from_baseline::PROMISES,
    draws: When::With("baseline", "noise"),
    caution: "depends on the baseline: pixels that look like it get nothing; a step moves where the gradient at \
              its start is small and counts that gradient for all of it, so on deep nets the gap is as large as the \
              difference or larger, and shrinks slowly with the steps",
    build: |values, context| {
        let steps = values.count("steps")?;
        if steps == 0 {
            return Err(Error::settings("guided_ig:steps=0: at least one step is needed"));
        }
        let (fraction, max_dist) = (share(values, "fraction", 0.001)?, share(values, "max_dist", 0.0)?);
        let start = BaselineStart::new(values, context)?;
        let gaps = Gaps::new(ENTRY.id, values)?;
        Ok(Box::new(GuidedIg { score: context.score, steps, fraction, max_dist, start, gaps }))
    },
};

/// The value of `key`, from `least` to 1.
fn share(values: &ParameterValues, key: &str, least: f64) -> Result<f64> {
    let value: f64 = values.parse(key)?;
    if (least..=1.0).contains(&value) {
        return Ok(value);
    }
    Err(Error::settings(format!("guided_ig:{key}={value}: a share from {least} to 1 is needed")))
}

struct GuidedIg {
    score: Score,
    steps: usize,
    fraction: f64,
    max_dist: f64,
    start: BaselineStart,
    gaps: Gaps,
}

/// Smaller distances count as equal.
const NEAR: f64 = 1e-9;

/// The path of one picture.
struct Path {
    /// The end of the path: the picture.
    end: Vec<f64>,
    /// The start of the path: the baseline.
    start: Vec<f64>,
    /// The current point.
    at: Vec<f64>,
    /// Σ g ∘ Δx so far.
    map: Vec<f64>,
    /// L1 distance from start to end.
    length: f64,
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum()
}

impl Path {
    fn new(end: &Tensor, start: &Tensor) -> Self {
        let (end, start) = (end.to_f64().into_owned(), start.to_f64().into_owned());
        let length = distance(&end, &start);
        Self { at: start.clone(), map: vec![0.0; end.len()], end, start, length }
    }

    /// Element `e` on the straight path.
    fn straight(&self, e: usize, alpha: f64) -> f64 {
        // Exact at both ends.
        if alpha >= 1.0 { self.end[e] } else { self.start[e] + alpha * (self.end[e] - self.start[e]) }
    }

    /// Moves `at` by one step; `gradient` is the score's gradient at the current point.
    fn step(&mut self, step: usize, method: &GuidedIg, gradient: &[f64]) {
        let n = self.at.len();
        let alpha = (step + 1) as f64 / method.steps as f64;
        let [low, high] = [(alpha - method.max_dist).max(0.0), (alpha + method.max_dist).min(1.0)];
        let target = self.length * (1.0 - alpha);
        let before = self.at.clone();
        // Elements behind the corridor are moved into it, whatever their gradient.
        for e in 0..n {
            let way = self.end[e] - self.start[e];
            if (self.at[e] - self.start[e]) * way.signum() < low * way.abs() {
                self.at[e] = self.straight(e, low);
            }
        }
        // Each round moves some elements to the corridor's far end, so there are at most as many rounds as elements.
        for _ in 0..=n {
            let current = distance(&self.at, &self.end);
            if !(current - target > NEAR * self.length) {
                break;
            }
            let sizes: Vec<f64> = (0..n)
                .map(|e| if self.at[e] == self.straight(e, high) { f64::INFINITY } else { gradient[e].abs() })
                .collect();
            let rank = ((n - 1) as f64 * method.fraction) as usize;
            let threshold = *sizes.clone().select_nth_unstable_by(rank, f64::total_cmp).1;
            let chosen = |e: &usize| sizes[*e] <= threshold && sizes[*e] < f64::INFINITY;
            let room: f64 = (0..n).filter(chosen).map(|e| (self.straight(e, high) - self.at[e]).abs()).sum();
            if !(room > 0.0) {
                break;
            }
            let share = ((current - target) / room).min(1.0);
            for e in (0..n).filter(chosen) {
                let far = self.straight(e, high);
                self.at[e] = if share < 1.0 { self.at[e] + share * (far - self.at[e]) } else { far };
            }
            if share < 1.0 {
                break;
            }
        }
        for e in 0..n {
            self.map[e] += (self.at[e] - before[e]) * gradient[e];
        }
    }
}

impl Method for GuidedIg {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(numbers_of(graph))
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        engine::check(graph, x, targets)?;
        let baselines = self.start.tensors(engine.spare(), x).map_err(|e| e.within(ENTRY.id))?;
        let (dims, precision) = (x.shape().dims(), engine.describe().precision);
        let mut paths: Vec<Path> = x.items().iter().zip(&baselines).map(|(x, b)| Path::new(x, b)).collect();
        let job = Job::gradient(self.score);
        for step in 0..self.steps {
            let points = paths.iter().map(|path| Tensor::rounded(dims, path.at.clone(), precision));
            let points = Batch::of(points.collect::<Result<_>>()?)?;
            let gradients = engine.explain(graph, &job, &points, targets)?.maps;
            paths.iter_mut().zip(&gradients).for_each(|(path, g)| path.step(step, self, &g.to_f64()));
        }
        let sums: Vec<f64> = paths.iter().map(|path| path.map.iter().sum()).collect();
        let differences =
            |engine: &mut Engine| from_baseline::differences(engine, graph, self.score, x, &baselines, targets);
        let gaps = self.gaps.of(engine, sums, differences)?;
        let maps = paths.into_iter().zip(gaps).zip(targets).map(|((path, gap), &target)| {
            let values = Tensor::rounded(dims, path.map, precision)?;
            Ok(Map { gap, ..Map::new(values, Sign::Signed, Space::Input, target, ENTRY.id) })
        });
        Ok(from_baseline::settled(maps.collect::<Result<_>>()?, x, &baselines))
    }
}
