//! Saliency methods.
//!
//! Each method is one file in its family's folder, together with its registry [`Entry`]: name, paper, parameters,
//! promises. The entry feeds the command line's help, the generated documentation and the generic tests.

/// Gradients of the score with respect to the picture: plain, over noisy copies, or under a changed rule.
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

/// Class activation maps: weighted sums of a layer's channels.
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

/// The score, distributed backwards layer by layer.
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

/// How much the score drops when parts of the picture are hidden.
mod occlusions {
    pub(super) mod occlusion;
    pub(super) mod rise;
}

/// Methods that explain copies of a picture with another method.
mod wrappers {
    pub(super) mod decoy;
    pub(super) mod smooth;
}

/// Building blocks of methods; no file here is a method.
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

use crate::engine::{Answer, Batch, Engine, Job};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::map::{Map, MapDims, Sign, Space};
use crate::program::Score;
use crate::tensor::Tensor;

/// Computes one map per picture.
pub trait Method: Send + Sync {
    /// One raw map per picture of `x`, for class `targets[i]` on picture `i`: `[C, H, W]` in the input's space, or `[h,
    /// w]` for methods that explain a layer.
    ///
    /// # Errors
    /// When the method has no meaning on this net, shapes or targets do not match, or memory is not enough.
    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>>;

    /// The axes of its maps on this net, without computing one.
    ///
    /// # Errors
    /// When the method has no meaning on this net, or does not say; by default it does not.
    fn map_dims(&self, _graph: &Graph) -> Result<MapDims> {
        Err(Error::settings("this method does not say the axes of its maps before it computes one"))
    }

    /// If this method is exactly one `Job` on the unperturbed picture: that job, so that it can be run on other copies
    /// and aggregated differently.
    fn job(&self) -> Option<(Job, Sign)> {
        None
    }
}

/// The inputs of a method besides its parameters.
pub struct Context<'a> {
    /// Seed of all random draws.
    pub seed: u64,
    /// The class score that is explained.
    pub score: Score,
    /// How pictures become inputs.
    pub preprocess: &'a Preprocess,
    /// Loads a picture or array as `[C, H, W]` in the net's space.
    pub load: &'a dyn Fn(&Path) -> Result<Tensor>,
}

/// A property that a method promises for its maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// The map sums to the difference between the scores of picture and baseline; the gap is reported.
    Completeness,
    /// The map and the biases' share sum to the initial relevance; the gap is reported.
    Conservation,
    /// Input term and constant terms add up to the score; the gap is reported.
    FullDecomposition,
    /// No element is negative.
    NotNegative,
    /// What the map keeps of the net or picture preserves the score; the gap is reported.
    Preservation,
    /// The map's mean is the requested area; the gap is reported.
    Area,
    /// The compared pictures satisfy their constraint; the gap is reported.
    Constraint,
}

impl Promise {
    /// The promise in words.
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

/// The parameter values for which a statement about a method holds.
#[derive(Debug, Clone, Copy)]
pub enum When {
    /// For none.
    Never,
    /// For all.
    Always,
    /// If this key has this value.
    With(&'static str, &'static str),
    /// If the function returns true; the text says the condition in words.
    Of(fn(&ParameterValues) -> bool, &'static str),
}

impl When {
    /// Whether it holds for `values`.
    pub fn holds(self, values: &ParameterValues) -> bool {
        match self {
            When::Never => false,
            When::Always => true,
            When::Of(holds, _) => holds(values),
            When::With(key, value) => values.text(key).is_ok_and(|v| v == value),
        }
    }

    /// `what`, with its condition in words.
    pub fn describe(self, what: &str) -> String {
        match self {
            When::Never => format!("never {what}"),
            When::Always => what.to_string(),
            When::Of(_, words) => format!("{what} {words}"),
            When::With(key, value) => format!("{what} with {key}={value}"),
        }
    }
}

/// Unit of parameters that are themselves methods with parameters.
pub const METHOD: &str = "a method";

/// One parameter of a method or metric.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its key on the command line.
    pub key: &'static str,
    /// Its unit or choices.
    pub unit: &'static str,
    /// Its default value.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
}

impl Parameter {
    /// Marks, in place of a default, a parameter that must be given.
    pub const REQUIRED: &'static str = "required";
}

/// A method's entry in the registry.
pub struct Entry {
    /// Name in commands, files and records.
    pub id: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// Name in running text.
    pub title: &'static str,
    /// Authors, year, title, venue.
    pub paper: &'static str,
    /// The definition in one line.
    pub summary: &'static str,
    /// Number of forward and backward passes per map.
    pub passes: &'static str,
    /// Parameters in order of importance.
    pub parameters: &'static [Parameter],
    /// The promises for its maps, and the parameter values for which they hold.
    pub promises: &'static [(Promise, When)],
    /// The parameter values for which random numbers are drawn, so that maps depend on the seed.
    pub draws: When,
    /// Known cases in which it misleads.
    pub caution: &'static str,
    /// Builds it.
    pub build: fn(&ParameterValues, &Context<'_>) -> Result<Box<dyn Method>>,
}

impl Entry {
    /// Its promises in words, with their conditions.
    pub fn promised(&self) -> Vec<String> {
        self.promises.iter().map(|(promise, when)| when.describe(promise.describe())).collect()
    }

    /// The parameter that must be given, if there is one.
    pub fn required(&self) -> Option<&Parameter> {
        self.parameters.iter().find(|p| p.default == Parameter::REQUIRED)
    }

    /// When maps depend on the seed, in words; `None` if they never do.
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

/// A preset's name, and the values, by key, that differ from the defaults.
type MethodPreset = (&'static str, &'static [(&'static str, &'static str)]);

/// Presets by method.
const PRESETS: [(&str, &[MethodPreset]); 4] = [
    (haf::ENTRY.id, &haf::PRESETS),
    (relex::ENTRY.id, &relex::PRESETS),
    (masks::meaningful_perturbation::ENTRY.id, &masks::meaningful_perturbation::PRESETS),
    (masks::extremal_perturbation::ENTRY.id, &masks::extremal_perturbation::PRESETS),
];

/// A method that consists of one job per picture.
struct OneJob {
    id: &'static str,
    job: Job,
    /// Whether the job may also run on other copies of the picture.
    on_copies: bool,
}

impl Method for OneJob {
    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        input_maps(engine, graph, &self.job, x, targets, Sign::Signed, self.id)
    }

    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(numbers_of(graph))
    }

    fn job(&self) -> Option<(Job, Sign)> {
        self.on_copies.then(|| (self.job.clone(), Sign::Signed))
    }
}

/// One number for each number of the input.
fn numbers_of(graph: &Graph) -> MapDims {
    MapDims::Channels(graph.input_shape().dims())
}

/// One number for each pixel.
fn pixels_of(graph: &Graph) -> MapDims {
    let shape = graph.input_shape();
    MapDims::Plane([shape.h, shape.w])
}

/// Computes input-space maps from a job.
fn input_maps(
    engine: &mut Engine,
    graph: &Graph,
    job: &Job,
    x: &Batch,
    targets: &[usize],
    sign: Sign,
    method: &'static str,
) -> Result<Vec<Map>> {
    let Answer { mut maps, scores } = engine.explain(graph, job, x, targets)?;
    let map = |(values, &target)| Map::new(values, sign, Space::Input, target, method);
    let spare = engine.spare();
    let made = spare.of(maps.drain(..).zip(targets).map(map));
    spare.keep(maps);
    spare.keep_all(scores);
    Ok(made)
}
