//! Meaningful perturbation (Fong & Vedaldi 2017), the deletion game: the smallest smooth region that must be blurred
//! for the class to vanish.

use crate::engine::{self, Batch, Engine};
use crate::error::Result;
use crate::graph::Graph;
use crate::map::{Map, MapDims};
use crate::method::shared::descent::{Course, descend, in_groups, maps, pixel_scale, scores};
use crate::method::{Entry, Method, MethodPreset, Parameter, ParameterValues, Promise, When, pixels_of};
use crate::optimiser::Adam;
use crate::perturb::baseline;
use crate::program::Score;
use crate::random::Stream;
use crate::tensor::{Precision, Tensor, differ_by_rounding};

pub(crate) const ENTRY: Entry = Entry {
    id: "meaningful_perturbation",
    aliases: &[],
    title: "Meaningful perturbation",
    paper: "Fong, Vedaldi 2017: Interpretable explanations of black boxes by meaningful perturbation, ICCV, equation 4",
    summary: "1 − M for the coarse mask m, upsampled to M, that minimises p(blurred + M ∘ (x − blurred)) + λ₁‖1−m‖₁ + \
              λ₂Σ|∇m|^β; p is the target's softmax probability, whatever the score",
    passes: "iterations forward and backward, about 22 forward for the start (preset=paper 300, preset=quick 60 iterations)",
    parameters: &[
        Parameter { key: "iterations", unit: "steps", default: "300", help: "steps of Adam" },
        Parameter { key: "lr", unit: "mask a step", default: "0.1", help: "learning rate of Adam, at most 1e12" },
        Parameter { key: "l1", unit: "1", default: "1e-4", help: "λ₁, weight of the region's size, at most 1e12" },
        Parameter {
            key: "tv",
            unit: "1",
            default: "1e-2",
            help: "λ₂, weight of the mask's total variation, at most 1e12",
        },
        Parameter { key: "beta", unit: "1", default: "3", help: "β, power of the mask's differences, at least 1" },
        Parameter { key: "grid", unit: "cells", default: "28", help: "cells of the mask along the larger side" },
        Parameter {
            key: "blur",
            unit: "pixels of 224",
            default: "10",
            help: "standard deviation of the blur that deletes; lengths are scaled by the larger side over 224, this \
                   project's own choice",
        },
        Parameter {
            key: "smooth",
            unit: "pixels of 224",
            default: "5",
            help: "standard deviation of the Gaussian that upsamples the mask",
        },
        Parameter {
            key: "jitter",
            unit: "pixels of 224",
            default: "4",
            help: "the mask is shifted in each iteration by up to half of it on each axis, drawn (fractions of pixels too: \
                   this project's own choice)",
        },
        Parameter {
            key: "init",
            unit: "circle|V",
            default: "circle",
            help: "the mask at first: the smallest centred circle that loses 99 % of what the whole blur loses, or V \
                   everywhere",
        },
        Parameter {
            key: "preset",
            unit: "paper|quick",
            default: "paper",
            help: "paper: the defaults, 300 passes; quick: iterations=60, a fifth of the passes, this project's own choice",
        },
    ],
    promises: &[(Promise::NotNegative, When::Always)],
    draws: When::Always,
    caution: "the region is one that suffices to be deleted, not the only one; what blurring adds to the picture may lose the \
              class too",
    build: |values, context| Ok(Box::new(MeaningfulPerturbation::new(values, context.seed)?)),
};

/// See the help of `preset`.
pub(crate) const PRESETS: [MethodPreset; 2] = [("paper", &[]), ("quick", &[("iterations", "60")])];

/// The initial mask.
#[derive(Clone, Copy)]
enum FirstMask {
    /// Zero in the smallest centred circle whose blurring costs [`LOST`] of what blurring everything costs.
    Circle,
    Value(f64),
}

/// Share of the full blur's loss that the first circle must reach.
const LOST: f64 = 0.99;

/// Minimises `p_t(x̃) + λ₁‖1−m‖₁ + λ₂Σ|∇m|^β`, `x̃ = blurred + M∘(x − blurred)`.
struct MeaningfulPerturbation {
    iterations: usize,
    lr: f64,
    l1: f64,
    tv: f64,
    beta: f64,
    grid: usize,
    blur: f64,
    smooth: f64,
    jitter: f64,
    init: FirstMask,
    seed: u64,
}

/// The upsampling of a mask along one axis: for each pixel, the weights of the cells.
struct AxisUpsampling {
    /// `[pixels, cells]`.
    weights: Vec<f64>,
    cells: usize,
}

