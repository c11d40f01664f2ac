//! Metrics: what `verilume eval` measures of methods and their maps.
//!
//! A metric lives in one file with its registry [`MetricEntry`]. It is given a [`Case`], pictures of one shape with a
//! method and its maps of them, and answers with named numbers for each picture.

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

/// What a metric is given.
pub struct Case<'a> {
    /// The net.
    pub graph: &'a Graph,
    /// How pictures became inputs: gives each channel's range.
    pub preprocess: &'a Preprocess,
    /// Pictures as the net sees them.
    pub x: &'a Batch,
    /// Class explained on each picture.
    pub targets: &'a [usize],
    /// True class of each picture, where known.
    pub labels: Option<&'a [usize]>,
    /// What is to be seen where on each picture, where known; several regions for a mosaic.
    pub regions: Option<&'a [Vec<Region>]>,
    /// The method.
    pub method: &'a dyn Method,
    /// Its maps of `x` for `targets`, raw.
    pub maps: &'a [Map],
    /// Seed of every draw.
    pub seed: u64,
}

impl Case<'_> {
    /// Refuses maps, targets, labels or regions that are not one for each picture, classes that the net has not, and
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

    /// Every map as `[H, W]` on the pixels of its picture.
    ///
    /// # Errors
    /// When a map does not lie on the picture's pixels or is not finite.
    fn planes(&self, reduction: Reduction) -> Result<Vec<Tensor>> {
        self.check()?;
        self.maps.iter().map(|map| plane(map, self.x, reduction)).collect()
    }

    /// For each picture whether its map is zero everywhere: it says nothing that could be measured.
    fn blank(&self) -> Vec<bool> {
        self.maps.iter().map(Map::is_zero).collect()
    }

    /// Every map as one number a position, wherever it lies.
    fn reduced(&self, reduction: Reduction) -> Result<Vec<Tensor>> {
        self.check()?;
        self.maps.iter().map(|map| finite(map).and_then(|()| reduction.apply(&map.values))).collect()
    }

    /// Regions of each picture.
    fn regions(&self, metric: &str) -> Result<&[Vec<Region>]> {
        self.check()?;
        self.regions.ok_or_else(|| Error::input(format!("{metric} needs to know what is to be seen where")))
    }

    /// Boxes of the class explained on picture `i`.
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

/// Whether a map reduced to one number a position is the same everywhere, so that it puts no position before another.
fn is_flat(plane: &Tensor) -> bool {
    (1..plane.len()).all(|i| plane.at(i) == plane.at(0))
}

/// `readings` without the numbers of the pictures that `says_nothing` names.
fn without(mut readings: Vec<Readings>, says_nothing: &[bool]) -> Vec<Readings> {
    for (readings, _) in readings.iter_mut().zip(says_nothing).filter(|(_, nothing)| **nothing) {
        readings.iter_mut().for_each(|number| *number = None);
    }
    readings
}

/// A map as `[H, W]`, if it lies on the pixels of pictures like those of `x`.
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

/// Parameter `reduce` with this default.
const fn reduce(default: &'static str) -> Parameter {
    Parameter {
        key: "reduce",
        unit: "channel_sum|channel_max_abs|channel_mean_abs",
        default,
        help: "how the channels of a map become one number a pixel; a sum keeps the sign",
    }
}

/// Parameter `score`.
const SCORE: Parameter = Parameter {
    key: "score",
    unit: "logit|prob|logprob",
    default: "logit",
    help: "which number of the target the map is held against: best the one that it explains",
};

/// The score that parameter `score` names.
fn score(values: &ParameterValues) -> Result<Score> {
    match values.text(SCORE.key)? {
        "logit" => Ok(Score::Logit),
        "prob" => Ok(Score::Prob),
        "logprob" => Ok(Score::LogProb),
        other => Err(Error::settings(format!("{values}: no score is named '{other}'; there are {}", SCORE.unit))),
    }
}

/// The baseline that parameter `key` names.
fn baseline(values: &ParameterValues, key: &str) -> Result<Baseline> {
    let named = values.parse(key)?;
    match named {
        Baseline::File(_) => Err(Error::settings(format!("{values}: metrics take no baseline from a file"))),
        _ => Ok(named),
    }
}

/// A number within a range, named in words, of parameter `key`.
fn within(values: &ParameterValues, key: &str, holds: impl Fn(f64) -> bool, words: &str) -> Result<f64> {
    match values.parse::<f64>(key)? {
        v if holds(v) => Ok(v),
        v => Err(Error::settings(format!("{values}: {key}={v} is not {words}"))),
    }
}

/// Named numbers of one picture, in the order of [`MetricEntry::outputs`]; `None` where a number has no meaning on it.
pub type Readings = Vec<Option<f64>>;

/// Measures.
pub trait Metric: Send + Sync {
    /// One list of numbers for each picture of `case.x`.
    ///
    /// # Errors
    /// When the metric makes no sense of the maps, or the engine fails.
    fn measure(&self, engine: &mut Engine, case: &Case<'_>) -> Result<Vec<Readings>>;
}

/// Which way a number is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Smaller ones.
    Lower,
    /// Larger ones.
    Higher,
    /// Neither; it describes.
    Neither,
}

/// One of a metric's numbers.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// In records and tables; alone it names the number (`deletion`, `retrieval_x_mx_oracle`).
    pub key: &'static str,
    /// Which way it is better.
    pub better: Better,
}

/// A metric as the registry knows it.
pub struct MetricEntry {
    /// Name in commands, files and records.
    pub id: &'static str,
    /// Name in prose.
    pub title: &'static str,
    /// Authors, year, title, venue.
    pub paper: &'static str,
    /// The definition in one line.
    pub summary: &'static str,
    /// Parameters in order of importance.
    pub parameters: &'static [Parameter],
    /// Its numbers.
    pub outputs: &'static [Output],
    /// What of a case it cannot do without besides maps: nothing, labels, regions.
    pub needs: Needs,
    /// Makes it.
    pub build: fn(&ParameterValues) -> Result<Box<dyn Metric>>,
}

/// What a metric cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Maps alone.
    Maps,
    /// True classes.
    Labels,
    /// Regions.
    Regions,
    /// At least two regions of different classes a picture.
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
