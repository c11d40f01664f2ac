//! RISE (Petsiuk et al. 2018): the mean of random masks, each weighted by the score of the masked picture.

use crate::device::{GridMask, Masks, Perturbation};
use crate::engine::{self, Batch, Engine, Progress};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::map::{Map, MapDims, Sign, Space};
use crate::method::shared::probe::{BLOCK, scores};
use crate::method::{Entry, Method, Parameter, When, pixels_of};
use crate::program::Score;
use crate::random::Stream;
use crate::tensor::resample::taps;
use crate::tensor::{Shape, Tensor};

pub(crate) const ENTRY: Entry = Entry {
    id: "rise",
    aliases: &[],
    title: "RISE",
    paper: "Petsiuk, Das, Saenko 2018: RISE: randomized input sampling for explanation of black-box models, BMVC, equation 6 \
            and section 3.2",
    summary: "1/(p n) Σ_i f(x ∘ M_i) M_i over n random masks M_i: a grid of ones (with probability p) and zeros, enlarged \
              bilinearly by one cell more than the picture and cut out at a random place within a cell",
    passes: "n forward, fewer with a tolerance",
    parameters: &[
        Parameter { key: "n", unit: "masks", default: "4000", help: "masks drawn, at most" },
        Parameter { key: "grid", unit: "cells", default: "7", help: "cells of a mask along each side" },
        Parameter { key: "p", unit: "probability", default: "0.5", help: "with which a cell is kept" },
        Parameter {
            key: "tolerance",
            unit: "share",
            default: "0",
            help: "stops a picture's masks after the first block of 100 that changes its map, less its mean, by no more \
                   than this share of its L2 norm; 0 never stops; this project's own choice",
        },
    ],
    promises: &[],
    draws: When::Always,
    caution: "raw as the paper's: a mean score lies under every pixel, and only differences between pixels tell. The paper \
              explains probabilities (--score prob). Masks repeat the border where they are enlarged, this project's own \
              choice",
    build: |values, context| {
        let rise = Rise {
            score: context.score,
            seed: context.seed,
            n: values.count("n")?,
            grid: values.count("grid")?,
            p: values.parse("p")?,
            tolerance: values.parse("tolerance")?,
        };
        if rise.n == 0 || rise.grid == 0 {
            return Err(Error::settings(format!(
                "rise:n={},grid={}: there must be a mask and a cell",
                rise.n, rise.grid
            )));
        }
        if !(rise.p > 0.0 && rise.p <= 1.0) {
            return Err(Error::settings(format!("rise:p={}: a probability above 0 and at most 1", rise.p)));
        }
        if !(rise.tolerance >= 0.0 && rise.tolerance.is_finite()) {
            return Err(Error::settings(format!("rise:tolerance={}: a share, 0 or more", rise.tolerance)));
        }
        Ok(Box::new(rise))
    },
};

/// `1/(p n) Σ_i f(x ∘ M_i) M_i`.
struct Rise {
    score: Score,
    seed: u64,
    n: usize,
    grid: usize,
    p: f64,
    tolerance: f64,
}

/// Height and width of a mask's cell on a picture.
#[derive(Clone, Copy)]
struct MaskCell([usize; 2]);

impl Rise {
    fn cell(&self, shape: Shape) -> Result<MaskCell> {
        if self.grid > shape.h.max(shape.w) {
            return Err(Error::shape(format!("rise:grid={}: more cells than {shape} has pixels", self.grid)));
        }
        Ok(MaskCell([shape.h, shape.w].map(|extent| extent.div_ceil(self.grid))))
    }

    /// Size to which grids are enlarged.
    fn enlarged(&self, cell: MaskCell) -> [usize; 2] {
        cell.0.map(|c| c * (self.grid + 1))
    }

    /// Mask number `sample` of a picture: random elements 0 .. grid² determine the cells, the next two the offset.
    fn mask(&self, image: u64, sample: usize, cell: MaskCell) -> GridMask {
        let cells = self.grid * self.grid;
        let mut draws = vec![0f32; cells + 2];
        Stream::Copies.uniforms(self.seed, image, sample as u32, &mut draws);
        let (kept, place) = draws.split_at(cells);
        let values = kept.iter().map(|&u| if f64::from(u) < self.p { 1.0 } else { 0.0 }).collect();
        let corner = [0, 1].map(|axis| (f64::from(place[axis]) * cell.0[axis] as f64) as usize);
        GridMask { values, corner }
    }
}

/// `Σ_i weight_i M_i` without a full-size mask: masks are linear in their grids along each axis, so grids enlarged only
/// along rows are summed by their row offset.
struct WeightedMasks {
    shape: Shape,
    grid: usize,
    taps: [Vec<(usize, usize, f64)>; 2],
    /// By first row of the crop: `[grid, W]`.
    sums: Vec<Vec<f64>>,
}