impl AxisUpsampling {
    /// Gaussian weights around `pixel + shift`, summing to 1 for each pixel.
    fn new(pixels: usize, cells: usize, sigma: f64, shift: f64) -> Self {
        let step = pixels as f64 / cells as f64;
        let mut weights = Vec::with_capacity(pixels * cells);
        for pixel in 0..pixels {
            let at = pixel as f64 + 0.5 + shift;
            let power = |cell: usize| -((at - (cell as f64 + 0.5) * step) / sigma).powi(2) / 2.0;
            // The largest exponent is factored out, so that a narrow Gaussian between cells does not vanish.
            let top = (0..cells).map(power).fold(f64::NEG_INFINITY, f64::max);
            let row: Vec<f64> = (0..cells).map(|cell| (power(cell) - top).exp()).collect();
            let total: f64 = row.iter().sum();
            weights.extend(row.iter().map(|w| w / total));
        }
        Self { weights, cells }
    }

    fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.weights.chunks(self.cells)
    }
}

/// `M = Y m Xᵀ`, `[pixels of y, pixels of x]` in C order.
fn upsampled(mask: &[f64], [y, x]: [&AxisUpsampling; 2]) -> Vec<f64> {
    let mut out = Vec::with_capacity(y.weights.len() / y.cells * (x.weights.len() / x.cells));
    let mut line = vec![0.0; x.cells];
    for weights in y.rows() {
        line.fill(0.0);
        for (weight, cells) in weights.iter().zip(mask.chunks(x.cells)) {
            line.iter_mut().zip(cells).for_each(|(sum, m)| *sum += weight * m);
        }
        out.extend(x.rows().map(|weights| weights.iter().zip(&line).map(|(w, m)| w * m).sum::<f64>()));
    }
    out
}

/// `Yᵀ s X`: the adjoint of [`upsampled`].
fn gathered(signal: &[f64], [y, x]: [&AxisUpsampling; 2]) -> Vec<f64> {
    let mut out = vec![0.0; y.cells * x.cells];
    let mut line = vec![0.0; x.cells];
    for (weights, signal) in y.rows().zip(signal.chunks(x.weights.len() / x.cells)) {
        line.fill(0.0);
        for (s, weights) in signal.iter().zip(x.rows()) {
            line.iter_mut().zip(weights).for_each(|(sum, w)| *sum += s * w);
        }
        for (weight, cells) in weights.iter().zip(out.chunks_mut(x.cells)) {
            cells.iter_mut().zip(&line).for_each(|(sum, s)| *sum += weight * s);
        }
    }
    out
}

/// `Σ|∇m|^β` over neighbours on both axes, and its gradient added to `gradient` times `weight`.
fn variation(mask: &[f64], [h, w]: [usize; 2], beta: f64, weight: f64, gradient: &mut [f64]) -> f64 {
    let mut sum = 0.0;
    let mut pair = |i: usize, j: usize| {
        let d = mask[j] - mask[i];
        sum += d.abs().powf(beta);
        if d != 0.0 {
            let slope = weight * beta * d.abs().powf(beta - 1.0) * d.signum();
            gradient[j] += slope;
            gradient[i] -= slope;
        }
    };
    for y in 0..h {
        for x in 0..w {
            if x + 1 < w {
                pair(y * w + x, y * w + x + 1);
            }
            if y + 1 < h {
                pair(y * w + x, (y + 1) * w + x);
            }
        }
    }
    sum
}

/// A picture and its blurred version, `[C, H, W]`.
struct BlurPair {
    sharp: Vec<f64>,
    blurred: Vec<f64>,
}

impl BlurPair {
    /// `blurred + M ∘ (sharp − blurred)`, the mask repeated over the channels.
    fn mixed(&self, mask: &[f64]) -> Vec<f64> {
        let masks = mask.iter().cycle();
        self.sharp.iter().zip(&self.blurred).zip(masks).map(|((x, b), m)| b + m * (x - b)).collect()
    }

    /// Whether blurring changes nothing, so that all masks are equally good.
    fn is_still(&self) -> bool {
        differ_by_rounding(self.sharp.iter().copied().zip(self.blurred.iter().copied()), Precision::F64)
    }

    /// Takes a signal at the mixed picture back to the mask.
    fn signal(&self, at_mixed: &[f64], plane: usize) -> Vec<f64> {
        let mut out = vec![0.0; plane];
        for (i, ((s, x), b)) in at_mixed.iter().zip(&self.sharp).zip(&self.blurred).enumerate() {
            out[i % plane] += s * (x - b);
        }
        out
    }
}

