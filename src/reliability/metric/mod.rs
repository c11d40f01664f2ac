//! Metrics: what `verilume eval` measures about methods and their maps.
//!
//! Each metric is one file with its registry [`MetricEntry`]. It receives a [`Case`] (pictures of one shape, a method and its
//! maps of them) and returns named numbers for each picture.

mod attack_stability;
mod attacked;
mod complexity;
mod deletion;
mod dwsol;
mod energy_in_box;
mod fidelity;
mod grid_pointing;
mod infidelity;
mod insertion;
mod max_sensitivity;
mod pixel_flipping;
mod pointing;
mod retrieval;
mod road;
mod sensitivity_n;
mod sparseness;
mod spec;
mod stability;
mod wsol;

pub use spec::MetricSpec;

pub use super::localisation::{Bounds, Region};
use crate::engine::{self, Batch, Engine};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::map::{Map, Reduction, Space};
use crate::method::{Method, Parameter, ParameterValues};
use crate::perturb::baseline::Baseline;
use crate::program::Score;
use crate::tensor::Tensor;

/// The input of a metric.
pub struct Case<'a> {
    /// The net.
    pub graph: &'a Graph,
    /// How pictures became inputs; determines each channel's range.
    pub preprocess: &'a Preprocess,
    /// The pictures in the net's space.
    pub x: &'a Batch,
    /// Class explained on each picture.
    pub targets: &'a [usize],
    /// True class of each picture, if known.
    pub labels: Option<&'a [usize]>,
    /// Which class is where on each picture, if known; several regions for a mosaic.
    pub regions: Option<&'a [Vec<Region>]>,
    /// The method.
    pub method: &'a dyn Method,
    /// Its maps of `x` for `targets`, raw.
    pub maps: &'a [Map],
    /// Seed of every draw.
    pub seed: u64,
}

impl Case<'_> {
    /// Refuses maps, targets, labels or regions that are not one per picture, classes that the net does not have, and
    /// maps of other classes.
    fn check(&self) -> Result<()> {
        engine::check(self.graph, self.x, self.targets)?;
        let n = self.x.len();
        let counts = [Some(self.maps.len()), self.labels.map(<[_]>::len), self.regions.map(<[_]>::len)];
        for (what, count) in ["maps", "labels", "lists of regions"].into_iter().zip(counts) {
            if let Some(count) = count.filter(|&c| c != n) {
                return Err(Error::input(format!("{count} {what} of {n} pictures")));
            }
        }
        match self.maps.iter().zip(self.targets).find(|(map, target)| map.target != **target) {
            Some((map, target)) => {
                Err(Error::input(format!("a map of class {} where {target} is explained", map.target)))
            }
            None => Ok(()),
        }
    }

    /// Every map as `[H, W]` with its picture's pixels.
    ///
    /// # Errors
    /// When a map does not have the picture's pixels or is not finite.
    fn planes(&self, reduction: Reduction) -> Result<Vec<Tensor>> {
        self.check()?;
        self.maps.iter().map(|map| plane(map, self.x, reduction)).collect()
    }

    /// For each picture, whether its map is zero everywhere, so that there is nothing to measure.
    fn blank(&self) -> Vec<bool> {
        self.maps.iter().map(Map::is_zero).collect()
    }

    /// Every map reduced to one number per position, in any space.
    fn reduced(&self, reduction: Reduction) -> Result<Vec<Tensor>> {
        self.check()?;
        self.maps.iter().map(|map| finite(map).and_then(|()| reduction.apply(&map.values))).collect()
    }

    /// Regions of each picture.
    fn regions(&self, metric: &str) -> Result<&[Vec<Region>]> {
        self.check()?;
        self.regions.ok_or_else(|| Error::input(format!("{metric} needs to know what is to be seen where")))
    }

    /// Boxes of the explained class on picture `i`.
    fn boxes(&self, regions: &[Vec<Region>], i: usize) -> Vec<Bounds> {
        regions[i].iter().filter(|r| r.class == self.targets[i]).map(|r| r.bounds).collect()
    }
}

/// Refuses a map with a NaN or an infinity.
fn finite(map: &Map) -> Result<()> {
    match map.values.first_not_finite() {
        Some(at) => Err(Error::input(format!("element {at} of a map of {} is not a finite number", map.method))),
        None => Ok(()),
    }
}

/// Whether a reduced map is constant, so that it does not rank any positions.
fn is_flat(plane: &Tensor) -> bool {
    (1..plane.len()).all(|i| plane.at(i) == plane.at(0))
}

/// `readings` with the numbers removed for the pictures marked in `says_nothing`.
fn without(mut readings: Vec<Readings>, says_nothing: &[bool]) -> Vec<Readings> {
    for (readings, _) in readings.iter_mut().zip(says_nothing).filter(|(_, nothing)| **nothing) {
        readings.iter_mut().for_each(|number| *number = None);
    }
    readings
}

