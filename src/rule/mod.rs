//! How a signal at a node's output becomes signals at its inputs.
//!
//! A rule computes nothing: it writes primitives into a [`Builder`] and names the forward values it needs. A
//! [`Composite`] says which rule each node obeys.

mod constant_terms;
mod deconvnet;
mod deep_lift;
mod guided;
mod pattern;
mod pull_back;

mod vjp;

use std::sync::Arc;

pub use constant_terms::ConstantTerms;
pub use deconvnet::Deconvnet;
pub use deep_lift::DeepLift;
pub use guided::Guided;
pub use pattern::Pattern;
pub use pull_back::pull_back;
pub use vjp::Vjp;

use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Op};
use crate::program::{Builder, Value};

/// A backward rule.
pub trait Rule: Send + Sync + std::fmt::Debug {
    /// Name, unique among rules with the same parameters.
    fn id(&self) -> String;

    /// Signals at the inputs of `node` when `up` arrives at its output; one each, in order.
    ///
    /// # Errors
    /// When the rule has no meaning for this kind of node.
    fn pull(&self, node: NodeId, up: Value, b: &mut Builder<'_>) -> Result<Vec<Value>>;
}

/// Which nodes a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// All.
    Every,
    /// ReLUs and clamps.
    Activations,
}

impl Select {
    fn matches(&self, graph: &Graph, id: NodeId) -> bool {
        match self {
            Select::Every => true,
            Select::Activations => matches!(graph.node(id).op, Op::Relu | Op::Clamp { .. }),
        }
    }
}

/// Rules for a whole net: the first that matches a node is the node's.
#[derive(Debug, Clone)]
pub struct Composite {
    rules: Vec<(Select, Arc<dyn Rule>)>,
}

impl Composite {
    /// Rules in order of precedence.
    pub fn new(rules: Vec<(Select, Arc<dyn Rule>)>) -> Self {
        Self { rules }
    }

    /// The gradient.
    pub fn gradient() -> Self {
        Self::new(vec![(Select::Every, Arc::new(Vjp))])
    }

    /// Guided backpropagation.
    pub fn guided() -> Self {
        Self::new(vec![(Select::Activations, Arc::new(Guided)), (Select::Every, Arc::new(Vjp))])
    }

    /// The deconvolutional net.
    pub fn deconvnet() -> Self {
        Self::new(vec![(Select::Activations, Arc::new(Deconvnet)), (Select::Every, Arc::new(Vjp))])
    }

    /// Names the composite; equal ids mean equal rules.
    pub fn id(&self) -> String {
        let parts: Vec<String> = self.rules.iter().map(|(s, r)| format!("{s:?}={}", r.id())).collect();
        parts.join(",")
    }

    /// The rule of a node.
    ///
    /// # Errors
    /// When none matches.
    pub fn select(&self, graph: &Graph, id: NodeId) -> Result<Arc<dyn Rule>> {
        let found = self.rules.iter().find(|(select, _)| select.matches(graph, id));
        found.map(|(_, rule)| Arc::clone(rule)).ok_or_else(|| {
            Error::settings(format!(
                "no rule is given for node '{}' ({})",
                graph.node(id).name,
                graph.node(id).op.kind()
            ))
        })
    }
}
