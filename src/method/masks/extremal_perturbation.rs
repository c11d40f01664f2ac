//! Extremal perturbation (Fong, Patrick, Vedaldi 2019): the smooth region of a given area that maximises the score when
//! only it stays sharp.

use crate::engine::{self, Batch, Engine};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::map::{Gap, Map, MapDims};
use crate::method::shared::descent::{Course, descend, in_groups, maps, pixel_scale};
use crate::method::shared::parameters::MOST_WEIGHT;
use crate::method::{Entry, Method, MethodPreset, Parameter, ParameterValues, Promise, When, pixels_of};
use crate::optimiser::Momentum;
use crate::perturb::baseline;
use crate::program::Score;
use crate::tensor::{Precision, Tensor, differ_by_rounding};

pub(crate) const ENTRY: Entry = Entry {
    id: "extremal_perturbation",
    aliases: &[],
    title: "Extremal perturbation",
    paper: "Fong, Patrick, Vedaldi 2019: Understanding deep networks via extremal perturbations and smooth masks, ICCV",
    summary: "the smooth mask m in [0,1] that minimises −f(m ⊗ x) + λ⟨(sorted m − r)²⟩, where r is 1 on the given share of the \
              pixels and m ⊗ x is blurred by σ(1−m); m is a smooth maximum of spots on a lattice",
    passes: "iterations forward and backward (preset=paper 800, preset=quick 100)",
    parameters: &[
        Parameter { key: "area", unit: "share of the pixels", default: "0.1", help: "how much may stay sharp" },
        Parameter { key: "iterations", unit: "steps", default: "800", help: "steps of gradient descent" },
        Parameter { key: "lr", unit: "mask a step", default: "0.01", help: "learning rate, at most 1e12" },
        Parameter { key: "momentum", unit: "1", default: "0.9", help: "share of the velocity that stays" },
        Parameter { key: "lambda", unit: "1", default: "300", help: "weight of the area at first, at most 1e12" },
        Parameter {
            key: "growth",
            unit: "factor a step",
            default: "1.0035",
            help: "by which the weight of the area grows, to 1e12 at most",
        },
        Parameter {
            key: "blur",
            unit: "pixels of 224",
            default: "20",
            help: "standard deviation of the blur where m is 0; lengths are scaled by the larger side over 224, this project's \
                   own choice",
        },
        Parameter {
            key: "levels",
            unit: "pictures",
            default: "8",
            help: "blurred pictures between which is interpolated",
        },
        Parameter { key: "step", unit: "pixels of 224", default: "7", help: "distance of the lattice's points" },
        Parameter { key: "sigma", unit: "pixels of 224", default: "21", help: "size of the spots" },
        Parameter {
            key: "preset",
            unit: "paper|quick",
            default: "paper",
            help: "paper: the defaults, 800 passes; quick: iterations=100, lr=0.05, growth=1.02, an eighth of the passes, this \
                   project's own choice",
        },
    ],
    promises: &[(Promise::NotNegative, When::Always), (Promise::Area, When::Always)],
    draws: When::Never,
    caution: "one area is looked at where the paper compares several; the spots' profile exp(−2·max(0, d/σ − ½)²), cut at 2σ, the \
              start at ½ and the mean in place of the sum in the area's term are this project's own choice",
    build: |values, context| Ok(Box::new(ExtremalPerturbation::new(values, context.score)?)),
};

/// See the help of `preset`.
pub(crate) const PRESETS: [MethodPreset; 2] =
    [("paper", &[]), ("quick", &[("iterations", "100"), ("lr", "0.05"), ("growth", "1.02")])];

/// Temperature of the smooth maximum.
const TEMPERATURE: f64 = 1.0 / 20.0;

/// Spots end at this many `sigma`, where they have decayed to 1 %.
const REACH: f64 = 2.0;

/// Most spots within reach of a picture's pixels; more would exhaust memory.
const MOST_SPOTS: usize = 1 << 26;