/// A map as `[H, W]`, if it has the pixels of the pictures in `x`.
fn plane(map: &Map, x: &Batch, reduction: Reduction) -> Result<Tensor> {
    let shape = x.shape();
    let place = match &map.space {
        Space::Input if map.values.dims().ends_with(&[shape.h, shape.w]) => {
            finite(map)?;
            return reduction.apply(&map.values);
        }
        Space::Input => String::new(),
        Space::Layer(layer) => format!(" of layer '{layer}' (upsample=bilinear brings it to the picture's)"),
    };
    let (method, dims) = (&map.method, map.values.dims());
    Err(Error::input(format!(
        "a map of {method} has {dims:?} positions{place}, not the picture's {}x{}",
        shape.h, shape.w
    )))
}

/// The parameter `reduce` with this default.
const fn reduce(default: &'static str) -> Parameter {
    Parameter {
        key: "reduce",
        unit: "channel_sum|channel_max_abs|channel_mean_abs",
        default,
        help: "how the channels of a map become one number a pixel; a sum keeps the sign",
    }
}

/// The parameter `score`.
const SCORE: Parameter = Parameter {
    key: "score",
    unit: "logit|prob|logprob",
    default: "logit",
    help: "which number of the target the map is held against: best the one that it explains",
};

/// The value of parameter `score`.
fn score(values: &ParameterValues) -> Result<Score> {
    match values.text(SCORE.key)? {
        "logit" => Ok(Score::Logit),
        "prob" => Ok(Score::Prob),
        "logprob" => Ok(Score::LogProb),
        other => Err(Error::settings(format!("{values}: no score is named '{other}'; there are {}", SCORE.unit))),
    }
}

/// The baseline given by parameter `key`.
fn baseline(values: &ParameterValues, key: &str) -> Result<Baseline> {
    let named = values.parse(key)?;
    match named {
        Baseline::File(_) => Err(Error::settings(format!("{values}: metrics take no baseline from a file"))),
        _ => Ok(named),
    }
}

/// The number given by parameter `key`, within a range that `words` describes.
fn within(values: &ParameterValues, key: &str, holds: impl Fn(f64) -> bool, words: &str) -> Result<f64> {
    match values.parse::<f64>(key)? {
        v if holds(v) => Ok(v),
        v => Err(Error::settings(format!("{values}: {key}={v} is not {words}"))),
    }
}

/// The numbers for one picture, in the order of [`MetricEntry::outputs`]; `None` if a number is undefined for it.
pub type Readings = Vec<Option<f64>>;

/// Measures maps.
pub trait Metric: Send + Sync {
    /// One list of numbers per picture of `case.x`.
    ///
    /// # Errors
    /// When the metric does not apply to the maps, or the engine fails.
    fn measure(&self, engine: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>>;
}

/// Which values of a number are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Smaller ones.
    Lower,
    /// Larger ones.
    Higher,
    /// Neither; the number is descriptive.
    Neither,
}

/// One of a metric's outputs.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Its name in records and tables; unique among all metrics (`deletion`, `retrieval_x_mx_oracle`).
    pub key: &'static str,
    /// Which values are better.
    pub better: Better,
}

/// A metric's entry in the registry.
pub struct MetricEntry {
    /// Name in commands, files and records.
    pub id: &'static str,
    /// Name in running text.
    pub title: &'static str,
    /// Authors, year, title, venue.
    pub paper: &'static str,
    /// The definition in one line.
    pub summary: &'static str,
    /// Parameters in order of importance.
    pub parameters: &'static [Parameter],
    /// Its outputs.
    pub outputs: &'static [Output],
    /// What it needs besides maps: nothing, labels or regions.
    pub needs: Needs,
    /// Builds it.
    pub build: fn(&ParameterValues) -> Result<Box<dyn Metric>>,
}

/// What a metric needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Only maps.
    Maps,
    /// True classes.
    Labels,
    /// Regions.
    Regions,
    /// At least two regions of different classes per picture.
    Mosaic,
}

impl std::fmt::Debug for MetricEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("id", &self.id).finish_non_exhaustive()
    }
}

/// All metrics.
pub fn registry() -> &'static [MetricEntry] {
    &[
        fidelity::ENTRY,
        deletion::ENTRY,
        insertion::ENTRY,
        pixel_flipping::ENTRY,
        road::ENTRY,
        sensitivity_n::ENTRY,
        infidelity::ENTRY,
        max_sensitivity::ENTRY,
        stability::ENTRY,
        attack_stability::ENTRY,
        sparseness::ENTRY,
        complexity::ENTRY,
        pointing::ENTRY,
        energy_in_box::ENTRY,
        wsol::ENTRY,
        grid_pointing::ENTRY,
        dwsol::ENTRY,
        retrieval::ENTRY,
    ]
}
