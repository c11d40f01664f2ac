//! How a signal at a node's output becomes signals at its inputs.
//!
//! A rule computes nothing: it writes primitives into a [`Builder`] and requests the forward values it needs. A
//! [`Composite`] assigns a rule to each node.
//!
//! There are two kinds of rules. Some send gradients back ([`Vjp`], [`Guided`], [`Deconvnet`], [`Rectified`]); the
//! others distribute relevance ([`Epsilon`] and all that follow its pattern `R_in = x ∘ Wᵀ(R / z)`). The latter take
//! inputs of any sign, and report the share of their layer's bias and stabiliser ([`Rule::share`]).

mod activation;
mod alpha_beta;
mod constant_terms;
mod contrast;
mod deconvnet;
mod deep_lift;
mod epsilon;
mod flat;
mod gamma;
mod guided;
mod held;
mod layer;
mod norm;
mod pass;
mod pattern;
mod preset;
mod product;
mod pull_back;
mod rectified;
mod vjp;
mod w_square;
mod weights;
mod z_box;
mod z_plus;

use std::sync::{Arc, LazyLock};

pub use alpha_beta::AlphaBeta;
pub use constant_terms::ConstantTerms;
pub use contrast::Contrast;
pub use deconvnet::Deconvnet;
pub use deep_lift::DeepLift;
pub use epsilon::Epsilon;
pub use flat::Flat;
pub use gamma::Gamma;
pub use guided::Guided;
pub use held::Held;
pub use layer::{Bias, STABILISER};
pub use norm::Norm;
pub use pass::Pass;
pub use pattern::Pattern;
pub use preset::{Preset, Relevance};
pub use product::{GateShare, Product};
pub use pull_back::{pull_back, pull_back_observed};
pub use rectified::Rectified;
pub use vjp::Vjp;
pub use w_square::WSquare;
pub use weights::{WeightGradient, weight_gradients};
pub use z_box::ZBox;
pub use z_plus::ZPlus;

use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Op};
use crate::program::{Builder, Value};

/// A backward rule.
pub trait Rule: Send + Sync + std::fmt::Debug {
    /// Name; includes the parameters, so that it identifies the rule.
    fn id(&self) -> String;

    /// The signals at the inputs of `node`, one each in order, given the signal `up` at its output, with the relevance
    /// that is not passed on. An input to which nothing goes has none. Steps whose results are not used are left out of
    /// the program.
    ///
    /// # Errors
    /// When the rule has no meaning for this kind of node.
    fn share(&self, node: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares>;

    /// The signals of [`Rule::share`] at the inputs.
    ///
    /// # Errors
    /// As [`Rule::share`], and when the rule sends nothing to one of them.
    fn pull(&self, node: NodeId, up: Value, b: &mut Builder<'_>) -> Result<Vec<Value>> {
        let down = self.share(node, up, b)?.down.into_iter().collect::<Option<_>>();
        down.ok_or_else(|| Error::model(format!("{} sends nothing to an input", self.id())))
    }
}

/// Where the relevance that arrives at a node goes.
#[derive(Debug, Clone)]
pub struct NodeShares {
    /// Passed on, one signal per input; `None` where nothing is, so that nothing behind that input is visited.
    pub down: Vec<Option<Value>>,
    /// Kept by the bias: per channel of the node's output, the mean over its positions.
    pub bias: Option<Value>,
    /// Relevance that reaches no input: absorbed by the stabiliser, or arriving where every contribution is zero. Also
    /// a mean per channel.
    pub lost: Option<Value>,
}

/// Passes everything on, as for gradients.
impl From<Vec<Value>> for NodeShares {
    fn from(down: Vec<Value>) -> Self {
        Self { down: down.into_iter().map(Some).collect(), bias: None, lost: None }
    }
}

/// Selects nodes for a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// All.
    Every,
    /// Scalar functions: ReLUs, clamps, smooth activations.
    Activations,
    /// Softmaxes inside the net.
    Softmaxes,
    /// Convolutions, and batch norms and affine layers that cannot be merged into one.
    Convolutions,
    /// Linear layers.
    Linears,
    /// Convolutions and linear layers that no other precedes, i.e. those at the pixels.
    FirstLayers,
    /// Convolutions and linear layers that no other follows.
    LastLayers,
    /// Additions.
    Sums,
    /// Average pools, resizings, and sums over channels or positions: sums with positive weights that are known.
    Averages,
    /// Products and quotients of two signals.
    Products,
    /// Standardisations.
    Standardisations,
}

impl Select {
    /// Whether it selects this node.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn matches(&self, graph: &Graph, id: NodeId) -> bool {
        match self {
            Select::Every => true,
            Select::Softmaxes => matches!(graph.node(id).op, Op::Softmax { .. }),
            Select::Activations => graph.node(id).op.activation().is_some(),
            Select::Convolutions => matches!(graph.node(id).op, Op::Conv(_) | Op::BatchNorm(_) | Op::Affine(_)),
            Select::Linears => matches!(graph.node(id).op, Op::Linear(_)),
            Select::FirstLayers => layer::is_first_layer(graph, id),
            Select::LastLayers => layer::is_last_layer(graph, id),
            Select::Sums => matches!(graph.node(id).op, Op::Add),
            Select::Standardisations => matches!(graph.node(id).op, Op::Standardise(_)),
            Select::Products => matches!(graph.node(id).op, Op::Mul | Op::Divide),
            Select::Averages => {
                let op = &graph.node(id).op;
                matches!(op, Op::AvgPool { .. } | Op::AdaptiveAvgPool { .. } | Op::Resize(_) | Op::Reduce(_))
            }
        }
    }
}

/// Rules for a whole net: a node gets the first rule that matches it. Composites are equal if their ids are.
#[derive(Debug, Clone)]
pub struct Composite(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    rules: Vec<(Select, Arc<dyn Rule>)>,
    id: String,
}

impl PartialEq for Composite {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Composite {}

impl std::hash::Hash for Composite {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl Composite {
    /// Rules in order of precedence.
    pub fn new(rules: Vec<(Select, Arc<dyn Rule>)>) -> Self {
        let parts: Vec<String> = rules.iter().map(|(s, r)| format!("{s:?}={}", r.id())).collect();
        Self(Arc::new(Rules { rules, id: parts.join(",") }))
    }

    /// The gradient.
    pub fn gradient() -> Self {
        static GRADIENT: LazyLock<Composite> = LazyLock::new(|| Composite::new(vec![(Select::Every, Arc::new(Vjp))]));
        GRADIENT.clone()
    }

    /// Guided backpropagation.
    pub fn guided() -> Self {
        Self::new(vec![(Select::Activations, Arc::new(Guided)), (Select::Every, Arc::new(Vjp))])
    }

    /// The deconvolutional net.
    pub fn deconvnet() -> Self {
        Self::new(vec![(Select::Activations, Arc::new(Deconvnet)), (Select::Every, Arc::new(Vjp))])
    }

    /// Identifies the composite; equal ids mean equal rules.
    pub fn id(&self) -> String {
        self.0.id.clone()
    }

    /// The rule of a node.
    ///
    /// # Errors
    /// When none matches.
    pub fn select(&self, graph: &Graph, id: NodeId) -> Result<Arc<dyn Rule>> {
        let found = self.0.rules.iter().find(|(select, _)| select.matches(graph, id));
        found.map(|(_, rule)| Arc::clone(rule)).ok_or_else(|| {
            Error::settings(format!(
                "no rule is given for node '{}' ({})",
                graph.node(id).name,
                graph.node(id).op.kind()
            ))
        })
    }
}