impl MeaningfulPerturbation {
    /// # Errors
    /// When a value is out of its range.
    fn new(values: &ParameterValues, seed: u64) -> Result<Self> {
        let init = match values.text("init")? {
            "circle" => FirstMask::Circle,
            _ => match values.parse::<f64>("init")? {
                v if (0.0..=1.0).contains(&v) => FirstMask::Value(v),
                _ => return Err(values.refused("init", "a mask lies between 0 and 1")),
            },
        };
        let grid = values.count("grid")?;
        if !(1..=4096).contains(&grid) {
            return Err(values.refused("grid", "there must be at least 1 and at most 4096 cells"));
        }
        let [beta, jitter] = [values.not_negative("beta")?, values.not_negative("jitter")?];
        if !(1.0..=100.0).contains(&beta) {
            return Err(values.refused("beta", "it must lie between 1 and 100"));
        }
        Ok(Self {
            iterations: values.count("iterations")?,
            lr: values.weight("lr")?,
            l1: values.weight("l1")?,
            tv: values.weight("tv")?,
            beta,
            grid,
            blur: values.positive("blur")?,
            smooth: values.positive("smooth")?,
            jitter,
            init,
            seed,
        })
    }

    /// Rows and columns of the mask.
    fn cells(&self, [h, w]: [usize; 2]) -> [usize; 2] {
        let larger = h.max(w);
        let grid = self.grid.min(larger);
        [h, w].map(|side| (side * grid).div_ceil(larger))
    }

    fn axes(&self, size: [usize; 2], shift: [f64; 2]) -> [AxisUpsampling; 2] {
        let (cells, sigma) = (self.cells(size), self.smooth * pixel_scale(size));
        [0, 1].map(|axis| AxisUpsampling::new(size[axis], cells[axis], sigma, shift[axis]))
    }

    /// The mask's shift in one iteration, for the picture with this key.
    fn shift(&self, key: u64, iteration: usize, size: [usize; 2]) -> [f64; 2] {
        let mut draws = [0f32; 2];
        Stream::MaskShift.uniforms(self.seed, key, iteration as u32, &mut draws);
        draws.map(|u| self.jitter * pixel_scale(size) * (f64::from(u) - 0.5))
    }

    /// The initial masks.
    fn start(
        &self,
        engine: &mut Engine,
        graph: &Graph,
        (x, targets): (&Batch, &[usize]),
        pairs: &[BlurPair],
    ) -> Result<Vec<Vec<f64>>> {
        let size = [x.shape().h, x.shape().w];
        let cells = self.cells(size);
        let count = cells[0] * cells[1];
        if let FirstMask::Value(v) = self.init {
            return Ok(vec![vec![v; count]; x.len()]);
        }
        let axes = self.axes(size, [0.0; 2]);
        let circle = |radius: usize| -> Vec<f64> {
            let away = |i: usize, n: usize| (i as f64 + 0.5 - n as f64 / 2.0).powi(2);
            let inside =
                |i: usize| away(i / cells[1], cells[0]) + away(i % cells[1], cells[1]) < (radius as f64).powi(2);
            (0..count).map(|i| if inside(i) { 0.0 } else { 1.0 }).collect()
        };
        let mut p = |mask: &[f64]| {
            let mask = upsampled(mask, [&axes[0], &axes[1]]);
            scores(engine, graph, Score::Prob, (x, targets), pairs.iter().map(|pair| pair.mixed(&mask)).collect())
        };
        let (whole, none) = (p(&vec![1.0; count])?, p(&vec![0.0; count])?);
        let mut masks: Vec<Option<Vec<f64>>> = vec![None; x.len()];
        let most = (cells[0] as f64).hypot(cells[1] as f64).ceil() as usize / 2 + 1;
        for radius in 0..=most {
            if masks.iter().all(Option::is_some) {
                break;
            }
            let mask = circle(radius);
            for (i, p) in p(&mask)?.into_iter().enumerate() {
                let enough = whole[i] - p >= LOST * (whole[i] - none[i]);
                if masks[i].is_none() && (enough || radius == most) {
                    masks[i] = Some(mask.clone());
                }
            }
        }
        Ok(masks.into_iter().flatten().collect())
    }

