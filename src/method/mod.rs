//! Saliency methods.
//!
//! A method lives in one file of its family's folder with its registry [`Entry`]: name, paper, parameters, promises. The entry
//! feeds the command line's help, the generated documentation and the generic tests.

/// Gradients of the score with respect to the picture, as they are, of noisy copies, or by a changed rule.
mod gradients {
    pub(super) mod deconvnet;
    pub(super) mod full_grad;
    pub(super) mod gradient;
    pub(super) mod guided_backprop;
    pub(super) mod input_x_gradient;
    pub(super) mod rect_grad;
    pub(super) mod smoothgrad;
    pub(super) mod squaregrad;
    pub(super) mod vargrad;
}

/// Gradients along paths from a baseline.
mod paths {
    pub(super) mod blur_ig;
    pub(super) mod expected_gradients;
    pub(super) mod guided_ig;
    pub(super) mod integrated_gradients;
}

/// Where a layer looks: sums of its channels, weighted.
mod cams {
    pub(super) mod ablation_cam;
    pub(super) mod eigen_cam;
    pub(super) mod grad_cam;
    pub(super) mod grad_cam_pp;
    pub(super) mod guided_grad_cam;
    pub(super) mod hires_cam;
    pub(super) mod layer_cam;
    pub(super) mod score_cam;
    pub(super) mod xgrad_cam;
}

/// The score, shared out layer by layer.
mod relevance {
    pub(super) mod contrastive_ebp;
    pub(super) mod deep_lift;
    pub(super) mod deep_taylor;
    pub(super) mod excitation_backprop;
    pub(super) mod lrp;
    pub(super) mod pattern_attribution;
    pub(super) mod pattern_net;
}

/// Masks found by gradient descent.
mod masks {
    pub(super) mod extremal_perturbation;
    pub mod haf;
    pub(super) mod meaningful_perturbation;
    pub mod relex;
}

/// What the score loses when parts of the picture are hidden.
mod occlusions {
    pub(super) mod occlusion;
    pub(super) mod rise;
}

/// Methods on the copies of a picture that another method explains.
mod wrappers {
    pub(super) mod decoy;
    pub(super) mod smooth;
}

/// What methods are made of: no file here is a method.
mod shared {
    pub(super) mod base;
    pub(super) mod cam;
    pub(super) mod conservation;
    pub(super) mod descent;
    pub(super) mod from_baseline;
    pub(super) mod noisy;
    pub(super) mod parameters;
    pub mod patterns;
    pub(super) mod preset;
    pub(super) mod probe;
}

use std::path::Path;

pub use masks::{haf, relex};
pub use shared::conservation::{LayerBalance, conservation};
pub(crate) use shared::descent::{Course, in_groups};
pub use shared::parameters::{ParameterValues, Spec};
pub(crate) use shared::parameters::{Registered, read};
pub use shared::patterns;

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
    /// When the method makes no sense on this net, shapes or targets do not suit, or memory is not enough.
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
    Of(fn(&ParameterValues) -> bool, &'static str),
}

impl When {
    /// Whether it is true with `values`.
    pub fn holds(self, values: &ParameterValues) -> bool {
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
    pub build: fn(&ParameterValues, &Context<'_>) -> Result<Box<dyn Method>>,
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
        gradients::gradient::ENTRY,
        gradients::input_x_gradient::ENTRY,
        paths::integrated_gradients::ENTRY,
        paths::expected_gradients::ENTRY,
        paths::blur_ig::ENTRY,
        paths::guided_ig::ENTRY,
        relevance::deep_lift::ENTRY,
        gradients::full_grad::ENTRY,
        relevance::pattern_net::ENTRY,
        relevance::pattern_attribution::ENTRY,
        gradients::smoothgrad::ENTRY,
        gradients::squaregrad::ENTRY,
        gradients::vargrad::ENTRY,
        gradients::deconvnet::ENTRY,
        gradients::guided_backprop::ENTRY,
        cams::grad_cam::ENTRY,
        cams::grad_cam_pp::ENTRY,
        cams::hires_cam::ENTRY,
        cams::layer_cam::ENTRY,
        cams::xgrad_cam::ENTRY,
        cams::score_cam::ENTRY,
        cams::ablation_cam::ENTRY,
        cams::eigen_cam::ENTRY,
        cams::guided_grad_cam::ENTRY,
        occlusions::occlusion::ENTRY,
        occlusions::rise::ENTRY,
        masks::haf::ENTRY,
        masks::relex::ENTRY,
        masks::meaningful_perturbation::ENTRY,
        masks::extremal_perturbation::ENTRY,
        relevance::lrp::ENTRY,
        relevance::deep_taylor::ENTRY,
        relevance::excitation_backprop::ENTRY,
        relevance::contrastive_ebp::ENTRY,
        gradients::rect_grad::ENTRY,
        wrappers::smooth::ENTRY,
        wrappers::decoy::ENTRY,
    ]
}

/// A preset's name and, by key, the values that differ from the parameters' defaults.
type Preset = (&'static str, &'static [(&'static str, &'static str)]);

/// Presets by method.
const PRESETS: [(&str, &[Preset]); 4] = [
    (haf::ENTRY.id, &haf::PRESETS),
    (relex::ENTRY.id, &relex::PRESETS),
    (masks::meaningful_perturbation::ENTRY.id, &masks::meaningful_perturbation::PRESETS),
    (masks::extremal_perturbation::ENTRY.id, &masks::extremal_perturbation::PRESETS),
];

/// A method that is one job on each picture.
struct OneJob {
    id: &'static str,
    job: Job,
    /// Whether the job may be run on other copies.
    on_copies: bool,
}

impl Method for OneJob {
    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        input_maps(engine, graph, &self.job, x, targets, Sign::Signed, self.id)
    }

    fn job(&self) -> Option<(Job, Sign)> {
        self.on_copies.then(|| (self.job.clone(), Sign::Signed))
    }
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
