//! Input invariance (Kindermans, Hooker, Adebayo, Alber, Schütt, Dähne, Erhan, Kim 2017: The (un)reliability of
//! saliency methods). All data are shifted by one fixed picture, and the net's first biases compensate the shift. The
//! net's output on `x + m` is the original one on `x`; is its explanation the same too?

use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::map::Map;
use crate::method::Method;
use crate::tensor::{Shape, Tensor};

/// Largest difference of the shifted net's logits, as a share of the largest logit; more means that the shift was not
/// compensated.
pub const SAME_OUTPUT: f64 = 1e-10;

/// Largest change of a map, as a share of its largest magnitude, at which it counts as the same (double precision).
pub const SAME_MAP: f64 = 1e-6;

/// A shift given as a picture is clipped to this magnitude (Kindermans et al. 2017, section 3.2).
const LARGEST: f64 = 3.0;

/// The shift that is added to all data.
#[derive(Debug, Clone, PartialEq)]
pub enum Shift {
    /// One value everywhere, in the net's units; the paper uses −1.
    Constant(f64),
    /// A checkerboard of four by four fields, alternately −1 and 1, over the middle half of both sides; 0 elsewhere.
    CheckeredBox,
    /// A picture `[C, H, W]`, clipped to −3 to 3.
    Picture(Tensor),
}

impl Shift {
    /// Lower-case name.
    pub fn name(&self) -> &'static str {
        match self {
            Shift::Constant(_) => "constant",
            Shift::CheckeredBox => "box",
            Shift::Picture(_) => "picture",
        }
    }

    /// A drawing for pictures of `h` by `w`: a face made of rings and dots, −1 on 0.
    pub fn drawing(shape: Shape) -> Result<Self> {
        let (h, w) = (shape.h as f64, shape.w as f64);
        let line = 0.06;
        let dark = |y: f64, x: f64| {
            let ring = |cy: f64, cx: f64, r: f64| (((y - cy).powi(2) + (x - cx).powi(2)).sqrt() - r).abs() < line / 2.0;
            let dot = |cy: f64, cx: f64| (y - cy).powi(2) + (x - cx).powi(2) < 0.06f64.powi(2);
            ring(0.5, 0.5, 0.42) || dot(0.38, 0.34) || dot(0.38, 0.66) || (y > 0.55 && ring(0.5, 0.5, 0.24))
        };
        let plane = (0..shape.plane()).map(|i| {
            let (y, x) = ((i / shape.w) as f64 + 0.5, (i % shape.w) as f64 + 0.5);
            if dark(y / h, x / w) { -1.0 } else { 0.0 }
        });
        let plane: Vec<f64> = plane.collect();
        Ok(Shift::Picture(Tensor::f64(shape.dims(), plane.repeat(shape.c))?))
    }

    /// The tensor that is added to every input of `shape`, in double precision.
    ///
    /// # Errors
    /// Input when a picture has another shape or is not finite.
    pub fn tensor(&self, shape: Shape) -> Result<Tensor> {
        match self {
            Shift::Constant(value) => Tensor::f64(shape.dims(), vec![*value; shape.len()]),
            Shift::CheckeredBox => {
                let field = |i: usize, n: usize| {
                    let at = (i as f64 + 0.5) / n as f64;
                    (0.25..0.75).contains(&at).then_some(((at - 0.25) * 8.0) as usize)
                };
                let value = |i: usize| match (field(i / shape.w % shape.h, shape.h), field(i % shape.w, shape.w)) {
                    (Some(row), Some(column)) if (row + column) % 2 == 0 => -1.0,
                    (Some(_), Some(_)) => 1.0,
                    _ => 0.0,
                };
                Tensor::f64(shape.dims(), (0..shape.len()).map(value).collect())
            }
            Shift::Picture(picture) if picture.len() == shape.len() => {
                if let Some(at) = picture.first_not_finite() {
                    return Err(Error::input(format!("element {at} of the shift is {}", picture.at(at))));
                }
                let values = picture.to_f64().iter().map(|v| v.clamp(-LARGEST, LARGEST)).collect();
                Tensor::f64(shape.dims(), values)
            }
            Shift::Picture(picture) => {
                Err(Error::input(format!("a shift of {:?} for pictures of {shape}", picture.dims())))
            }
        }
    }
}

/// The preparation of the shifted data, as far as methods use it: black, white and the ends of each channel's range
/// move down by the smallest value that the shift adds to the channel.
pub fn shifted_preprocess(preprocess: &Preprocess, shift: &Tensor) -> Preprocess {
    let values = shift.to_f64();
    let plane = values.len() / preprocess.channels.max(1);
    let lowest = |c: usize| values[c * plane..(c + 1) * plane].iter().copied().fold(f64::INFINITY, f64::min);
    let mean = preprocess.mean.iter().zip(&preprocess.std).enumerate();
    Preprocess { mean: mean.map(|(c, (m, s))| m - s * lowest(c)).collect(), ..preprocess.clone() }
}

/// A picture's explanations before and after the shift.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// Largest |f'(x + m) − f(x)| as a share of the largest |f(x)|.
    pub output: f64,
    /// Largest |E'(x + m) − E(x)| as a share of the largest |E(x)|; `None` if the map is zero everywhere.
    pub change: Option<f64>,
    /// The map of `x`.
    pub before: Map,
    /// The map of `x + m`.
    pub after: Map,
}

