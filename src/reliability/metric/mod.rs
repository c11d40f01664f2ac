//! Metrics: what `verilume eval` measures of methods and their maps.
//!
//! A metric lives in one file with its registry [`Entry`]. It is given a [`Case`], pictures of one shape with a method and
//! its maps of them, and answers with named numbers for each picture.

use crate::engine::{Batch, Engine};
use crate::error::Result;
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::map::Map;
use crate::method::{Method, Parameter, Values};

/// A rectangle of the net's input, in its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Where a class is to be seen: a box that was drawn around it, or its cell of a mosaic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Index of the class.
    pub class: usize,
    /// Its place.
    pub bounds: Bounds,
}

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

/// Named numbers of one picture, in the order of [`Entry::outputs`]; `None` where a number has no meaning on it.
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
pub struct Entry {
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
    pub build: fn(&Values) -> Result<Box<dyn Metric>>,
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

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("id", &self.id).finish_non_exhaustive()
    }
}

/// All metrics.
pub fn registry() -> &'static [Entry] {
    &[]
}