/// Minimises `−f(m ⊗ x) + λ⟨(sorted m − r)²⟩`.
struct ExtremalPerturbation {
    score: Score,
    area: f64,
    iterations: usize,
    lr: f64,
    momentum: f64,
    lambda: f64,
    growth: f64,
    blur: f64,
    levels: usize,
    step: f64,
    sigma: f64,
}

/// The lattice points near each pixel.
struct Lattice {
    points: usize,
    /// Start of each pixel's spots in `spots`, and the end of the last one's.
    starts: Vec<usize>,
    /// Lattice point, and the height of its spot at the pixel.
    spots: Vec<(u32, f32)>,
}

impl Lattice {
    /// Calls `visit` for the spots of each pixel, and with `None` at the end of a pixel.
    fn walk(size: [usize; 2], [step, sigma]: [f64; 2], visit: &mut dyn FnMut(Option<(u32, f32)>)) {
        let points = Self::points(size, step);
        let place = |axis: usize, i: usize| (i as f64 + 0.5) * size[axis] as f64 / points[axis] as f64;
        let near = |axis: usize, pixel: usize| {
            let at = pixel as f64 + 0.5;
            // A lattice wider than its spots would leave pixels without any, so the nearest point always counts.
            let nearest = (at * points[axis] as f64 / size[axis] as f64) as usize;
            (0..points[axis])
                .filter(|&i| i == nearest || (place(axis, i) - at).abs() <= REACH * sigma)
                .map(|i| (i, (place(axis, i) - at) / sigma))
                .collect::<Vec<_>>()
        };
        let columns: Vec<_> = (0..size[1]).map(|x| near(1, x)).collect();
        for y in 0..size[0] {
            let rows = near(0, y);
            for columns in &columns {
                let only = rows.len() * columns.len() == 1;
                for &(row, dy) in &rows {
                    for &(column, dx) in columns {
                        let d = dy.hypot(dx);
                        if d <= REACH || only {
                            let height = (-2.0 * (d - 0.5).max(0.0).powi(2)).exp();
                            visit(Some(((row * points[1] + column) as u32, height as f32)));
                        }
                    }
                }
                visit(None);
            }
        }
    }

    /// Rows and columns of the lattice.
    fn points(size: [usize; 2], step: f64) -> [usize; 2] {
        size.map(|side| ((side as f64 / step).ceil() as usize).clamp(1, side))
    }

    /// Number of spots.
    ///
    /// # Errors
    /// When there are too many.
    fn count(size: [usize; 2], step: f64, sigma: f64) -> Result<usize> {
        // An upper bound: rows times columns within reach.
        let most = |axis: usize| {
            let distance = size[axis] as f64 / Self::points(size, step)[axis] as f64;
            (2.0 * REACH * sigma / distance + 2.0).min(size[axis] as f64)
        };
        if most(0) * most(1) * (size[0] * size[1]) as f64 > 16.0 * MOST_SPOTS as f64 {
            return Err(too_many(step, sigma));
        }
        let mut count = 0usize;
        Self::walk(size, [step, sigma], &mut |spot| count += usize::from(spot.is_some()));
        if count > MOST_SPOTS { Err(too_many(step, sigma)) } else { Ok(count) }
    }

    /// Bytes of a lattice with that many spots.
    fn bytes(size: [usize; 2], spots: usize) -> usize {
        spots * size_of::<(u32, f32)>() + (size[0] * size[1] + 1) * size_of::<usize>()
    }

    /// # Errors
    /// When there are too many spots.
    fn new(size: [usize; 2], step: f64, sigma: f64) -> Result<Self> {
        let mut spots = Vec::with_capacity(Self::count(size, step, sigma)?);
        let mut starts = Vec::with_capacity(size[0] * size[1] + 1);
        starts.push(0);
        Self::walk(size, [step, sigma], &mut |spot| match spot {
            Some(spot) => spots.push(spot),
            None => starts.push(spots.len()),
        });
        Ok(Self { points: Self::points(size, step).iter().product(), starts, spots })
    }

