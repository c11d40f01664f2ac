//! Curves of a class's score while the pixels of one picture are replaced by another's, most important first.

use super::scores::Scores;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::program::Score;
use crate::tensor::{Data, Shape, Tensor};

/// A number of items, absolute or relative to their total.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// This many.
    Count(usize),
    /// This share, 0 to 1.
    Share(f64),
}

impl Amount {
    /// The number out of `total`: rounded, at least 1 and at most all.
    pub fn of(self, total: usize) -> usize {
        let n = match self {
            Amount::Count(n) => n,
            Amount::Share(share) => (share * total as f64).round() as usize,
        };
        n.clamp(1, total.max(1))
    }
}

/// A whole number above 0, or a percentage above 0 such as `2.5%`.
impl std::str::FromStr for Amount {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let wrong = || Error::settings(format!("'{s}' is neither a whole number above 0 nor a percentage up to 100%"));
        match s.strip_suffix('%') {
            Some(percent) => match percent.parse::<f64>() {
                Ok(p) if p > 0.0 && p <= 100.0 => Ok(Amount::Share(p / 100.0)),
                _ => Err(wrong()),
            },
            None => s.parse().ok().filter(|&n| n > 0).map(Amount::Count).ok_or_else(wrong),
        }
    }
}

/// A sequence of replacements and their order.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// The starting picture, `[C, H, W]`.
    pub from: &'a Tensor,
    /// The final picture, `[C, H, W]`.
    pub to: &'a Tensor,
    /// The order of replacement.
    pub order: RemovalOrder<'a>,
    /// Items per step.
    pub step: usize,
    /// Class whose score is recorded.
    pub target: usize,
}

/// The items to replace, in order.
#[derive(Debug, Clone, Copy)]
pub enum RemovalOrder<'a> {
    /// Positions `y · W + x`, all channels at once.
    Pixels(&'a [u32]),
    /// Elements in C order, each channel separately.
    Elements(&'a [u32]),
}

impl RemovalOrder<'_> {
    fn indices(&self) -> &[u32] {
        match self {
            RemovalOrder::Pixels(i) | RemovalOrder::Elements(i) => i,
        }
    }
}

impl Way<'_> {
    /// Number of pictures in the sequence, including both ends.
    pub fn points(&self) -> usize {
        self.order.indices().len().div_ceil(self.step.max(1)) + 1
    }

    fn check(&self, shape: Shape, classes: usize) -> Result<()> {
        if self.target >= classes {
            return Err(Error::input(format!("class {} of a net with {classes}", self.target)));
        }
        let positions = match self.order {
            RemovalOrder::Pixels(_) => shape.plane(),
            RemovalOrder::Elements(_) => shape.len(),
        };
        if self.from.dims() != shape.dims() || self.to.dims() != shape.dims() {
            return Err(Error::input(format!(
                "a way from {:?} to {:?} for a net that takes {shape}",
                self.from.dims(),
                self.to.dims()
            )));
        }
        if self.step == 0 {
            return Err(Error::settings("a step of 0 pixels leads nowhere"));
        }
        match self.order.indices().iter().find(|&&i| i as usize >= positions) {
            Some(i) => Err(Error::input(format!("position {i} of {positions}"))),
            None => Ok(()),
        }
    }

    /// Passes every picture in the sequence to `visit`; each differs from the previous one only by one step's items.
    fn walk<T: Copy>(
        &self,
        [from, to]: [&[T]; 2],
        plane: usize,
        wrap: impl Fn(Vec<T>) -> Data,
        visit: &mut impl FnMut(Tensor) -> Result<()>,
    ) -> Result<()> {
        let mut now = from.to_vec();
        visit(Tensor::new(self.from.dims(), wrap(now.clone()))?)?;
        for step in self.order.indices().chunks(self.step) {
            match self.order {
                RemovalOrder::Elements(_) => step.iter().for_each(|&i| now[i as usize] = to[i as usize]),
                RemovalOrder::Pixels(_) => {
                    for (now, to) in now.chunks_mut(plane).zip(to.chunks(plane)) {
                        step.iter().for_each(|&i| now[i as usize] = to[i as usize]);
                    }
                }
            }
            visit(Tensor::new(self.from.dims(), wrap(now.clone()))?)?;
        }
        Ok(())
    }
}

/// `[C, H, W]`: `from` with some pixels (`y · W + x`, all channels) taken from `to`, which has the same shape.
pub(crate) fn replaced(from: &Tensor, to: &Tensor, pixels: &[u32]) -> Result<Tensor> {
    fn mix<T: Copy>([from, to]: [&[T]; 2], plane: usize, pixels: &[u32]) -> Vec<T> {
        let mut out = from.to_vec();
        for (out, to) in out.chunks_mut(plane).zip(to.chunks(plane)) {
            pixels.iter().for_each(|&p| out[p as usize] = to[p as usize]);
        }
        out
    }
    let plane = from.dims().iter().skip(1).product::<usize>().max(1);
    let data = match (from.data(), to.data()) {
        (Data::F32(from), Data::F32(to)) => Data::F32(mix([from, to], plane, pixels)),
        _ => Data::F64(mix([&from.to_f64(), &to.to_f64()], plane, pixels)),
    };
    Tensor::new(from.dims(), data)
}

/// For each sequence, the target's score on every picture: at the start, after each step, at the end. Steps of several
/// sequences share batches.
///
/// # Errors
/// When a sequence does not match the net; the errors of [`Engine::forward`].
pub fn curves(engine: &mut Engine, graph: &Graph, score: Score, ways: &[Way<'_>]) -> Result<Vec<Vec<f64>>> {
    let shape = graph.input_shape();
    let mut scores = Scores::new(engine, graph, score);
    for way in ways {
        way.check(shape, graph.classes())?;
        let mut visit = |picture: Tensor| scores.push(picture, way.target);
        match (way.from.data(), way.to.data()) {
            (Data::F32(from), Data::F32(to)) => way.walk([from, to], shape.plane(), Data::F32, &mut visit)?,
            _ => way.walk([&way.from.to_f64(), &way.to.to_f64()], shape.plane(), Data::F64, &mut visit)?,
        }
    }
    let scores = scores.finish()?;
    let mut rest = &scores[..];
    let mut curve = |way: &Way<'_>| {
        let (head, tail) = rest.split_at(way.points());
        rest = tail;
        head.to_vec()
    };
    Ok(ways.iter().map(&mut curve).collect())
}

/// Area under a curve by the trapezoidal rule, with its ends 1 apart, i.e. its mean height. For a single point, its
/// value.
pub fn area(curve: &[f64]) -> f64 {
    match curve {
        [] => 0.0,
        [only] => *only,
        [first, .., last] => (curve.iter().sum::<f64>() - (first + last) / 2.0) / (curve.len() - 1) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        let of = |s: &str, n: usize| s.parse::<Amount>().unwrap().of(n);
        assert_eq!([of("1%", 1024), of("1%", 10), of("100%", 9), of("7", 100), of("7", 3)], [10, 1, 9, 7, 3]);
        for bad in ["0", "-1", "0%", "101%", "x", "nan%", "1.5", ""] {
            assert!(bad.parse::<Amount>().is_err(), "{bad}");
        }
    }

    #[test]
    fn areas_are_mean_heights() {
        assert_eq!(area(&[1.0, 0.0]), 0.5);
        assert_eq!(area(&[1.0, 0.5, 0.0, 0.0]), 1.0 / 3.0);
        assert_eq!(area(&[0.7]), 0.7);
    }
}
