//! Objectives that attacks on maps maximise, as functions of a map normalised to sum 1, and their derivatives.

use crate::error::{Error, Result};
use crate::reliability::localisation::Bounds;
use crate::tensor::Tensor;

/// A set of pixels of the net's input.
#[derive(Debug, Clone, PartialEq)]
pub enum PixelRegion {
    /// A rectangle.
    Bounds(Bounds),
    /// `[H, W]` of the net's input; non-zero pixels are in the region.
    Mask(Tensor),
}

impl PixelRegion {
    /// Whether each pixel of `[h, w]` is in the region.
    ///
    /// # Errors
    /// When the region lies outside, a mask has another size or a number that is not finite, or the region is empty or
    /// contains every pixel.
    pub fn inside(&self, [h, w]: [usize; 2]) -> Result<Vec<bool>> {
        let inside: Vec<bool> = match self {
            PixelRegion::Bounds(b) => {
                let fits =
                    |first: usize, extent: usize, n: usize| first.checked_add(extent).is_some_and(|end| end <= n);
                if !fits(b.top, b.height, h) || !fits(b.left, b.width, w) {
                    return Err(Error::shape(format!(
                        "a region of rows {} to {} and columns {} to {} lies outside of an input of {h}x{w}",
                        b.top,
                        b.top.saturating_add(b.height),
                        b.left,
                        b.left.saturating_add(b.width)
                    )));
                }
                let within = |at: usize, first: usize, extent: usize| (first..first + extent).contains(&at);
                (0..h * w).map(|i| within(i / w, b.top, b.height) && within(i % w, b.left, b.width)).collect()
            }
            PixelRegion::Mask(mask) => {
                if *mask.dims() != [h, w] {
                    let dims = mask.dims();
                    return Err(Error::shape(format!("a region of shape {dims:?} for an input of {h}x{w}")));
                }
                if let Some(at) = mask.first_not_finite() {
                    return Err(Error::settings(format!("a region whose element {at} is {}", mask.at(at))));
                }
                (0..h * w).map(|i| mask.at(i) != 0.0).collect()
            }
        };
        match inside.iter().filter(|&&i| i).count() {
            0 => Err(Error::settings("a region without pixels")),
            n if n == h * w => Err(Error::shape("a region of all pixels: the map's mass always lies inside")),
            _ => Ok(inside),
        }
    }
}

/// What an attack does to the map `s`: magnitudes over channels, one number per pixel, with sum 1.
#[derive(Debug, Clone, PartialEq)]
pub enum Objective {
    /// Takes mass from the top `k` pixels of the original picture's map (Ghorbani, Abid, Zou 2019, "top-k attack"):
    /// maximises `−Σ_{i∈B} sᵢ`. The result is the iterate whose own top `k` overlaps least with them.
    TopK {
        /// Number of pixels; if not given, 2 per cent of all, like the paper's 1000 of 224×224.
        k: Option<usize>,
    },
    /// Moves the centre of mass away from its original position ("mass-center attack"): maximises `‖C(s) − C‖₂`, in
    /// pixels.
    MassCentre,
    /// Moves mass into a region ("targeted attack"): maximises `Σ_{i∈A} sᵢ`.
    TargetRegion(PixelRegion),
    /// Moves the map towards a target map while preserving the logits `f` (Dombrowski et al. 2019, equation 3):
    /// maximises `−‖s − t‖² / ‖s₀ − t‖² − γ ‖f − f₀‖² / ‖f₀‖²`. Unlike in the paper, both terms are divided by their
    /// initial scale, so that γ has the same meaning on every net.
    Manipulate {
        /// `t`, the target map.
        target: MapTarget,
        /// γ.
        logits: f64,
    },
}

/// The target map of an attack.
#[derive(Debug, Clone, PartialEq)]
pub enum MapTarget {
    /// A given map, `[C, H, W]` or `[H, W]`; its magnitudes are used, normalised to sum 1.
    Map(Tensor),
    /// The attacked method's map of this picture (`[C, H, W]` in the net's space), for the class predicted on it.
    Picture(Tensor),
}