impl Compared {
    /// Whether the map stayed the same; `None` if it is zero or the shift was not compensated.
    pub fn stayed(&self) -> Option<bool> {
        let change = self.change.filter(|_| self.output <= SAME_OUTPUT)?;
        Some(change <= SAME_MAP)
    }
}

/// A net, and its twin for shifted data.
#[derive(Debug)]
pub struct Shifted {
    original: Graph,
    shifted: Graph,
    shift: Tensor,
}

impl Shifted {
    /// `graph` and its twin for data shifted by `shift`.
    ///
    /// # Errors
    /// As [`Shift::tensor`] and [`Graph::shifted`].
    pub fn new(graph: &Graph, shift: &Shift) -> Result<Self> {
        let shift = shift.tensor(graph.input_shape())?;
        Ok(Self { original: graph.clone(), shifted: graph.shifted(&shift)?, shift })
    }

    /// The net for shifted data.
    pub fn shifted_graph(&self) -> &Graph {
        &self.shifted
    }

    /// The shift, `[C, H, W]`.
    pub fn shift(&self) -> &Tensor {
        &self.shift
    }

    /// The pictures with the shift added in double precision, and with the draws of the original pictures: the noise is
    /// the same, so it causes no difference.
    ///
    /// # Errors
    /// When the pictures have another shape.
    pub fn pictures(&self, x: &Batch) -> Result<Batch> {
        let m = self.shift.to_f64();
        let moved = x.items().iter().map(|x| {
            if x.len() != m.len() {
                return Err(Error::input(format!(
                    "a shift of {:?} for a picture of {:?}",
                    self.shift.dims(),
                    x.dims()
                )));
            }
            Tensor::f64(x.dims(), x.to_f64().iter().zip(m.iter()).map(|(x, m)| x + m).collect())
        });
        Batch::of(moved.collect::<Result<_>>()?)?.drawn_as(x)
    }

    /// Compares the maps of `method` on `x` with those of `after`, the same method built for the shifted data
    /// ([`shifted_preprocess`]), on `x + m`. In single precision, rounding alone flips decisions: the verdict needs an
    /// engine in double precision.
    ///
    /// # Errors
    /// The errors of the method.
    pub fn compare(
        &self,
        engine: &mut Engine,
        x: &Batch,
        targets: &[usize],
        [method, after]: [&dyn Method; 2],
    ) -> Result<Vec<Compared>> {
        let moved = self.pictures(x)?;
        let (f, g) = (engine.forward(&self.original, x)?, engine.forward(&self.shifted, &moved)?);
        let before = method.explain(engine, &self.original, x, targets)?;
        let after = after.explain(engine, &self.shifted, &moved, targets)?;
        let classes = self.original.classes();
        let (f, g) = (f.to_f64(), g.to_f64());
        let maps = before.into_iter().zip(after).enumerate();
        let compared = maps.map(|(i, (before, after))| {
            let row = i * classes..(i + 1) * classes;
            Compared {
                output: relative(&f[row.clone()], &g[row]).unwrap_or(0.0),
                change: relative(&before.values.to_f64(), &after.values.to_f64()),
                before,
                after,
            }
        });
        Ok(compared.collect())
    }
}

/// Largest |b − a| as a share of the largest |a|; `None` if all of `a` is zero. A NaN counts as an infinite change.
pub(super) fn relative(a: &[f64], b: &[f64]) -> Option<f64> {
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, |m: f64, v| if v <= m { m } else { v });
    let size = most(&mut a.iter().map(|v| v.abs()));
    let change = most(&mut a.iter().zip(b).map(|(a, b)| (b - a).abs()));
    let change = if change.is_nan() { f64::INFINITY } else { change };
    (size > 0.0).then(|| change / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_are_what_they_say() {
        let shape = Shape::new(2, 8, 16);
        let at = |t: &Tensor, c: usize, y: usize, x: usize| t.at((c * 8 + y) * 16 + x);
        let minus = Shift::Constant(-1.0).tensor(shape).unwrap();
        assert!(minus.to_f64().iter().all(|&v| v == -1.0));
        let checkered = Shift::CheckeredBox.tensor(shape).unwrap();
        assert_eq!([at(&checkered, 0, 1, 4), at(&checkered, 0, 2, 3), at(&checkered, 1, 6, 4)], [0.0; 3]);
        assert_eq!([at(&checkered, 0, 2, 4), at(&checkered, 0, 2, 6), at(&checkered, 1, 3, 4)], [-1.0, 1.0, 1.0]);
        let drawn = Shift::drawing(shape).unwrap().tensor(shape).unwrap();
        assert!(drawn.to_f64().contains(&-1.0) && drawn.to_f64().contains(&0.0));
        let wild = Tensor::f64(shape.dims(), vec![-7.0; shape.len()]).unwrap();
        assert_eq!(Shift::Picture(wild).tensor(shape).unwrap().at(0), -3.0);
        let small = Tensor::f64([1, 1, 1], vec![0.0]).unwrap();
        assert!(Shift::Picture(small).tensor(shape).is_err());
    }

    #[test]
    fn differences_are_relative_and_no_number_is_no_pass() {
        assert_eq!(relative(&[1.0, -4.0], &[1.0, -3.0]), Some(0.25));
        assert_eq!(relative(&[0.0], &[1.0]), None);
        assert_eq!(relative(&[1.0], &[f64::NAN]), Some(f64::INFINITY));
    }
}