impl WeightedMasks {
    fn new(shape: Shape, grid: usize, cell: MaskCell, enlarged: [usize; 2]) -> Self {
        let sums = vec![vec![0.0; grid * shape.w]; cell.0[0]];
        Self { shape, grid, taps: enlarged.map(|size| taps(grid, size)), sums }
    }

    fn add(&mut self, weight: f64, mask: &GridMask) {
        let across = &self.taps[1][mask.corner[1]..][..self.shape.w];
        let sum = &mut self.sums[mask.corner[0]];
        for (row, sum) in mask.values.chunks_exact(self.grid).zip(sum.chunks_exact_mut(self.shape.w)) {
            for (s, &(x0, x1, fx)) in sum.iter_mut().zip(across) {
                *s += weight * ((1.0 - fx) * row[x0] + fx * row[x1]);
            }
        }
    }

    /// Bytes of the sums and of two finished maps, the current and the previous.
    fn bytes(&self) -> usize {
        let sums = self.sums.iter().map(Vec::len).sum::<usize>();
        (sums + 2 * self.shape.plane()) * size_of::<f64>()
    }

    /// The sum times `factor`, `[H, W]`.
    fn finish(&self, factor: f64) -> Vec<f64> {
        let w = self.shape.w;
        let mut out = vec![0.0; self.shape.plane()];
        for (corner, sum) in self.sums.iter().enumerate() {
            for (out, &(y0, y1, fy)) in out.chunks_exact_mut(w).zip(&self.taps[0][corner..]) {
                let (above, below) = (&sum[y0 * w..][..w], &sum[y1 * w..][..w]);
                for (o, (a, b)) in out.iter_mut().zip(above.iter().zip(below)) {
                    *o += factor * ((1.0 - fy) * a + fy * b);
                }
            }
        }
        out
    }
}

/// `‖(new − old) − mean‖₂ / ‖new − mean‖₂`, each with its own mean; NaN for a constant new map.
fn change(new: &[f64], old: &[f64]) -> f64 {
    let spread = |v: &dyn Fn(usize) -> f64| {
        let mean = (0..new.len()).map(v).sum::<f64>() / new.len() as f64;
        (0..new.len()).map(|i| (v(i) - mean).powi(2)).sum::<f64>().sqrt()
    };
    spread(&|i| new[i] - old[i]) / spread(&|i| new[i])
}

impl Method for Rise {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(pixels_of(graph))
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        engine::check(graph, x, targets)?;
        let shape = x.shape();
        let cell = self.cell(shape)?;
        let (grid, size) = ([self.grid; 2], self.enlarged(cell));
        let precision = engine.describe().precision;
        let mut progress = Progress { method: ENTRY.id, done: 0, total: self.n * x.len(), objective: None };
        engine.progress(&progress);
        let mut maps = Vec::with_capacity(x.len());
        for (i, &target) in targets.iter().enumerate() {
            // Each picture stops on its own, so that it does not depend on its neighbours.
            let alone = x.part(i..i + 1)?;
            let mut sum = WeightedMasks::new(shape, self.grid, cell, size);
            let mut before: Option<Vec<f64>> = None;
            let mut first = None;
            let mut still = true;
            let mut drawn = 0;
            while drawn < self.n {
                let next = self.n.min(drawn + BLOCK);
                let block: Vec<GridMask> = (drawn..next).map(|k| self.mask(x.draws()[i].key, k, cell)).collect();
                let perturbation = Perturbation::Masks(Masks { grid, size, masks: vec![block.clone()] });
                let scored = engine.keeping((ENTRY.id, sum.bytes()), |engine| {
                    scores(engine, graph, &alone, &[target], self.score, (perturbation, block.len()))
                })?;
                for (probed, mask) in scored.iter().flatten().zip(&block) {
                    sum.add(probed.score, mask);
                    still = still && probed.equals(*first.get_or_insert(*probed));
                }
                drawn = next;
                progress.done = i * self.n + drawn;
                engine.progress(&progress);
                if self.tolerance > 0.0 {
                    let now = sum.finish(1.0 / (self.p * drawn as f64));
                    let settled = before.is_some_and(|before| change(&now, &before) <= self.tolerance);
                    if settled {
                        break;
                    }
                    before = Some(now);
                }
            }
            let mut numbers = sum.finish(1.0 / (self.p * drawn as f64));
            if let (true, Some(all)) = (still && self.n > 1, first) {
                // If all masks give the same score, no pixel differs from another.
                numbers.fill(all.score);
            }
            let values = Tensor::rounded([shape.h, shape.w], numbers, precision)?;
            maps.push(Map::new(values, Sign::Relative, Space::Input, target, ENTRY.id));
        }
        progress.done = progress.total;
        engine.progress(&progress);
        Ok(maps)
    }
}