impl Objective {
    /// The `k` of [`Objective::TopK`] for maps of this many pixels; 2 per cent of them for other objectives.
    pub fn top_k(&self, pixels: usize) -> usize {
        match self {
            Objective::TopK { k: Some(k) } => *k,
            _ => (pixels / 50).max(1),
        }
    }

    /// Name in commands and records.
    pub fn name(&self) -> &'static str {
        match self {
            Objective::TopK { .. } => "top_k",
            Objective::MassCentre => "mass_centre",
            Objective::TargetRegion(_) => "target_region",
            Objective::Manipulate { .. } => "manipulate",
        }
    }
}

/// How channels are reduced to one magnitude per pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Magnitude {
    /// `Σ_c |E_c|`.
    #[default]
    Sum,
    /// `max_c |E_c|`.
    Max,
}

impl std::str::FromStr for Magnitude {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "sum" => Ok(Magnitude::Sum),
            "max" => Ok(Magnitude::Max),
            _ => Err(Error::settings(format!("channels are folded by sum or max, not by '{s}'"))),
        }
    }
}

impl Magnitude {
    /// Reduces `e`, with `plane` pixels per channel, to one number per pixel.
    pub(super) fn of(self, e: &[f64], plane: usize) -> Vec<f64> {
        let mut out = vec![0.0f64; plane];
        for channel in e.chunks(plane) {
            for (o, v) in out.iter_mut().zip(channel) {
                match self {
                    Magnitude::Sum => *o += v.abs(),
                    Magnitude::Max => *o = o.max(v.abs()),
                }
            }
        }
        out
    }

    /// `s` with sum 1; all 0 if `e` is.
    pub(super) fn normalised(self, e: &[f64], plane: usize) -> Vec<f64> {
        let mut s = self.of(e, plane);
        let total: f64 = s.iter().sum();
        s.iter_mut().for_each(|v| *v = if total > 0.0 { *v / total } else { 0.0 });
        s
    }

    /// Chain rule: the derivative with respect to `e`, given the derivative `slope` with respect to `s`.
    pub(super) fn back(self, e: &[f64], plane: usize, slope: &[f64]) -> Vec<f64> {
        let a = self.of(e, plane);
        let total: f64 = a.iter().sum();
        if total <= 0.0 {
            return vec![0.0; e.len()];
        }
        let mean = a.iter().zip(slope).map(|(a, d)| a * d).sum::<f64>() / total;
        let mut taken = vec![false; plane];
        let mut out = vec![0.0; e.len()];
        for (i, (o, &v)) in out.iter_mut().zip(e).enumerate() {
            let at = i % plane;
            // Of equal magnitudes the first counts as the largest.
            let counts = v != 0.0 && (self == Magnitude::Sum || (!taken[at] && v.abs() == a[at]));
            if counts {
                taken[at] = true;
                *o = (slope[at] - mean) / total * v.signum();
            }
        }
        out
    }
}

/// An [`Objective`] for one picture.
#[derive(Debug, Clone)]
pub(super) enum Aim {
    TopK { top: Vec<bool>, k: usize },
    MassCentre { centre: [f64; 2], width: usize },
    TargetRegion { inside: Vec<bool> },
    Manipulate { map: Vec<f64>, scale: f64, weight: f64, scale_logits: f64 },
}

impl Aim {
    /// For a picture of `[h, w]` pixels whose normalised map is `s` and whose logits are `f`; `wanted` is the
    /// normalised target map.
    pub fn new(
        objective: &Objective,
        [h, w]: [usize; 2],
        (s, f): (&[f64], &[f64]),
        wanted: Option<&[f64]>,
    ) -> Result<Self> {
        Ok(match objective {
            Objective::TopK { .. } => {
                let k = objective.top_k(h * w);
                if !(1..h * w).contains(&k) {
                    let why = format!("top_k:k={k}: there are {} pixels", h * w);
                    return Err(if k == 0 { Error::settings(why) } else { Error::shape(why) });
                }
                Aim::TopK { top: top(s, k), k }
            }
            Objective::MassCentre => Aim::MassCentre { centre: centre(s, w), width: w },
            Objective::TargetRegion(region) => Aim::TargetRegion { inside: region.inside([h, w])? },
            &Objective::Manipulate { logits: weight, .. } => {
                if !(weight >= 0.0 && weight.is_finite()) {
                    return Err(Error::settings(format!("manipulate: {weight} cannot be the weight of the logits")));
                }
                let above = |v: f64| if v > 0.0 { v } else { 1.0 };
                let map = wanted.unwrap_or_default().to_vec();
                let (scale, scale_logits) = (above(distance(s, &map)), above(f.iter().map(|f| f * f).sum()));
                Aim::Manipulate { map, scale, weight, scale_logits }
            }
        })
    }

