//! Saliency methods.
//!
//! A method lives in one file with its registry [`Entry`]: name, paper, parameters, promises. The entry feeds the command
//! line's help, the generated documentation and the generic tests.

mod ablation_cam;
mod base;
mod blur_ig;
mod cam;
mod conservation;
mod contrastive_ebp;
mod deconvnet;
mod decoy;
mod deep_lift;
mod deep_taylor;
mod descent;
mod eigen_cam;
mod excitation_backprop;
mod expected_gradients;
mod extremal_perturbation;
mod from_baseline;
mod full_grad;
mod grad_cam;
mod grad_cam_pp;
mod gradient;
mod guided_backprop;
mod guided_grad_cam;
mod guided_ig;
pub mod haf;
mod hires_cam;
mod input_x_gradient;
mod integrated_gradients;
mod layer_cam;
mod lrp;
mod meaningful_perturbation;
mod noisy;
mod occlusion;
mod parameters;
mod pattern_attribution;
mod pattern_net;
pub mod patterns;
mod preset;
mod probe;
mod rect_grad;
pub mod relex;
mod rise;
mod score_cam;
mod smooth;
mod smoothgrad;
mod squaregrad;
mod vargrad;
mod xgrad_cam;

use std::path::Path;

pub use conservation::{LayerBalance, conservation};
pub(crate) use parameters::{Registered, read};
pub use parameters::{Spec, Values};

use crate::engine::{Batch, Engine, Job};
use crate::error::Result;
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::map::{Map, Sign, Space};
use crate::program::Score;
use crate::tensor::Tensor;

/// Computes one map for each picture.
pub trait Method: Send + Sync {
    /// One raw map for each picture of `x`, for class `targets[i]` on picture `i`: `[C, H, W]` in the input's space, or `[h, w]`
    /// for methods that say where a layer looks.
    ///
    /// # Errors
    /// When the method makes no sense on this net, shapes or targets do not suit, or memory does not suffice.
    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>>;

    /// The job on one copy of each picture that the method is, if it is nothing more: it can then be run on other copies and
    /// aggregated otherwise.
    fn job(&self) -> Option<(Job, Sign)> {
        None
    }
}

/// What a method is given besides its parameters.
pub struct Context<'a> {
    /// Seed of all random draws.
    pub seed: u64,
    /// Which number of the logits is explained.
    pub score: Score,
    /// How pictures become inputs.
    pub preprocess: &'a Preprocess,
    /// Loads a picture or array as `[C, H, W]` in the net's space.
    pub load: &'a dyn Fn(&Path) -> Result<Tensor>,
}

/// What a method promises of its maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// The map sums to the difference of the scores of picture and baseline; the gap is reported.
    Completeness,
    /// The map and what biases keep sum to the relevance that it started from; the gap is reported.
    Conservation,
    /// Input term and constant terms together are the score; the gap is reported.
    FullDecomposition,
    /// No element is negative.
    NotNegative,
    /// What the map keeps of the net or picture leaves the score as it is; the gap is reported.
    Preservation,
    /// The map's mean is the area that was asked for; the gap is reported.
    Area,
    /// The pictures that are compared keep to their constraint; the gap is reported.
    Constraint,
}

impl Promise {
    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Promise::Completeness => "sums to f(x) − f(baseline); the gap is reported",
            Promise::Conservation => "sums to its start less what biases keep; the gap is reported",
            Promise::FullDecomposition => "its terms (input and biases) sum to f(x); the gap is reported",
            Promise::NotNegative => "never negative",
            Promise::Preservation => "what is kept leaves the score as it is; the gap is reported",
            Promise::Area => "its mean is the area asked for; the gap is reported",
            Promise::Constraint => "decoys keep to their constraint; the gap is reported",
        }
    }

    /// Whether maps carry the measured gap.
    pub fn is_measured(self) -> bool {
        !matches!(self, Promise::NotNegative)
    }
}

/// With which values of its parameters something is true of a method.
#[derive(Debug, Clone, Copy)]
pub enum When {
    /// None.
    Never,
    /// All.
    Always,
    /// Where this key has this value.
    With(&'static str, &'static str),
    /// Where this holds, in words.
    Of(fn(&Values) -> bool, &'static str),
}

impl When {
    /// Whether it is true with `values`.
    pub fn holds(self, values: &Values) -> bool {
        match self {
            When::Never => false,
            When::Always => true,
            When::Of(holds, _) => holds(values),
            When::With(key, value) => values.text(key).is_ok_and(|v| v == value),
        }
    }