    fn spots(&self) -> impl Iterator<Item = &[(u32, f32)]> {
        self.starts.windows(2).map(|w| &self.spots[w[0]..w[1]])
    }

    /// The smooth maximum at each pixel: `Σ f exp(f/T) / Σ exp(f/T)` over the spots `f`.
    fn mask(&self, heights: &[f64]) -> Vec<f64> {
        self.spots().map(|spots| smooth_max(spots, heights).0).collect()
    }

    /// Takes a signal at the pixels back to the lattice points.
    fn signal(&self, heights: &[f64], at_pixels: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; self.points];
        for (spots, &s) in self.spots().zip(at_pixels) {
            if s == 0.0 {
                continue;
            }
            let (max, total) = smooth_max(spots, heights);
            for &(point, height) in spots {
                let f = f64::from(height) * heights[point as usize];
                let weight = ((f - 1.0) / TEMPERATURE).exp() / total;
                out[point as usize] += s * weight * (1.0 + (f - max) / TEMPERATURE) * f64::from(height);
            }
        }
        out
    }
}

fn too_many(step: f64, sigma: f64) -> Error {
    Error::shape(format!("{}: spots of {sigma} pixels on a lattice of {step} are too many", ENTRY.id))
}

/// The smooth maximum and `Σ exp((f − 1)/T)`; no `f` is greater than 1.
fn smooth_max(spots: &[(u32, f32)], heights: &[f64]) -> (f64, f64) {
    let (mut sum, mut total) = (0.0, 0.0);
    for &(point, height) in spots {
        let f = f64::from(height) * heights[point as usize];
        let weight = ((f - 1.0) / TEMPERATURE).exp();
        sum += weight * f;
        total += weight;
    }
    (sum / total, total)
}

/// Mean of `(sorted m − r)²`, where `r` is 1 for the `ones` largest values and 0 for the others. Adds its gradient,
/// times `weight`, to `gradient`.
fn area_term(mask: &[f64], ones: usize, weight: f64, gradient: &mut [f64]) -> f64 {
    let mut order: Vec<usize> = (0..mask.len()).collect();
    order.sort_by(|&a, &b| mask[b].total_cmp(&mask[a]).then(a.cmp(&b)));
    let n = mask.len() as f64;
    let mut sum = 0.0;
    for (rank, &i) in order.iter().enumerate() {
        let miss = mask[i] - if rank < ones { 1.0 } else { 0.0 };
        sum += miss * miss;
        gradient[i] += weight * 2.0 * miss / n;
    }
    sum / n
}

/// A picture at decreasing levels of blur: `[levels][C, H, W]`, the last one sharp.
struct Pyramid {
    levels: Vec<Vec<f64>>,
}

impl Pyramid {
    /// The level below a mask's value, and the distance above it.
    fn place(&self, m: f64) -> (usize, f64) {
        let y = m * (self.levels.len() - 1) as f64;
        let below = (y as usize).min(self.levels.len() - 2);
        (below, y - below as f64)
    }

    /// `m ⊗ x`, the mask repeated over the channels.
    fn mixed(&self, mask: &[f64]) -> Vec<f64> {
        let one = |(i, &m): (usize, &f64)| {
            let (below, share) = self.place(m);
            self.levels[below][i] + share * (self.levels[below + 1][i] - self.levels[below][i])
        };
        let len = self.levels[0].len();
        mask.iter().cycle().take(len).enumerate().map(one).collect()
    }

    /// Whether blurring changes nothing, so that all regions are equally good.
    fn is_still(&self) -> bool {
        let Some((sharp, blurred)) = self.levels.split_last() else { return true };
        let pairs = blurred.iter().flat_map(|level| level.iter().copied().zip(sharp.iter().copied()));
        differ_by_rounding(pairs, Precision::F64)
    }