    /// For each picture, how much of each pixel is deleted, and whether deletion changes nothing.
    fn group(
        &self,
        engine: &mut Engine,
        graph: &Graph,
        (x, targets): (&Batch, &[usize]),
        course: Course,
    ) -> Result<Vec<(Vec<f64>, bool)>> {
        let size = [x.shape().h, x.shape().w];
        let cells = self.cells(size);
        let sigma = self.blur * pixel_scale(size);
        let pair = |item: &Tensor| {
            let sharp = item.to_f64().into_owned();
            BlurPair { blurred: baseline::blur(&sharp, x.shape(), sigma), sharp }
        };
        let pairs: Vec<BlurPair> = x.items().iter().map(pair).collect();
        let mut masks = self.start(engine, graph, (x, targets), &pairs)?;
        let mut adams = vec![Adam::new(self.lr, cells[0] * cells[1]); x.len()];
        let keys = x.keys();
        let mixed = |iteration: usize, i: usize, mask: &[f64]| {
            let axes = self.axes(size, self.shift(keys[i], iteration, size));
            (pairs[i].mixed(&upsampled(mask, axes.each_ref())), axes)
        };
        let step = |_, i: usize, mask: &mut [f64], axes: &[AxisUpsampling; 2], (p, signal): (f64, Vec<f64>)| {
            let signal = pairs[i].signal(&signal, x.shape().plane());
            let mut gradient = gathered(&signal, axes.each_ref());
            // The derivative of |1 − m| at m = 1 is taken as 0.
            gradient.iter_mut().zip(&*mask).for_each(|(g, &m)| *g -= if m < 1.0 { self.l1 } else { 0.0 });
            let size = self.l1 * mask.iter().map(|m| 1.0 - m).sum::<f64>();
            let objective = p + size + self.tv * variation(mask, cells, self.beta, self.tv, &mut gradient);
            adams[i].step(mask, &gradient);
            objective
        };
        let how = (Score::Prob, self.iterations, course);
        descend(engine, graph, (x, targets), how, &mut masks, mixed, step)?;
        let [y, x] = self.axes(size, [0.0; 2]);
        Ok(masks
            .iter()
            .zip(&pairs)
            .map(|(mask, pair)| {
                let deleted = upsampled(mask, [&y, &x]).into_iter().map(|m| (1.0 - m).max(0.0)).collect();
                (deleted, pair.is_still())
            })
            .collect())
    }
}

impl Method for MeaningfulPerturbation {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(pixels_of(graph))
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        // The picture twice, the mixture, the slope in other precision; the engine accounts for transfers.
        let bytes = 5 * x.shape().len() * size_of::<f64>();
        let what = (ENTRY.id, self.iterations);
        // Invalid input is refused before any blurring.
        engine::check(graph, x, targets)?;
        let found = in_groups(what, engine, (x, targets), bytes, |engine, x, targets, course| {
            self.group(engine, graph, (x, targets), course)
        })?;
        maps(engine, ENTRY.id, (x, targets), found, |_| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathering_is_the_adjoint_of_upsampling() {
        let axes = [AxisUpsampling::new(11, 4, 1.7, 0.4), AxisUpsampling::new(7, 3, 0.9, -0.3)];
        let mask: Vec<f64> = (0..12).map(|i| (i * 5 % 7) as f64 / 7.0).collect();
        let signal: Vec<f64> = (0..77).map(|i| (i * 11 % 13) as f64 - 6.0).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let here = dot(&upsampled(&mask, [&axes[0], &axes[1]]), &signal);
        let there = dot(&mask, &gathered(&signal, [&axes[0], &axes[1]]));
        assert!((here - there).abs() <= 1e-12 * here.abs(), "{here} {there}");
        let flat = upsampled(&[0.25; 12], [&axes[0], &axes[1]]);
        assert!(flat.iter().all(|m| (m - 0.25).abs() <= 1e-15), "a constant stays");
        // So narrow that only the nearest cell counts.
        let narrow = AxisUpsampling::new(8, 2, 1e-3, 0.0);
        assert_eq!(
            narrow.weights,
            [[1.0, 0.0]; 4].iter().chain(&[[0.0, 1.0]; 4]).flatten().copied().collect::<Vec<_>>()
        );
    }

    #[test]
    fn variation_is_summed_over_neighbours() {
        let mask = [0.0, 0.5, 1.0, 0.25, 0.5, 0.0];
        let mut gradient = [0.0; 6];
        let sum = variation(&mask, [2, 3], 3.0, 2.0, &mut gradient);
        // Along rows 0.5, 0.5, 0.25, 0.5; down columns 0.25, 0, 1.
        assert_eq!(sum, 3.0 * 0.125 + 2.0 * 0.25f64.powi(3) + 1.0);
        for i in 0..6 {
            let at = |h: f64| {
                let mut moved = mask;
                moved[i] += h;
                variation(&moved, [2, 3], 3.0, 0.0, &mut [0.0; 6])
            };
            let slope = 2.0 * (at(1e-6) - at(-1e-6)) / 2e-6;
            assert!((slope - gradient[i]).abs() <= 1e-7, "{i}: {slope} {}", gradient[i]);
        }
    }
}