    /// `what` and its condition in words.
    pub fn describe(self, what: &str) -> String {
        match self {
            When::Never => format!("never {what}"),
            When::Always => what.to_string(),
            When::Of(_, words) => format!("{what} {words}"),
            When::With(key, value) => format!("{what} with {key}={value}"),
        }
    }
}

/// Unit of parameters that are methods with parameters of their own.
pub const METHOD: &str = "a method";

/// One parameter of a method or metric.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// As written on the command line.
    pub key: &'static str,
    /// Unit or choices.
    pub unit: &'static str,
    /// Value if not given.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
}

impl Parameter {
    /// Stands as the default of a parameter that must be given.
    pub const REQUIRED: &'static str = "required";
}

/// A method as the registry knows it.
pub struct Entry {
    /// Name in commands, files and records.
    pub id: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// Name in prose.
    pub title: &'static str,
    /// Authors, year, title, venue.
    pub paper: &'static str,
    /// The definition in one line.
    pub summary: &'static str,
    /// Forward and backward passes of one map.
    pub passes: &'static str,
    /// Parameters in order of importance.
    pub parameters: &'static [Parameter],
    /// What its maps keep to, and with which values.
    pub promises: &'static [(Promise, When)],
    /// With which values random numbers are drawn, so that maps depend on the seed.
    pub draws: When,
    /// When it misleads, as far as is known.
    pub caution: &'static str,
    /// Makes it.
    pub build: fn(&Values, &Context<'_>) -> Result<Box<dyn Method>>,
}

impl Entry {
    /// Its promises in words, with their conditions.
    pub fn promised(&self) -> Vec<String> {
        self.promises.iter().map(|(promise, when)| when.describe(promise.describe())).collect()
    }

    /// A parameter that must be given, where there is one.
    pub fn required(&self) -> Option<&Parameter> {
        self.parameters.iter().find(|p| p.default == Parameter::REQUIRED)
    }

    /// In words whether maps depend on the seed; nothing where they do not.
    pub fn drawn(&self) -> Option<String> {
        (!matches!(self.draws, When::Never)).then(|| self.draws.describe("maps depend on the seed"))
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("id", &self.id).finish_non_exhaustive()
    }
}

/// All methods.
pub fn registry() -> &'static [Entry] {
    &[
        gradient::ENTRY,
        input_x_gradient::ENTRY,
        integrated_gradients::ENTRY,
        expected_gradients::ENTRY,
        blur_ig::ENTRY,
        guided_ig::ENTRY,
        deep_lift::ENTRY,
        full_grad::ENTRY,
        pattern_net::ENTRY,
        pattern_attribution::ENTRY,
        smoothgrad::ENTRY,
        squaregrad::ENTRY,
        vargrad::ENTRY,
        deconvnet::ENTRY,
        guided_backprop::ENTRY,
        grad_cam::ENTRY,
        grad_cam_pp::ENTRY,
        hires_cam::ENTRY,
        layer_cam::ENTRY,
        xgrad_cam::ENTRY,
        score_cam::ENTRY,
        ablation_cam::ENTRY,
        eigen_cam::ENTRY,
        guided_grad_cam::ENTRY,
        occlusion::ENTRY,
        rise::ENTRY,
        haf::ENTRY,
        relex::ENTRY,
        meaningful_perturbation::ENTRY,
        extremal_perturbation::ENTRY,
        lrp::ENTRY,
        deep_taylor::ENTRY,
        excitation_backprop::ENTRY,
        contrastive_ebp::ENTRY,
        rect_grad::ENTRY,
        smooth::ENTRY,
        decoy::ENTRY,
    ]
}

/// Maps in input space straight from a job.
fn input_maps(
    engine: &mut Engine,
    graph: &Graph,
    job: &Job,
    x: &Batch,
    targets: &[usize],
    sign: Sign,
    method: &str,
) -> Result<Vec<Map>> {
    let answer = engine.explain(graph, job, x, targets)?;
    let map = |(values, &target)| Map::new(values, sign, Space::Input, target, method);
    Ok(answer.maps.into_iter().zip(targets).map(map).collect())
}
