//! How much a map changes when its picture does.

use super::similarity::{mass_centre_shift, spearman, top_k_intersection};
use crate::engine::{Batch, Engine};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::map::{Map, Reduction, paper_scale};
use crate::method::Method;
use crate::tensor::Tensor;

/// The scale on which maps are subtracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Scaled by [`paper_scale`], so that methods with maps in different units can be compared.
    Paper,
    /// As computed by the method.
    Raw,
}

impl std::str::FromStr for Scale {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "paper" => Ok(Scale::Paper),
            "raw" => Ok(Scale::Raw),
            _ => Err(Error::settings(format!("no scale is named '{s}'; there are paper and raw"))),
        }
    }
}

/// How two maps are compared.
#[derive(Debug, Clone, Copy)]
pub struct Comparison {
    /// Scale of the difference.
    pub scale: Scale,
    /// Share of the pixels that count as a map's top.
    pub k: f64,
    /// How channels are reduced for everything but the difference.
    pub reduction: Reduction,
}

/// How much a map changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stability {
    /// `S_S = ‖E(x) − E(x̂)‖₂ / ‖x − x̂‖₂`; `None` if the pictures are equal.
    pub ratio: Option<f64>,
    /// Share of the top pixels that stayed; meaningless if a map is constant: see [`Stability::top`].
    pub top_k: f64,
    /// Spearman's rank correlation; `None` if a map is constant.
    pub spearman: Option<f64>,
    /// Distance that the centre of mass moved, in the map's pixels; `None` if a map is 0.
    pub mass_shift: Option<f64>,
}

impl Stability {
    /// Share of the top pixels that stayed; `None` if a map is constant, because its top is then arbitrary.
    #[must_use]
    pub fn top(&self) -> Option<f64> {
        self.spearman.map(|_| self.top_k)
    }
}

/// `‖a − b‖₂`.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let largest = (0..a.len()).map(|i| (a.at(i) - b.at(i)).abs()).fold(0.0, f64::max);
    if largest == 0.0 {
        return 0.0;
    }
    // Squares of very small numbers would underflow.
    largest * (0..a.len()).map(|i| ((a.at(i) - b.at(i)) / largest).powi(2)).sum::<f64>().sqrt()
}

/// Compares the maps of a picture `x` and of its modified version; maps need not have the picture's positions.
///
/// # Errors
/// When maps or pictures differ in shape, or a map is empty or not finite.
pub fn compare([map, moved]: [&Map; 2], [x, x_moved]: [&Tensor; 2], how: &Comparison) -> Result<Stability> {
    if map.values.dims() != moved.values.dims() || x.dims() != x_moved.dims() {
        return Err(Error::input(format!(
            "maps of {:?} and {:?} of pictures of {:?} and {:?} cannot be compared",
            map.values.dims(),
            moved.values.dims(),
            x.dims(),
            x_moved.dims()
        )));
    }
    let difference = match how.scale {
        Scale::Raw => distance(&map.values, &moved.values),
        Scale::Paper => distance(&paper_scale(&map.values)?, &paper_scale(&moved.values)?),
    };
    let way = distance(x, x_moved);
    let [a, b] = [how.reduction.apply(&map.values)?, how.reduction.apply(&moved.values)?];
    Ok(Stability {
        ratio: (way > 0.0).then(|| difference / way),
        top_k: top_k_intersection(&a, &b, how.k)?,
        spearman: spearman(&a, &b)?,
        mass_shift: mass_centre_shift(&a, &b)?,
    })
}

/// The input of [`stability`]: maps of pictures, and how they were computed.
#[derive(Clone, Copy)]
pub struct Explained<'a> {
    /// The net.
    pub graph: &'a Graph,
    /// The method.
    pub method: &'a dyn Method,
    /// The pictures.
    pub x: &'a Batch,
    /// Class explained on each picture.
    pub targets: &'a [usize],
    /// The method's map of each picture.
    pub maps: &'a [Map],
}

/// Explains `moved`, one modified picture per picture of the batch (attacked, noisy, …), for the same classes, and
/// compares.
///
/// # Errors
/// As [`compare`]; the errors of the method.
pub fn stability(
    engine: &mut Engine,
    explained: &Explained<'_>,
    moved: &Batch,
    how: &Comparison,
) -> Result<Vec<Stability>> {
    let &Explained { graph, method, x, targets, maps } = explained;
    if moved.len() != x.len() || maps.len() != x.len() {
        return Err(Error::input(format!("{} maps of {} pictures, {} moved", maps.len(), x.len(), moved.len())));
    }
    let after = method.explain(engine, graph, moved, targets)?;
    let one = |i: usize| compare([&maps[i], &after[i]], [&x.items()[i], &moved.items()[i]], how);
    (0..x.len()).map(one).collect()
}