    /// The objective, for a map `s` and logits that changed by `moved`.
    pub fn value(&self, s: &[f64], moved: &[f64]) -> f64 {
        let mass = |inside: &[bool]| s.iter().zip(inside).filter(|(_, i)| **i).map(|(s, _)| s).sum::<f64>();
        match self {
            Aim::TopK { top, .. } => -mass(top),
            Aim::MassCentre { centre: from, width } => {
                let to = centre(s, *width);
                (to[0] - from[0]).hypot(to[1] - from[1])
            }
            Aim::TargetRegion { inside } => mass(inside),
            Aim::Manipulate { map, scale, weight, scale_logits } => {
                -distance(s, map) / scale - weight * moved.iter().map(|d| d * d).sum::<f64>() / scale_logits
            }
        }
    }

    /// The value by which iterates are compared; larger is better.
    pub fn rank(&self, s: &[f64], moved: &[f64]) -> f64 {
        match self {
            Aim::TopK { top: before, k } => {
                let common = top(s, *k).iter().zip(before).filter(|(a, b)| **a && **b).count();
                // The mass, at most 1, breaks ties between equal intersections.
                self.value(s, moved) - common as f64
            }
            _ => self.value(s, moved),
        }
    }

    /// Derivative of the objective with respect to `s`.
    pub fn slope(&self, s: &[f64]) -> Vec<f64> {
        match self {
            Aim::TopK { top, .. } => top.iter().map(|&i| if i { -1.0 } else { 0.0 }).collect(),
            Aim::TargetRegion { inside } => inside.iter().map(|&i| if i { 1.0 } else { 0.0 }).collect(),
            Aim::MassCentre { centre: from, width } => {
                let to = centre(s, *width);
                let way = [to[0] - from[0], to[1] - from[1]];
                let length = way[0].hypot(way[1]);
                let rows = s.len() / width;
                // While the centre has not moved yet, it is sent to the farther side.
                let unit = if length > 0.0 {
                    way.map(|d| d / length)
                } else {
                    let far = |c: f64, n: usize| if 2.0 * c > (n - 1) as f64 { -1.0 } else { 1.0 };
                    [far(from[0], rows), far(from[1], *width)].map(|d: f64| d / std::f64::consts::SQRT_2)
                };
                (0..s.len()).map(|i| unit[0] * (i / width) as f64 + unit[1] * (i % width) as f64).collect()
            }
            Aim::Manipulate { map, scale, .. } => s.iter().zip(map).map(|(s, t)| -2.0 * (s - t) / scale).collect(),
        }
    }

    /// Derivative with respect to the logits, if it depends on them.
    pub fn logit_slope(&self, moved: &[f64]) -> Option<Vec<f64>> {
        match self {
            Aim::Manipulate { weight, scale_logits, .. } if *weight > 0.0 => {
                Some(moved.iter().map(|d| -2.0 * weight * d / scale_logits).collect())
            }
            _ => None,
        }
    }
}

/// The `k` pixels with the largest values; of equal ones, the first.
fn top(s: &[f64], k: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..s.len()).collect();
    order.sort_by(|&a, &b| s[b].total_cmp(&s[a]).then(a.cmp(&b)));
    let mut top = vec![false; s.len()];
    order.iter().take(k).for_each(|&i| top[i] = true);
    top
}

/// `[y, x]` of the centre of mass, in pixels.
fn centre(s: &[f64], width: usize) -> [f64; 2] {
    let sum = |of: &dyn Fn(usize) -> usize| s.iter().enumerate().map(|(i, v)| v * of(i) as f64).sum();
    [sum(&|i| i / width), sum(&|i| i % width)]
}

/// `‖a − b‖²`.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}