    /// Takes a signal at `m ⊗ x` back to the mask.
    fn signal(&self, mask: &[f64], at_mixed: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; mask.len()];
        let steps = (self.levels.len() - 1) as f64;
        for (i, s) in at_mixed.iter().enumerate() {
            let (below, _) = self.place(mask[i % mask.len()]);
            out[i % mask.len()] += s * steps * (self.levels[below + 1][i] - self.levels[below][i]);
        }
        out
    }
}

impl ExtremalPerturbation {
    /// # Errors
    /// When a value is out of its range.
    fn new(values: &ParameterValues, score: Score) -> Result<Self> {
        let area = values.not_negative("area")?;
        if !(area > 0.0 && area < 1.0) {
            return Err(values.refused("area", "it must lie between 0 and 1"));
        }
        let momentum = values.not_negative("momentum")?;
        if momentum >= 1.0 {
            return Err(values.refused("momentum", "it must be less than 1"));
        }
        let levels = values.count("levels")?;
        if !(2..=256).contains(&levels) {
            return Err(values.refused("levels", "there must be at least 2 and at most 256"));
        }
        let iterations = values.count("iterations")?;
        let [lambda, growth] = [values.weight("lambda")?, values.positive("growth")?];
        if !(lambda * growth.powf(iterations as f64) <= MOST_WEIGHT) {
            return Err(values.refused("growth", "the weight of the area grows beyond 1e12, the most that it can be"));
        }
        Ok(Self {
            score,
            area,
            iterations,
            lr: values.weight("lr")?,
            momentum,
            lambda,
            growth,
            blur: values.positive("blur")?,
            levels,
            step: values.positive("step")?,
            sigma: values.positive("sigma")?,
        })
    }

    fn pyramid(&self, picture: &Tensor, x: &Batch) -> Pyramid {
        let sharp = picture.to_f64().into_owned();
        let last = self.levels - 1;
        let largest = self.blur * pixel_scale([x.shape().h, x.shape().w]);
        let level = |l: usize| {
            if l == last {
                return sharp.clone();
            }
            baseline::blur(&sharp, x.shape(), largest * (1.0 - l as f64 / last as f64))
        };
        Pyramid { levels: (0..=last).map(level).collect() }
    }

    /// For each picture, the mask and whether no mask changes anything.
    fn group(
        &self,
        engine: &mut Engine,
        graph: &Graph,
        (x, targets): (&Batch, &[usize]),
        lattice: &Lattice,
        course: Course,
    ) -> Result<Vec<(Vec<f64>, bool)>> {
        let ones = ((self.area * x.shape().plane() as f64).round() as usize).max(1);
        let pyramids: Vec<Pyramid> = x.items().iter().map(|item| self.pyramid(item, x)).collect();
        let mut heights = vec![vec![0.5; lattice.points]; x.len()];
        let mut descents = vec![Momentum::new(self.lr, self.momentum, lattice.points); x.len()];
        let lambdas = std::iter::successors(Some(self.lambda), |lambda| Some(lambda * self.growth));
        let lambdas: Vec<f64> = lambdas.take(self.iterations).collect();
        let mixed = |_, i: usize, heights: &[f64]| {
            let mask = lattice.mask(heights);
            (pyramids[i].mixed(&mask), mask)
        };
        let step =
            |iteration: usize, i: usize, heights: &mut [f64], mask: &Vec<f64>, (score, signal): (f64, Vec<f64>)| {
                let mut at_mask = pyramids[i].signal(mask, &signal);
                at_mask.iter_mut().for_each(|s| *s = -*s);
                let lambda = lambdas[iteration];
                let objective = lambda * area_term(mask, ones, lambda, &mut at_mask) - score;
                let gradient = lattice.signal(heights, &at_mask);
                descents[i].step(heights, &gradient);
                objective
            };
        let how = (self.score, self.iterations, course);
        descend(engine, graph, (x, targets), how, &mut heights, mixed, step)?;
        Ok(heights.iter().zip(&pyramids).map(|(h, pyramid)| (lattice.mask(h), pyramid.is_still())).collect())
    }
}

impl Method for ExtremalPerturbation {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(pixels_of(graph))
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        // Invalid input is refused before any blurring.
        engine::check(graph, x, targets)?;
        let size = [x.shape().h, x.shape().w];
        let scale = pixel_scale(size);
        let spots = Lattice::count(size, self.step * scale, self.sigma * scale)?;
        // The levels, their mixture, the slope in other precision; the engine accounts for transfers.
        let bytes = (self.levels + 4) * x.shape().len() * size_of::<f64>();
        let what = (ENTRY.id, self.iterations);
        let found = engine.keeping((ENTRY.id, Lattice::bytes(size, spots)), |engine| {
            let lattice = Lattice::new(size, self.step * scale, self.sigma * scale)?;
            in_groups(what, engine, (x, targets), bytes, |engine, x, targets, course| {
                self.group(engine, graph, (x, targets), &lattice, course)
            })
        })?;
        maps(engine, ENTRY.id, (x, targets), found, |values| {
            let value = values.iter().sum::<f64>() / values.len() as f64 - self.area;
            Some(Gap { promise: "area".into(), value, relative: Some(value.abs() / self.area) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scattered(n: usize) -> Vec<f64> {
        (0..n).map(|i| (i * 7919 % 1009) as f64 / 1009.0).collect()
    }

    /// The full path from lattice to objective, with the score `Σ w x`.
    #[test]
    fn gradients_match_differences() {
        let size = [9, 13];
        let lattice = Lattice::new(size, 2.0, 2.5).unwrap();
        assert_eq!(lattice.points, 5 * 7);
        let pyramid =
            Pyramid { levels: (1..5).map(|l| scattered(2 * 117).iter().map(|v| v * f64::from(l)).collect()).collect() };
        let weights = scattered(2 * 117);
        let heights: Vec<f64> = scattered(35).iter().map(|h| 0.2 + 0.7 * h).collect();
        let objective = |heights: &[f64], gradient: &mut [f64]| {
            let mask = lattice.mask(heights);
            let mixed = pyramid.mixed(&mask);
            let mut at_mask = pyramid.signal(&mask, &weights);
            let area = area_term(&mask, 30, 7.0, &mut at_mask);
            gradient.copy_from_slice(&lattice.signal(heights, &at_mask));
            7.0 * area + mixed.iter().zip(&weights).map(|(x, w)| x * w).sum::<f64>()
        };
        let mut gradient = vec![0.0; 35];
        objective(&heights, &mut gradient);
        let scale = gradient.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
        for i in 0..35 {
            let at = |h: f64| {
                let mut moved = heights.clone();
                moved[i] += h;
                objective(&moved, &mut vec![0.0; 35])
            };
            let slope = (at(1e-7) - at(-1e-7)) / 2e-7;
            let within = (slope - gradient[i]).abs() <= 1e-5 * scale;
            assert!(within, "{i}: {slope} {}", gradient[i]);
        }
    }

    #[test]
    fn masks_lie_between_their_spots() {
        let lattice = Lattice::new([10, 10], 3.0, 3.0).unwrap();
        assert!(lattice.mask(&vec![0.0; lattice.points]).iter().all(|&m| m == 0.0));
        let full = lattice.mask(&vec![1.0; lattice.points]);
        assert!(full.iter().all(|&m| m > 0.8 && m <= 1.0), "{full:?}");
        // Spots smaller than the gaps of the lattice.
        let thin = Lattice::new([10, 10], 5.0, 0.1).unwrap();
        assert!(thin.spots().all(|s| !s.is_empty()));
    }

    #[test]
    fn the_area_is_met_by_ones_and_zeros_only() {
        let mut gradient = [0.0; 5];
        assert_eq!(area_term(&[0.0, 1.0, 0.0, 1.0, 0.0], 2, 3.0, &mut gradient), 0.0);
        assert_eq!(gradient, [0.0; 5]);
        // One too few: the first of the equal values should become 1.
        assert_eq!(area_term(&[0.0, 1.0, 0.0, 0.0, 0.0], 2, 5.0, &mut gradient), 0.2);
        assert_eq!(gradient, [-2.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
